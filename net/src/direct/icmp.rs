//! ICMP messages that a packet of this stack's did not arrive (RFC 792), for the connections that these were to open (RFC 9293, section 3.9.2.2).
//!
//! One is believed if it quotes the SYN, whose sequence number only those on the path know. A connection that is open is not ended by any, as every
//! one may be forged (RFC 5927, section 5.2), and a path that is broken may be mended.

use core::net::Ipv4Addr;

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, IpProtocol};

use super::counters::Cause;
use super::demultiplex::FlowKey;
use super::engine::{Engine, Entry};
use super::flow::Flow;
use crate::stack::ConnectError;
use crate::tcp::{Seq, State};

/// What such a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreachable {
    pub(super) key: FlowKey,
    sequence: Seq,
    code: u8,
}

impl Unreachable {
    /// What a message says of a TCP segment from `own`; `None` when it says anything else.
    pub(super) fn parse(icmp: &Icmpv4Packet<&[u8]>, own: Ipv4Addr) -> Option<Self> {
        if icmp.msg_type() != Icmpv4Message::DstUnreachable {
            return None;
        }
        // The beginning of the packet: its header, and 8 bytes at least of what it carries.
        let quoted = icmp.data();
        let (addresses, length) = (quoted.get(12..20)?, usize::from(quoted[0] & 15) * 4);
        let ports = quoted.get(length..length + 8)?;
        if length < 20 || quoted[9] != u8::from(IpProtocol::Tcp) || addresses[..4] != own.octets() {
            return None;
        }
        let remote = Ipv4Addr::new(addresses[4], addresses[5], addresses[6], addresses[7]);
        let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
        let sequence = Seq(u32::from(port(4)) << 16 | u32::from(port(6)));
        Some(Self { key: FlowKey::new(remote, port(2), port(0)), sequence, code: icmp.msg_code() })
    }
}

impl Engine {
    pub(super) fn ingress_unreachable(&mut self, message: Unreachable) {
        let id = match self.connections.get(&message.key) {
            Some(&Entry::Flow(id)) => id,
            _ => return self.statistics.drops.count(Cause::StrayError),
        };
        match self.flow(id).and_then(Flow::tcp) {
            Some(flow) if flow.socket.state() == State::SynSent && flow.socket.unacknowledged() == message.sequence => match message.code {
                // No such protocol or port: nothing is gained by trying again.
                2 | 3 => {
                    flow.refused = Some(ConnectError::Refused);
                    flow.socket.abort();
                    self.mark_dirty(id);
                }
                // The others may pass: what is tried until the time is up has this reason then.
                _ => flow.refused = Some(ConnectError::Unreachable),
            },
            _ => self.statistics.drops.count(Cause::StrayError),
        }
    }
}
