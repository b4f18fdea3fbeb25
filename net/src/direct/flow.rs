//! A flow: one socket in a set of its own, so that work on it touches no other.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{Socket, tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpSeqNumber;

use super::clock::Clock;
use super::config::{Config, CongestionControl};
use super::demultiplex::{FlowKey, Segment};
use super::device::Tally;
use crate::stack::StreamError;

/// What a TCP flow takes besides its buffers, in bytes: smoltcp's socket with 32 assembler entries, the flow, its places in the tables.
const OVERHEAD: usize = 2048;

/// For how long an acknowledgement may wait for data to go with it: RFC 1122, section 4.2.3.2, allows half a second.
const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_millis(10);

/// What a TCP flow takes with buffers of `buffer` bytes per direction.
pub(super) const fn cost(buffer: usize) -> usize {
    2 * buffer + OVERHEAD
}

/// Who a flow belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A connection in its handshake, at this place in the table of those.
    Handshake(usize),
    /// The queue of a listener.
    Backlog,
    /// The application.
    Application,
    /// A connection that the application has dropped and that is being closed.
    Nobody,
}

pub(super) struct Flow {
    pub(super) set: SocketSet<'static>,
    handle: SocketHandle,
    pub(super) kind: Kind,
    /// On the list of flows to attend to.
    pub(super) dirty: bool,
}

pub(super) enum Kind {
    Tcp(TcpFlow),
    Udp(UdpFlow),
}

/// What a TCP flow has besides its socket.
#[derive(Clone, Copy)]
pub(super) struct TcpFlow {
    pub(super) key: FlowKey,
    pub(super) holder: Holder,
    /// In the table of connections.
    pub(super) mapped: bool,
    /// In TIME-WAIT with nothing left to send; kept only because the application has not read everything.
    pub(super) resting: bool,
    /// Why it failed, if it did.
    pub(super) failure: Option<StreamError>,
    /// When it is given up, whatever its state.
    pub(super) close_by: Option<Instant>,
    /// The sequence number of the first byte that the application has not read.
    pub(super) unread: TcpSeqNumber,
    /// Nothing has been sent on it since the handshake.
    pub(super) fresh: bool,
    /// The sequence number after the peer's FIN.
    pub(super) peer_end: TcpSeqNumber,
    /// Its buffers' size per direction.
    pub(super) buffer: usize,
    /// The time that its socket goes by.
    pub(super) clock: Clock,
    /// Waiting for its next hop's hardware address.
    pub(super) awaiting: bool,
    /// What it has sent and received.
    pub(super) tally: Tally,
}

impl TcpFlow {
    fn new(key: FlowKey, holder: Holder, buffer: usize, now: Instant) -> Self {
        Self {
            key,
            holder,
            mapped: false,
            resting: false,
            failure: None,
            close_by: None,
            unread: TcpSeqNumber(0),
            fresh: true,
            peer_end: TcpSeqNumber(0),
            buffer,
            clock: Clock::new(now),
            awaiting: false,
            tally: Tally::default(),
        }
    }

    /// Whether `segment` carries bytes for which there is no room, so that no honest peer sends it.
    ///
    /// smoltcp 0.14 takes the window of its own SYN for a scaled one until it has sent something else, and panics when it is sent as much. The one
    /// byte beyond the window that probes whether it has opened is let through when smoltcp knows better.
    pub(super) fn overruns(&self, segment: &Segment) -> bool {
        let room = self.unread + self.buffer + usize::from(!self.fresh);
        segment.payload > 0 && segment.sequence + segment.payload > room
    }
}

/// What a UDP flow has besides its socket.
#[derive(Clone, Copy, Default)]
pub(super) struct UdpFlow {
    /// How many of its datagrams wait for a neighbour's hardware address.
    pub(super) held: usize,
    /// The application has dropped it; what it has sent still goes out.
    pub(super) closing: bool,
    /// When it is given up.
    pub(super) close_by: Option<Instant>,
}

