//! A request on its way out.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use fogbow::time;

use super::head::{Head, refused};
use super::response::Response;
use super::url::{Url, split_port};
use super::{SendError, Shared, UrlError};
use crate::http::fields::append_field;
use crate::http::head::{Scan, Scanner};
use crate::http::input::Input;
use crate::http::seats::Wait;
use crate::http::send::{Coding, append_length, write_body};
use crate::http::wire::{Patience, Wire};
use crate::http::{Body, Method};
use crate::{ConnectError, Stack};

/// Interim responses (1xx) that may come before the one that counts.
const MAX_INTERIM: usize = 16;

/// Fields that the client writes itself.
const OWN_FIELDS: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

/// No body.
pub type Empty = &'static [u8];

/// A request; [`Client::request`](super::Client::request) makes it. The client adds `host` and, where there is a body, `content-length` or
/// `transfer-encoding`.
pub struct Request<S: Stack, B = Empty> {
    shared: Rc<Shared<S>>,
    method: Method,
    host: String,
    target: String,
    remote: Option<SocketAddr>,
    fields: Vec<u8>,
    body: B,
}

impl<S: Stack> Request<S> {
    pub(super) fn new(shared: Rc<Shared<S>>, method: Method, url: Url) -> Self {
        let Url { authority, address, target } = url;
        Self { shared, method, host: authority, target, remote: address, fields: Vec::new(), body: &[] }
    }
}

impl<S: Stack, B: Body> Request<S, B> {
    /// Says where the server is, whatever the URL's host is.
    #[must_use]
    pub const fn at(mut self, server: SocketAddr) -> Self {
        self.remote = Some(server);
        self
    }

    /// Asks for another host than that of the URL, by the Host field.
    ///
    /// # Errors
    /// [`UrlError`] when `host` is none.
    pub fn with_host(mut self, host: &str) -> Result<Self, UrlError> {
        split_port(host)?;
        self.host = host.into();
        Ok(self)
    }

    /// Adds a header field. Bytes that a value must not have, such as line ends, become spaces, so that no value can forge another field.
    ///
    /// # Panics
    /// In debug builds, when `name` is no token (RFC 9110, section 5.6.2), or one that the client writes itself.
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        debug_assert!(!OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name)), "the client writes the field {name} itself");
        append_field(&mut self.fields, name, value.as_ref());
        self
    }

    /// Gives the request a body: bytes, or what gives them piece by piece.
    #[must_use]
    pub fn with_body<C: Body>(self, body: C) -> Request<S, C> {
        let Self { shared, method, host, target, remote, fields, .. } = self;
        Request { shared, method, host, target, remote, fields, body }
    }

    /// Sends the request and waits for the head of the response. Its body is read on demand.
    ///
    /// # Errors
    /// [`SendError`]. Whether the server has acted on the request is then not known, unless no connection could be opened.
    pub async fn send(mut self) -> Result<Response<S>, SendError> {
        let shared = Rc::clone(&self.shared);
        let remote = self.remote.ok_or(SendError::Name)?;
        if let Some(wire) = shared.pool.take(remote).await {
            let may_repeat = self.method.is_idempotent() && self.body.size() == Some(0);
            match self.exchange(wire, remote).await {
                Err(error) if may_repeat && error.is_of_a_closed_connection() => {}
                outcome => return outcome,
            }
        }
        let connecting = time::timeout(shared.limits.connect_timeout, shared.stack.connect(remote)).await;
        let stream = connecting.unwrap_or(Err(ConnectError::TimedOut)).map_err(SendError::Connect)?;
        let patience = Patience { body: shared.limits.body_timeout, write: shared.limits.write_timeout };
        self.exchange(Wire::new(stream, patience), remote).await
    }

    async fn exchange(&mut self, mut wire: Wire<S::Stream>, remote: SocketAddr) -> Result<Response<S>, SendError> {
        let sent = self.write(&mut wire).await;
        // A server that refuses a body may respond and close before it has read all (RFC 9112, section 9.6).
        if let Err(error) = sent
            && !error.is_of_a_closed_connection()
        {
            return Err(error);
        }
        let mut input = Input::new();
        let (head, length) = match (self.read_head(&mut wire, &mut input).await, sent) {
            (Ok(read), _) => read,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        let head = Head { keep_alive: head.keep_alive && sent.is_ok(), ..head };
        Ok(Response::new(Rc::clone(&self.shared), remote, wire, input, head, length))
    }

    async fn write(&mut self, wire: &mut Wire<S::Stream>) -> Result<(), SendError> {
        let coding = match self.body.size() {
            Some(0) if !matches!(self.method, Method::Post | Method::Put | Method::Patch) => Coding::None,
            Some(length) => Coding::Length(length),
            None => Coding::Chunked,
        };
        let output = wire.output();
        for text in [self.method.name(), " ", &self.target, " HTTP/1.1\r\nhost: ", &self.host, "\r\n"] {
            output.extend_from_slice(text.as_bytes());
        }
        match coding {
            Coding::Length(length) => append_length(output, length),
            Coding::Chunked => output.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Coding::None | Coding::UntilClose => {}
        }
        output.extend_from_slice(&self.fields);
        output.extend_from_slice(b"\r\n");
        write_body(wire, &mut self.body, coding).await?;
        Ok(wire.flush().await?)
    }

    /// Reads the head of the response that counts. Gives its length too; it lies at the beginning of `input`.
    async fn read_head(&self, wire: &mut Wire<S::Stream>, input: &mut Input) -> Result<(Head, usize), SendError> {
        let limits = self.shared.limits;
        let due = time::now() + limits.response_timeout;
        for _ in 0..=MAX_INTERIM {
            let mut scanner = Scanner::default();
            let length = loop {
                match scanner.scan(input.pending(), limits.head) {
                    Scan::Complete(length) => break length,
                    Scan::Refused(status) => return Err(refused(status)),
                    Scan::Incomplete => {}
                }
                match wire.read_until(input.room(), Wait::Transfer, || due).await? {
                    0 if input.pending().is_empty() => return Err(SendError::Closed),
                    0 => return Err(SendError::Malformed),
                    length => input.to += length,
                }
            };
            let head = Head::parse(&input.pending()[..length], self.method, limits.body)?;
            match head.status {
                // Nobody asked for another protocol.
                101 => return Err(SendError::Malformed),
                100..=199 => input.from += length,
                _ => return Ok((head, length)),
            }
        }
        Err(SendError::Malformed)
    }
}

impl<S: Stack, B> fmt::Debug for Request<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, host, target, remote, .. } = self;
        f.debug_struct("Request")
            .field("method", method)
            .field("host", host)
            .field("target", target)
            .field("remote", remote)
            .finish_non_exhaustive()
    }
}
