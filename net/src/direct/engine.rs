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
use smoltcp::iface::{self, Interface, PollResult, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, EthernetFrame, HardwareAddress, IpAddress, IpCidr, TcpSeqNumber};

use super::clock::Clock;
use super::config::{Config, DirectError};
use super::counters::{Cause, Statistics};
use super::demultiplex::{self, FlowKey, Frame, Keyed, Segment};
use super::device::{Port, To, Wire};
use super::flow;
use super::flow::{Flow, Holder, Kind, drain};
use super::listeners::Listening;
use super::neighbours::Neighbours;
use super::timers::Timers;
use crate::frame::{ETHERNET_HEADER, FrameInfo, FrameTransmitter};
use crate::stack::StreamError;

/// MTUs that make sense: every IPv4 host takes 576 bytes (RFC 791), and 9000 are the largest frames in use.
const MTU_LIMITS: core::ops::RangeInclusive<usize> = 576..=9000;
/// Frames that a flow may send before others have their turn.
const BURST: usize = 64;
/// Frames sent in one pass, all flows together, before frames that have come have their turn: a few batches of those, so that neither starves.
const PASS: usize = 256;
/// When to look again at a flow which says it can send now but does not.
const SECOND_LOOK: Duration = Duration::from_millis(10);
/// In TIME-WAIT smoltcp's deadline is seconds away once all has been acknowledged, and milliseconds before.
const TIME_WAIT_ACKNOWLEDGED: Duration = Duration::from_secs(1);

/// What stands for a connection in the table of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// This flow.
    Flow(u32),
    /// A closed one, reserved until the moment given; `next` is the sequence number after the peer's last.
    TimeWait { next: TcpSeqNumber, until: Instant },
}

