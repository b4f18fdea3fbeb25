//! The engine: all state of a stack, and the way of each frame in and out.
//!
//! It knows no device and no task: the [driver](super::driver) hands frames in and lets frames out.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;
use core::net::Ipv4Addr;
use core::task::Waker;

use hashbrown::HashMap;
use slab::Slab;
use smoltcp::iface::{self, Interface, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, TcpControl, TcpRepr};

use super::config::{Config, DirectError};
use super::counters::{Cause, Statistics};
use super::demultiplex::{self, FlowKey, Frame, Keyed};
use super::device::{self, Port, To, Wire};
use super::flow;
use super::flow::{Flow, Holder, Kind, TcpFlow};
use super::listeners::Listening;
use super::neighbours::Neighbours;
use super::timers::Timers;
use crate::frame::{Checksums, FrameInfo, FrameTransmitter, Offload};
use crate::tcp::{Pool, Seq, Socket, State, Verdict};

/// MTUs that make sense: every IPv4 host takes 576 bytes (RFC 791), and 9000 are the largest frames in use.
const MTU_LIMITS: core::ops::RangeInclusive<usize> = 576..=9000;
/// Frames that a flow may send before others have their turn.
pub(super) const BURST: usize = 64;
/// Frames sent in one pass, all flows together, before frames that have come have their turn: a few batches of those, so that neither starves.
const PASS: usize = 256;
/// What stands for a connection in the table of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// This flow.
    Flow(u32),
    /// A closed one, reserved until the moment given; `next` is the sequence number after the peer's last.
    TimeWait { next: Seq, until: Instant },
}

pub(super) struct Engine {
    pub(super) config: Config,
    pub(super) mtu: usize,
    pub(super) offload: Offload,
    pub(super) mac: EthernetAddress,
    pub(super) interface: Interface,
    /// For frames that belong to no flow: the interface answers echo requests, ARP and segments to closed ports by itself.
    nothing: SocketSet<'static>,
    pub(super) flows: Slab<Box<Flow>>,
    pub(super) connections: HashMap<FlowKey, Entry, Keyed>,
    pub(super) listeners: HashMap<u16, Listening, Keyed>,
    pub(super) datagrams: HashMap<u16, u32, Keyed>,
    /// Flows in their handshake.
    pub(super) half_open: Vec<u32>,
    /// Until when a SYN cookie may come back.
    pub(super) cookies_until: Option<Instant>,
    /// Connections that nobody holds: they give way to new ones.
    pub(super) orphans: Vec<u32>,
    pub(super) time_wait: VecDeque<(Instant, FlowKey)>,
    /// Flows to attend to, each once.
    dirty: VecDeque<u32>,
    pub(super) timers: Timers,
    pub(super) neighbours: Neighbours,
    /// When this stack has last said that its address is taken.
    pub(super) defended: Option<Instant>,
    /// A packet whose destination is not known yet.
    pub(super) scratch: Vec<u8>,
    /// Flows of closed connections, to be used again.
    #[expect(clippy::vec_box, reason = "the boxes themselves are used again: taking one out moves a pointer and allocates nothing")]
    pub(super) spare: Vec<Box<Flow>>,
    pub(super) pool: Pool,
    pub(super) tcp_flows: usize,
    pub(super) keyed: Keyed,
    pub(super) draws: u64,
    /// The driver, while it waits.
    pub(super) driver: Option<Waker>,
    /// Whether the driver shall look whether it is still needed.
    pub(super) look_again: bool,
    /// When the driver last looked at the clock.
    pub(super) now: Instant,
    pub(super) statistics: Statistics,
}

