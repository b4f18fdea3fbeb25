//! An HTTP/1.1 client (RFC 9110, RFC 9112), on any stack.
//!
//! ```
//! use fogbow_net::Stack;
//! use fogbow_net::http::client::{Client, Limits};
//!
//! async fn fetch(stack: impl Stack) -> Result<Vec<u8>, fogbow::StartError> {
//!     let client = Client::new(stack, Limits::default());
//!     let request = client.get("http://10.0.0.2:8080/state").map_err(fogbow::StartError::application)?;
//!     let mut response = request.send().await.map_err(|error| fogbow::StartError::new("10.0.0.2", error))?;
//!     response.read_to_end().await.map_err(fogbow::StartError::application)
//! }
//! ```
//!
//! Principles:
//! - everything a server can send is bounded: in size, in number and in time (see [`Limits`]);
//! - what could be read in two ways is an error, as at the server: a response that ends in doubt would lend its end to the next one;
//! - connections are kept and used again, once a response has been read to its end; a request that a closed connection swallowed is repeated on
//!   a new one if it has no body and its method allows that (RFC 9110, section 9.2.2).
//!
//! Limits: no TLS and no names yet ([`Request::at`] says where a name's server is), no redirects, no compression, no upgrades, no pipelining; no
//! coding but `chunked`. The body of a request is sent whole before the response is read.

use alloc::rc::Rc;

use fogbow::time::Duration;

use super::Method;
use crate::Stack;
use pool::Pool;
use url::Url;

mod error;
mod head;
mod pool;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod url;

pub use error::{SendError, UrlError};
pub use request::{Empty, Request};
pub use response::Response;

/// What servers may take. A response that takes more is an error, and its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections kept for later requests, in all. The one that was used longest ago gives way.
    pub kept: usize,
    /// Bytes of a response's head: the status line and all header fields. A head has at most 64 fields besides.
    pub head: usize,
    /// Bytes of a response's body.
    pub body: u64,
    /// For a connection to open.
    pub connect_timeout: Duration,
    /// From the end of the request to the end of the response's head.
    pub response_timeout: Duration,
    /// From one part of a body to the next.
    pub body_timeout: Duration,
    /// Until the server takes more of a request.
    pub write_timeout: Duration,
    /// How long a connection is kept without a request.
    pub kept_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            kept: 16,
            head: 16 * 1024,
            body: 16 * 1024 * 1024,
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(20),
            kept_for: Duration::from_secs(30),
        }
    }
}

/// A client. Cloning gives another handle to the same one, with the same connections.
#[derive(Clone)]
pub struct Client<S: Stack>(Rc<Shared<S>>);

/// What the requests of a client share.
struct Shared<S: Stack> {
    stack: S,
    limits: Limits,
    pool: Pool<S::Stream>,
}

impl<S: Stack> Client<S> {
    /// A client without connections.
    #[must_use]
    pub fn new(stack: S, limits: Limits) -> Self {
        Self(Rc::new(Shared { stack, limits, pool: Pool::new(limits.kept, limits.kept_for) }))
    }

    /// A request for what `url` names.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn request(&self, method: Method, url: &str) -> Result<Request<S>, UrlError> {
        Ok(Request::new(Rc::clone(&self.0), method, Url::parse(url)?))
    }

    /// A GET request for what `url` names.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn get(&self, url: &str) -> Result<Request<S>, UrlError> {
        self.request(Method::Get, url)
    }
}

impl<S: Stack> core::fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Client").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}
