//! Any [`Stack`] as an edge-nal stack, for crates that are written against those traits.
//!
//! Limits: a bound address is only a port, as a [`Stack`] listens on all its addresses; multicast groups cannot be joined; once a TCP socket has been
//! split it can be closed as a whole only.

mod udp;

use alloc::collections::VecDeque;
use core::cell::RefCell;
use core::fmt;
use core::future::poll_fn;
use core::mem;
use core::net::SocketAddr;
use core::task::{Poll, Waker};

use edge_nal::io::{Error as _, ErrorKind, ErrorType, Read, Write};
use edge_nal::{Close, Readable, TcpAccept, TcpBind, TcpConnect, TcpShutdown, TcpSplit, UdpBind, UdpConnect};

pub use udp::{Datagrams, NoMulticast, ReceiveHalf, SendHalf};

use crate::stack::{AcceptError, BindError, ConnectError, ListenError, Listener, Stack, Stream, StreamError, UdpError};

/// A stack as edge-nal has it.
#[derive(Clone, Copy, Debug)]
pub struct Edge<S>(pub S);

/// What went wrong, as far as edge-nal's traits can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(ErrorKind, &'static str);

impl Error {
    const UNSUPPORTED: Self = Self(ErrorKind::Unsupported, "this stack cannot join multicast groups");
    const SPLIT: Self = Self(ErrorKind::Unsupported, "a socket that has been split can be closed as a whole only");
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }
}

impl core::error::Error for Error {}

impl edge_nal::io::Error for Error {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl From<StreamError> for Error {
    fn from(error: StreamError) -> Self {
        Self(error.kind(), "the connection has failed or is closed")
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused => Self(ErrorKind::ConnectionRefused, "the peer refuses the connection: nothing listens on that port"),
            ConnectError::TimedOut => Self(ErrorKind::TimedOut, "the peer does not answer"),
            ConnectError::Unreachable => Self(ErrorKind::AddrNotAvailable, "no route to that address"),
            ConnectError::Exhausted => Self(ErrorKind::OutOfMemory, "no local port or memory is left for another connection"),
            ConnectError::Unsupported => Self(ErrorKind::Unsupported, "this stack carries IPv4 only"),
        }
    }
}

impl From<ListenError> for Error {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::InUse => Self(ErrorKind::AddrInUse, "the port is in use: choose another"),
            ListenError::Denied => Self(ErrorKind::PermissionDenied, "the host does not allow this port"),
            ListenError::NoAddress => Self(ErrorKind::AddrNotAvailable, "the host has no such address"),
            ListenError::Exhausted => Self(ErrorKind::OutOfMemory, "no port or no memory for another listener is left"),
        }
    }
}

impl From<BindError> for Error {
    fn from(error: BindError) -> Self {
        match error {
            BindError::InUse => Self(ErrorKind::AddrInUse, "the port is in use: choose another"),
            BindError::Denied => Self(ErrorKind::PermissionDenied, "the host does not allow this port"),
            BindError::NoAddress => Self(ErrorKind::AddrNotAvailable, "the host has no such address"),
            BindError::Exhausted => Self(ErrorKind::OutOfMemory, "no port or no memory for another socket is left"),
        }
    }
}

impl From<AcceptError> for Error {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Exhausted => Self(ErrorKind::OutOfMemory, "no memory or descriptor is left for another connection"),
            AcceptError::Down => Self(ErrorKind::NotConnected, "the network is down"),
        }
    }
}

impl From<UdpError> for Error {
    fn from(error: UdpError) -> Self {
        match error {
            UdpError::TooLong => Self(ErrorKind::InvalidInput, "the datagram is longer than the network takes"),
            UdpError::Unreachable => Self(ErrorKind::AddrNotAvailable, "no route to that address"),
            UdpError::Unsupported => Self(ErrorKind::Unsupported, "this stack carries IPv4 only"),
            UdpError::Down => Self(ErrorKind::NotConnected, "the network is down"),
        }
    }
}

impl<S: Stack> TcpBind for Edge<S> {
    type Error = Error;
    type Accept<'a> = Acceptor<S::Listener>;

    async fn bind(&self, local: SocketAddr) -> Result<Acceptor<S::Listener>, Error> {
        Ok(Acceptor { listener: RefCell::new(Turn { item: Some(self.0.listen(local.port())?), waiting: VecDeque::new() }) })
    }
}

