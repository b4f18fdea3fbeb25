//! Tests of the server as a whole, over the loopback stack in virtual time: each compares what a client sends with all that it gets back.

use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow::task::join;
use fogbow::time::{self, Duration};

use super::{Body, Handler, Interrupted, Limits, Request, Response, Status, serve};
use crate::{Loopback, Stack, Stream, StreamError, loopback};

mod crowds;
#[cfg(all(feature = "direct", feature = "simulation"))]
mod direct;
mod files;
mod properties;
mod protocol;
mod refusals;
mod timeouts;

/// A response as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    /// The head, in lower case.
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn has(&self, field: &str) -> bool {
        self.head.contains(&format!("\r\n{field}\r\n"))
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

/// Reads a response to a request with `method`. Gives what follows it too.
fn read_reply(raw: &[u8], method: &str) -> (Reply, Vec<u8>) {
    let end =
        raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(raw)));
    let head = String::from_utf8(raw[..end + 2].to_vec()).unwrap().to_lowercase();
    let status = head.strip_prefix("http/1.1 ").expect("a status line")[..3].parse().unwrap();
    let mut rest = raw[end + 4..].to_vec();
    if status == 100 {
        return (Reply { status, head, body: Vec::new() }, rest);
    }
    let mut body = Vec::new();
    if method == "HEAD" || matches!(status, 204 | 304) {
    } else if let Some((_, length)) = head.split_once("\r\ncontent-length: ") {
        let length: usize = length.split_once('\r').unwrap().0.parse().unwrap();
        body = rest.drain(..length).collect();
    } else if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        loop {
            let line = rest.windows(2).position(|window| window == b"\r\n").unwrap();
            let size = usize::from_str_radix(str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            rest.drain(..line + 2);
            body.extend(rest.drain(..size));
            assert_eq!(rest.drain(..2).collect::<Vec<_>>(), b"\r\n");
            if size == 0 {
                break;
            }
        }
    } else {
        body = core::mem::take(&mut rest);
    }
    (Reply { status, head, body }, rest)
}

/// Reads all responses, to requests without HEAD among them.
fn read_replies(mut raw: Vec<u8>) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !raw.is_empty() {
        let (reply, rest) = read_reply(&raw, "GET");
        replies.push(reply);
        raw = rest;
    }
    replies
}

/// What a client sends, write by write, against all that `handler` has it get back before the connection closes.
fn converse<H: Handler>(handler: H, limits: Limits, writes: &[&[u8]]) -> Vec<u8> {
    let writes: Vec<Vec<u8>> = writes.iter().map(|bytes| bytes.to_vec()).collect();
    Simulation::new(1).block_on(async move {
        let (mut reader, mut writer) = connect(handler, limits).await.split();
        let send = async {
            for bytes in writes {
                // The server may have closed by then, which is for the test to judge by what comes back.
                let _ = writer.write_all(&bytes).await;
            }
        };
        join(send, read_all(&mut reader)).await.1.expect("an orderly end")
    })
}

/// As [`converse`], with the handler [`site`] and one write.
fn ask(request: impl AsRef<[u8]>) -> Vec<Reply> {
    read_replies(converse(site, Limits::default(), &[request.as_ref()]))
}

async fn connect<H: Handler>(handler: H, limits: Limits) -> loopback::Stream {
    let stack = Loopback::new();
    let listener = stack.listen(80).unwrap();
    fogbow::spawn(async move { serve(listener, limits, handler).await }).detach();
    stack.connect("127.0.0.1:80".parse().unwrap()).await.unwrap()
}

async fn read_all(reader: &mut impl Read<Error = StreamError>) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match reader.read(&mut piece).await? {
            0 => return Ok(all),
            length => all.extend_from_slice(&piece[..length]),
        }
    }
}

/// A body of pieces whose number is or is not known before.
struct Pieces {
    pieces: Vec<Vec<u8>>,
    size: Option<u64>,
    pause: Duration,
}

impl Body for Pieces {
    fn size(&self) -> Option<u64> {
        self.size
    }

    async fn read_at(&mut self, offset: u64) -> Result<&[u8], Interrupted> {
        time::sleep(self.pause).await;
        let mut start = 0;
        for piece in &self.pieces {
            if start == offset {
                return if piece == b"!" { Err(Interrupted) } else { Ok(piece) };
            }
            start += piece.len() as u64;
        }
        Ok(&[])
    }
}

/// The handler of most tests.
async fn site(mut request: Request<'_>) -> Response<Pieces> {
    let whole = |bytes: Vec<u8>| Pieces { size: Some(bytes.len() as u64), pieces: vec![bytes], pause: Duration::ZERO };
    let pieces =
        |list: &[&str], size| Pieces { pieces: list.iter().map(|piece| piece.as_bytes().to_vec()).collect(), size, pause: Duration::ZERO };
    match request.path() {
        "/echo" => match request.read_to_end().await {
            Ok(body) => request.respond(Status::OK, whole(body)),
            Err(error) => request.respond(Status::CONFLICT, whole(error.to_string().into())),
        },
        "/part" => {
            // One byte: how many more there are now depends on how they arrive.
            let mut part = [0];
            let length = request.read(&mut part).await.unwrap_or(0);
            request.respond(Status::OK, whole(part[..length].to_vec()))
        }
        "/stream" => request.respond(Status::OK, pieces(&["one", "two", "three"], None)),
        "/slow" => request.respond(Status::OK, Pieces { pause: Duration::from_secs(5), ..pieces(&["one", "two"], None) }),
        "/broken" => request.respond(Status::OK, pieces(&["one", "!"], None)),
        "/short" => request.respond(Status::OK, pieces(&["one"], Some(5))),
        "/long" => request.respond(Status::OK, pieces(&["one", "two"], Some(5))),
        "/large" => request.respond(Status::OK, whole((0..100_000u32).map(|i| i as u8).collect())),
        "/none" => request.respond(Status::NO_CONTENT, whole(b"never seen".to_vec())),
        "/forge" => request.respond(Status::OK, whole(Vec::new())).with_field("x", "a\r\ny: b\0"),
        "/method" => {
            let text = format!("{:?}", request.method());
            request.respond(Status::OK, whole(text.into()))
        }
        path => {
            let text = format!("{path} {}", request.query().unwrap_or("-"));
            request.respond(Status::OK, whole(text.into())).with_type("text/plain")
        }
    }
}
