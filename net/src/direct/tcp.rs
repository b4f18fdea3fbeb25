//! TCP as the application has it: listeners and streams.

use core::fmt;
use core::future::poll_fn;
use core::net::{SocketAddr, SocketAddrV4};
use core::task::{Context, Poll};

use alloc::rc::Rc;
use embedded_io_async::{ErrorType, Read, ReadReady, Write, WriteReady};
use smoltcp::time::Instant;

use super::Handle;
use super::counters::FlowCounters;
use super::engine::Engine;
use super::flow::{Flow, Holder, TcpFlow};
use crate::stack::{AcceptError, ConnectError, ListenError, Listener, Stream, StreamError};
use crate::tcp::{self, Pool, State};

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

    fn capacity(&self) -> usize {
        self.handle.with(|engine| engine.config.capacity())
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
        self.0.with(|flow, _, _| (flow.counters, false)).unwrap_or_default()
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

    /// Works on the connection; then the driver looks what there is to send, if `work` says so. `None` when the flow is gone, which it is not while
    /// this hold on it lives.
    fn with<R>(&self, work: impl FnOnce(&mut TcpFlow, Instant, &mut Pool) -> (R, bool)) -> Option<R> {
        self.handle.with(|engine| {
            engine.refresh();
            let Engine { flows, pool, now, .. } = engine;
            let flow = flows.get_mut(self.id as usize).and_then(|flow| flow.tcp())?;
            let (result, changed) = work(flow, *now, pool);
            if changed {
                engine.mark_dirty(self.id);
            }
            Some(result)
        })
    }

    fn poll_connected(&self, context: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        let poll = self.with(|flow, _, _| {
            let poll = match flow.socket.state() {
                State::SynSent | State::SynReceived => {
                    flow.socket.wake_on_write(context.waker());
                    Poll::Pending
                }
                State::Closed if flow.socket.failure() == Some(StreamError::Reset) => Poll::Ready(Err(ConnectError::Refused)),
                State::Closed => Poll::Ready(Err(flow.refused.unwrap_or(ConnectError::TimedOut))),
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
        let poll = self.with(|flow, now, pool| match flow.socket.read(into, now, pool) {
            tcp::Read::Bytes(length) => {
                flow.counters.bytes_read += length as u64;
                // There is room again, which the peer may wait to hear of.
                (Poll::Ready(Ok(length)), flow.socket.has_to_send())
            }
            tcp::Read::Pending => {
                flow.socket.wake_on_read(context.waker());
                (Poll::Pending, false)
            }
            tcp::Read::End => (Poll::Ready(Ok(0)), false),
            tcp::Read::Failed(error) => (Poll::Ready(Err(error)), false),
        });
        poll.unwrap_or(Poll::Ready(Err(StreamError::Closed)))
    }

    fn poll_write(&self, from: &[u8], context: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        let poll = self.with(|flow, now, pool| match flow.socket.write(from, now, pool) {
            Ok(0) if !from.is_empty() => {
                flow.socket.wake_on_write(context.waker());
                (Poll::Pending, false)
            }
            result => (Poll::Ready(result), result.is_ok_and(|length| length > 0)),
        });
        poll.unwrap_or(Poll::Ready(Err(StreamError::Closed)))
    }

    fn shutdown(&self) -> Result<(), StreamError> {
        let result = self.with(|flow, _, _| match flow.socket.failure() {
            Some(failure) => (Err(failure), false),
            None => {
                flow.socket.close();
                (Ok(()), true)
            }
        });
        result.unwrap_or(Err(StreamError::Closed))
    }

    /// What was written is on its way already; a connection that has failed is worth an error.
    fn flush(&self) -> Result<(), StreamError> {
        self.with(|flow, _, _| (flow.socket.failure().map_or(Ok(()), Err), false)).unwrap_or(Err(StreamError::Closed))
    }

    fn is_readable(&self) -> bool {
        self.with(|flow, _, _| (flow.socket.is_readable(), false)).unwrap_or(true)
    }

    fn is_writable(&self) -> bool {
        self.with(|flow, _, pool| (flow.socket.is_writable(pool), false)).unwrap_or(true)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.handle.with(|engine| {
            // After an abort the flow is no longer the application's.
            if engine.flow(self.id).and_then(Flow::tcp).is_some_and(|flow| flow.holder == Holder::Application) {
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
