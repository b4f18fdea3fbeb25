//! The stack: what an application sees of the network.
//!
//! Sockets are owned values without lifetimes: each can move into a task of its own, and closes when it is dropped. Ports are numbers of the host
//! byte order.

use core::fmt;
use core::future::Future;
use core::net::{Ipv4Addr, SocketAddr};

use embedded_io_async::{ErrorKind, Read, Write};

/// A TCP/IP stack. Cloning gives another handle to the same stack.
pub trait Stack: Clone + 'static {
    /// A listening TCP socket.
    type Listener: Listener<Stream = Self::Stream>;
    /// A TCP connection.
    type Stream: Stream;
    /// A UDP socket.
    type UdpSocket: UdpSocket;

    /// The stack's own address, where it has one: `None` on a stack that answers on several, such as the host's.
    fn address(&self) -> Option<Ipv4Addr>;

    /// Listens for TCP connections on `port`, on every address of the stack. Port 0 picks a free one.
    ///
    /// # Errors
    /// [`ListenError`] when the port cannot be had.
    fn listen(&self, port: u16) -> Result<Self::Listener, ListenError>;

    /// Opens a TCP connection.
    ///
    /// # Errors
    /// [`ConnectError`] when the peer refuses, does not answer, or cannot be reached.
    fn connect(&self, remote: SocketAddr) -> impl Future<Output = Result<Self::Stream, ConnectError>>;

    /// Opens a UDP socket on `port`, on every address of the stack. Port 0 picks a free one.
    ///
    /// # Errors
    /// [`BindError`] when the port cannot be had.
    fn bind(&self, port: u16) -> Result<Self::UdpSocket, BindError>;
}

/// A listening TCP socket. Dropping it stops the listening and refuses connections not yet accepted.
pub trait Listener: 'static {
    /// A connection it accepts.
    type Stream: Stream;

    /// Waits for the next connection.
    ///
    /// # Errors
    /// [`AcceptError`]; the listener may be asked again.
    fn accept(&mut self) -> impl Future<Output = Result<Self::Stream, AcceptError>>;

    /// The port it listens on.
    fn port(&self) -> u16;

    /// How many connections may be held at once so that the stack still has room for one more to come; `usize::MAX` where it has no limit of its own.
    fn capacity(&self) -> usize {
        usize::MAX
    }
}

/// A TCP connection. `read` gives 0 at the end of what the peer sends. `write` may take less than it is given; `flush` pushes what was written on
/// its way without waiting for acknowledgement. Dropping a stream closes it in order: what was written is still delivered.
pub trait Stream: Read<Error = StreamError> + Write<Error = StreamError> + 'static {
    /// The half that reads, after [`split`](Self::split).
    type ReadHalf: Read<Error = StreamError> + 'static;
    /// The half that writes, after [`split`](Self::split). Dropping it alone does not close the connection.
    type WriteHalf: Write<Error = StreamError> + 'static;

    /// The peer's address.
    fn peer(&self) -> SocketAddr;

    /// This end's address.
    fn local(&self) -> SocketAddr;

    /// Ends the sending direction: the peer reads the end after all that was written. Reading goes on.
    ///
    /// # Errors
    /// [`StreamError`] when the connection has failed already.
    fn shutdown(&mut self) -> impl Future<Output = Result<(), StreamError>>;

    /// Resets the connection: nothing more is delivered, and the peer sees an error.
    fn abort(self);

    /// Splits the connection into halves that two tasks can own; it closes when both are dropped.
    fn split(self) -> (Self::ReadHalf, Self::WriteHalf);
}

/// A UDP socket.
pub trait UdpSocket: 'static {
    /// Waits for a datagram and copies it into `into`. Gives its length and its sender. A longer datagram is cut off at the end of `into`.
    ///
    /// # Errors
    /// [`UdpError`].
    fn receive_from(&self, into: &mut [u8]) -> impl Future<Output = Result<(usize, SocketAddr), UdpError>>;

    /// Sends a datagram. Waits for room in the stack, not for delivery.
    ///
    /// # Errors
    /// [`UdpError`] when it can never be sent.
    fn send_to(&self, datagram: &[u8], to: SocketAddr) -> impl Future<Output = Result<(), UdpError>>;

    /// The port it is bound to.
    fn port(&self) -> u16;
}

macro_rules! errors {
    ($($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $message:literal,)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $message,)+ })
            }
        }

        impl core::error::Error for $name {}
    )+};
}

errors! {
    /// Why a port cannot be listened on.
    ListenError {
        /// Something listens there already.
        InUse => "the port is in use: choose another",
        /// The host does not allow it.
        Denied => "the host does not allow this port: ports below 1024 may need root",
        /// The host does not have the address that the stack is bound to.
        NoAddress => "the host has no such address: bind to one of its own",
        /// No port is free.
        Exhausted => "no port or no memory for another listener is left",
    }
    /// Why no connection was accepted.
    AcceptError {
        /// The host has no descriptors or memory left.
        Exhausted => "no memory or descriptor is left for another connection: limit the connections served at once",
        /// The network is gone.
        Down => "the network is down",
    }
    /// Why a connection could not be opened.
    ConnectError {
        /// The peer answered with a reset.
        Refused => "the peer refuses the connection: nothing listens on that port",
        /// The peer did not answer in time.
        TimedOut => "the peer does not answer",
        /// No route or no neighbour leads there.
        Unreachable => "no route to that address: check the address, the prefix length and the gateway",
        /// No local port, memory or descriptor is left.
        Exhausted => "no local port or memory is left for another connection",
        /// The address is of a kind that this stack does not carry.
        Unsupported => "this stack carries IPv4 only",
    }
    /// Why a UDP socket could not be opened.
    BindError {
        /// Another socket has the port.
        InUse => "the port is in use: choose another",
        /// The host does not allow it.
        Denied => "the host does not allow this port: ports below 1024 may need root",
        /// The host does not have the address that the stack is bound to.
        NoAddress => "the host has no such address: bind to one of its own",
        /// No port is free.
        Exhausted => "no port or no memory for another socket is left",
    }
    /// Why a datagram could not be sent or received.
    UdpError {
        /// It is longer than the stack can send.
        TooLong => "the datagram is longer than the network takes",
        /// No route leads there.
        Unreachable => "no route to that address: check the address, the prefix length and the gateway",
        /// The address is of a kind that this stack does not carry.
        Unsupported => "this stack carries IPv4 only",
        /// The network is gone.
        Down => "the network is down",
    }
    /// Why a connection failed.
    StreamError {
        /// The peer reset it.
        Reset => "the peer reset the connection",
        /// The peer stopped answering.
        TimedOut => "the peer stopped answering",
        /// This end has closed its sending direction already.
        Closed => "this end of the connection is closed",
    }
}

impl embedded_io_async::Error for StreamError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Reset => ErrorKind::ConnectionReset,
            Self::TimedOut => ErrorKind::TimedOut,
            Self::Closed => ErrorKind::BrokenPipe,
        }
    }
}
