//! The host's listening sockets, bound before the network's process starts so that a port in use is the tender's own error.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use thiserror::Error;

use crate::options::{Forward, Protocol};

/// Connections the kernel keeps waiting for us while the table is full or the guest has not been heard of yet.
const BACKLOG: i32 = 1024;

/// One forwarded port of the host, bound and listening.
#[derive(Debug)]
pub struct Listener {
    /// What it forwards. The host port is the one bound, even where port 0 was asked for.
    pub forward: Forward,
    pub(crate) socket: ListenSocket,
}

/// The socket of a [`Listener`].
#[derive(Debug)]
pub(crate) enum ListenSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// A port of the host that cannot be forwarded.
#[derive(Debug, Error)]
#[error("user network: cannot listen on {} {} for hostfwd={forward}: {source}; {}", .forward.protocol, .forward.host, advice(.source))]
pub struct ListenError {
    /// What was to be forwarded.
    pub forward: Forward,
    /// What the host answered.
    pub source: io::Error,
}

impl Listener {
    /// Binds the host's side of `forward`, not blocking.
    ///
    /// # Errors
    /// The host refused the port: it is in use, it is privileged, or the address is not one of the host's.
    pub fn bind(forward: Forward) -> Result<Self, ListenError> {
        let refused = |source| ListenError { forward, source };
        let socket = match forward.protocol {
            Protocol::Tcp => ListenSocket::Tcp(TcpListener::bind(forward.host).map_err(refused)?),
            Protocol::Udp => ListenSocket::Udp(UdpSocket::bind(forward.host).map_err(refused)?),
        };
        Self::adopt(forward, socket).map_err(refused)
    }

    /// Takes over a socket that another process bound for `forward`.
    pub(crate) fn from_descriptor(forward: Forward, descriptor: OwnedFd) -> io::Result<Self> {
        let socket = match forward.protocol {
            Protocol::Tcp => ListenSocket::Tcp(descriptor.into()),
            Protocol::Udp => ListenSocket::Udp(descriptor.into()),
        };
        Self::adopt(forward, socket)
    }

    fn adopt(mut forward: Forward, socket: ListenSocket) -> io::Result<Self> {
        let bound = match &socket {
            ListenSocket::Tcp(listener) => {
                // The standard library's backlog is too short for a burst of connections.
                rustix::net::listen(listener, BACKLOG)?;
                listener.set_nonblocking(true)?;
                listener.local_addr()?
            }
            ListenSocket::Udp(socket) => {
                socket.set_nonblocking(true)?;
                socket.local_addr()?
            }
        };
        if let SocketAddr::V4(bound) = bound {
            forward.host = bound;
        }
        Ok(Listener { forward, socket })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListenSocket::Tcp(listener) => listener.as_fd(),
            ListenSocket::Udp(socket) => socket.as_fd(),
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "end the program that uses this port, or choose another host port",
        io::ErrorKind::PermissionDenied => "choose a host port of 1024 or above",
        io::ErrorKind::AddrNotAvailable => "choose an address of this host, such as 127.0.0.1 or 0.0.0.0",
        _ => "choose another host address or port",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let any = Forward { protocol, host: "127.0.0.1:0".parse().expect("test address"), guest_port: 80 };
            let first = Listener::bind(any).expect("a free port");
            assert_ne!(first.forward.host.port(), 0);
            let error = Listener::bind(first.forward).expect_err("in use");
            assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
            let message = error.to_string();
            assert!(message.contains(&first.forward.host.to_string()) && message.contains("another host port"), "{message}");
        }
    }
}
