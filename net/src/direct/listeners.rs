//! Connections from their first segment to their last: admission, the queues of listeners, release.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::net::SocketAddrV4;
use core::task::Waker;

use smoltcp::wire::{IpAddress, IpListenEndpoint};

use super::config::is_host;
use super::counters::Cause;
use super::demultiplex::{FlowKey, Segment};
use super::engine::{Engine, Entry};
use super::flow::{self, Flow, Holder};
use crate::stack::{ConnectError, ListenError};

/// The ports for connections and sockets that ask for any: the dynamic ones of RFC 6335.
const DYNAMIC_PORTS: core::ops::RangeInclusive<u16> = 49152..=65535;
/// Flows kept for use again at most.
const MOST_SPARE: usize = 64;

/// A listener's side of the engine.
#[derive(Default)]
pub(super) struct Listening {
    /// Connections that wait to be accepted.
    queue: VecDeque<u32>,
    pub(super) waker: Option<Waker>,
}

impl Engine {
    pub(super) fn listen(&mut self, port: u16) -> Result<u16, ListenError> {
        let port = match port {
            0 => self.free_port(|engine, port| !engine.listeners.contains_key(&port)).ok_or(ListenError::Exhausted)?,
            port if self.listeners.contains_key(&port) => return Err(ListenError::InUse),
            port => port,
        };
        self.listeners.insert(port, Listening::default());
        Ok(port)
    }

    /// Stops listening, and resets the connections not yet accepted.
    pub(super) fn stop_listening(&mut self, port: u16) {
        let Some(listening) = self.listeners.remove(&port) else { return };
        let handshakes = self.half_open.iter().copied().filter(|&id| self.local_port(id) == Some(port));
        let refused: alloc::vec::Vec<u32> = listening.queue.into_iter().chain(handshakes).collect();
        for id in refused {
            self.leave_handshake(id);
            self.abort(id);
        }
    }

    fn local_port(&self, id: u32) -> Option<u16> {
        self.flows.get(id as usize).and_then(|flow| flow.tcp_state()).map(|flow| flow.key.local_port())
    }

    /// The next connection to `port`, now the application's.
    pub(super) fn accept(&mut self, port: u16) -> Option<u32> {
        loop {
            let id = self.listeners.get_mut(&port)?.queue.pop_front()?;
            let Some((socket, flow)) = self.flow(id).and_then(Flow::tcp) else { continue };
            if flow.failure.is_some() && !socket.can_recv() {
                self.discard(id);
                continue;
            }
            flow.holder = Holder::Application;
            return Some(id);
        }
    }

    /// Makes a flow for a connection request to a listening port; `None` drops the request.
    pub(super) fn admit(&mut self, segment: &Segment) -> Option<u32> {
        let port = segment.key.local_port();
        let listening = self.listeners.get(&port)?;
        if listening.queue.len() >= self.config.backlog {
            self.statistics.drops.count(Cause::BacklogFull);
            return None;
        }
        if self.half_open.len() >= self.config.half_open {
            let victim = self.draw() as usize % self.half_open.len().max(1);
            if let Some(&id) = self.half_open.get(victim) {
                self.statistics.drops.count(Cause::HandshakeReplaced);
                self.discard(id);
            }
        }
        let id = match self.open(segment.key, Holder::Handshake(self.half_open.len())) {
            Ok(id) => id,
            Err(cause) => {
                self.statistics.drops.count(cause);
                return None;
            }
        };
        self.half_open.push(id);
        let close_by = self.now + flow::duration(self.config.handshake_timeout);
        let local = IpListenEndpoint { addr: Some(IpAddress::Ipv4(self.config.ipv4.address)), port };
        let (socket, flow) = self.flow(id)?.tcp()?;
        flow.close_by = Some(close_by);
        flow.unread = segment.sequence + 1;
        // Fails on port 0 and on an open socket, neither of which is the case.
        socket.listen(local).ok()?;
        Some(id)
    }

    /// A handshake is complete: the connection waits for the listener to accept it.
    pub(super) fn promote(&mut self, id: u32) {
        self.leave_handshake(id);
        let Some((_, flow)) = self.flow(id).and_then(Flow::tcp) else { return };
        flow.holder = Holder::Backlog;
        flow.close_by = None;
        let port = flow.key.local_port();
        self.statistics.connections_accepted += 1;
        if let Some(listening) = self.listeners.get_mut(&port) {
            listening.queue.push_back(id);
            if let Some(waker) = listening.waker.take() {
                waker.wake();
            }
        }
    }

    /// Takes a flow out of the table of handshakes, if it is there.
    fn leave_handshake(&mut self, id: u32) {
        let Some((_, flow)) = self.flow(id).and_then(Flow::tcp) else { return };
        let Holder::Handshake(place) = flow.holder else { return };
        flow.holder = Holder::Nobody;
        self.half_open.swap_remove(place);
        if let Some(&moved) = self.half_open.get(place)
            && let Some((_, flow)) = self.flow(moved).and_then(Flow::tcp)
        {
            flow.holder = Holder::Handshake(place);
        }
    }

