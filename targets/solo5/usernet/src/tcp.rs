//! TCP: smoltcp speaks it with the guest, the kernel with the outside, and bytes move between the two as the slower side takes them.
//!
//! Each flow has a socket set of its own, so that smoltcp looks at no other socket. A connection that the guest opens is answered only when the
//! outside has answered; one that the outside opens is accepted first, and reset if the guest refuses it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};

use rustix::event::epoll::EventFlags;
use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::time::Duration;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::core::{Core, Token};
use crate::flow::{Flow, Side};
use crate::frame::FlowKey;
use crate::host::{Route, connect_tcp};
use crate::ports::Ports;
use crate::timers::{FlowId, Timers};
use crate::{GATEWAY, GUEST, MAX_TCP_FLOWS, PREFIX_LENGTH};

/// How long the outside may take to accept a connection that the guest opens.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// The shortest time between two looks at a flow on account of its timer: smoltcp may name a time that has passed already.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// All TCP flows.
pub(crate) struct Tcp {
    interface: Interface,
    flows: HashMap<FlowId, Flow>,
    by_key: HashMap<FlowKey, FlowId>,
    timers: Timers,
    ports: Ports,
    next_id: FlowId,
    /// Flows that had more to send when the link was full.
    blocked: VecDeque<FlowId>,
    /// The set without sockets, for segments that belong to no flow: smoltcp answers them with a reset.
    nobody: SocketSet<'static>,
}

