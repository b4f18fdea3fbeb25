//! The head of a request: the request line and the header fields (RFC 9112, sections 2 to 6).
//!
//! Whatever two implementations might read differently is refused, so that a proxy in front cannot be made to see other requests than this
//! server does: bare LF, folded lines, white space before a colon, a second Host, a second or dubious Content-Length, Transfer-Encoding beside
//! Content-Length, and any coding but `chunked`.

use core::mem::MaybeUninit;

use super::Status;
use super::fields::Fields;
use super::framing::Framing;

/// Header fields that a message may have.
pub(super) const MAX_FIELDS: usize = 64;

/// A request's method. Requests with methods not listed here are answered with 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Transfer a representation.
    Get,
    /// As GET, without the body of the response.
    Head,
    /// Process the request's body.
    Post,
    /// Replace the resource.
    Put,
    /// Remove the resource.
    Delete,
    /// Change the resource (RFC 5789).
    Patch,
    /// Say what is allowed.
    Options,
}

impl Method {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
        }
    }

    /// True when a request may be sent again without doing more than the first (RFC 9110, section 9.2.2).
    pub(super) const fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch)
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "PATCH" => Self::Patch,
            "OPTIONS" => Self::Options,
            _ => return None,
        })
    }
}

/// What a look for the end of a head found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// The head has so many bytes.
    Complete(usize),
    /// More is needed.
    Incomplete,
    /// The request cannot be served.
    Refused(Status),
}

/// Looks for the end of a head that arrives in pieces, at every byte once.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    scanned: usize,
    line: usize,
}

impl Scanner {
    /// Looks at `pending`, which begins with the request line and grows from call to call. A head has at most `limit` bytes.
    pub(super) fn scan(&mut self, pending: &[u8], limit: usize) -> Scan {
        let window = &pending[..pending.len().min(limit)];
        while let Some(at) = memchr::memchr(b'\n', &window[self.scanned..]) {
            let end = self.scanned + at;
            if end == 0 || window[end - 1] != b'\r' {
                return Scan::Refused(Status::BAD_REQUEST);
            }
            if end == self.line + 1 {
                return Scan::Complete(end + 1);
            }
            self.line = end + 1;
            self.scanned = end + 1;
        }
        self.scanned = window.len();
        match window.len() == limit {
            false => Scan::Incomplete,
            true if self.line == 0 => Scan::Refused(Status::URI_TOO_LONG),
            true => Scan::Refused(Status::REQUEST_HEADER_FIELDS_TOO_LARGE),
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) fields: Fields<'a>,
    /// True for HTTP/1.1, false for HTTP/1.0.
    pub(super) is_1_1: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

impl<'a> Head<'a> {
    /// Reads a head that a [`Scanner`] found complete, and how its body is framed. A body has at most `body_limit` bytes.
    ///
    /// # Errors
    /// The status to answer with.
    pub(super) fn parse(bytes: &'a [u8], body_limit: u64) -> Result<(Self, Framing), Status> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut fields) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Status::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Err(httparse::Error::Version) if is_other_version(bytes) => return Err(Status::HTTP_VERSION_NOT_SUPPORTED),
            _ => return Err(Status::BAD_REQUEST),
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(Status::BAD_REQUEST);
        };
        let is_1_1 = minor == 1;
        let facts = Facts::gather(request.headers)?;
        let framing = facts.framing(is_1_1, body_limit)?;
        if is_1_1 && !facts.has_host {
            return Err(Status::BAD_REQUEST);
        }
        let method = Method::parse(method).ok_or(Status::NOT_IMPLEMENTED)?;
        let (path, query) = parse_target(target, method).ok_or(Status::BAD_REQUEST)?;
        let keep_alive = facts.connection.is_kept(is_1_1);
        let expects_continue = is_1_1 && facts.expects_continue && !framing.is_done();
        Ok((Self { method, path, query, fields: Fields::after_first_line(bytes), is_1_1, keep_alive, expects_continue }, framing))
    }
}

/// True when the request line ends in a version that is none of ours.
fn is_other_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] if !matches!((major, minor), (b'1', b'0' | b'1')))
}

/// Splits a request target into path and query (RFC 9112, section 3.2).
fn parse_target(target: &str, method: Method) -> Option<(&str, Option<&str>)> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return None;
    }
    if target == "*" {
        return (method == Method::Options).then_some((target, None));
    }
    let origin = if target.starts_with('/') { target } else { after_authority(target)? };
    let (path, query) = origin.split_once('?').map_or((origin, None), |(path, query)| (path, Some(query)));
    Some((if path.is_empty() { "/" } else { path }, query))
}

/// What follows the authority of an absolute URI such as `http://host/path`.
fn after_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    (end > 0 && is_host(&rest.as_bytes()[..end])).then_some(&rest[end..])
}

/// True for the characters of a host and a port (RFC 3986, section 3.2, without user information).
pub(super) fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            )
            || matches!(byte, b':' | b'[' | b']')
    })
}

/// What the header fields say about the message itself.
#[derive(Default)]
struct Facts<'a> {
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    has_host: bool,
    connection: Connection,
    expects_continue: bool,
}

