//! UDP: each pair of ends that exchanges datagrams is an association, forgotten when it has been silent for a while.
//!
//! Towards the outside an association has a host socket of its own, connected, so that only the end that the guest wrote to can answer.
//! Towards a client of a forwarded port it is the client's address, which the guest sees as a port of the gateway.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use rustix::event::epoll::EventFlags;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IPV4_HEADER_LEN, UDP_HEADER_LEN};

use crate::core::{Core, Token};
use crate::frame::{FlowKey, Reply};
use crate::host::{Route, connect_udp};
use crate::ports::Ports;
use crate::timers::{Deadline, FlowId, Timers};
use crate::{GUEST, MAX_UDP_FLOWS};

/// How long an association lives without a datagram: the least that RFC 4787, section 4.3, allows.
const IDLE: Duration = Duration::from_secs(120);
/// Datagrams taken from one host socket before others have their turn.
const BATCH: usize = 64;

/// All UDP associations.
#[derive(Debug)]
pub(crate) struct Udp {
    flows: HashMap<FlowId, Flow>,
    by_key: HashMap<FlowKey, FlowId>,
    by_client: HashMap<Client, FlowId>,
    timers: Timers,
    ports: Ports,
    next_id: FlowId,
    buffer: Vec<u8>,
}

/// A client of a forwarded port: the port's place in the list, and the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) port: usize,
    pub(crate) address: SocketAddr,
}

/// Where the guest's answer on a forwarded port goes.
pub(crate) type Answer<'a> = &'a dyn Fn(Client, &[u8]);

#[derive(Debug)]
struct Flow {
    key: FlowKey,
    peer: Peer,
    deadline: Deadline,
}

#[derive(Debug)]
enum Peer {
    Outside(UdpSocket),
    Client(Client),
}

impl Udp {
    /// No associations yet, on a link for packets of `mtu` bytes.
    pub(crate) fn new(mtu: usize) -> Self {
        Udp {
            flows: HashMap::new(),
            by_key: HashMap::new(),
            by_client: HashMap::new(),
            timers: Timers::default(),
            ports: Ports::default(),
            next_id: 0,
            // One byte more than fits a packet, so that a larger datagram is noticed.
            buffer: vec![0; mtu.saturating_sub(IPV4_HEADER_LEN + UDP_HEADER_LEN) + 1],
        }
    }

    /// Takes a datagram from the guest. `route` tells where its remote end lies, if that is asked; `answer` sends to a forwarded port's client.
    pub(crate) fn guest_datagram(
        &mut self,
        core: &mut Core,
        key: FlowKey,
        payload: &[u8],
        route: impl FnOnce(SocketAddrV4) -> Route,
        answer: Answer<'_>,
    ) {
        let id = match self.by_key.get(&key) {
            Some(&id) => id,
            None => {
                let Route::To(outside) = route(key.remote) else { return };
                // The host may be out of descriptors or have no route: the datagram is lost, as on any network.
                let Ok(id) = self.open_outside(core, key, outside) else { return };
                id
            }
        };
        let Some(flow) = self.flows.get_mut(&id) else { return };
        self.timers.set(id, &mut flow.deadline, Some(core.now + IDLE));
        match &flow.peer {
            // A failure is the outside's refusal of an earlier datagram or a full buffer: UDP promises nothing.
            Peer::Outside(socket) => drop(socket.send(payload)),
            Peer::Client(client) => answer(*client, payload),
        }
    }

    /// Passes on the datagrams that the outside sent to the association `id`.
    pub(crate) fn outside_datagrams(&mut self, core: &mut Core, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let Peer::Outside(socket) = &flow.peer else { return };
        for _ in 0..BATCH {
            match socket.recv(&mut self.buffer) {
                Ok(length) => {
                    self.timers.set(id, &mut flow.deadline, Some(core.now + IDLE));
                    core.link.send(&Reply::Udp { key: flow.key, payload: &self.buffer[..length] });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The outside refused an earlier datagram.
                Err(_) => {}
            }
        }
        core.ready.push_back(Token::Udp(id));
    }

    /// Passes on the datagrams that clients sent to the forwarded port number `port` with the host socket `socket`. Tells whether there may be more.
    pub(crate) fn client_datagrams(&mut self, core: &mut Core, port: usize, socket: &UdpSocket, guest_port: u16) -> bool {
        for _ in 0..BATCH {
            match socket.recv_from(&mut self.buffer) {
                Ok((length, address)) => {
                    let (id, key) = self.client_flow(core.now, Client { port, address }, guest_port);
                    if let Some(flow) = self.flows.get_mut(&id) {
                        self.timers.set(id, &mut flow.deadline, Some(core.now + IDLE));
                    }
                    core.link.send(&Reply::Udp { key, payload: &self.buffer[..length] });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // A client refused an earlier answer.
                Err(_) => {}
            }
        }
        true
    }

    /// When [`Udp::expire`] wants to be called next.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Forgets the associations that have been silent too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(entry) = self.timers.pop(now) {
            if let Some(flow) = self.flows.get_mut(&entry.id)
                && self.timers.is_due(entry, &mut flow.deadline, now)
            {
                self.remove(entry.id);
            }
        }
    }

