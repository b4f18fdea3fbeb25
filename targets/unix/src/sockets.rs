//! The host's sockets as a stack.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use embedded_io_async::{ErrorType, Read, Write};
use fogbow_net::{AcceptError, BindError, ConnectError, ListenError, Listener, Stack, Stream, StreamError, UdpError};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::reactor::{Direction, Watched};

/// The host's sockets. Listens on one address of the host, by default the loopback's.
#[derive(Clone, Copy, Debug)]
pub struct HostStack {
    bind: Ipv4Addr,
}

impl HostStack {
    /// A stack whose listeners and UDP sockets are bound to the host's address `bind`; `0.0.0.0` means all of them.
    #[must_use]
    pub const fn new(bind: Ipv4Addr) -> Self {
        Self { bind }
    }
}

impl Stack for HostStack {
    type Listener = HostListener;
    type Stream = HostStream;
    type UdpSocket = HostUdpSocket;

    fn address(&self) -> Option<Ipv4Addr> {
        (!self.bind.is_unspecified()).then_some(self.bind)
    }

    fn listen(&self, port: u16) -> Result<HostListener, ListenError> {
        let open = || {
            let listener = TcpListener::bind((self.bind, port))?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            Ok(HostListener { port, listener: Watched::new(listener)? })
        };
        open().map_err(|error: io::Error| match error.kind() {
            ErrorKind::AddrInUse => ListenError::InUse,
            ErrorKind::PermissionDenied => ListenError::Denied,
            ErrorKind::AddrNotAvailable => ListenError::NoAddress,
            _ => ListenError::Exhausted,
        })
    }

    async fn connect(&self, remote: SocketAddr) -> Result<HostStream, ConnectError> {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => ConnectError::Refused,
            ErrorKind::TimedOut => ConnectError::TimedOut,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ConnectError::Unreachable,
            _ => ConnectError::Exhausted,
        };
        if !remote.is_ipv4() {
            return Err(ConnectError::Unsupported);
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).map_err(|_| ConnectError::Exhausted)?;
        match rustix::net::connect(&socket, &remote) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let socket = Watched::new(TcpStream::from(socket)).map_err(|_| ConnectError::Exhausted)?;
        socket
            .run(Direction::Write, |socket| match socket.take_error()? {
                Some(error) => Err(error),
                // Not connected and no error means: still connecting.
                None => socket.peer_addr().map_err(|_| ErrorKind::WouldBlock.into()),
            })
            .await
            .map_err(failed)?;
        HostStream::new(socket, remote).map_err(failed)
    }

    fn bind(&self, port: u16) -> Result<HostUdpSocket, BindError> {
        let open = || {
            let socket = UdpSocket::bind((self.bind, port))?;
            socket.set_nonblocking(true)?;
            let port = socket.local_addr()?.port();
            Ok(HostUdpSocket { port, socket: Watched::new(socket)? })
        };
        open().map_err(|error: io::Error| match error.kind() {
            ErrorKind::AddrInUse => BindError::InUse,
            ErrorKind::PermissionDenied => BindError::Denied,
            ErrorKind::AddrNotAvailable => BindError::NoAddress,
            _ => BindError::Exhausted,
        })
    }
}

/// A listening TCP socket of the host.
pub struct HostListener {
    port: u16,
    listener: Watched<TcpListener>,
}

impl Listener for HostListener {
    type Stream = HostStream;

    async fn accept(&mut self) -> Result<HostStream, AcceptError> {
        loop {
            let (socket, peer) = match self.listener.run(Direction::Read, TcpListener::accept).await {
                Ok(accepted) => accepted,
                // The peer gave up before it was accepted (accept(2)): that is no fault of the listener.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(_) => return Err(AcceptError::Exhausted),
            };
            let open = || {
                socket.set_nonblocking(true)?;
                HostStream::new(Watched::new(socket)?, peer)
            };
            match open() {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == ErrorKind::NotConnected => {}
                Err(_) => return Err(AcceptError::Exhausted),
            }
        }
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// A TCP connection of the host.
pub struct HostStream {
    half: HostStreamHalf,
    peer: SocketAddr,
    local: SocketAddr,
}

impl HostStream {
    fn new(socket: Watched<TcpStream>, peer: SocketAddr) -> io::Result<Self> {
        // As in the direct stack: what is written goes out at the next flush, without waiting for an acknowledgement.
        socket.io().set_nodelay(true)?;
        let local = socket.io().local_addr()?;
        Ok(Self { half: HostStreamHalf(Rc::new(socket)), peer, local })
    }
}

impl Stream for HostStream {
    type ReadHalf = HostStreamHalf;
    type WriteHalf = HostStreamHalf;

    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn local(&self) -> SocketAddr {
        self.local
    }

    async fn shutdown(&mut self) -> Result<(), StreamError> {
        self.half.0.io().shutdown(Shutdown::Write).map_err(stream_error)
    }

    fn abort(self) {
        // SO_LINGER with time zero makes closing a reset (socket(7)); where it fails the connection is closed in order.
        let _ = rustix::net::sockopt::set_socket_linger(self.half.0.io(), Some(Duration::ZERO));
    }

    fn split(self) -> (HostStreamHalf, HostStreamHalf) {
        (HostStreamHalf(Rc::clone(&self.half.0)), self.half)
    }
}

impl ErrorType for HostStream {
    type Error = StreamError;
}

impl Read for HostStream {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, StreamError> {
        self.half.read(into).await
    }
}

impl Write for HostStream {
    async fn write(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        self.half.write(data).await
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        self.half.flush().await
    }
}

/// One of the halves of a [`HostStream`].
pub struct HostStreamHalf(Rc<Watched<TcpStream>>);

impl ErrorType for HostStreamHalf {
    type Error = StreamError;
}

impl Read for HostStreamHalf {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, StreamError> {
        self.0.run(Direction::Read, |mut socket| socket.read(into)).await.map_err(stream_error)
    }
}

impl Write for HostStreamHalf {
    async fn write(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        self.0.run(Direction::Write, |mut socket| socket.write(data)).await.map_err(stream_error)
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }
}

fn stream_error(error: io::Error) -> StreamError {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::NotConnected => StreamError::Closed,
        ErrorKind::TimedOut => StreamError::TimedOut,
        _ => StreamError::Reset,
    }
}

/// A UDP socket of the host.
pub struct HostUdpSocket {
    port: u16,
    socket: Watched<UdpSocket>,
}

impl fogbow_net::UdpSocket for HostUdpSocket {
    async fn receive_from(&self, into: &mut [u8]) -> Result<(usize, SocketAddr), UdpError> {
        loop {
            match self.socket.run(Direction::Read, |socket| socket.recv_from(into)).await {
                Ok(received) => return Ok(received),
                // An ICMP error that answers an earlier datagram (udp(7)): the socket itself goes on.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(_) => return Err(UdpError::Down),
            }
        }
    }

    async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<(), UdpError> {
        if !to.is_ipv4() {
            return Err(UdpError::Unsupported);
        }
        match self.socket.run(Direction::Write, |socket| socket.send_to(datagram, to)).await {
            Ok(_) => Ok(()),
            // As in `receive_from`: it answers an earlier datagram; this one is lost, as a datagram may be.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) => Err(UdpError::TooLong),
            Err(error) if matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => Err(UdpError::Unreachable),
            Err(_) => Err(UdpError::Down),
        }
    }

    fn port(&self) -> u16 {
        self.port
    }
}