    /// Begins a connection of the application's.
    pub(super) fn connect(&mut self, remote: SocketAddrV4) -> Result<u32, ConnectError> {
        let (address, port) = (*remote.ip(), remote.port());
        let is_reachable = is_host(address) && address != self.config.ipv4.address && self.config.ipv4.broadcast() != Some(address);
        if port == 0 || !is_reachable || self.next_hop(address).is_none() {
            return Err(ConnectError::Unreachable);
        }
        let local_port = self
            .free_port(|engine, local| !engine.connections.contains_key(&FlowKey::new(address, port, local)))
            .ok_or(ConnectError::Exhausted)?;
        let key = FlowKey::new(address, port, local_port);
        let id = self.open(key, Holder::Application).or(Err(ConnectError::Exhausted))?;
        self.statistics.connections_begun += 1;
        let Self { flows, interface, .. } = self;
        let (socket, _) = flows.get_mut(id as usize).and_then(|flow| flow.tcp()).ok_or(ConnectError::Exhausted)?;
        let connected = socket.connect(interface.context(), (IpAddress::Ipv4(address), port), local_port);
        if connected.is_err() {
            self.discard(id);
            return Err(ConnectError::Unreachable);
        }
        self.mark_dirty(id);
        Ok(id)
    }

    /// A dynamic port that `is_free`, beginning the search where a peer cannot tell.
    pub(super) fn free_port(&mut self, is_free: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        let count = u64::from(DYNAMIC_PORTS.end() - DYNAMIC_PORTS.start()) + 1;
        let start = self.draw() % count;
        (0..count).map(|step| DYNAMIC_PORTS.start() + ((start + step) % count) as u16).find(|&port| is_free(self, port))
    }

    /// Puts a flow for a new connection into the tables, if the limits allow.
    fn open(&mut self, key: FlowKey, holder: Holder) -> Result<u32, Cause> {
        if self.tcp_flows >= self.config.max_connections {
            return Err(Cause::ConnectionLimit);
        }
        let mut flow = self.take_flow().ok_or(Cause::MemoryLimit)?;
        flow.prepare(key, holder, &self.config, self.now);
        self.tcp_flows += 1;
        let id = self.flows.insert(flow) as u32;
        self.connections.insert(key, Entry::Flow(id));
        Ok(id)
    }

    /// A flow with buffers that suit the memory that is left: a spare one if it has the right size.
    fn take_flow(&mut self) -> Option<Box<Flow>> {
        let size_of = |flow: &Flow| flow.tcp_state().map_or(0, |flow| flow.buffer);
        let spare: usize = self.spare.last().map_or(0, |flow| flow::cost(size_of(flow))) * self.spare.len();
        let free = (self.config.tcp_memory + spare).saturating_sub(self.tcp_memory_used);
        let (least, most) = self.config.tcp_buffer;
        let share = free / (128 * 2);
        let mut buffer = if least == most { most } else { (share / 2 + 1).next_power_of_two().clamp(least, most) };
        if flow::cost(buffer) > free {
            buffer = least;
        }
        if flow::cost(buffer) > free {
            return None;
        }
        if self.spare.last().is_some_and(|flow| size_of(flow) == buffer) {
            return self.spare.pop();
        }
        for unfit in self.spare.drain(..) {
            self.tcp_memory_used = self.tcp_memory_used.saturating_sub(flow::cost(size_of(&unfit)));
        }
        self.tcp_memory_used += flow::cost(buffer);
        Some(Flow::new_tcp(buffer))
    }

    /// Removes a TCP flow from all tables at once, without a word to the peer.
    pub(super) fn discard(&mut self, id: u32) {
        self.leave_handshake(id);
        self.timers.remove(id);
        let Some(mut flow) = self.flows.try_remove(id as usize) else { return };
        flow.dirty = false;
        let Some((socket, state)) = flow.tcp() else { return };
        socket.abort();
        let (key, mapped, buffer) = (state.key, state.mapped, state.buffer);
        self.tcp_flows -= 1;
        if mapped {
            self.connections.remove(&key);
        }
        // All spare flows have buffers of one size.
        let fits = self.spare.last().and_then(|spare| spare.tcp_state()).is_none_or(|spare| spare.buffer == buffer);
        if fits && self.spare.len() < MOST_SPARE {
            self.spare.push(flow);
        } else {
            self.tcp_memory_used = self.tcp_memory_used.saturating_sub(flow::cost(buffer));
        }
    }

    /// Resets a connection; what is left of it nobody holds.
    pub(super) fn abort(&mut self, id: u32) {
        if let Some((socket, flow)) = self.flow(id).and_then(Flow::tcp) {
            flow.holder = Holder::Nobody;
            flow.resting = false;
            socket.abort();
            self.mark_dirty(id);
        }
    }

    /// The application has dropped a connection: it closes in order.
    pub(super) fn release(&mut self, id: u32) {
        let Some((socket, flow)) = self.flow(id).and_then(Flow::tcp) else { return };
        flow.holder = Holder::Nobody;
        flow.resting = false;
        flow.close_by = None;
        flow::drain(socket, flow);
        socket.close();
        self.mark_dirty(id);
    }

    /// The own address and the peer's of a connection.
    pub(super) fn addresses(&self, id: u32) -> (SocketAddrV4, SocketAddrV4) {
        let key = self.flows.get(id as usize).and_then(|flow| flow.tcp_state()).map_or(FlowKey::NONE, |flow| flow.key);
        (SocketAddrV4::new(self.config.ipv4.address, key.local_port()), SocketAddrV4::new(key.remote(), key.remote_port()))
    }
}
