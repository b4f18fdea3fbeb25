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
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, TcpSeqNumber};

use super::config::{Config, DirectError};
use super::demultiplex::{self, FlowKey, Frame, Keyed, Segment};
use super::device::{self, Port};
use super::flow::{Flow, Holder, Kind, drain};
use super::listeners::Listening;
use super::neighbours::Neighbours;
use super::timers::Timers;
use super::{Statistics, flow};
use crate::frame::{FrameInfo, FrameTransmitter};
use crate::stack::StreamError;

/// MTUs that make sense: every IPv4 host takes 576 bytes (RFC 791), and 9000 are the largest frames in use.
const MTU_LIMITS: core::ops::RangeInclusive<usize> = 576..=9000;
/// Frames that a flow may send before others have their turn.
const BURST: usize = 64;
/// For how long smoltcp lets a socket rest whose neighbour it does not know (`Meta::DISCOVERY_SILENT_TIME`). A deadline just that far away is how
/// it says so.
const NEIGHBOUR_SILENCE: Duration = Duration::from_secs(1);
/// When to look again at a flow which says it can send now but does not.
const SECOND_LOOK: Duration = Duration::from_millis(10);
/// In TIME-WAIT smoltcp's deadline is seconds away once all has been acknowledged, and milliseconds before.
const TIME_WAIT_ACKNOWLEDGED: Duration = Duration::from_secs(1);

