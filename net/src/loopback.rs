//! The loopback stack: a network without wires, whose only host is the image itself.
//!
//! Applications test themselves on it: under `fogbow::simulation` a server and its clients run in one test, in virtual time. Segments are kept
//! apart: a read never gives bytes of two writes, so that a test decides how its bytes arrive.
//!
//! Limits: nothing is lost, delayed or reordered; for that there are simulated frame devices under the direct stack.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::task::{Context, Poll, Waker};

use embedded_io_async::{ErrorType, Read, Write};

use crate::{AcceptError, BindError, ConnectError, ListenError, Stack, StreamError, UdpError};

/// Bytes on their way in each direction of a connection; a writer waits while there are as many.
const IN_FLIGHT: usize = 16 * 1024;

/// Connections that wait to be accepted on a port; further ones are refused.
const BACKLOG: usize = 128;

/// Datagrams that wait to be received on a port; further ones are lost.
const DATAGRAMS: usize = 64;

/// The first port that is picked where none is asked for (RFC 6335, section 6: the dynamic ports).
const FIRST_DYNAMIC_PORT: u16 = 49_152;

/// A stack that reaches nothing but itself.
#[derive(Clone, Default)]
pub struct Loopback(Rc<RefCell<Ports>>);

#[derive(Default)]
struct Ports {
    listeners: BTreeMap<u16, Weak<RefCell<Backlog>>>,
    sockets: BTreeMap<u16, Weak<RefCell<Mailbox>>>,
    picked: u16,
}

impl Ports {
    fn pick(&mut self, is_taken: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        let range = u16::MAX - FIRST_DYNAMIC_PORT;
        (0..range).find_map(|_| {
            self.picked = (self.picked + 1) % range;
            let port = FIRST_DYNAMIC_PORT + self.picked;
            (!is_taken(self, port)).then_some(port)
        })
    }
}

impl Loopback {
    /// A network of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

const fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn is_alive<T>(entry: Option<&Weak<T>>) -> bool {
    entry.is_some_and(|entry| entry.strong_count() > 0)
}

impl Stack for Loopback {
    type Listener = Listener;
    type Stream = Stream;
    type UdpSocket = UdpSocket;

    fn address(&self) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::LOCALHOST)
    }

    fn listen(&self, port: u16) -> Result<Listener, ListenError> {
        let mut ports = self.0.borrow_mut();
        let is_taken = |ports: &Ports, port| is_alive(ports.listeners.get(&port));
        let port = match port {
            0 => ports.pick(is_taken).ok_or(ListenError::Exhausted)?,
            port if is_taken(&ports, port) => return Err(ListenError::InUse),
            port => port,
        };
        let backlog = Rc::default();
        ports.listeners.insert(port, Rc::downgrade(&backlog));
        Ok(Listener { backlog, port })
    }

    async fn connect(&self, remote: SocketAddr) -> Result<Stream, ConnectError> {
        let mut ports = self.0.borrow_mut();
        let backlog = match ports.listeners.get(&remote.port()).and_then(Weak::upgrade) {
            Some(backlog) if remote.ip() == Ipv4Addr::LOCALHOST => backlog,
            _ => return Err(ConnectError::Refused),
        };
        if backlog.borrow().waiting.len() == BACKLOG {
            return Err(ConnectError::Refused);
        }
        let local = at(ports.pick(|_, _| false).ok_or(ConnectError::Exhausted)?);
        let (there, back): (Rc<RefCell<Pipe>>, Rc<RefCell<Pipe>>) = Default::default();
        let server = End { incoming: Rc::clone(&there), outgoing: Rc::clone(&back), peer: local, local: remote };
        let mut backlog = backlog.borrow_mut();
        backlog.waiting.push_back(Stream(Rc::new(server)));
        wake(&mut backlog.acceptor);
        Ok(Stream(Rc::new(End { incoming: back, outgoing: there, peer: remote, local })))
    }

    fn bind(&self, port: u16) -> Result<UdpSocket, BindError> {
        let mut ports = self.0.borrow_mut();
        let is_taken = |ports: &Ports, port| is_alive(ports.sockets.get(&port));
        let port = match port {
            0 => ports.pick(is_taken).ok_or(BindError::Exhausted)?,
            port if is_taken(&ports, port) => return Err(BindError::InUse),
            port => port,
        };
        let mailbox = Rc::default();
        ports.sockets.insert(port, Rc::downgrade(&mailbox));
        Ok(UdpSocket { ports: Rc::clone(&self.0), mailbox, port })
    }
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

fn wait<T>(waiting: &mut Option<Waker>, context: &Context<'_>) -> Poll<T> {
    match waiting {
        Some(waker) => waker.clone_from(context.waker()),
        None => *waiting = Some(context.waker().clone()),
    }
    Poll::Pending
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Stream>,
    acceptor: Option<Waker>,
}

