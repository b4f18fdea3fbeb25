//! The server as a device (`kind = "http_server"` in `unikernel.toml`): a stack, a port and limits, which an application gives its handler.

use alloc::format;
use core::num::NonZeroUsize;

use fogbow::StartError;
use fogbow::arguments::{self, Argument};

use super::{Handler, Limits, serve};
use crate::{Listener, Stack};

/// The boot arguments of a server; each begins with the device's name and a dash.
pub const SERVER_ARGUMENTS: &[Argument] = &[
    Argument::new::<u16>("port", "TCP port to serve").valued("PORT").default("80"),
    Argument::new::<NonZeroUsize>(
        "connections",
        "connections served at once at most; for a further one another that waits for its client is ended",
    )
    .valued("NUMBER")
    .default("1000"),
];

/// An HTTP server that has not begun to serve.
///
/// ```
/// use fogbow_net::Stack;
/// use fogbow_net::http::{Request, Server, Status};
///
/// async fn start(web: Server<impl Stack>) -> Result<(), fogbow::StartError> {
///     web.serve(async |mut request: Request<'_>| request.respond(Status::OK, "hello")).await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Server<S> {
    /// What it listens on.
    pub stack: S,
    /// The port that it listens on; 0 picks a free one.
    pub port: u16,
    /// What clients may take.
    pub limits: Limits,
}

impl<S: Stack> Server<S> {
    /// A server on `port` of `stack`, with the usual limits.
    #[must_use]
    pub fn new(stack: S, port: u16) -> Self {
        Self { stack, port, limits: Limits::default() }
    }

    /// A server as the boot arguments say: the [`SERVER_ARGUMENTS`], each with `prefix` before its name.
    ///
    /// # Errors
    /// With a message on the argument that cannot be understood.
    ///
    /// # Panics
    /// When no runtime is running.
    pub fn from_arguments(stack: S, prefix: &str) -> Result<Self, StartError> {
        let port = arguments::parse(&format!("{prefix}port"))?;
        let connections: NonZeroUsize = arguments::parse(&format!("{prefix}connections"))?;
        let limits = Limits { connections: connections.get(), ..Limits::default() };
        Ok(Self { stack, port, limits })
    }

    /// Serves with `handler` until the network fails; says on the console where.
    ///
    /// # Errors
    /// When the port is in use, or the network fails.
    pub async fn serve(self, handler: impl Handler) -> Result<(), StartError> {
        let listener = self.stack.listen(self.port).map_err(|error| StartError::new(&format!("port {}", self.port), error))?;
        fogbow::println!("http: listening on port {}", listener.port());
        serve(listener, self.limits, handler).await.map_err(|error| StartError::new("http", error))
    }
}
