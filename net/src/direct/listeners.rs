//! Connections from their first segment to their last: admission, the queues of listeners, release.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::net::SocketAddrV4;
use core::task::Waker;

use smoltcp::time::Instant;

use super::config::is_host;
use super::counters::Cause;
use super::demultiplex::FlowKey;
use super::engine::{Engine, Entry};
use super::flow::{self, Flow, Holder, Kind, TcpFlow};
use crate::stack::{ConnectError, ListenError};
use crate::tcp::{Flight, Pool, Settings, Socket};

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
        match &self.flows.get(id as usize)?.kind {
            Kind::Tcp(flow) => Some(flow.key.local_port()),
            Kind::Udp(_) => None,
        }
    }

    /// The next connection to `port`, now the application's.
    pub(super) fn accept(&mut self, port: u16) -> Option<u32> {
        loop {
            let id = self.listeners.get_mut(&port)?.queue.pop_front()?;
            let Some(flow) = self.flow(id).and_then(Flow::tcp) else { continue };
            if flow.socket.failure().is_some() && !flow.socket.can_recv() {
                self.discard(id);
                continue;
            }
            flow.holder = Holder::Application;
            return Some(id);
        }
    }

    /// Whether a new connection request to a listening port is to be answered without being remembered.
    pub(super) fn is_flooded(&self) -> bool {
        // Where there is no room and nobody else to give way, one that is not there yet does.
        let gives_way = !self.half_open.is_empty() && self.orphans.is_empty() && self.is_full();
        self.half_open.len() >= self.most_handshakes() || gives_way
    }

    /// Whether a new connection takes the place of another.
    pub(super) fn is_full(&self) -> bool {
        self.tcp_flows >= self.config.max_connections || !self.pool.has_room()
    }

    /// Makes a flow for a connection to a listening port, with a socket that `make` makes; drops the request when there is no room.
    pub(super) fn admit(&mut self, key: FlowKey, make: impl FnOnce(Settings, u32, Instant, &Pool, Flight) -> Socket) -> Option<u32> {
        let listening = self.listeners.get(&key.local_port())?;
        if listening.queue.len() >= self.config.backlog {
            self.statistics.drops.count(Cause::BacklogFull);
            return None;
        }
        let holder = Holder::Handshake(self.half_open.len());
        match self.open(key, holder, make) {
            Ok(id) => {
                self.half_open.push(id);
                let close_by = self.now + flow::duration(self.config.handshake_timeout);
                self.flow(id)?.tcp()?.close_by = Some(close_by);
                Some(id)
            }
            Err(cause) => {
                self.statistics.drops.count(cause);
                None
            }
        }
    }

    /// Handshakes at most as things stand: a burst of requests may have all room that there is, but where connections have none left, a flood does not
    /// get more of it than a quarter, nor take the place of those that are being closed.
    fn most_handshakes(&self) -> usize {
        let most = self.config.half_open;
        if self.tcp_flows < self.config.max_connections { most } else { most.min(self.config.max_connections / 4).max(1) }
    }

    /// A handshake is complete: the connection waits for the listener to accept it.
    pub(super) fn promote(&mut self, id: u32) {
        self.leave_handshake(id);
        let Some(flow) = self.flow(id).and_then(Flow::tcp) else { return };
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
        let Some(flow) = self.flow(id).and_then(Flow::tcp) else { return };
        let Holder::Handshake(place) = flow.holder else { return };
        flow.holder = Holder::Nobody;
        self.half_open.swap_remove(place);
        if let Some(&moved) = self.half_open.get(place)
            && let Some(flow) = self.flow(moved).and_then(Flow::tcp)
        {
            flow.holder = Holder::Handshake(place);
        }
    }

    /// Begins a connection of the application's.
    pub(super) fn connect(&mut self, remote: SocketAddrV4) -> Result<u32, ConnectError> {
        self.refresh();
        let (address, port) = (*remote.ip(), remote.port());
        let is_reachable = is_host(address) && address != self.config.ipv4.address && self.config.ipv4.broadcast() != Some(address);
        if port == 0 || !is_reachable || self.next_hop(address).is_none() {
            return Err(ConnectError::Unreachable);
        }
        let local_port = self
            .free_port(|engine, local| !engine.connections.contains_key(&FlowKey::new(address, port, local)))
            .ok_or(ConnectError::Exhausted)?;
        let key = FlowKey::new(address, port, local_port);
        let id = self.open(key, Holder::Application, Socket::open).or(Err(ConnectError::Exhausted))?;
        self.statistics.connections_begun += 1;
        let close_by = self.now + flow::duration(self.config.connect_timeout);
        if let Some(flow) = self.flow(id).and_then(Flow::tcp) {
            flow.close_by = Some(close_by);
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

    /// Puts a flow for a new connection into the tables, if the limits allow; `make` makes its socket.
    fn open(
        &mut self,
        key: FlowKey,
        holder: Holder,
        make: impl FnOnce(Settings, u32, Instant, &Pool, Flight) -> Socket,
    ) -> Result<u32, Cause> {
        if self.tcp_flows >= self.config.max_connections && !self.replace_orphan() {
            return Err(Cause::ConnectionLimit);
        }
        if !(self.pool.admit() || self.replace_orphan() && self.pool.admit()) {
            return Err(Cause::MemoryLimit);
        }
        let settings = Settings {
            local_port: key.local_port(),
            remote_port: key.remote_port(),
            mtu: self.mtu,
            largest_packet: self.offload.segmentation,
            congestion_control: self.config.congestion_control,
            least_rto: flow::duration(self.config.least_rto),
            keep_alive: flow::duration(self.config.keep_alive),
            timeout: flow::duration(self.config.timeout),
        };
        // RFC 6528: a clock of 4 µs, and where it starts is a secret of each pair of addresses.
        let initial = (self.keyed.number(key.number()) as u32).wrapping_add((self.now.total_micros() / 4) as u32);
        let mut spare = self.spare.pop();
        let flight = spare.as_mut().and_then(|flow| flow.tcp()).map(|flow| flow.socket.take_flight()).unwrap_or_default();
        let socket = make(settings, initial, self.now, &self.pool, flight);
        let new = Flow { kind: Kind::Tcp(TcpFlow::new(key, socket, holder)), dirty: false };
        let flow = match spare {
            Some(mut flow) => {
                *flow = new;
                flow
            }
            None => Box::new(new),
        };
        self.tcp_flows += 1;
        let id = self.flows.insert(flow) as u32;
        self.connections.insert(key, Entry::Flow(id));
        Ok(id)
    }

    /// Gives up a connection that nobody holds, chosen so that a peer cannot tell which, for a new one. False when there is none.
    fn replace_orphan(&mut self) -> bool {
        let victim = self.draw() as usize % self.orphans.len().max(1);
        let Some(&id) = self.orphans.get(victim) else { return false };
        self.statistics.drops.count(Cause::OrphanReplaced);
        self.discard(id);
        true
    }

    /// A connection is no longer the application's.
    fn abandon(&mut self, id: u32) {
        let place = self.orphans.len();
        if let Some(flow) = self.flow(id).and_then(Flow::tcp)
            && flow.orphan.is_none()
        {
            flow.holder = Holder::Nobody;
            flow.orphan = Some(place);
            self.orphans.push(id);
        }
    }

    /// Takes a flow out of the table of those that nobody holds, if it is there.
    fn leave_orphans(&mut self, id: u32) {
        let Some(place) = self.flow(id).and_then(Flow::tcp).and_then(|flow| flow.orphan.take()) else { return };
        self.orphans.swap_remove(place);
        if let Some(&moved) = self.orphans.get(place)
            && let Some(flow) = self.flow(moved).and_then(Flow::tcp)
        {
            flow.orphan = Some(place);
        }
    }

    /// Removes a TCP flow from all tables at once, without a word to the peer.
    pub(super) fn discard(&mut self, id: u32) {
        self.leave_handshake(id);
        self.leave_orphans(id);
        self.timers.remove(id);
        let Some(mut flow) = self.flows.try_remove(id as usize) else { return };
        let Some(state) = flow.tcp() else { return };
        state.socket.release(&mut self.pool);
        self.pool.dismiss();
        self.tcp_flows -= 1;
        if state.mapped {
            self.connections.remove(&state.key);
        }
        if self.spare.len() < MOST_SPARE {
            self.spare.push(flow);
        }
    }

    /// Resets a connection; what is left of it nobody holds.
    pub(super) fn abort(&mut self, id: u32) {
        self.abandon(id);
        if let Some(flow) = self.flow(id).and_then(Flow::tcp) {
            flow.resting = false;
            flow.socket.abort();
            self.mark_dirty(id);
        }
    }

    /// The application has dropped a connection: it closes in order.
    pub(super) fn release(&mut self, id: u32) {
        self.abandon(id);
        let Self { flows, pool, .. } = self;
        let Some(flow) = flows.get_mut(id as usize).and_then(|flow| flow.tcp()) else { return };
        flow.resting = false;
        // Set when it is attended to.
        flow.close_by = None;
        flow.socket.stop_reading(pool);
        flow.socket.close();
        self.mark_dirty(id);
    }

    /// The own address and the peer's of a connection.
    pub(super) fn addresses(&self, id: u32) -> (SocketAddrV4, SocketAddrV4) {
        let key = match self.flows.get(id as usize).map(|flow| &flow.kind) {
            Some(Kind::Tcp(flow)) => flow.key,
            _ => FlowKey::NONE,
        };
        (SocketAddrV4::new(self.config.ipv4.address, key.local_port()), SocketAddrV4::new(key.remote(), key.remote_port()))
    }
}
