//! TCP as the application has it: listeners and streams.

use core::fmt;
use core::future::poll_fn;
use core::net::{SocketAddr, SocketAddrV4};
use core::task::{Context, Poll};

use alloc::rc::Rc;
use embedded_io_async::{ErrorType, Read, ReadReady, Write, WriteReady};
use smoltcp::socket::tcp::{self, RecvError};

use super::Handle;
use super::counters::FlowCounters;
use super::flow::{Flow, Holder, TcpFlow};
use crate::stack::{AcceptError, ConnectError, ListenError, Listener, Stream, StreamError};

/// A listening socket of a [`Direct`](super::Direct) stack.
pub struct TcpListener {
    handle: Handle,
    port: u16,
}

impl TcpListener {
    pub(super) fn new(handle: Handle, port: u16) -> Result<Self, ListenError> {
        let port = handle.with(|engine| engine.listen(port))?;
        Ok(Self { handle, port })
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> Result<TcpStream, AcceptError> {
        let id = poll_fn(|context| {
            self.handle.with(|engine| match engine.accept(self.port) {
                Some(id) => Poll::Ready(id),
                None => {
                    if let Some(listening) = engine.listeners.get_mut(&self.port) {
                        listening.waker = Some(context.waker().clone());
                    }
                    Poll::Pending
                }
            })
        })
        .await;
        Ok(TcpStream(Connection::new(self.handle.clone(), id)))
    }

    fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.handle.with(|engine| engine.stop_listening(self.port));
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("port", &self.port).finish()
    }
}

/// A connection of a [`Direct`](super::Direct) stack.
#[derive(Debug)]
pub struct TcpStream(Connection);

/// The half of a [`TcpStream`] that reads.
#[derive(Debug)]
pub struct ReadHalf(Rc<Connection>);

/// The half of a [`TcpStream`] that writes.
#[derive(Debug)]
pub struct WriteHalf(Rc<Connection>);

impl TcpStream {
    pub(super) async fn connect(handle: Handle, remote: SocketAddrV4) -> Result<Self, ConnectError> {
        let id = handle.with(|engine| engine.connect(remote))?;
        // Made at once, so that a connect given up closes what it has begun.
        let stream = Self(Connection::new(handle, id));
        poll_fn(|context| stream.0.poll_connected(context)).await?;
        Ok(stream)
    }
}

impl TcpStream {
    /// What went over this connection so far.
    #[must_use]
    pub fn counters(&self) -> FlowCounters {
        self.0.with(|_, flow| (flow.tally.counters, false)).unwrap_or_default()
    }
}

impl Stream for TcpStream {
    type ReadHalf = ReadHalf;
    type WriteHalf = WriteHalf;

    fn peer(&self) -> SocketAddr {
        SocketAddr::V4(self.0.peer)
    }

    fn local(&self) -> SocketAddr {
        SocketAddr::V4(self.0.local)
    }

    async fn shutdown(&mut self) -> Result<(), StreamError> {
        self.0.shutdown()
    }

    fn abort(self) {
        self.0.handle.with(|engine| engine.abort(self.0.id));
    }

    fn split(self) -> (ReadHalf, WriteHalf) {
        let connection = Rc::new(self.0);
        (ReadHalf(Rc::clone(&connection)), WriteHalf(connection))
    }
}

impl WriteHalf {
    /// Ends the sending direction, as [`Stream::shutdown`].
    ///
    /// # Errors
    /// [`StreamError`] when the connection has failed already.
    pub async fn shutdown(&mut self) -> Result<(), StreamError> {
        self.0.shutdown()
    }
}

/// The application's hold on a flow. Dropping it closes the connection in order.
struct Connection {
    handle: Handle,
    id: u32,
    local: SocketAddrV4,
    peer: SocketAddrV4,
}

impl Connection {
    fn new(handle: Handle, id: u32) -> Self {
        let (local, peer) = handle.with(|engine| engine.addresses(id));
        Self { handle, id, local, peer }
    }