impl<'a> Facts<'a> {
    fn gather(fields: &[httparse::Header<'a>]) -> Result<Self, Status> {
        let mut facts = Self::default();
        for field in fields {
            // Few fields matter here; their names' lengths rule nearly all others out.
            match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => {
                    if facts.has_host || !is_host(field.value) {
                        return Err(Status::BAD_REQUEST);
                    }
                    facts.has_host = true;
                }
                6 if field.name.eq_ignore_ascii_case("expect") => {
                    if !field.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Status::EXPECTATION_FAILED);
                    }
                    facts.expects_continue = true;
                }
                10 if field.name.eq_ignore_ascii_case("connection") => facts.connection.note(field.value),
                14 if field.name.eq_ignore_ascii_case("content-length") => once(&mut facts.length, field.value)?,
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => once(&mut facts.coding, field.value)?,
                _ => {}
            }
        }
        Ok(facts)
    }

    fn framing(&self, is_1_1: bool, limit: u64) -> Result<Framing, Status> {
        match (self.length, self.coding) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(length), None) => parse_length(length, limit).map(Framing::Length),
            (None, Some(coding)) if is_1_1 => check_coding(coding).map(|()| Framing::chunked()),
            _ => Err(Status::BAD_REQUEST),
        }
    }
}

/// What a message's Connection fields ask for (RFC 9112, section 9.3).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection {
    close: bool,
    keep_alive: bool,
}

impl Connection {
    /// Notes the options of one field.
    pub(super) fn note(&mut self, options: &[u8]) {
        for option in options.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Whether the connection stays open after the message.
    pub(super) const fn is_kept(self, is_1_1: bool) -> bool {
        !self.close && (is_1_1 || self.keep_alive)
    }
}

pub(super) fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8]) -> Result<(), Status> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Status::BAD_REQUEST),
    }
}

/// Reads a Content-Length: digits alone, not even a sign.
pub(super) fn parse_length(text: &[u8], limit: u64) -> Result<u64, Status> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Status::BAD_REQUEST);
    }
    let length = text.iter().try_fold(0u64, |length, digit| length.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    length.filter(|length| *length <= limit).ok_or(Status::CONTENT_TOO_LARGE)
}

/// Only `chunked`, alone, is served: other codings before it are not implemented, and without it at the end there is no telling where the body
/// ends (RFC 9112, section 6.3).
pub(super) fn check_coding(value: &[u8]) -> Result<(), Status> {
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(());
    }
    let mut codings = value.rsplit(|byte| *byte == b',');
    let ends_chunked = codings.next().is_some_and(is_chunked) && !codings.any(is_chunked);
    Err(if ends_chunked { Status::NOT_IMPLEMENTED } else { Status::BAD_REQUEST })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    fn parse(head: &str) -> Result<(Head<'_>, Framing), Status> {
        match Scanner::default().scan(head.as_bytes(), 8192) {
            Scan::Complete(length) => Head::parse(&head.as_bytes()[..length], 1000),
            Scan::Incomplete => panic!("incomplete: {head:?}"),
            Scan::Refused(status) => Err(status),
        }
    }

    #[test]
    fn targets_are_paths_and_queries() {
        for (target, path, query) in [
            ("/", "/", None),
            ("/a/b?c=d?e", "/a/b", Some("c=d?e")),
            ("/?", "/", Some("")),
            ("http://a.b:80/c?d", "/c", Some("d")),
            ("HTTPS://a", "/", None),
            ("http://a?x", "/", Some("x")),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let (head, _) = parse(&head).unwrap();
            assert_eq!((head.path, head.query), (path, query), "{target}");
        }
        for target in ["a", "*", "/#a", "/ü", "ftp://a/", "http:///", "http://u@a/", "a:80"] {
            assert_eq!(parse(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).err(), Some(Status::BAD_REQUEST), "{target}");
        }
        assert_eq!(parse("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().0.path, "*");
    }

    #[test]
    fn connections_are_kept_as_the_version_says() {
        let keep = |head: &str| parse(head).unwrap().0.keep_alive;
        assert!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n"));
        assert!(!keep("GET / HTTP/1.0\r\n\r\n"));
        assert!(keep("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    }

    #[test]
    fn a_head_is_found_however_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
        for cut in 0..head.len() {
            let mut scanner = Scanner::default();
            let first = scanner.scan(&head[..cut], 100);
            let found = if first == Scan::Incomplete { scanner.scan(head, 100) } else { first };
            assert_eq!(found, Scan::Complete(head.len() - 3), "{cut}");
        }
        assert_eq!(Scanner::default().scan(head, 10), Scan::Refused(Status::URI_TOO_LONG));
        assert_eq!(Scanner::default().scan(head, 20), Scan::Refused(Status::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(head in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' ')], 0..300)) {
            if let Scan::Complete(length) = Scanner::default().scan(&head, 8192) {
                let _ = Head::parse(&head[..length], 1000);
            }
        }

        /// What is accepted has the shape that was asked for, and its fields can be found.
        #[test]
        fn accepted_fields_can_be_found(name in "[a-z-]{1,12}", value in "[!-~]([ -~]{0,10}[!-~])?") {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-{name}:  {value} \r\n\r\n");
            let (head, framing) = parse(&head).unwrap();
            prop_assert_eq!(framing, Framing::Length(0));
            prop_assert_eq!(head.fields.get(&format!("x-{name}")), Some(value.as_bytes()));
        }
    }
}