pub(super) struct Engine {
    pub(super) config: Config,
    pub(super) mtu: usize,
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
    pub(super) time_wait: VecDeque<(Instant, FlowKey)>,
    /// Flows to attend to, each once.
    dirty: VecDeque<u32>,
    pub(super) timers: Timers,
    pub(super) neighbours: Neighbours,
    /// When this stack has last said that its address is taken.
    pub(super) defended: Option<Instant>,
    /// A packet whose destination is not known yet.
    scratch: Vec<u8>,
    /// Flows of closed connections, to be used again.
    #[expect(clippy::vec_box, reason = "the boxes themselves are used again: taking one out moves a pointer and allocates nothing")]
    pub(super) spare: Vec<Box<Flow>>,
    pub(super) tcp_memory_used: usize,
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
        let wire = Wire { transmitter, statistics: &mut statistics, mac };
        let mut port = Port { packet: None, wire, to: To::Nobody, mtu: info.mtu };
        let mut interface = Interface::new(settings, &mut port, now);
        // The list is not full: it is empty.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(config.ipv4.address), config.ipv4.prefix_length));
        });
        let keyed = Keyed(random[0], random[1]);
        let neighbours = Neighbours::new(keyed, config.neighbours);
        Ok(Self {
            config,
            mtu: info.mtu,
            mac,
            interface,
            nothing: SocketSet::new(Vec::new()),
            flows: Slab::new(),
            connections: HashMap::with_hasher(keyed),
            listeners: HashMap::with_hasher(keyed),
            datagrams: HashMap::with_hasher(keyed),
            half_open: Vec::new(),
            time_wait: VecDeque::new(),
            dirty: VecDeque::new(),
            timers: Timers::default(),
            neighbours,
            defended: None,
            scratch: Vec::new(),
            spare: Vec::new(),
            tcp_memory_used: 0,
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
        Wire { transmitter, statistics: &mut self.statistics, mac: self.mac }
    }

    /// Takes a frame from the wire.
    pub(super) fn ingress<T: FrameTransmitter>(&mut self, frame: &[u8], transmitter: &mut T) {
        self.statistics.frames_received += 1;
        self.statistics.bytes_received += frame.len() as u64;
        match demultiplex::classify(frame, self.mac, &self.config.ipv4) {
            Ok(Frame::Tcp(segment)) => self.ingress_segment(&segment, frame, transmitter),
            Ok(Frame::Udp { port, alone }) => match self.datagrams.get(&port).copied() {
                Some(id) => self.ingress_datagram(id, frame, transmitter),
                None if alone => self.answer(frame, transmitter),
                None => self.statistics.drops.count(Cause::Broadcast),
            },
            Ok(Frame::Arp(message)) => self.ingress_arp(&message, transmitter),
            Ok(Frame::Other) => self.answer(frame, transmitter),
            Err(cause) => self.statistics.drops.count(cause),
        }
    }

    /// Lets smoltcp process a frame that belongs to no flow.
    fn answer<T: FrameTransmitter>(&mut self, frame: &[u8], transmitter: &mut T) {
        let wire = Wire { transmitter, statistics: &mut self.statistics, mac: self.mac };
        let (from, packet) = open(frame);
        let mut port = Port { packet: Some(packet), wire, to: To::Neighbour(from), mtu: self.mtu };
        self.interface.poll_ingress_single(self.now, &mut port, &mut self.nothing);
    }

    /// Lets smoltcp process a frame with one flow's socket alone.
    pub(super) fn process<T: FrameTransmitter>(&mut self, id: u32, frame: &[u8], transmitter: &mut T) -> Option<&mut Flow> {
        let wire = Wire { transmitter, statistics: &mut self.statistics, mac: self.mac };
        let flow = self.flows.get_mut(id as usize)?;
        let (from, packet) = open(frame);
        let (to, now) = match &mut flow.kind {
            Kind::Tcp(state) => {
                state.tally.counters.segments_received += 1;
                (To::Peer(from, &mut state.tally), state.clock.at(self.now))
            }
            Kind::Udp(_) => (To::Neighbour(from), self.now),
        };
        let mut port = Port { packet: Some(packet), wire, to, mtu: self.mtu };
        port.wire.statistics.flow_polls += 1;
        self.interface.poll_ingress_single(now, &mut port, &mut flow.set);
        Some(flow)
    }

    fn ingress_segment<T: FrameTransmitter>(&mut self, segment: &Segment, frame: &[u8], transmitter: &mut T) {
        match self.connections.get(&segment.key) {
            Some(&Entry::Flow(id)) => self.ingress_flow(id, segment, frame, transmitter),
            Some(&Entry::TimeWait { next, until }) if self.now < until => self.ingress_time_wait(next, segment, frame, transmitter),
            _ if segment.syn && !segment.ack && self.listeners.contains_key(&segment.key.local_port()) => {
                if let Some(id) = self.admit(segment) {
                    self.ingress_flow(id, segment, frame, transmitter);
                }
            }
            _ => self.answer(frame, transmitter),
        }
    }

    fn ingress_flow<T: FrameTransmitter>(&mut self, id: u32, segment: &Segment, frame: &[u8], transmitter: &mut T) {
        if self.flow(id).and_then(Flow::tcp).is_none_or(|(socket, flow)| socket.state() != tcp::State::SynSent && flow.overruns(segment)) {
            self.statistics.drops.count(Cause::BeyondWindow);
            return;
        }
        let Some(before) = self.flow(id).and_then(Flow::tcp).map(|(socket, _)| socket.state()) else { return };
        self.process(id, frame, transmitter);
        let Self { flows, config, now, .. } = self;
        let Some(whole) = flows.get_mut(id as usize) else { return };
        let after = whole.tcp().map_or(before, |(socket, _)| socket.state());
        if matches!(before, tcp::State::SynSent | tcp::State::SynReceived)
            && !matches!(after, tcp::State::SynSent | tcp::State::SynReceived)
        {
            whole.establish(config, *now);
        }
        let Some((socket, flow)) = whole.tcp() else { return };
        if flow.holder == Holder::Nobody {
            drain(socket, flow);
        }
        if before != after {
            if before == tcp::State::SynSent {
                flow.unread = segment.sequence + 1;
            }
            if segment.fin {
                flow.peer_end = segment.sequence + segment.length;
            }
            if after == tcp::State::Closed && segment.rst {
                flow.failure = Some(StreamError::Reset);
            }
            match (flow.holder, after) {
                (Holder::Handshake(_), tcp::State::SynReceived) => {}
                (Holder::Handshake(_), tcp::State::Established | tcp::State::CloseWait) => self.promote(id),
                // Refused by the peer after all; smoltcp would listen again.
                (Holder::Handshake(_), _) => return self.discard(id),
                (Holder::Application, tcp::State::Established) => flow.close_by = None,
                _ => {}
            }
        }
        self.mark_dirty(id);
    }

    /// A segment of a connection that is only a record. A retransmitted FIN is acknowledged again, a new connection may take the record's place if
    /// its sequence numbers are beyond the old ones (RFC 9293, section 3.6.1), and a reset does not end the wait (RFC 1337).
    fn ingress_time_wait<T: FrameTransmitter>(&mut self, next: TcpSeqNumber, segment: &Segment, frame: &[u8], transmitter: &mut T) {
        if segment.syn && !segment.ack && segment.sequence > next {
            self.connections.remove(&segment.key);
            return self.ingress_segment(segment, frame, transmitter);
        }
        if segment.length > 0 && !segment.rst && !segment.syn && transmitter.has_room() {
            self.wire(transmitter).acknowledge_again(frame, next);
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
        let Some((socket, flow)) = self.flow(id).and_then(Flow::tcp) else { return false };
        if flow.close_by.is_none_or(|limit| now < limit) {
            return false;
        }
        if let Holder::Handshake(_) = flow.holder {
            self.statistics.drops.count(Cause::HandshakeTimeout);
            self.discard(id);
            return true;
        }
        flow.failure = Some(StreamError::TimedOut);
        socket.abort();
        false
    }

    /// Lets a flow send, then sees what has become of it and when it wants attention next. Gives how many frames it has sent.
    fn attend<T: FrameTransmitter>(&mut self, id: u32, transmitter: &mut T) -> usize {
        let Some(flow) = self.flows.get_mut(id as usize) else { return 0 };
        let (mut was_closed, mut is_established, mut hop) = (false, false, None);
        if let Some((socket, state)) = flow.tcp() {
            if state.resting {
                return 0;
            }
            let limit = match (state.holder, socket.state()) {
                (Holder::Nobody, _) => Some(self.config.linger),
                (Holder::Application, tcp::State::SynSent) => Some(self.config.connect_timeout),
                _ => None,
            };
            state.close_by = state.close_by.or(limit.map(|limit| self.now + flow::duration(limit)));
            was_closed = socket.state() == tcp::State::Closed;
            is_established = !matches!(socket.state(), tcp::State::SynSent | tcp::State::SynReceived);
            hop = Some(state.key.remote());
        }
        let hop = hop.and_then(|remote| self.next_hop(remote));
        let hardware = hop.and_then(|hop| self.neighbours.find(hop, self.now));
        let (sent, mut deadline) = self.let_send(id, hardware, transmitter);
        if let Some(Kind::Tcp(state)) = self.flow(id).map(|flow| &mut flow.kind)
            && sent > 0
        {
            // The first thing sent is a SYN or its answer.
            state.fresh = state.fresh && !is_established;
        }
        if let (Some(hop), None, Some(due)) = (hop, hardware, deadline)
            && due <= self.now
        {
            deadline = Some(self.await_neighbour(id, hop));
        }
        if deadline.is_some_and(|deadline| deadline <= self.now) {
            if sent == BURST || !transmitter.has_room() {
                self.mark_dirty(id);
            }
            deadline = Some(self.now + SECOND_LOOK);
        }
        self.settle(id, was_closed, deadline);
        sent
    }

    /// Lets a flow send up to a burst; a TCP flow to `hardware`, or nowhere without it. Gives how many frames it has sent and when it wants
    /// attention next.
    fn let_send<T: FrameTransmitter>(
        &mut self,
        id: u32,
        hardware: Option<EthernetAddress>,
        transmitter: &mut T,
    ) -> (usize, Option<Instant>) {
        let Self { flows, interface, neighbours, statistics, config, scratch, mtu, mac, now, .. } = self;
        let Some(flow) = flows.get_mut(id as usize) else { return (0, None) };
        let clock = flow.tcp_state().map_or(Clock::new(*now), |state| state.clock);
        let flow_now = clock.at(*now);
        let to = match (&mut flow.kind, hardware) {
            (Kind::Tcp(state), Some(hardware)) => To::Peer(hardware, &mut state.tally),
            (Kind::Tcp(_), None) => To::Nobody,
            (Kind::Udp(_), _) => To::Any { neighbours, network: &config.ipv4, gateway: config.gateway, now: *now, scratch },
        };
        let mut port = Port { packet: None, wire: Wire { transmitter, statistics, mac: *mac }, to, mtu: *mtu };
        let mut sent = 0;
        loop {
            port.wire.statistics.flow_polls += 1;
            let result = interface.poll_egress(flow_now, &mut port, &mut flow.set);
            let deadline = interface.poll_at(flow_now, &flow.set);
            sent += usize::from(result != PollResult::None);
            let has_more = deadline.is_some_and(|deadline| deadline <= flow_now);
            if result == PollResult::None || !has_more || sent == BURST {
                return (sent, deadline.map(|deadline| clock.when(deadline)));
            }
        }
    }

    /// Files a flow under what has become of it.
    fn settle(&mut self, id: u32, was_closed: bool, deadline: Option<Instant>) {
        let now = self.now;
        let Some(flow) = self.flow(id) else { return };
        let Some((socket, flow)) = flow.tcp() else { return self.settle_datagrams(id, deadline) };
        let key = flow.key;
        match socket.state() {
            tcp::State::Closed => {
                if !was_closed && flow.failure.is_none() {
                    flow.failure = Some(StreamError::TimedOut);
                }
                let is_over = flow.holder == Holder::Nobody;
                if mem::take(&mut flow.mapped) {
                    self.connections.remove(&key);
                }
                self.timers.remove(id);
                if is_over {
                    self.discard(id);
                }
            }
            tcp::State::TimeWait if deadline.is_none_or(|deadline| deadline > now + TIME_WAIT_ACKNOWLEDGED) => {
                if flow.holder == Holder::Nobody {
                    let next = flow.peer_end;
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

    fn reserve(&mut self, key: FlowKey, next: TcpSeqNumber) {
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

/// Where a frame comes from, and the packet in it. It has been classified before.
fn open(frame: &[u8]) -> (EthernetAddress, &[u8]) {
    (EthernetFrame::new_unchecked(frame).src_addr(), frame.get(ETHERNET_HEADER..).unwrap_or_default())
}
