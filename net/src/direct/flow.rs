//! A flow: a TCP connection, or a UDP socket in a set of its own, so that work on it touches no other.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp;
use smoltcp::time::{Duration, Instant};

use super::counters::FlowCounters;
use super::demultiplex::FlowKey;
use crate::stack::ConnectError;
use crate::tcp::Socket;

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
    pub(super) kind: Kind,
    /// On the list of flows to attend to.
    pub(super) dirty: bool,
}

#[expect(clippy::large_enum_variant, reason = "flows are boxed, and nearly all of them are connections")]
pub(super) enum Kind {
    Tcp(TcpFlow),
    Udp(UdpFlow),
}

/// A connection.
pub(super) struct TcpFlow {
    pub(super) key: FlowKey,
    pub(super) socket: Socket,
    pub(super) holder: Holder,
    /// In the table of connections.
    pub(super) mapped: bool,
    /// In TIME-WAIT with nothing left to send; kept only because the application has not read everything.
    pub(super) resting: bool,
    /// When it is given up, whatever its state.
    pub(super) close_by: Option<Instant>,
    /// Its place in the table of connections that nobody holds.
    pub(super) orphan: Option<usize>,
    /// Waiting for its next hop's hardware address.
    pub(super) awaiting: bool,
    /// Why it cannot be opened, as somebody on the path has said.
    pub(super) refused: Option<ConnectError>,
    pub(super) counters: FlowCounters,
}

impl TcpFlow {
    pub(super) fn new(key: FlowKey, socket: Socket, holder: Holder) -> Self {
        let counters = FlowCounters::default();
        Self { key, socket, holder, mapped: true, resting: false, close_by: None, orphan: None, awaiting: false, refused: None, counters }
    }
}

/// A UDP socket.
pub(super) struct UdpFlow {
    pub(super) set: SocketSet<'static>,
    handle: SocketHandle,
    /// How many of its datagrams wait for a neighbour's hardware address.
    pub(super) held: usize,
    /// The application has dropped it; what it has sent still goes out.
    pub(super) closing: bool,
    /// When it is given up.
    pub(super) close_by: Option<Instant>,
}

impl UdpFlow {
    pub(super) fn socket(&mut self) -> &mut udp::Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

impl Flow {
    /// A UDP flow bound to `port` whose queues hold `buffer` bytes per direction.
    pub(super) fn new_udp(port: u16, buffer: usize) -> Box<Self> {
        // A datagram takes a record and its payload; with 256 bytes each neither runs out long before the other.
        let queue = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; (buffer / 256).max(4)], vec![0; buffer]);
        let mut socket = udp::Socket::new(queue(), queue());
        // Fails on port 0 and on a socket that is bound, neither of which this one is.
        let _ = socket.bind(port);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Box::new(Self { kind: Kind::Udp(UdpFlow { set, handle, held: 0, closing: false, close_by: None }), dirty: false })
    }

    /// The connection; `None` on a UDP flow.
    pub(super) fn tcp(&mut self) -> Option<&mut TcpFlow> {
        match &mut self.kind {
            Kind::Tcp(flow) => Some(flow),
            Kind::Udp(_) => None,
        }
    }

    /// The UDP socket; `None` on a connection.
    pub(super) fn udp(&mut self) -> Option<&mut UdpFlow> {
        match &mut self.kind {
            Kind::Udp(flow) => Some(flow),
            Kind::Tcp(_) => None,
        }
    }
}

pub(super) fn duration(duration: fogbow::time::Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

pub(super) fn instant(instant: fogbow::time::Instant) -> Instant {
    Instant::from_micros((instant.as_nanos() / 1000).cast_signed())
}