impl Engine {
    pub(super) fn new<T: FrameTransmitter>(
        config: Config,
        info: FrameInfo,
        transmitter: &mut T,
        random: [u64; 3],
        now: Instant,
    ) -> Result<Self, DirectError> {
        config.check()?;
        let mac = EthernetAddress(info.mac.0);
        if !mac.is_unicast() {
            return Err(DirectError::HardwareAddress);
        }
        if !MTU_LIMITS.contains(&info.mtu) {
            return Err(DirectError::Mtu);
        }
        let mut settings = iface::Config::new(HardwareAddress::Ip);
        settings.random_seed = random[2];
        let mut statistics = Statistics::default();
        let wire = Wire { transmitter, statistics: &mut statistics, mac, offload: info.offload };
        let mut port = Port { packet: None, wire, to: To::Nobody, mtu: info.mtu };
        let mut interface = Interface::new(settings, &mut port, now);
        // The list is not full: it is empty.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(config.ipv4.address), config.ipv4.prefix_length));
        });
        let keyed = Keyed(random[0], random[1]);
        let neighbours = Neighbours::new(keyed, config.neighbours);
        let pool = Pool::new(config.tcp_memory, config.tcp_buffer, config.max_connections);
        Ok(Self {
            config,
            mtu: info.mtu,
            offload: info.offload,
            mac,
            interface,
            nothing: SocketSet::new(Vec::new()),
            flows: Slab::new(),
            connections: HashMap::with_hasher(keyed),
            listeners: HashMap::with_hasher(keyed),
            datagrams: HashMap::with_hasher(keyed),
            half_open: Vec::new(),
            cookies_until: None,
            orphans: Vec::new(),
            time_wait: VecDeque::new(),
            dirty: VecDeque::new(),
            timers: Timers::default(),
            neighbours,
            defended: None,
            scratch: Vec::new(),
            spare: Vec::new(),
            pool,
            tcp_flows: 0,
            keyed,
            draws: 0,
            driver: None,
            look_again: false,
            now,
            statistics,
        })
    }

    pub(super) fn flow(&mut self, id: u32) -> Option<&mut Flow> {
        self.flows.get_mut(id as usize).map(|flow| &mut **flow)
    }

    /// Puts a flow on the list of those to attend to, and the driver to work.
    pub(super) fn mark_dirty(&mut self, id: u32) {
        if let Some(flow) = self.flows.get_mut(id as usize)
            && !flow.dirty
        {
            flow.dirty = true;
            self.dirty.push_back(id);
            self.wake_driver();
        }
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// The application has something to do: sees what time it is, unless the driver has just done so.
    pub(super) fn refresh(&mut self) {
        if self.driver.is_some() {
            self.now = flow::instant(fogbow::time::now());
        }
    }

    /// The last handle to the stack may be gone: lets the driver see.
    pub(super) fn look_again(&mut self) {
        self.look_again = true;
        self.wake_driver();
    }

    /// Whether there is something to do at once.
    pub(super) fn has_work(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When there is something to do next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match (self.timers.next(), self.neighbours.next()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The neighbour that a packet to `destination` goes to first; `None` when no route leads there.
    pub(super) fn next_hop(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.config.ipv4.contains(destination) { Some(destination) } else { self.config.gateway }
    }

    /// The device, for frames that smoltcp has no part in.
    pub(super) fn wire<'a, T>(&'a mut self, transmitter: &'a mut T) -> Wire<'a, T> {
        Wire { transmitter, statistics: &mut self.statistics, mac: self.mac, offload: self.offload }
    }

    /// Takes a frame from the wire.
    pub(super) fn ingress<T: FrameTransmitter>(&mut self, frame: &[u8], checksums: Checksums, transmitter: &mut T) {
        self.statistics.frames_received += 1;
        self.statistics.bytes_received += frame.len() as u64;
        match demultiplex::classify(frame, checksums, self.mac, &self.config.ipv4) {
            Ok(Frame::Tcp { key, from, segment }) => self.ingress_segment(key, from, &segment, transmitter),
            Ok(Frame::Udp { port, alone }) => match self.datagrams.get(&port).copied() {
                Some(id) => self.ingress_datagram(id, frame, transmitter),
                None if alone => self.answer(frame, transmitter),
                None => self.statistics.drops.count(Cause::Broadcast),
            },
            Ok(Frame::Arp(message)) => self.ingress_arp(&message, transmitter),
            Ok(Frame::Unreachable(message)) => self.ingress_unreachable(message),
            Ok(Frame::Other) => self.answer(frame, transmitter),
            Err(cause) => self.statistics.drops.count(cause),
        }
    }

    /// Lets smoltcp process a frame that belongs to no flow.
    fn answer<T: FrameTransmitter>(&mut self, frame: &[u8], transmitter: &mut T) {
        let wire = Wire { transmitter, statistics: &mut self.statistics, mac: self.mac, offload: self.offload };
        let (from, packet) = device::open(frame);
        let mut port = Port { packet: Some(packet), wire, to: To::Neighbour(from), mtu: self.mtu };
        self.interface.poll_ingress_single(self.now, &mut port, &mut self.nothing);
    }

    fn ingress_segment<T: FrameTransmitter>(&mut self, key: FlowKey, from: EthernetAddress, segment: &TcpRepr, transmitter: &mut T) {
        let is_listened_to = self.listeners.contains_key(&key.local_port());
        let is_request = segment.control == TcpControl::Syn && segment.ack_number.is_none();
        match self.connections.get(&key) {
            Some(&Entry::Flow(id)) => {
                if self.ingress_flow(id, segment) == Verdict::Stray {
                    let own = self.config.ipv4.address;
                    self.wire(transmitter).refuse(from, own, key.remote(), segment);
                }
            }
            // A new connection may take the record's place if its sequence numbers are beyond the old ones (RFC 9293, section 3.6.1).
            Some(&Entry::TimeWait { next, until }) if self.now < until && !(is_request && sequence(segment) > next) => {
                self.ingress_time_wait(key, from, next, segment, transmitter);
            }
            _ if is_request && is_listened_to => {
                self.connections.remove(&key);
                if self.is_flooded() {
                    self.send_cookie(key, from, segment, transmitter);
                } else if let Some(id) =
                    self.admit(key, |settings, initial, now, pool, flight| Socket::answer(settings, segment, initial, now, pool, flight))
                {
                    self.mark_dirty(id);
                }
            }
            // No segment of a connection, and none that begins one (RFC 9293, section 3.10.7.2).
            _ if is_listened_to && segment.ack_number.is_none() => self.statistics.drops.count(Cause::Malformed),
            _ => {
                if !(is_listened_to && self.ingress_cookie(key, segment)) {
                    let own = self.config.ipv4.address;
                    self.wire(transmitter).refuse(from, own, key.remote(), segment);
                }
            }
        }
    }

    pub(super) fn ingress_flow(&mut self, id: u32, segment: &TcpRepr) -> Verdict {
        let Self { flows, statistics, pool, now, .. } = self;
        let Some(flow) = flows.get_mut(id as usize).and_then(|flow| flow.tcp()) else { return Verdict::Taken };
        statistics.flow_polls += 1;
        flow.counters.segments_received += 1;
        let verdict = flow.socket.process(segment, *now, pool);
        if let Verdict::Dropped(cause) = verdict {
            statistics.drops.count(cause);
        }
        match (flow.holder, flow.socket.state()) {
            (Holder::Handshake(_), State::SynReceived) => {}
            (Holder::Handshake(_), State::Closed) => {
                self.discard(id);
                return verdict;
            }
            (Holder::Handshake(_), _) => self.promote(id),
            (Holder::Application, state) if !matches!(state, State::SynSent | State::SynReceived) => flow.close_by = None,
            _ => {}
        }
        self.mark_dirty(id);
        verdict
    }

    /// A segment of a connection that is only a record. A retransmitted FIN is acknowledged again, and a reset does not end the wait (RFC 1337).
    fn ingress_time_wait<T: FrameTransmitter>(
        &mut self,
        key: FlowKey,
        from: EthernetAddress,
        next: Seq,
        segment: &TcpRepr,
        transmitter: &mut T,
    ) {
        let carries = !segment.payload.is_empty() || segment.control == TcpControl::Fin;
        if carries && segment.control != TcpControl::Rst && transmitter.has_room() {
            let own = self.config.ipv4.address;
            self.wire(transmitter).acknowledge_again(from, own, key.remote(), segment, next);
        } else {
            self.statistics.drops.count(Cause::TimeWait);
        }
    }

    /// Sends what flows have to send: those on the list, and those whose deadline has come, as many as one pass allows.
    pub(super) fn egress<T: FrameTransmitter>(&mut self, transmitter: &mut T) {
        let mut left = PASS;
        for _ in 0..self.dirty.len() {
            let Some(id) = self.dirty.pop_front_if(|_| left > 0) else { break };
            if let Some(flow) = self.flows.get_mut(id as usize)
                && mem::take(&mut flow.dirty)
            {
                left = left.saturating_sub(self.attend(id, transmitter).max(1));
            }
        }
        while left > 0
            && let Some(id) = self.timers.pop_due(self.now)
        {
            left -= 1;
            if !self.is_overdue(id) {
                left = left.saturating_sub(self.attend(id, transmitter));
            }
        }
        self.ask_neighbours(transmitter);
        self.expire_time_wait();
    }

    /// Gives up a flow whose time has run out. True when nothing is left of it to attend to.
    fn is_overdue(&mut self, id: u32) -> bool {
        let now = self.now;
        let Some(flow) = self.flow(id).and_then(Flow::tcp) else { return false };
        if flow.close_by.is_none_or(|limit| now < limit) {
            return false;
        }
        if let Holder::Handshake(_) = flow.holder {
            self.statistics.drops.count(Cause::HandshakeTimeout);
            self.discard(id);
            return true;
        }
        flow.socket.abort();
        false
    }

    /// Lets a flow send, then sees what has become of it and when it wants attention next. Gives how many frames it has sent.
    fn attend<T: FrameTransmitter>(&mut self, id: u32, transmitter: &mut T) -> usize {
        let linger = self.now + flow::duration(self.config.linger);
        let remote = match self.flows.get_mut(id as usize).map(|flow| &mut flow.kind) {
            Some(Kind::Tcp(flow)) if flow.resting => return 0,
            Some(Kind::Tcp(flow)) => {
                if flow.holder == Holder::Nobody {
                    flow.close_by.get_or_insert(linger);
                }
                flow.key.remote()
            }
            Some(Kind::Udp(_)) => return self.attend_datagrams(id, transmitter),
            None => return 0,
        };
        let hop = self.next_hop(remote);
        let hardware = hop.and_then(|hop| self.neighbours.find(hop, self.now));
        let sent = match hardware {
            Some(hardware) => self.send_segments(id, remote, hardware, transmitter),
            None => 0,
        };
        let mut deadline = self.flow(id).and_then(Flow::tcp).and_then(|flow| flow.socket.poll_at());
        if hardware.is_none()
            && let Some(hop) = hop
        {
            deadline = Some(self.await_neighbour(id, hop));
            let now = self.now;
            if let Some(flow) = self.flow(id).and_then(Flow::tcp) {
                flow.socket.wait(now);
            }
        } else if sent >= BURST || !transmitter.has_room() {
            self.mark_dirty(id);
        }
        self.settle(id, deadline);
        sent
    }

    /// Sends what a connection has to send, up to a burst.
    fn send_segments<T: FrameTransmitter>(&mut self, id: u32, remote: Ipv4Addr, hardware: EthernetAddress, transmitter: &mut T) -> usize {
        let Self { flows, statistics, config, mac, offload, now, .. } = self;
        let Some(TcpFlow { socket, counters, .. }) = flows.get_mut(id as usize).and_then(|flow| flow.tcp()) else { return 0 };
        let mut wire = Wire { transmitter, statistics, mac: *mac, offload: *offload };
        wire.statistics.flow_polls += 1;
        let mut sent = 0;
        while sent < BURST && wire.transmitter.has_room() {
            let Some(outgoing) = socket.next(*now) else { break };
            counters.segments_sent += 1;
            counters.bytes_sent += outgoing.length as u64;
            counters.retransmissions += u64::from(outgoing.again);
            wire.statistics.retransmissions += u64::from(outgoing.again);
            wire.send_segment(hardware, config.ipv4.address, remote, &outgoing.header, socket.payload(&outgoing), outgoing.segment);
            sent += weight(outgoing.length);
        }
        sent
    }

    /// Files a connection under what has become of it.
    fn settle(&mut self, id: u32, deadline: Option<Instant>) {
        let Some(flow) = self.flow(id).and_then(Flow::tcp) else { return };
        let key = flow.key;
        match flow.socket.state() {
            State::Closed => {
                let is_over = flow.holder == Holder::Nobody;
                if mem::take(&mut flow.mapped) {
                    self.connections.remove(&key);
                }
                self.timers.remove(id);
                if is_over {
                    self.discard(id);
                }
            }
            State::TimeWait if !flow.socket.owes_acknowledgement() => {
                if flow.holder == Holder::Nobody {
                    let next = flow.socket.expected();
                    self.discard(id);
                    self.reserve(key, next);
                } else {
                    flow.resting = true;
                    self.timers.remove(id);
                }
            }
            _ => {
                let close_by = flow.close_by;
                if let Some(deadline) = deadline.into_iter().chain(close_by).min() {
                    self.timers.at_latest(id, deadline);
                }
            }
        }
    }

    fn reserve(&mut self, key: FlowKey, next: Seq) {
        let until = self.now + flow::duration(self.config.time_wait);
        self.connections.insert(key, Entry::TimeWait { next, until });
        self.time_wait.push_back((until, key));
    }

    /// Drops the records that have expired, and the oldest while there are too many.
    fn expire_time_wait(&mut self) {
        while let Some(&(until, key)) = self.time_wait.front()
            && (until <= self.now || self.time_wait.len() > self.config.time_wait_records)
        {
            self.time_wait.pop_front();
            if matches!(self.connections.get(&key), Some(&Entry::TimeWait { until: its, .. }) if its == until) {
                self.connections.remove(&key);
            }
        }
    }

    /// A number that peers cannot predict.
    pub(super) fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(1);
        self.keyed.number(self.draws)
    }
}

/// For how many frames one of `length` bytes counts: those that a device cuts or puts together take time by their bytes too.
pub(super) const fn weight(length: usize) -> usize {
    1 + length / 8192
}

fn sequence(segment: &TcpRepr) -> Seq {
    Seq(segment.seq_number.0.cast_unsigned())
}