impl Tcp {
    pub(crate) fn new(core: &mut Core) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = RandomState::new().hash_one(std::process::id());
        let mut interface = Interface::new(config, &mut core.link.device(None), core.now);
        interface.update_ip_addrs(|addresses| {
            // The list has room for at least one address.
            let _ = addresses.push(IpCidr::new(GATEWAY.into(), PREFIX_LENGTH));
        });
        interface.set_any_ip(true);
        Tcp {
            interface,
            flows: HashMap::new(),
            by_key: HashMap::new(),
            timers: Timers::default(),
            ports: Ports::default(),
            next_id: 0,
            blocked: VecDeque::new(),
            nobody: SocketSet::new(Vec::new()),
        }
    }

    /// Whether no more flows can be opened.
    pub(crate) fn is_full(&self) -> bool {
        self.flows.len() >= MAX_TCP_FLOWS
    }

    /// Takes a segment from the guest. `route` tells where its remote end lies, if that is asked.
    pub(crate) fn guest_segment(
        &mut self,
        core: &mut Core,
        key: FlowKey,
        opens: bool,
        packet: &[u8],
        route: impl FnOnce(SocketAddrV4) -> Route,
    ) {
        if let Some(&id) = self.by_key.get(&key) {
            if let Some(flow) = self.flows.get_mut(&id) {
                self.interface.poll_ingress_single(core.now, &mut core.link.device(Some(packet)), &mut flow.sockets);
                flow.queue(core, id);
            }
            return;
        }
        match if opens { route(key.remote) } else { Route::Refused } {
            Route::To(_) if self.is_full() => {}
            Route::To(outside) => self.connect(core, key, packet, outside),
            Route::Refused => self.refuse(core, packet),
            Route::Ignored => {}
        }
    }

    /// Takes a connection that the host accepted for the guest's port `guest_port`. Call it only when the table is not full.
    pub(crate) fn host_connection(&mut self, core: &mut Core, stream: TcpStream, guest_port: u16) -> io::Result<()> {
        let guest = SocketAddrV4::new(GUEST, guest_port);
        let key = self.ports.take(guest, |key| self.by_key.contains_key(key));
        let mut flow = Flow::new(key, stream, Side::Host)?;
        let context = self.interface.context();
        flow.socket().connect(context, key.guest, key.remote).map_err(io::Error::other)?;
        self.insert(core, flow)
    }

    /// Notes what happened to a flow's host socket.
    pub(crate) fn host_event(&mut self, core: &mut Core, id: FlowId, events: EventFlags) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.note(events);
            flow.queue(core, id);
        }
    }

    /// Moves a flow's bytes, as far as both sides go along.
    pub(crate) fn serve(&mut self, core: &mut Core, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.advance();
        let mut device = core.link.device(None);
        while self.interface.poll_egress(core.now, &mut device, &mut flow.sockets) == PollResult::SocketStateChanged {}
        if core.link.is_blocked() {
            if !std::mem::replace(&mut flow.blocked, true) {
                self.blocked.push_back(id);
            }
        } else if flow.is_over() {
            self.remove(core, id);
            return;
        }
        if !flow.awaits_connection() {
            let due = self.interface.poll_at(core.now, &flow.sockets).map(|due| due.max(core.now + TIMER_GRAIN));
            let due = due.filter(|_| !core.link.is_blocked());
            self.timers.set(id, &mut flow.deadline, due);
        }
    }

    /// Queues the flows that waited for room on the link.
    pub(crate) fn link_has_room(&mut self, core: &mut Core) {
        for id in self.blocked.drain(..) {
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.blocked = false;
                flow.queue(core, id);
            }
        }
    }

    /// Closes every flow when the guest is gone: what it sent before is passed on as far as the host's sockets take it at once.
    pub(crate) fn close(&mut self) {
        for (_, mut flow) in self.flows.drain() {
            flow.advance();
            flow.close(true);
        }
    }

    /// When [`Tcp::expire`] wants to be called next.
    pub(crate) fn next_timer(&self) -> Option<smoltcp::time::Instant> {
        self.timers.next()
    }

    /// Queues the flows whose timers ran out.
    pub(crate) fn expire(&mut self, core: &mut Core) {
        while let Some(entry) = self.timers.pop(core.now) {
            if let Some(flow) = self.flows.get_mut(&entry.id)
                && self.timers.is_due(entry, &mut flow.deadline, core.now)
            {
                if flow.awaits_connection() {
                    flow.abort();
                }
                flow.queue(core, entry.id);
            }
        }
    }

    /// Opens a flow for the SYN `packet`, which is answered once `outside` has answered.
    fn connect(&mut self, core: &mut Core, key: FlowKey, packet: &[u8], outside: SocketAddr) {
        let opened = connect_tcp(outside).and_then(|stream| Flow::new(key, stream, Side::Guest));
        let Ok(mut flow) = opened else { return self.refuse(core, packet) };
        if flow.socket().listen(key.remote).is_ok() {
            self.interface.poll_ingress_single(core.now, &mut core.link.device(Some(packet)), &mut flow.sockets);
            // A flow that cannot be registered is dropped, and the guest's next SYN tries again.
            if flow.has_been_opened() {
                let _ = self.insert(core, flow);
            }
        }
    }

    /// Answers a segment that belongs to no flow with a reset.
    fn refuse(&mut self, core: &mut Core, packet: &[u8]) {
        self.interface.poll_ingress_single(core.now, &mut core.link.device(Some(packet)), &mut self.nobody);
    }

    fn insert(&mut self, core: &mut Core, mut flow: Flow) -> io::Result<()> {
        let id = self.next_id;
        core.watch(&flow.stream, Token::Tcp(id), EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP)?;
        self.next_id += 1;
        if flow.awaits_connection() {
            self.timers.set(id, &mut flow.deadline, Some(core.now + CONNECT_TIMEOUT));
        } else {
            flow.queue(core, id);
        }
        self.by_key.insert(flow.key, id);
        self.flows.insert(id, flow);
        Ok(())
    }

    fn remove(&mut self, core: &mut Core, id: FlowId) {
        if let Some(flow) = self.flows.remove(&id) {
            self.by_key.remove(&flow.key);
            flow.close(false);
            core.room = true;
        }
    }
}

impl std::fmt::Debug for Tcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tcp").field("flows", &self.flows.len()).finish_non_exhaustive()
    }
}
