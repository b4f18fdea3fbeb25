//! Which flow a frame belongs to: a look at its headers, before anything is allocated or changed.
//!
//! Every check that needs no connection is made here, once, so that each frame that is dropped is counted under its cause; smoltcp is told not to
//! verify checksums again.

use core::hash::{BuildHasher, Hasher};
use core::net::Ipv4Addr;

use siphasher::sip::SipHasher13;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet, IpAddress, IpProtocol, Ipv4Packet,
    TcpPacket, TcpRepr, UdpPacket,
};

use super::config::{Ipv4Cidr, is_host};
use super::counters::Cause;
use super::icmp::Unreachable;
use crate::frame::Checksums;

/// A connection, seen from a stack that has one address: the peer's address and port, and the own port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey(u64);

impl FlowKey {
    /// That of no connection.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn new(remote: Ipv4Addr, remote_port: u16, local_port: u16) -> Self {
        Self(u64::from(remote.to_bits()) << 32 | u64::from(remote_port) << 16 | u64::from(local_port))
    }

    pub(super) fn remote(self) -> Ipv4Addr {
        Ipv4Addr::from_bits((self.0 >> 32) as u32)
    }

    pub(super) fn remote_port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The connection as one number.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    pub(super) fn local_port(self) -> u16 {
        self.0 as u16
    }
}

/// What a frame is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A TCP segment to this stack from that neighbour.
    Tcp { key: FlowKey, from: EthernetAddress, segment: TcpRepr<'a> },
    /// A UDP datagram to this port; `alone` when it was sent to this stack and no other.
    Udp { port: u16, alone: bool },
    /// An ARP message, for this stack or not.
    Arp(Message),
    /// A segment of this stack's did not arrive.
    Unreachable(Unreachable),
    /// Something else that the interface may answer, such as an echo request.
    Other,
}

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) is_request: bool,
    pub(super) hardware: EthernetAddress,
    pub(super) sender: Ipv4Addr,
    pub(super) target: Ipv4Addr,
}

/// Looks at a frame that has come to a stack with the addresses given. What it lets through is for this stack, well-formed and has right checksums,
/// as far as the device has not seen to these.
pub(super) fn classify<'a>(frame: &'a [u8], checksums: Checksums, mac: EthernetAddress, network: &Ipv4Cidr) -> Result<Frame<'a>, Cause> {
    let ethernet = EthernetFrame::new_checked(frame).or(Err(Cause::Malformed))?;
    let alone = ethernet.dst_addr() == mac;
    if !alone && ethernet.dst_addr().is_unicast() {
        return Err(Cause::NotForUs);
    }
    if !ethernet.src_addr().is_unicast() {
        return Err(Cause::Malformed);
    }
    match ethernet.ethertype() {
        EthernetProtocol::Arp => message(ethernet.payload()).ok_or(Cause::Malformed).map(Frame::Arp),
        EthernetProtocol::Ipv4 => packet(ethernet.payload(), checksums, (ethernet.src_addr(), alone), network),
        _ => Err(Cause::NotForUs),
    }
}

fn message(payload: &[u8]) -> Option<Message> {
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, .. } =
        ArpRepr::parse(&ArpPacket::new_checked(payload).ok()?).ok()?
    else {
        return None;
    };
    let is_request = match operation {
        ArpOperation::Request => true,
        ArpOperation::Reply => false,
        _ => return None,
    };
    let message = Message { is_request, hardware: source_hardware_addr, sender: source_protocol_addr, target: target_protocol_addr };
    source_hardware_addr.is_unicast().then_some(message)
}

fn packet<'a>(
    payload: &'a [u8],
    checksums: Checksums,
    (from, alone): (EthernetAddress, bool),
    network: &Ipv4Cidr,
) -> Result<Frame<'a>, Cause> {
    let ip = Ipv4Packet::new_checked(payload).or(Err(Cause::Malformed))?;
    if ip.version() != 4 {
        return Err(Cause::Malformed);
    }
    if !ip.verify_checksum() {
        return Err(Cause::IpChecksum);
    }
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let to_us = destination == network.address;
    if !to_us && !destination.is_broadcast() && network.broadcast() != Some(destination) {
        return Err(Cause::NotForUs);
    }
    // Only a host that is looking for its address has none yet, and it speaks UDP.
    let is_unspecified = source.is_unspecified() && ip.next_header() == IpProtocol::Udp;
    if source == network.address || network.broadcast() == Some(source) || !(is_host(source) || is_unspecified) {
        return Err(Cause::Malformed);
    }
    if ip.more_frags() || ip.frag_offset() != 0 {
        return Err(Cause::Fragment);
    }
    let addresses = (IpAddress::Ipv4(source), IpAddress::Ipv4(destination));
    let is_verified = checksums == Checksums::Verified;
    if ip.next_header() == IpProtocol::Udp {
        let udp = UdpPacket::new_checked(ip.payload()).or(Err(Cause::Malformed))?;
        if !is_verified && !udp.verify_checksum(&addresses.0, &addresses.1) {
            return Err(Cause::UdpChecksum);
        }
        if udp.dst_port() == 0 {
            return Err(Cause::Malformed);
        }
        return Ok(Frame::Udp { port: udp.dst_port(), alone: alone && to_us && !is_unspecified });
    }
    // Answering what was sent to everyone would make this stack part of an amplifier (RFC 1122, sections 3.2.2.6 and 4.2.3.10).
    if !alone || !to_us {
        return Err(Cause::Broadcast);
    }
    match ip.next_header() {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(ip.payload()).or(Err(Cause::Malformed))?;
            if !is_verified && !tcp.verify_checksum(&addresses.0, &addresses.1) {
                return Err(Cause::TcpChecksum);
            }
            let segment = TcpRepr::parse(&tcp, &addresses.0, &addresses.1, &ChecksumCapabilities::ignored()).or(Err(Cause::Malformed))?;
            Ok(Frame::Tcp { key: FlowKey::new(source, segment.src_port, segment.dst_port), from, segment })
        }
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(ip.payload()).or(Err(Cause::Malformed))?;
            if !icmp.verify_checksum() {
                return Err(Cause::IcmpChecksum);
            }
            Ok(Unreachable::parse(&icmp, network.address).map_or(Frame::Other, Frame::Unreachable))
        }
        _ => Ok(Frame::Other),
    }
}

/// A hash whose key only this stack knows, so that a peer cannot choose addresses and ports that collide.
#[derive(Clone, Copy)]
pub(super) struct Keyed(pub(super) u64, pub(super) u64);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

impl Keyed {
    /// The hash of one number.
    pub(super) fn number(&self, number: u64) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write_u64(number);
        hasher.finish()
    }
}
