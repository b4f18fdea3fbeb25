//! An HTTP/1.1 server (RFC 9110, RFC 9112), on any stack; and a [`client`].
//!
//! A [`Handler`] turns requests into responses; an async closure is one, and so is [`Files`], which serves a key-value store. [`serve`] runs it:
//!
//! ```
//! use fogbow_net::http::{self, Request, Status};
//! use fogbow_net::Stack;
//!
//! async fn start(stack: impl Stack) -> Result<(), fogbow::StartError> {
//!     let listener = stack.listen(80).map_err(|error| fogbow::StartError::new("port 80", error))?;
//!     let greet = async |mut request: Request<'_>| {
//!         let text = format!("You asked for {}\n", request.path());
//!         request.respond(Status::OK, text).with_type("text/plain; charset=utf-8")
//!     };
//!     http::serve(listener, http::Limits::default(), greet).await.map_err(fogbow::StartError::application)
//! }
//! ```
//!
//! Principles:
//! - everything a client can send is bounded: in size, in number and in time (see [`Limits`]);
//! - clients that take their time give way to others when there is no place for these;
//! - what could be read in two ways is refused with 400 and the connection closed, so that requests cannot be smuggled past a proxy;
//! - requests that arrive together are answered together: no more reads and writes than the network needs, no allocation for a small request.
//!
//! Limits: no HTTP/2, no TLS yet, no compression, no upgrades; codings other than `chunked` are answered with 501; trailers are dropped; a
//! response that is long in the making holds up those to requests that were sent before it and have not left yet.

use core::future::Future;

use alloc::rc::Rc;
use fogbow::time::Duration;

use crate::{AcceptError, Listener};
use date::Date;
use seats::Seats;

pub mod client;
mod conditions;
mod connection;
mod content_type;
mod date;
mod fields;
mod files;
mod framing;
mod head;
mod input;
mod request;
mod response;
mod seats;
mod send;
mod server;
mod status;
#[cfg(test)]
mod tests;
mod wire;

pub use files::{FileBody, Files};
pub use head::Method;
pub use request::{BodyError, Request};
pub use response::{Body, EitherBody, Interrupted, Response};
pub use server::{SERVER_ARGUMENTS, Server};
pub use status::Status;

/// What turns requests into responses.
pub trait Handler: 'static {
    /// The body of its responses.
    type Body: Body;

    /// Handles a request.
    fn handle(&self, request: Request<'_>) -> impl Future<Output = Response<Self::Body>>;
}

impl<F, B> Handler for F
where
    F: AsyncFn(Request<'_>) -> Response<B> + 'static,
    B: Body,
{
    type Body = B;

    async fn handle(&self, request: Request<'_>) -> Response<B> {
        self(request).await
    }
}

/// What clients may take. A client that takes more is told so, if it still listens, and its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at once, and no more than the listener's [`capacity`](Listener::capacity). For a further one another is ended that waits for
    /// its client: the longest waiting of those that wait for a request to begin or to be whole, for more of a body or to take more of a response, or
    /// for another request, whichever are most.
    pub connections: usize,
    /// Bytes of a request's head: the request line and all header fields. A head has at most 64 fields besides.
    pub head: usize,
    /// Bytes of a request's body.
    pub body: u64,
    /// From the first byte of a head, or from the start of the connection, to the head's last byte.
    pub header_timeout: Duration,
    /// From a response to the next request.
    pub idle_timeout: Duration,
    /// From one part of a body to the next.
    pub body_timeout: Duration,
    /// Until the client takes more of a response.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1000,
            head: 8 * 1024,
            body: 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(20),
        }
    }
}

/// Serves HTTP on `listener`: each connection in a task of its own, each request by `handler`.
///
/// # Errors
/// [`AcceptError`] when the listener has failed for good; until then it does not return.
pub async fn serve(listener: impl Listener, limits: Limits, handler: impl Handler) -> Result<(), AcceptError> {
    let limit = limits.connections.min(listener.capacity());
    let service = Rc::new(Service { handler, limits, date: Date::default(), seats: Seats::new(limit) });
    // One more may be there: the one at the door.
    crate::serve(listener, limit.saturating_add(1), async move |stream| connection::run(stream, &service).await).await
}

/// What the connections of a server share.
struct Service<H> {
    handler: H,
    limits: Limits,
    date: Date,
    seats: Seats,
}