impl<S: Stack> TcpConnect for Edge<S> {
    type Error = Error;
    type Socket<'a> = TcpSocket<S::Stream>;

    async fn connect(&self, remote: SocketAddr) -> Result<TcpSocket<S::Stream>, Error> {
        Ok(TcpSocket::new(self.0.connect(remote).await?))
    }
}

impl<S: Stack> UdpBind for Edge<S> {
    type Error = Error;
    type Socket<'a> = Datagrams<S::UdpSocket>;

    async fn bind(&self, local: SocketAddr) -> Result<Datagrams<S::UdpSocket>, Error> {
        Ok(Datagrams::new(self.0.bind(local.port())?, None))
    }
}

impl<S: Stack> UdpConnect for Edge<S> {
    type Error = Error;
    type Socket<'a> = Datagrams<S::UdpSocket>;

    /// A socket that receives from `remote` alone.
    async fn connect(&self, local: SocketAddr, remote: SocketAddr) -> Result<Datagrams<S::UdpSocket>, Error> {
        Ok(Datagrams::new(self.0.bind(local.port())?, Some(remote)))
    }
}

/// A listening socket that several tasks can accept from.
pub struct Acceptor<L> {
    listener: RefCell<Turn<L>>,
}

/// Something that one task has at a time; the others wait for their turn.
struct Turn<L> {
    item: Option<L>,
    waiting: VecDeque<Waker>,
}

/// The listener, given back when the accept ends or is given up.
struct Taken<'a, L>(&'a RefCell<Turn<L>>, Option<L>);

impl<L> Drop for Taken<'_, L> {
    fn drop(&mut self) {
        let mut turn = self.0.borrow_mut();
        turn.item = self.1.take();
        turn.waiting.drain(..).for_each(Waker::wake);
    }
}

impl<L: Listener> TcpAccept for Acceptor<L> {
    type Error = Error;
    type Socket<'a> = TcpSocket<L::Stream>;