/// A port of a [`Loopback`] that accepts connections.
pub struct Listener {
    backlog: Rc<RefCell<Backlog>>,
    port: u16,
}

impl crate::Listener for Listener {
    type Stream = Stream;

    async fn accept(&mut self) -> Result<Stream, AcceptError> {
        poll_fn(|context| {
            let mut backlog = self.backlog.borrow_mut();
            match backlog.waiting.pop_front() {
                Some(stream) => Poll::Ready(Ok(stream)),
                None => wait(&mut backlog.acceptor, context),
            }
        })
        .await
    }

    fn port(&self) -> u16 {
        self.port
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// How many bytes each write brought that has not been read whole.
    segments: VecDeque<usize>,
    /// The writer sends no more.
    ended: bool,
    /// One end is gone: what is written can no longer be read.
    broken: bool,
    /// The connection was reset: what was written is lost.
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn poll_read(&mut self, into: &mut [u8], context: &Context<'_>) -> Poll<Result<usize, StreamError>> {
        if self.reset {
            return Poll::Ready(Err(StreamError::Reset));
        }
        let Some(segment) = self.segments.front_mut() else {
            return if self.ended { Poll::Ready(Ok(0)) } else { wait(&mut self.reader, context) };
        };
        let length = into.len().min(*segment);
        *segment -= length;
        if *segment == 0 {
            self.segments.pop_front();
        }
        let (front, back) = self.bytes.as_slices();
        let from_front = length.min(front.len());
        into[..from_front].copy_from_slice(&front[..from_front]);
        into[from_front..length].copy_from_slice(&back[..length - from_front]);
        self.bytes.drain(..length);
        wake(&mut self.writer);
        Poll::Ready(Ok(length))
    }

    fn poll_write(&mut self, bytes: &[u8], context: &Context<'_>) -> Poll<Result<usize, StreamError>> {
        if self.broken || self.reset {
            return Poll::Ready(Err(StreamError::Reset));
        }
        if self.ended {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let length = bytes.len().min(IN_FLIGHT - self.bytes.len());
        if length == 0 && !bytes.is_empty() {
            return wait(&mut self.writer, context);
        }
        if length > 0 {
            self.bytes.extend(&bytes[..length]);
            self.segments.push_back(length);
            wake(&mut self.reader);
        }
        Poll::Ready(Ok(length))
    }

    fn set(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

/// One end of a connection; it closes when the last part of it is dropped.
struct End {
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl End {
    async fn read(&self, into: &mut [u8]) -> Result<usize, StreamError> {
        if into.is_empty() {
            return Ok(0);
        }
        poll_fn(|context| self.incoming.borrow_mut().poll_read(into, context)).await
    }

    async fn write(&self, bytes: &[u8]) -> Result<usize, StreamError> {
        poll_fn(|context| self.outgoing.borrow_mut().poll_write(bytes, context)).await
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let was_read = self.incoming.borrow().bytes.is_empty();
        // As TCP does (RFC 1122, section 4.2.2.13): who closes without having read everything resets the connection.
        self.outgoing.borrow_mut().set(|pipe| if was_read { pipe.ended = true } else { pipe.reset = true });
        self.incoming.borrow_mut().set(|pipe| pipe.broken = true);
    }
}

/// A connection over a [`Loopback`].
pub struct Stream(Rc<End>);
/// The reading half of a [`Stream`].
pub struct ReadHalf(Rc<End>);
/// The writing half of a [`Stream`].
pub struct WriteHalf(Rc<End>);

impl crate::Stream for Stream {
    type ReadHalf = ReadHalf;
    type WriteHalf = WriteHalf;

    fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    fn local(&self) -> SocketAddr {
        self.0.local
    }

    async fn shutdown(&mut self) -> Result<(), StreamError> {
        self.0.outgoing.borrow_mut().set(|pipe| pipe.ended = true);
        Ok(())
    }

    fn abort(self) {
        self.0.outgoing.borrow_mut().set(|pipe| pipe.reset = true);
        self.0.incoming.borrow_mut().set(|pipe| pipe.reset = true);
    }

    fn split(self) -> (ReadHalf, WriteHalf) {
        (ReadHalf(Rc::clone(&self.0)), WriteHalf(self.0))
    }
}

macro_rules! over_end {
    ($($name:ident)+) => {$(
        impl ErrorType for $name {
            type Error = StreamError;
        }
    )+};
    (Read: $($name:ident)+) => {$(
        impl Read for $name {
            async fn read(&mut self, into: &mut [u8]) -> Result<usize, StreamError> {
                self.0.read(into).await
            }
        }
    )+};
    (Write: $($name:ident)+) => {$(
        impl Write for $name {
            async fn write(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
                self.0.write(bytes).await
            }

            async fn flush(&mut self) -> Result<(), StreamError> {
                Ok(())
            }
        }
    )+};
}

over_end!(Stream ReadHalf WriteHalf);
over_end!(Read: Stream ReadHalf);
over_end!(Write: Stream WriteHalf);

#[derive(Default)]
struct Mailbox {
    datagrams: VecDeque<(Vec<u8>, SocketAddr)>,
    receiver: Option<Waker>,
}

/// A UDP socket of a [`Loopback`].
pub struct UdpSocket {
    ports: Rc<RefCell<Ports>>,
    mailbox: Rc<RefCell<Mailbox>>,
    port: u16,
}

impl crate::UdpSocket for UdpSocket {
    async fn receive_from(&self, into: &mut [u8]) -> Result<(usize, SocketAddr), UdpError> {
        poll_fn(|context| {
            let mut mailbox = self.mailbox.borrow_mut();
            let Some((datagram, sender)) = mailbox.datagrams.pop_front() else {
                return wait(&mut mailbox.receiver, context);
            };
            let length = datagram.len().min(into.len());
            into[..length].copy_from_slice(&datagram[..length]);
            Poll::Ready(Ok((length, sender)))
        })
        .await
    }

    async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<(), UdpError> {
        if to.ip() != Ipv4Addr::LOCALHOST {
            return Err(UdpError::Unreachable);
        }
        if let Some(mailbox) = self.ports.borrow().sockets.get(&to.port()).and_then(Weak::upgrade) {
            let mut mailbox = mailbox.borrow_mut();
            if mailbox.datagrams.len() < DATAGRAMS {
                mailbox.datagrams.push_back((datagram.into(), at(self.port)));
                wake(&mut mailbox.receiver);
            }
        }
        Ok(())
    }

    fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Listener as _, Stream as _, UdpSocket as _};
    use fogbow::simulation::Simulation;

    fn run(test: impl AsyncFnOnce(Loopback) + 'static) {
        Simulation::new(1).block_on(async { test(Loopback::new()).await });
    }

    #[test]
    fn segments_are_kept_apart_and_the_end_comes_last() {
        run(async |stack| {
            let mut listener = stack.listen(80).unwrap();
            let mut client = stack.connect(at(80)).await.unwrap();
            client.write_all(b"ab").await.unwrap();
            client.write_all(b"cde").await.unwrap();
            client.shutdown().await.unwrap();
            let mut server = listener.accept().await.unwrap();
            let mut chunk = [0; 8];
            assert_eq!(server.read(&mut chunk[..1]).await, Ok(1));
            assert_eq!(server.read(&mut chunk).await, Ok(1));
            assert_eq!((server.read(&mut chunk).await, &chunk[..3]), (Ok(3), &b"cde"[..]));
            assert_eq!(server.read(&mut chunk).await, Ok(0));
            server.write_all(b"x").await.unwrap();
            drop(server);
            assert_eq!((client.read(&mut chunk).await, client.read(&mut chunk).await), (Ok(1), Ok(0)));
        });
    }

    #[test]
    fn a_writer_waits_for_its_reader() {
        run(async |stack| {
            let mut listener = stack.listen(80).unwrap();
            let mut client = stack.connect(at(80)).await.unwrap();
            let mut server = listener.accept().await.unwrap();
            let sent = fogbow::spawn(async move {
                client.write_all(&[7; 3 * IN_FLIGHT]).await.unwrap();
            });
            let mut received = 0;
            let mut chunk = [0; 5000];
            loop {
                match server.read(&mut chunk).await.unwrap() {
                    0 => break,
                    length => received += length,
                }
            }
            assert_eq!(received, 3 * IN_FLIGHT);
            sent.await;
        });
    }

    #[test]
    fn resets_and_refusals_are_seen() {
        run(async |stack| {
            assert_eq!(stack.connect(at(80)).await.err(), Some(ConnectError::Refused));
            let mut listener = stack.listen(80).unwrap();
            assert_eq!(stack.listen(80).err(), Some(ListenError::InUse));
            let mut client = stack.connect(at(80)).await.unwrap();
            listener.accept().await.unwrap().abort();
            assert_eq!(client.read(&mut [0]).await, Err(StreamError::Reset));
            let mut client = stack.connect(at(80)).await.unwrap();
            client.write_all(b"unread").await.unwrap();
            listener.accept().await.unwrap().write_all(b"lost").await.unwrap();
            assert_eq!(client.read(&mut [0]).await, Err(StreamError::Reset));
            drop(listener);
            assert!(stack.listen(80).is_ok());
        });
    }

    #[test]
    fn datagrams_arrive_whole_or_cut_off() {
        run(async |stack| {
            let (one, other) = (stack.bind(0).unwrap(), stack.bind(7).unwrap());
            one.send_to(b"hello", at(7)).await.unwrap();
            one.send_to(b"lost", at(8)).await.unwrap();
            let mut into = [0; 3];
            assert_eq!(other.receive_from(&mut into).await, Ok((3, at(one.port()))));
            assert_eq!(&into, b"hel");
        });
    }
}
