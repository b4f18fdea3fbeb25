//! One TCP connection: the guest's end in smoltcp, the outside's in a socket of the host.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::event::epoll::EventFlags;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Duration;

use crate::core::{Core, Token};
use crate::frame::FlowKey;
use crate::timers::{Deadline, FlowId};

/// Bytes on their way from the guest, and so the largest window it is offered.
///
/// No more than fits the window field without scaling: smoltcp 0.14 takes the window of its own SYN for a scaled one, accepts segments from beyond
/// its buffer, and panics.
const RECEIVE_BUFFER: usize = u16::MAX as usize;
/// Bytes on their way to the guest, unacknowledged ones included. Both buffers together are a connection's memory, however slow its ends.
const SEND_BUFFER: usize = 128 * 1024;
/// How often an idle guest is asked whether it still knows the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long a guest may be silent while it owes an answer.
const GUEST_TIMEOUT: Duration = Duration::from_secs(180);

/// Who opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Guest,
    Host,
}

/// A connection.
pub(crate) struct Flow {
    pub(crate) key: FlowKey,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) stream: TcpStream,
    pub(crate) deadline: Deadline,
    handle: SocketHandle,
    /// The guest's SYN waits for the outside's answer.
    connecting: bool,
    /// Reading the host's socket may give something.
    readable: bool,
    /// The host's socket may take something.
    writable: bool,
    /// The host's socket reported an error.
    failed: bool,
    /// The outside will send no more, and the guest's end knows.
    host_finished: bool,
    /// The guest will send no more, and the host's socket knows.
    guest_finished: bool,
    queued: bool,
    /// Waits for room on the link.
    pub(crate) blocked: bool,
}

impl Flow {
    /// A connection over `stream`, opened from `opener`'s side. The guest's end is neither listening nor connecting yet.
    pub(crate) fn new(key: FlowKey, stream: TcpStream, opener: Side) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let connecting = opener == Side::Guest;
        let mut socket = Socket::new(SocketBuffer::new(vec![0; RECEIVE_BUFFER]), SocketBuffer::new(vec![0; SEND_BUFFER]));
        // What arrives is passed on as it comes: waiting for more is the ends' business.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(GUEST_TIMEOUT));
        socket.pause_synack(connecting);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Ok(Flow {
            key,
            sockets,
            stream,
            deadline: Deadline::default(),
            handle,
            connecting,
            readable: false,
            writable: false,
            failed: false,
            host_finished: false,
            guest_finished: false,
            queued: false,
            blocked: false,
        })
    }

    /// The guest's end.
    pub(crate) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Has [`crate::tcp::Tcp::serve`] called for this flow, once.
    pub(crate) fn queue(&mut self, core: &mut Core, id: FlowId) {
        if !self.queued {
            self.queued = true;
            core.ready.push_back(Token::Tcp(id));
        }
    }

    /// Whether the outside has yet to answer the guest's SYN.
    pub(crate) fn awaits_connection(&self) -> bool {
        self.connecting
    }

    /// Whether the guest's SYN was accepted by its end.
    pub(crate) fn has_been_opened(&mut self) -> bool {
        self.socket().state() == State::SynReceived
    }

    /// Notes what the kernel reports of the host's socket.
    pub(crate) fn note(&mut self, events: EventFlags) {
        self.readable |= events.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP);
        self.writable |= events.intersects(EventFlags::OUT | EventFlags::HUP);
        self.failed |= events.contains(EventFlags::ERR);
    }

    /// Resets the guest's end.
    pub(crate) fn abort(&mut self) {
        self.connecting = false;
        self.socket().abort();
    }

    /// Moves what both sides are ready for. What the guest's end has to say afterwards is for smoltcp to send.
    pub(crate) fn advance(&mut self) {
        self.queued = false;
        if self.connecting && self.writable && !self.failed {
            self.connecting = false;
            self.socket().pause_synack(false);
        }
        if self.failed {
            self.abort();
        } else if !self.connecting && self.carry_to_host().and_then(|()| self.carry_to_guest()).is_err() {
            self.failed = true;
            self.abort();
        }
    }

    /// Whether nothing is left to do. To be asked when smoltcp has sent all it wanted.
    pub(crate) fn is_over(&mut self) -> bool {
        let (failed, guest_finished) = (self.failed, self.guest_finished);
        let socket = self.socket();
        match socket.state() {
            State::Closed => failed || !socket.can_recv(),
            // The guest reset the connection before it was open.
            State::Listen => true,
            // Our last acknowledgement is sent. Should it be lost, the guest's next FIN is answered with a reset, which ends it as well.
            State::TimeWait => guest_finished,
            _ => false,
        }
    }

    /// Closes the host's socket: in peace if both sides finished, or if the guest did and is gone (`guest_gone`), else with a reset.
    pub(crate) fn close(self, guest_gone: bool) {
        if !(self.guest_finished && (self.host_finished || guest_gone)) {
            let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO));
        }
    }

    fn carry_to_host(&mut self) -> io::Result<()> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.writable && socket.can_recv() {
            let written = socket.recv(|data| count((&self.stream).write(data))).map_err(io::Error::other)?;
            if would_block(written)?.is_none() {
                self.writable = false;
            }
        }
        if !self.guest_finished && socket.recv(|_| (0, ())) == Err(RecvError::Finished) {
            self.guest_finished = true;
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    fn carry_to_guest(&mut self) -> io::Result<()> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        while self.readable && !self.host_finished && socket.can_send() {
            let read = socket.send(|room| count((&self.stream).read(room))).map_err(io::Error::other)?;
            match would_block(read)? {
                None => self.readable = false,
                Some(0) => {
                    self.host_finished = true;
                    socket.close();
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// A transfer's result as smoltcp's buffers want it: how many bytes moved, and the result itself.
fn count(result: io::Result<usize>) -> (usize, io::Result<usize>) {
    (result.as_ref().copied().unwrap_or(0), result)
}

/// A transfer's result, or `None` if the socket was not ready for it.
fn would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