impl Flow {
    /// A TCP flow with a new socket.
    pub(super) fn new_tcp(buffer: usize) -> Box<Self> {
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; buffer]), tcp::SocketBuffer::new(vec![0; buffer]));
        // The driver sends once after the application's tasks have run: that collects small writes better than Nagle's wait for an acknowledgement.
        socket.set_nagle_enabled(false);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        let flow = TcpFlow::new(FlowKey::NONE, Holder::Nobody, buffer, Instant::ZERO);
        Box::new(Self { set, handle, kind: Kind::Tcp(flow), dirty: false })
    }

    /// Readies a TCP flow for a connection, a used one as well as a new one.
    pub(super) fn prepare(&mut self, key: FlowKey, holder: Holder, config: &Config, now: Instant) {
        // Taken out and put back: the set remembers about a socket which neighbour it waits for.
        if let Socket::Tcp(mut socket) = self.set.remove(self.handle) {
            socket.set_congestion_control(match config.congestion_control {
                CongestionControl::None => tcp::CongestionControl::None,
                CongestionControl::Reno => tcp::CongestionControl::Reno,
            });
            self.handle = self.set.add(socket);
        }
        let buffer = self.tcp_state().map_or(0, |flow| flow.buffer);
        self.kind = Kind::Tcp(TcpFlow { mapped: true, ..TcpFlow::new(key, holder, buffer, now) });
        self.dirty = false;
        self.keep_time(config, 1);
    }

    /// The handshake is over: the flow's clock goes as fast as the path allows.
    pub(super) fn establish(&mut self, config: &Config, now: Instant) {
        if let Some((_, state)) = self.tcp() {
            let rate = state.clock.speed_up(now, Clock::fastest(duration(config.least_rto)));
            self.keep_time(config, rate);
        }
    }

    /// Tells the socket what the stack says in seconds, on a clock that goes so much faster.
    fn keep_time(&mut self, config: &Config, rate: u32) {
        if let Some((socket, _)) = self.tcp() {
            socket.set_ack_delay(Some(ACKNOWLEDGEMENT_DELAY * rate));
            socket.set_keep_alive(Some(duration(config.keep_alive) * rate));
            socket.set_timeout(Some(duration(config.timeout) * rate));
        }
    }

    /// A UDP flow bound to `port` whose queues hold `buffer` bytes per direction.
    pub(super) fn new_udp(port: u16, buffer: usize) -> Box<Self> {
        // A datagram takes a record and its payload; with 256 bytes each neither runs out long before the other.
        let queue = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; (buffer / 256).max(4)], vec![0; buffer]);
        let mut socket = udp::Socket::new(queue(), queue());
        // Fails on port 0 and on a socket that is bound, neither of which this one is.
        let _ = socket.bind(port);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Box::new(Self { set, handle, kind: Kind::Udp(UdpFlow::default()), dirty: false })
    }

    pub(super) fn tcp_state(&self) -> Option<&TcpFlow> {
        match &self.kind {
            Kind::Tcp(flow) => Some(flow),
            Kind::Udp(_) => None,
        }
    }

    /// The TCP socket and what belongs to it; `None` on a UDP flow.
    pub(super) fn tcp(&mut self) -> Option<(&mut tcp::Socket<'static>, &mut TcpFlow)> {
        match &mut self.kind {
            Kind::Tcp(flow) => Some((self.set.get_mut(self.handle), flow)),
            Kind::Udp(_) => None,
        }
    }

    /// The UDP socket and what belongs to it; `None` on a TCP flow.
    pub(super) fn udp(&mut self) -> Option<(&mut udp::Socket<'static>, &mut UdpFlow)> {
        match &mut self.kind {
            Kind::Udp(flow) => Some((self.set.get_mut(self.handle), flow)),
            Kind::Tcp(_) => None,
        }
    }
}

/// Throws away what a peer still sends to a connection that nobody reads, so that it can send its end.
pub(super) fn drain(socket: &mut tcp::Socket<'static>, flow: &mut TcpFlow) {
    while socket.can_recv() {
        match socket.recv(|bytes| (bytes.len(), bytes.len())) {
            Ok(length) => flow.unread += length,
            Err(_) => break,
        }
    }
}

pub(super) fn duration(duration: fogbow::time::Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

pub(super) fn instant(instant: fogbow::time::Instant) -> Instant {
    Instant::from_micros((instant.as_nanos() / 1000).cast_signed())
}