/// How often in a row, a second apart, a UDP socket may fail to reach a neighbour before its queues are emptied.
const MOST_BLOCKED: u8 = 3;

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
    mac: EthernetAddress,
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
    dirty: Vec<u32>,
    attended: Vec<u32>,
    pub(super) timers: Timers,
    pub(super) neighbours: Neighbours,
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
        let mut settings = iface::Config::new(HardwareAddress::Ethernet(mac));
        settings.random_seed = random[2];
        let mut statistics = Statistics::default();
        let mut port = Port { frame: None, transmitter, mtu: info.mtu, sent: &mut statistics.frames_sent };
        let mut interface = Interface::new(settings, &mut port, now);
        // Neither list is full: both are empty.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(config.ipv4.address), config.ipv4.prefix_length));
        });
        if let Some(gateway) = config.gateway {
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        let keyed = Keyed(random[0], random[1]);
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
            dirty: Vec::new(),
            attended: Vec::new(),
            timers: Timers::default(),
            neighbours: Neighbours::new(keyed),
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

    /// Tells the neighbours that this stack's address is here.
    pub(super) fn announce(&mut self, transmitter: &mut impl FrameTransmitter) {
        if transmitter.has_room() {
            self.statistics.frames_sent += 1;
            device::send_arp_request(transmitter, self.mac, self.config.ipv4.address, self.config.ipv4.address);
        }
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
            self.dirty.push(id);
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

    /// Takes a frame from the wire.
    pub(super) fn ingress<T: FrameTransmitter>(&mut self, frame: &[u8], transmitter: &mut T) {
        self.statistics.frames_received += 1;
        match demultiplex::classify(frame, self.mac, self.config.ipv4.address) {
            Frame::Tcp(segment) => self.ingress_segment(&segment, frame, transmitter),
            Frame::Udp(port) => match self.datagrams.get(&port).copied() {
                Some(id) => {
                    self.process(id, frame, transmitter);
                }
                None => self.answer(frame, transmitter),
            },
            Frame::Arp(neighbour) => {
                self.answer(frame, transmitter);
                let waiting = self.neighbours.learn(neighbour, self.now);
                waiting.flows.into_iter().for_each(|id| self.mark_dirty(id));
                waiting.datagrams.into_iter().for_each(|datagram| self.enqueue_held(&datagram));
            }
            Frame::Other => self.answer(frame, transmitter),
            Frame::Ignored => self.statistics.frames_ignored += 1,
        }
    }

    /// Lets smoltcp process a frame that belongs to no flow.
    fn answer<T: FrameTransmitter>(&mut self, frame: &[u8], transmitter: &mut T) {
        let mut port = Port { frame: Some(frame), transmitter, mtu: self.mtu, sent: &mut self.statistics.frames_sent };
        self.interface.poll_ingress_single(self.now, &mut port, &mut self.nothing);
    }

    /// Lets smoltcp process a frame with one flow's socket alone. Gives the states of a TCP flow before and after.
    fn process<T: FrameTransmitter>(&mut self, id: u32, frame: &[u8], transmitter: &mut T) -> Option<(tcp::State, tcp::State)> {
        let mut port = Port { frame: Some(frame), transmitter, mtu: self.mtu, sent: &mut self.statistics.frames_sent };
        let flow = self.flows.get_mut(id as usize)?;
        self.statistics.flow_polls += 1;
        let before = flow.tcp().map(|(socket, _)| socket.state());
        self.interface.poll_ingress_single(self.now, &mut port, &mut flow.set);
        Some((before?, flow.tcp()?.0.state()))
    }

    fn ingress_segment<T: FrameTransmitter>(&mut self, segment: &Segment, frame: &[u8], transmitter: &mut T) {
        match self.connections.get(&segment.key) {
            Some(&Entry::Flow(id)) => self.ingress_flow(id, segment, frame, transmitter),
            Some(&Entry::TimeWait { next, until }) if self.now < until => self.ingress_time_wait(next, segment, frame, transmitter),
            _ if segment.syn && !segment.ack && self.listeners.contains_key(&segment.key.local_port()) => {
                if let Some(id) = self.admit(segment, frame) {
                    self.ingress_flow(id, segment, frame, transmitter);
                }
            }
            _ => self.answer(frame, transmitter),
        }
    }

    fn ingress_flow<T: FrameTransmitter>(&mut self, id: u32, segment: &Segment, frame: &[u8], transmitter: &mut T) {
        if self.flow(id).and_then(Flow::tcp).is_none_or(|(socket, flow)| socket.state() != tcp::State::SynSent && flow.overruns(segment)) {
            self.statistics.frames_ignored += 1;
            return;
        }
        let Some((before, after)) = self.process(id, frame, transmitter) else { return };
        let Some((socket, flow)) = self.flow(id).and_then(Flow::tcp) else { return };
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
        if !demultiplex::is_genuine(frame, |source| self.config.ipv4.broadcast() == Some(source)) {
            return;
        }
        if segment.syn && !segment.ack && segment.sequence > next {
            self.connections.remove(&segment.key);
            return self.ingress_segment(segment, frame, transmitter);
        }
        if segment.length > 0 && !segment.rst && !segment.syn && transmitter.has_room() {
            self.statistics.frames_sent += 1;
            device::acknowledge_again(transmitter, frame, next);
        }
    }

    /// Sends what flows have to send: those on the list, and those whose deadline has come.
    pub(super) fn egress<T: FrameTransmitter>(&mut self, transmitter: &mut T) {
        let mut list = mem::replace(&mut self.dirty, mem::take(&mut self.attended));
        for id in list.drain(..) {
            if let Some(flow) = self.flows.get_mut(id as usize)
                && mem::take(&mut flow.dirty)
            {
                self.attend(id, transmitter);
            }
        }
        self.attended = list;
        while let Some(id) = self.timers.pop_due(self.now) {
            if !self.is_overdue(id) {
                self.attend(id, transmitter);
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
            self.discard(id);
            return true;
        }
        flow.failure = Some(StreamError::TimedOut);
        socket.abort();
        false
    }

    /// Lets a flow send, then sees what has become of it and when it wants attention next.
    fn attend<T: FrameTransmitter>(&mut self, id: u32, transmitter: &mut T) {
        let now = self.now;
        let Some(flow) = self.flows.get_mut(id as usize) else { return };
        let (was_closed, is_established) = match flow.tcp() {
            Some((_, state)) if state.resting => return,
            Some((socket, state)) => {
                let limit = match (state.holder, socket.state()) {
                    (Holder::Nobody, _) => Some(self.config.linger),
                    (Holder::Application, tcp::State::SynSent) => Some(self.config.connect_timeout),
                    _ => None,
                };
                state.close_by = state.close_by.or(limit.map(|limit| now + flow::duration(limit)));
                let state = socket.state();
                (state == tcp::State::Closed, !matches!(state, tcp::State::SynSent | tcp::State::SynReceived))
            }
            None => (false, false),
        };
        let mut deadline = None;
        let mut sent = 0;
        while sent < BURST {
            self.statistics.flow_polls += 1;
            let mut port = Port { frame: None, transmitter, mtu: self.mtu, sent: &mut self.statistics.frames_sent };
            let result = self.interface.poll_egress(now, &mut port, &mut flow.set);
            deadline = self.interface.poll_at(now, &flow.set);
            let has_more = deadline.is_some_and(|deadline| deadline <= now);
            match (result, has_more) {
                (PollResult::None, true) if !transmitter.has_room() => return self.mark_dirty(id),
                (PollResult::None, _) => {
                    deadline = if has_more { Some(now + SECOND_LOOK) } else { deadline };
                    break;
                }
                (_, true) => sent += 1,
                (_, false) => {
                    sent += 1;
                    break;
                }
            }
        }
        if sent > 0 {
            match &mut flow.kind {
                // The first thing sent is a SYN or its answer.
                Kind::Tcp(state) => state.fresh = state.fresh && !is_established,
                Kind::Udp(state) => state.blocked = 0,
            }
        }
        if sent == BURST {
            self.mark_dirty(id);
        }
        if sent == 0 && deadline == Some(now + NEIGHBOUR_SILENCE) {
            self.await_neighbour(id);
        }
        self.settle(id, was_closed, deadline);
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

    /// Lets a flow wait for its next hop's hardware address, if that is what keeps it from sending.
    fn await_neighbour(&mut self, id: u32) {
        let Some(flow) = self.flows.get_mut(id as usize) else { return };
        match &mut flow.kind {
            Kind::Tcp(state) => {
                let remote = state.key.remote();
                if let Some(neighbour) = self.next_hop(remote)
                    && !self.neighbours.is_known(neighbour, self.now)
                {
                    self.neighbours.await_for_flow(neighbour, id, self.now);
                }
            }
            Kind::Udp(state) => {
                // Datagrams are queued for known neighbours only. One that has left since must not keep back those to others.
                state.blocked += 1;
                if state.blocked >= MOST_BLOCKED {
                    flow.forget_datagrams();
                }
            }
        }
    }

    fn ask_neighbours(&mut self, transmitter: &mut impl FrameTransmitter) {
        let Self { neighbours, statistics, mac, config, now, .. } = self;
        neighbours.due(*now, |neighbour| {
            if transmitter.has_room() {
                statistics.frames_sent += 1;
                device::send_arp_request(transmitter, *mac, config.ipv4.address, neighbour);
            }
        });
    }

    /// A number that peers cannot predict.
    pub(super) fn draw(&mut self) -> u64 {
        self.draws = self.draws.wrapping_add(1);
        self.keyed.number(self.draws)
    }
}