    async fn accept(&self) -> Result<(SocketAddr, TcpSocket<L::Stream>), Error> {
        let mut taken = poll_fn(|context| {
            let mut turn = self.listener.borrow_mut();
            match turn.item.take() {
                Some(listener) => Poll::Ready(Taken(&self.listener, Some(listener))),
                None => {
                    turn.waiting.push_back(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        let listener = taken.1.as_mut().ok_or(AcceptError::Down)?;
        let stream = listener.accept().await?;
        Ok((stream.peer(), TcpSocket::new(stream)))
    }
}

/// A TCP connection.
pub struct TcpSocket<S: Stream> {
    state: State<S>,
    ahead: Ahead,
}

enum State<S: Stream> {
    Whole(S),
    Split(S::ReadHalf, S::WriteHalf),
    Closed,
}

/// Bytes read before they were asked for.
#[derive(Default)]
struct Ahead {
    bytes: [u8; 8],
    from: usize,
    to: usize,
    is_end: bool,
}

impl Ahead {
    fn take(&mut self, into: &mut [u8]) -> Option<usize> {
        if self.from == self.to {
            return mem::take(&mut self.is_end).then_some(0);
        }
        let length = into.len().min(self.to - self.from);
        into[..length].copy_from_slice(&self.bytes[self.from..self.from + length]);
        self.from += length;
        Some(length)
    }

    async fn fill(&mut self, source: &mut impl Read<Error = StreamError>) -> Result<(), Error> {
        if self.from == self.to && !self.is_end {
            (self.from, self.to) = (0, source.read(&mut self.bytes).await?);
            self.is_end = self.to == 0;
        }
        Ok(())
    }
}

impl<S: Stream> TcpSocket<S> {
    fn new(stream: S) -> Self {
        Self { state: State::Whole(stream), ahead: Ahead::default() }
    }
}

impl<S: Stream> ErrorType for TcpSocket<S> {
    type Error = Error;
}

impl<S: Stream> Read for TcpSocket<S> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        if let Some(length) = self.ahead.take(into) {
            return Ok(length);
        }
        match &mut self.state {
            State::Whole(stream) => Ok(stream.read(into).await?),
            State::Split(read, _) => Ok(read.read(into).await?),
            State::Closed => Err(StreamError::Closed.into()),
        }
    }
}

impl<S: Stream> Write for TcpSocket<S> {
    async fn write(&mut self, from: &[u8]) -> Result<usize, Error> {
        match &mut self.state {
            State::Whole(stream) => Ok(stream.write(from).await?),
            State::Split(_, write) => Ok(write.write(from).await?),
            State::Closed => Err(StreamError::Closed.into()),
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        match &mut self.state {
            State::Whole(stream) => Ok(stream.flush().await?),
            State::Split(_, write) => Ok(write.flush().await?),
            State::Closed => Err(StreamError::Closed.into()),
        }
    }
}

impl<S: Stream> Readable for TcpSocket<S> {
    async fn readable(&mut self) -> Result<(), Error> {
        match &mut self.state {
            State::Whole(stream) => self.ahead.fill(stream).await,
            State::Split(read, _) => self.ahead.fill(read).await,
            State::Closed => Err(StreamError::Closed.into()),
        }
    }
}

impl<S: Stream> TcpShutdown for TcpSocket<S> {
    async fn close(&mut self, what: Close) -> Result<(), Error> {
        if what != Close::Read {
            match &mut self.state {
                State::Whole(stream) => stream.shutdown().await?,
                State::Split(..) if what == Close::Write => return Err(Error::SPLIT),
                State::Split(..) => self.state = State::Closed,
                State::Closed => {}
            }
        }
        if what != Close::Write {
            let mut rest = [0; 256];
            while let State::Whole(stream) = &mut self.state
                && stream.read(&mut rest).await? > 0
            {}
        }
        Ok(())
    }

    async fn abort(&mut self) -> Result<(), Error> {
        if let State::Whole(stream) = mem::replace(&mut self.state, State::Closed) {
            stream.abort();
        }
        Ok(())
    }
}

impl<S: Stream> TcpSplit for TcpSocket<S> {
    type Read<'a>
        = ReadHalf<'a, S>
    where
        Self: 'a;
    type Write<'a>
        = WriteHalf<'a, S>
    where
        Self: 'a;

    fn split(&mut self) -> (ReadHalf<'_, S>, WriteHalf<'_, S>) {
        self.state = match mem::replace(&mut self.state, State::Closed) {
            State::Whole(stream) => {
                let (read, write) = stream.split();
                State::Split(read, write)
            }
            state => state,
        };
        let (read, write) = match &mut self.state {
            State::Split(read, write) => (Some(read), Some(write)),
            State::Whole(_) | State::Closed => (None, None),
        };
        (ReadHalf { half: read, ahead: &mut self.ahead }, WriteHalf(write))
    }
}

/// The half of a [`TcpSocket`] that reads.
pub struct ReadHalf<'a, S: Stream> {
    half: Option<&'a mut S::ReadHalf>,
    ahead: &'a mut Ahead,
}

/// The half of a [`TcpSocket`] that writes.
pub struct WriteHalf<'a, S: Stream>(Option<&'a mut S::WriteHalf>);

impl<S: Stream> ErrorType for ReadHalf<'_, S> {
    type Error = Error;
}

impl<S: Stream> ErrorType for WriteHalf<'_, S> {
    type Error = Error;
}

impl<S: Stream> Read for ReadHalf<'_, S> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        match (self.ahead.take(into), &mut self.half) {
            (Some(length), _) => Ok(length),
            (None, Some(half)) => Ok(half.read(into).await?),
            (None, None) => Err(StreamError::Closed.into()),
        }
    }
}

impl<S: Stream> Readable for ReadHalf<'_, S> {
    async fn readable(&mut self) -> Result<(), Error> {
        match &mut self.half {
            Some(half) => self.ahead.fill(&mut **half).await,
            None => Err(StreamError::Closed.into()),
        }
    }
}

impl<S: Stream> Write for WriteHalf<'_, S> {
    async fn write(&mut self, from: &[u8]) -> Result<usize, Error> {
        match &mut self.0 {
            Some(half) => Ok(half.write(from).await?),
            None => Err(StreamError::Closed.into()),
        }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        match &mut self.0 {
            Some(half) => Ok(half.flush().await?),
            None => Err(StreamError::Closed.into()),
        }
    }
}

#[cfg(test)]
mod tests;