    fn open_outside(&mut self, core: &mut Core, key: FlowKey, outside: SocketAddr) -> io::Result<FlowId> {
        let socket = connect_udp(outside)?;
        self.make_room();
        core.watch(&socket, Token::Udp(self.next_id), EventFlags::IN)?;
        Ok(self.insert(Flow { key, peer: Peer::Outside(socket), deadline: Deadline::default() }))
    }

    fn client_flow(&mut self, now: Instant, client: Client, guest_port: u16) -> (FlowId, FlowKey) {
        if let Some(&id) = self.by_client.get(&client)
            && let Some(flow) = self.flows.get(&id)
        {
            return (id, flow.key);
        }
        self.make_room();
        let key = self.ports.take(SocketAddrV4::new(GUEST, guest_port), |key| self.by_key.contains_key(key));
        let mut flow = Flow { key, peer: Peer::Client(client), deadline: Deadline::default() };
        self.timers.set(self.next_id, &mut flow.deadline, Some(now + IDLE));
        let id = self.insert(flow);
        self.by_client.insert(client, id);
        (id, key)
    }

    fn insert(&mut self, flow: Flow) -> FlowId {
        let id = self.next_id;
        self.next_id += 1;
        self.by_key.insert(flow.key, id);
        self.flows.insert(id, flow);
        id
    }

    /// If the table is full, forgets the association that has been silent longest.
    fn make_room(&mut self) {
        while self.flows.len() >= MAX_UDP_FLOWS {
            let Some(entry) = self.timers.pop_earliest() else { return };
            // Deadlines only move later, so an entry that is still true names the most silent association.
            if let Some(flow) = self.flows.get_mut(&entry.id)
                && self.timers.is_due(entry, &mut flow.deadline, entry.at)
            {
                self.remove(entry.id);
            }
        }
    }

    fn remove(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.remove(&id) {
            self.by_key.remove(&flow.key);
            if let Peer::Client(client) = flow.peer {
                self.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: usize) -> Client {
        Client { port: 0, address: SocketAddr::from(([127, 0, 0, 1], 1 + number as u16)) }
    }

    #[test]
    fn a_full_table_forgets_the_association_silent_longest() {
        let mut udp = Udp::new(1500);
        let at = |number: usize| Instant::from_millis(number as i64);
        for number in 0..MAX_UDP_FLOWS {
            udp.client_flow(at(number), client(number), 53);
        }
        // The first speaks again.
        let (first, key) = udp.client_flow(at(MAX_UDP_FLOWS), client(0), 53);
        let flow = udp.flows.get_mut(&first).expect("known");
        udp.timers.set(first, &mut flow.deadline, Some(at(MAX_UDP_FLOWS) + IDLE));
        udp.client_flow(at(MAX_UDP_FLOWS + 1), client(MAX_UDP_FLOWS), 53);
        assert_eq!((udp.flows.len(), udp.by_key.len(), udp.by_client.len()), (MAX_UDP_FLOWS, MAX_UDP_FLOWS, MAX_UDP_FLOWS));
        assert!(udp.by_client.contains_key(&client(0)) && udp.by_key.contains_key(&key), "it spoke last but one");
        assert!(!udp.by_client.contains_key(&client(1)), "it was silent longest");
    }

    #[test]
    fn silent_associations_are_forgotten() {
        let mut udp = Udp::new(1500);
        udp.client_flow(Instant::ZERO, client(0), 53);
        udp.expire(Instant::ZERO + IDLE - Duration::from_millis(1));
        assert_eq!(udp.flows.len(), 1);
        udp.expire(Instant::ZERO + IDLE);
        assert_eq!((udp.flows.len(), udp.by_key.len(), udp.by_client.len(), udp.next_timer()), (0, 0, 0, None));
    }
}
