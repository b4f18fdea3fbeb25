//! Sending a response: its head, and its body as the request allows.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::date::Date;
use super::wire::{Broken, Wire};
use super::{Body, Method, Response, Status};
use crate::Stream;

/// What a response has to know of its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub(super) method: Method,
    pub(super) is_1_1: bool,
    pub(super) keep_alive: bool,
}

impl Exchange {
    /// For requests that could not be read.
    pub(super) const REFUSED: Self = Self { method: Method::Get, is_1_1: true, keep_alive: false };
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Not at all: the status allows none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection closes, as HTTP/1.0 has no chunks.
    UntilClose,
}

/// Sends `response`. Gives whether the connection can be kept. Small responses are only gathered: the next read sends them.
pub(super) async fn send<S: Stream, B: Body>(
    wire: &mut Wire<S>,
    response: &mut Response<B>,
    exchange: Exchange,
    date: &Date,
) -> Result<bool, Broken> {
    let coding = match response.body.size() {
        _ if response.status.is_bodiless() => Coding::None,
        Some(length) => Coding::Length(length),
        None if exchange.is_1_1 => Coding::Chunked,
        None => Coding::UntilClose,
    };
    let keep_alive = exchange.keep_alive && coding != Coding::UntilClose;
    write_head(wire.output(), response.status, &response.fields, coding, date, Exchange { keep_alive, ..exchange });
    if exchange.method != Method::Head {
        write_body(wire, &mut response.body, coding).await?;
    }
    if wire.is_full() {
        wire.flush().await?;
    }
    Ok(keep_alive)
}

fn write_head(output: &mut Vec<u8>, status: Status, fields: &[u8], coding: Coding, date: &Date, exchange: Exchange) {
    match status {
        Status::OK => output.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        _ => append(output, format_args!("HTTP/1.1 {status}\r\n")),
    }
    date.append_to(output);
    match coding {
        Coding::Length(length) => append_length(output, length),
        Coding::Chunked => output.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Coding::None | Coding::UntilClose => {}
    }
    match (exchange.keep_alive, exchange.is_1_1) {
        (true, true) => {}
        (true, false) => output.extend_from_slice(b"connection: keep-alive\r\n"),
        (false, _) => output.extend_from_slice(b"connection: close\r\n"),
    }
    output.extend_from_slice(fields);
    output.extend_from_slice(b"\r\n");
}

/// Adds a content length: what every response has is written without the machinery of formatting.
pub(super) fn append_length(output: &mut Vec<u8>, length: u64) {
    let mut digits = [b'0'; u64::MAX.ilog10() as usize + 1];
    let mut rest = length;
    let mut first = digits.len();
    while rest > 0 || first == digits.len() {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    output.extend_from_slice(b"content-length: ");
    output.extend_from_slice(&digits[first..]);
    output.extend_from_slice(b"\r\n");
}

pub(super) async fn write_body<S: Stream>(wire: &mut Wire<S>, body: &mut impl Body, coding: Coding) -> Result<(), Broken> {
    let end = match coding {
        Coding::None => 0,
        Coding::Length(length) => length,
        Coding::Chunked | Coding::UntilClose => u64::MAX,
    };
    let mut offset = 0;
    while offset < end {
        let bytes = body.read_at(offset).await.map_err(|_| Broken::Interrupted)?;
        let most = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(most)];
        match (coding, bytes.is_empty()) {
            (Coding::Length(_), true) => return Err(Broken::Interrupted),
            (_, true) => break,
            (Coding::Chunked, false) => write_chunk(wire, bytes).await?,
            (_, false) => wire.write(bytes).await?,
        }
        offset += bytes.len() as u64;
    }
    if coding == Coding::Chunked {
        wire.output().extend_from_slice(b"0\r\n\r\n");
    }
    Ok(())
}

/// Writes a chunk and sends it at once: the next may be long in coming.
async fn write_chunk<S: Stream>(wire: &mut Wire<S>, bytes: &[u8]) -> Result<(), Broken> {
    append(wire.output(), format_args!("{:x}\r\n", bytes.len()));
    wire.write(bytes).await?;
    wire.write(b"\r\n").await?;
    wire.flush().await
}

pub(super) fn append(output: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    struct Output<'a>(&'a mut Vec<u8>);
    impl Write for Output<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // Appending to a vector never fails.
    let _ = Output(output).write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_full() {
        for length in [0, 9, 10, 1234, u64::MAX] {
            let mut output = Vec::new();
            append_length(&mut output, length);
            assert_eq!(str::from_utf8(&output).unwrap(), std::format!("content-length: {length}\r\n"));
        }
    }
}
