//! UDP as the application has it.

use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::task::{Context, Poll};

use smoltcp::iface::PollResult;
use smoltcp::socket::udp::{self, SendError};
use smoltcp::time::Duration;
use smoltcp::wire::IpAddress;

use super::Handle;
use super::counters::Cause;
use super::device::{self, Port, To, Wire};
use super::engine::{BURST, Engine};
use super::flow::{Flow, UdpFlow};
use super::neighbours::Datagram;
use crate::frame::{ETHERNET_HEADER, FrameTransmitter};
use crate::stack::{BindError, UdpError, UdpSocket};

/// What IP and UDP put before a datagram: RFC 791 without options, RFC 768.
const HEADERS: usize = 20 + 8;

/// How long what was sent by a socket that was dropped may wait for a neighbour: until that counts as absent, and a moment more.
const CLOSING: Duration = Duration::from_secs(4);

/// A UDP socket of a [`Direct`](super::Direct) stack. It also receives what is sent to the broadcast address.
pub struct DirectUdpSocket {
    handle: Handle,
    id: u32,
    port: u16,
}

impl DirectUdpSocket {
    pub(super) fn bind(handle: Handle, port: u16) -> Result<Self, BindError> {
        let (id, port) = handle.with(|engine| engine.bind(port))?;
        Ok(Self { handle, id, port })
    }

    fn poll_receive(&self, into: &mut [u8], context: &mut Context<'_>) -> Poll<Result<(usize, SocketAddr), UdpError>> {
        self.handle.with(|engine| {
            let Some(socket) = engine.flow(self.id).and_then(Flow::udp).map(UdpFlow::socket) else {
                return Poll::Ready(Err(UdpError::Down));
            };
            let Ok((payload, from)) = socket.recv() else {
                socket.register_recv_waker(context.waker());
                return Poll::Pending;
            };
            let length = payload.len().min(into.len());
            into[..length].copy_from_slice(&payload[..length]);
            let IpAddress::Ipv4(address) = from.endpoint.addr;
            Poll::Ready(Ok((length, SocketAddr::new(IpAddr::V4(address), from.endpoint.port))))
        })
    }

    fn poll_send(&self, datagram: &[u8], to: (Ipv4Addr, u16), context: &mut Context<'_>) -> Poll<Result<(), UdpError>> {
        self.handle.with(|engine| engine.send_datagram(self.id, datagram, to, context))
    }
}

impl UdpSocket for DirectUdpSocket {
    async fn receive_from(&self, into: &mut [u8]) -> Result<(usize, SocketAddr), UdpError> {
        poll_fn(|context| self.poll_receive(into, context)).await
    }

    async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<(), UdpError> {
        let SocketAddr::V4(to) = to else { return Err(UdpError::Unsupported) };
        poll_fn(|context| self.poll_send(datagram, (*to.ip(), to.port()), context)).await
    }

    fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for DirectUdpSocket {
    fn drop(&mut self) {
        self.handle.with(|engine| engine.unbind(self.id, self.port));
    }
}

impl fmt::Debug for DirectUdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectUdpSocket").field("port", &self.port).finish()
    }
}

impl Engine {
    fn bind(&mut self, port: u16) -> Result<(u32, u16), BindError> {
        let port = match port {
            0 => self.free_port(|engine, port| !engine.datagrams.contains_key(&port)).ok_or(BindError::Exhausted)?,
            port if self.datagrams.contains_key(&port) => return Err(BindError::InUse),
            port => port,
        };
        let id = self.flows.insert(Flow::new_udp(port, self.config.udp_buffer)) as u32;
        self.datagrams.insert(port, id);
        Ok((id, port))
    }

    /// Closes a socket: its port is free at once, and what was sent still goes out.
    fn unbind(&mut self, id: u32, port: u16) {
        self.datagrams.remove(&port);
        if let Some(flow) = self.flow(id).and_then(Flow::udp) {
            flow.closing = true;
            self.mark_dirty(id);
        }
    }

    /// Lets a socket send, up to a burst, then sees what has become of it. Gives how many frames it has sent.
    pub(super) fn attend_datagrams<T: FrameTransmitter>(&mut self, id: u32, transmitter: &mut T) -> usize {
        let Self { flows, interface, neighbours, statistics, config, scratch, mtu, mac, offload, now, .. } = self;
        let Some(flow) = flows.get_mut(id as usize).and_then(|flow| flow.udp()) else { return 0 };
        let to = To::Any { neighbours, network: &config.ipv4, gateway: config.gateway, now: *now, scratch };
        let mut port = Port { packet: None, wire: Wire { transmitter, statistics, mac: *mac, offload: *offload }, to, mtu: *mtu };
        let mut sent = 0;
        while sent < BURST {
            port.wire.statistics.flow_polls += 1;
            if interface.poll_egress(*now, &mut port, &mut flow.set) == PollResult::None {
                break;
            }
            sent += 1;
        }
        let has_more = flow.socket().send_queue() > 0;
        if has_more {
            self.mark_dirty(id);
        }
        self.settle_datagrams(id);
        sent
    }