    /// Works on the socket; then the driver looks what there is to send, if `work` says so. `None` when the flow is gone, which it is not while this
    /// hold on it lives.
    fn with<R>(&self, work: impl FnOnce(&mut tcp::Socket<'static>, &mut TcpFlow) -> (R, bool)) -> Option<R> {
        self.handle.with(|engine| {
            let (socket, flow) = engine.flow(self.id).and_then(Flow::tcp)?;
            let (result, changed) = work(socket, flow);
            if changed {
                engine.mark_dirty(self.id);
            }
            Some(result)
        })
    }

    fn poll_connected(&self, context: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        let poll = self.with(|socket, flow| {
            let poll = match socket.state() {
                tcp::State::SynSent | tcp::State::SynReceived => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                tcp::State::Closed if flow.failure == Some(StreamError::Reset) => Poll::Ready(Err(ConnectError::Refused)),
                tcp::State::Closed => Poll::Ready(Err(ConnectError::TimedOut)),
                _ => Poll::Ready(Ok(())),
            };
            (poll, false)
        });
        poll.unwrap_or(Poll::Ready(Err(ConnectError::TimedOut)))
    }

    fn poll_read(&self, into: &mut [u8], context: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        if into.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let poll = self.with(|socket, flow| match socket.recv_slice(into) {
            Ok(0) => {
                socket.register_recv_waker(context.waker());
                (Poll::Pending, false)
            }
            // There is room again, which the peer may wait to hear of.
            Ok(length) => {
                flow.unread += length;
                flow.tally.counters.bytes_read += length as u64;
                (Poll::Ready(Ok(length)), true)
            }
            Err(RecvError::Finished) => (Poll::Ready(Ok(0)), false),
            Err(RecvError::InvalidState) => (Poll::Ready(Err(flow.failure.unwrap_or(StreamError::Closed))), false),
        });
        poll.unwrap_or(Poll::Ready(Err(StreamError::Closed)))
    }

    fn poll_write(&self, from: &[u8], context: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        let poll = self.with(|socket, flow| match socket.send_slice(from) {
            Ok(0) if !from.is_empty() => {
                socket.register_send_waker(context.waker());
                (Poll::Pending, false)
            }
            Ok(length) => (Poll::Ready(Ok(length)), length > 0),
            Err(tcp::SendError::InvalidState) => (Poll::Ready(Err(flow.failure.unwrap_or(StreamError::Closed))), false),
        });
        poll.unwrap_or(Poll::Ready(Err(StreamError::Closed)))
    }

    fn shutdown(&self) -> Result<(), StreamError> {
        let result = self.with(|socket, flow| match flow.failure {
            Some(failure) => (Err(failure), false),
            None => {
                socket.close();
                (Ok(()), true)
            }
        });
        result.unwrap_or(Err(StreamError::Closed))
    }

    /// What was written is on its way already; a connection that has failed is worth an error.
    fn flush(&self) -> Result<(), StreamError> {
        self.with(|_, flow| (flow.failure.map_or(Ok(()), Err), false)).unwrap_or(Err(StreamError::Closed))
    }

    fn is_readable(&self) -> bool {
        self.with(|socket, _| (socket.can_recv() || !socket.may_recv(), false)).unwrap_or(true)
    }

    fn is_writable(&self) -> bool {
        self.with(|socket, _| (socket.can_send() || !socket.may_send(), false)).unwrap_or(true)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.handle.with(|engine| {
            // After an abort the flow is no longer the application's.
            if engine.flow(self.id).and_then(Flow::tcp).is_some_and(|(_, flow)| flow.holder == Holder::Application) {
                engine.release(self.id);
            }
        });
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("local", &self.local).field("peer", &self.peer).finish()
    }
}

macro_rules! io {
    ($type:ty: $($direction:ident)+) => {
        impl ErrorType for $type {
            type Error = StreamError;
        }
        $(io!(@$direction $type);)+
    };
    (@read $type:ty) => {
        impl Read for $type {
            async fn read(&mut self, into: &mut [u8]) -> Result<usize, StreamError> {
                poll_fn(|context| self.0.poll_read(into, context)).await
            }
        }

        impl ReadReady for $type {
            fn read_ready(&mut self) -> Result<bool, StreamError> {
                Ok(self.0.is_readable())
            }
        }
    };
    (@write $type:ty) => {
        impl Write for $type {
            async fn write(&mut self, from: &[u8]) -> Result<usize, StreamError> {
                poll_fn(|context| self.0.poll_write(from, context)).await
            }

            async fn flush(&mut self) -> Result<(), StreamError> {
                self.0.flush()
            }
        }

        impl WriteReady for $type {
            fn write_ready(&mut self) -> Result<bool, StreamError> {
                Ok(self.0.is_writable())
            }
        }
    };
}

io!(TcpStream: read write);
io!(ReadHalf: read);
io!(WriteHalf: write);
