//! The head of a response (RFC 9112, sections 4 to 6).

use core::mem::MaybeUninit;

use super::SendError;
use crate::http::framing::Framing;
use crate::http::head::{Connection, MAX_FIELDS, check_coding, once, parse_length};
use crate::http::{Method, Status};

/// What the head of a response says about the message itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

impl Head {
    /// Reads the head of a response to a request with `method`; its body has at most `limit` bytes.
    pub(super) fn parse(bytes: &[u8], method: Method, limit: u64) -> Result<Self, SendError> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
        match parsed {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(SendError::TooLarge),
            _ => return Err(SendError::Malformed),
        }
        let (Some(status @ 100..), Some(minor)) = (response.code, response.version) else { return Err(SendError::Malformed) };
        let is_1_1 = minor == 1;
        let (mut length, mut coding, mut connection) = (None, None, Connection::default());
        for field in &*response.headers {
            if field.name.eq_ignore_ascii_case("content-length") {
                once(&mut length, field.value).map_err(refused)?;
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                once(&mut coding, field.value).map_err(refused)?;
            } else if field.name.eq_ignore_ascii_case("connection") {
                connection.note(field.value);
            }
        }
        // RFC 9112, section 6.3, in its order.
        let framing = match (length, coding) {
            _ if method == Method::Head || matches!(status, 100..=199 | 204 | 304) => Framing::Length(0),
            (None, Some(coding)) if is_1_1 => check_coding(coding).map(|()| Framing::chunked()).map_err(refused)?,
            (Some(length), None) => Framing::Length(parse_length(length, limit).map_err(refused)?),
            (None, None) => Framing::UntilClose(false),
            _ => return Err(SendError::Malformed),
        };
        let keep_alive = connection.is_kept(is_1_1) && framing != Framing::UntilClose(false);
        Ok(Self { status, framing, keep_alive })
    }
}

/// What a server would refuse with `status`, as the client's error.
pub(super) const fn refused(status: Status) -> SendError {
    match status {
        Status::CONTENT_TOO_LARGE | Status::URI_TOO_LONG | Status::REQUEST_HEADER_FIELDS_TOO_LARGE => SendError::TooLarge,
        Status::NOT_IMPLEMENTED => SendError::Coding,
        _ => SendError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::String;

    fn parse(status: &str, fields: &str) -> Result<Head, SendError> {
        Head::parse(format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes(), Method::Get, 1000)
    }

    #[test]
    fn bodies_end_where_the_head_says() {
        for (status, fields, framing, keep_alive) in [
            ("200 OK", "Content-Length: 7\r\n", Framing::Length(7), true),
            ("200 OK", "content-length: 7\r\nconnection: x, Close\r\n", Framing::Length(7), false),
            ("200 OK", "Transfer-Encoding: Chunked\r\n", Framing::chunked(), true),
            ("200 OK", "", Framing::UntilClose(false), false),
            ("204 No Content", "Content-Length: 7\r\n", Framing::Length(0), true),
            ("304 Not Modified", "Content-Length: 7\r\n", Framing::Length(0), true),
            ("100 Continue", "", Framing::Length(0), true),
            ("999 ", "Content-Length: 0\r\n", Framing::Length(0), true),
        ] {
            let code = status[..3].parse().unwrap();
            assert_eq!(parse(status, fields), Ok(Head { status: code, framing, keep_alive }), "{status} {fields}");
        }
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
        assert_eq!(Head::parse(head, Method::Head, 1000).map(|head| head.framing), Ok(Framing::Length(0)));
        let old = b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n";
        assert_eq!(Head::parse(old, Method::Get, 1000).map(|head| head.keep_alive), Ok(false));
        let kept = b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(Head::parse(kept, Method::Get, 1000).map(|head| head.keep_alive), Ok(true));
    }

    /// Response splitting and desynchronisation (RFC 9112, sections 6.3, 11.1 and 11.2; Kettle, "HTTP Desync Attacks").
    #[test]
    fn what_can_be_read_in_two_ways_is_an_error() {
        for (fields, error) in [
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", SendError::Malformed),
            ("Content-Length: 3\r\nContent-Length: 3\r\n", SendError::Malformed),
            ("Content-Length: 3, 3\r\n", SendError::Malformed),
            ("Content-Length: +3\r\n", SendError::Malformed),
            ("Content-Length: 1001\r\n", SendError::TooLarge),
            ("Content-Length: 99999999999999999999\r\n", SendError::TooLarge),
            ("Content-Length : 3\r\n", SendError::Malformed),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", SendError::Malformed),
            ("Transfer-Encoding: xchunked\r\n", SendError::Malformed),
            ("Transfer-Encoding: gzip, chunked\r\n", SendError::Coding),
            ("X: y\r\n Transfer-Encoding: chunked\r\n", SendError::Malformed),
            ("X: y\0\r\n", SendError::Malformed),
            ("X\r\n", SendError::Malformed),
        ] {
            assert_eq!(parse("200 OK", fields), Err(error), "{fields:?}");
        }
        for status in ["", "20 OK", "099 OK", "2000 OK", "OK", "200\rOK"] {
            assert_eq!(parse(status, "Content-Length: 0\r\n"), Err(SendError::Malformed), "{status:?}");
        }
        let many: String = (0..=MAX_FIELDS).map(|number| format!("x-{number}: y\r\n")).collect();
        assert_eq!(parse("200 OK", &many), Err(SendError::TooLarge));
        for head in [&b"HTTP/2.0 200 OK\r\n\r\n"[..], b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"200 OK\r\n\r\n"] {
            assert_eq!(Head::parse(head, Method::Get, 1000), Err(SendError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(head in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b':')], 0..200)) {
            let _ = Head::parse(&[b"HTTP/1.1 200 OK\r\n", &head[..], b"\r\n"].concat(), Method::Get, 1000);
            let _ = Head::parse(&head, Method::Get, 1000);
        }
    }
}