    /// Files a UDP flow under what has become of it.
    fn settle_datagrams(&mut self, id: u32) {
        let now = self.now;
        let Some(flow) = self.flow(id).and_then(Flow::udp) else { return };
        if flow.closing {
            let close_by = *flow.close_by.get_or_insert(now + CLOSING);
            if now >= close_by || (flow.held == 0 && flow.socket().send_queue() == 0) {
                self.timers.remove(id);
                self.flows.try_remove(id as usize);
                return;
            }
            self.timers.at_latest(id, close_by);
        }
    }

    /// Takes a datagram for a socket from the wire.
    pub(super) fn ingress_datagram<T: FrameTransmitter>(&mut self, id: u32, frame: &[u8], transmitter: &mut T) {
        let Self { flows, interface, statistics, mac, mtu, offload, now, .. } = self;
        let Some(flow) = flows.get_mut(id as usize).and_then(|flow| flow.udp()) else { return };
        let queued = |socket: &mut udp::Socket| (socket.can_recv(), socket.recv_queue());
        let before = queued(flow.socket());
        statistics.flow_polls += 1;
        let (from, packet) = device::open(frame);
        let wire = Wire { transmitter, statistics, mac: *mac, offload: *offload };
        let mut port = Port { packet: Some(packet), wire, to: To::Neighbour(from), mtu: *mtu };
        interface.poll_ingress_single(*now, &mut port, &mut flow.set);
        let after = queued(flow.socket());
        // An empty datagram after others changes neither, and is not missed.
        if before == after && frame.len() > ETHERNET_HEADER + HEADERS {
            self.statistics.drops.count(Cause::ReceiveQueueFull);
        }
    }

    fn send_datagram(&mut self, id: u32, datagram: &[u8], to: (Ipv4Addr, u16), context: &mut Context<'_>) -> Poll<Result<(), UdpError>> {
        self.refresh();
        let (address, port) = to;
        if datagram.len() + HEADERS > self.mtu {
            return Poll::Ready(Err(UdpError::TooLong));
        }
        let to_all = address.is_broadcast() || address.is_multicast() || self.config.ipv4.broadcast() == Some(address);
        if port == 0 || address.is_unspecified() || address == self.config.ipv4.address {
            return Poll::Ready(Err(UdpError::Unreachable));
        }
        if !to_all {
            let Some(neighbour) = self.next_hop(address) else { return Poll::Ready(Err(UdpError::Unreachable)) };
            if self.neighbours.find(neighbour, self.now).is_none() {
                let datagram = Datagram { flow: id, to, payload: Vec::from(datagram) };
                let is_gateway = self.config.gateway == Some(neighbour);
                if !self.neighbours.await_for_datagram(neighbour, datagram, is_gateway) {
                    self.statistics.drops.count(Cause::NoNeighbour);
                } else if let Some(flow) = self.flow(id).and_then(Flow::udp) {
                    flow.held += 1;
                }
                self.look_again();
                return Poll::Ready(Ok(()));
            }
        }
        let Some(socket) = self.flow(id).and_then(Flow::udp).map(UdpFlow::socket) else { return Poll::Ready(Err(UdpError::Down)) };
        if datagram.len() > socket.payload_send_capacity() {
            return Poll::Ready(Err(UdpError::TooLong));
        }
        match enqueue(socket, datagram, to) {
            Err(SendError::BufferFull) => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            Err(SendError::Unaddressable) => Poll::Ready(Err(UdpError::Unreachable)),
            Ok(()) => {
                self.mark_dirty(id);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Sends a datagram whose next hop has become known. It is lost when the socket is full by now.
    pub(super) fn enqueue_held(&mut self, held: &Datagram) {
        if let Some(flow) = self.flow(held.flow).and_then(Flow::udp) {
            flow.held = flow.held.saturating_sub(1);
            let is_sent = enqueue(flow.socket(), &held.payload, held.to).is_ok();
            self.mark_dirty(held.flow);
            if !is_sent {
                self.statistics.drops.count(Cause::SendQueueFull);
            }
        }
    }
}

impl Engine {
    /// A datagram that waited will not be sent.
    pub(super) fn forget_held(&mut self, id: u32) {
        if let Some(flow) = self.flow(id).and_then(Flow::udp) {
            flow.held = flow.held.saturating_sub(1);
            self.mark_dirty(id);
        }
    }
}

fn enqueue(socket: &mut udp::Socket<'static>, datagram: &[u8], (address, port): (Ipv4Addr, u16)) -> Result<(), SendError> {
    socket.send_slice(datagram, (IpAddress::Ipv4(address), port))
}
