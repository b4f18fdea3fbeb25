//! Ethernet frames: what one from the guest asks for, and the replies that need no connection.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IPV4_HEADER_LEN, Icmpv4Packet, Icmpv4Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, UDP_HEADER_LEN, UdpPacket, UdpRepr,
};

use crate::GATEWAY_MAC;

/// The two ends of a flow as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    pub(crate) guest: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
}

/// A frame from the guest.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Who sent it, by Ethernet address.
    pub(crate) sender: EthernetAddress,
    /// Who sent it, by IPv4 address.
    pub(crate) source: Ipv4Addr,
    pub(crate) content: Content<'a>,
}

/// What a frame from the guest asks for.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    /// An ARP request for `target`.
    ArpRequest { target: Ipv4Addr },
    /// An ARP reply; that it came is all there is to learn.
    ArpReply,
    /// A TCP segment in the IP packet `packet`.
    Tcp { key: FlowKey, opens: bool, packet: &'a [u8] },
    /// A UDP datagram.
    Udp { key: FlowKey, payload: &'a [u8] },
    /// An ICMP echo request.
    Echo { target: Ipv4Addr, ident: u16, sequence: u16, data: &'a [u8] },
}

/// Reads a frame, or `None` for one that is damaged, not for us, or of a kind that this network does not carry.
///
/// The checksums of TCP are left to the TCP stack, except for a segment that would open a connection.
pub(crate) fn parse(frame: &[u8]) -> Option<Frame<'_>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let sender = ethernet.src_addr();
    if !(ethernet.dst_addr() == EthernetAddress(GATEWAY_MAC) || ethernet.dst_addr().is_broadcast()) || !sender.is_unicast() {
        return None;
    }
    let (source, content) = match ethernet.ethertype() {
        EthernetProtocol::Arp => parse_arp(ethernet.payload())?,
        EthernetProtocol::Ipv4 => parse_ipv4(ethernet.payload())?,
        _ => return None,
    };
    Some(Frame { sender, source, content })
}

fn parse_arp(packet: &[u8]) -> Option<(Ipv4Addr, Content<'_>)> {
    let packet = ArpPacket::new_checked(packet).ok()?;
    let ArpRepr::EthernetIpv4 { operation, source_protocol_addr: source, target_protocol_addr: target, .. } =
        ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    match operation {
        ArpOperation::Request => Some((source, Content::ArpRequest { target })),
        ArpOperation::Reply => Some((source, Content::ArpReply)),
        ArpOperation::Unknown(_) => None,
    }
}

fn parse_ipv4(bytes: &[u8]) -> Option<(Ipv4Addr, Content<'_>)> {
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    if packet.version() != 4 || packet.more_frags() || packet.frag_offset() != 0 || !packet.verify_checksum() {
        return None;
    }
    let (source, target) = (packet.src_addr(), packet.dst_addr());
    let key =
        |guest_port, remote_port| FlowKey { guest: SocketAddrV4::new(source, guest_port), remote: SocketAddrV4::new(target, remote_port) };
    let payload = packet.payload();
    let content = match packet.next_header() {
        IpProtocol::Tcp => {
            let segment = TcpPacket::new_checked(payload).ok()?;
            let opens = segment.syn() && !segment.ack() && !segment.rst() && !segment.fin();
            if opens && !segment.verify_checksum(&source.into(), &target.into()) {
                return None;
            }
            Content::Tcp { key: key(segment.src_port(), segment.dst_port()), opens, packet: bytes }
        }
        IpProtocol::Udp => {
            let datagram = UdpPacket::new_checked(payload).ok()?;
            let repr = UdpRepr::parse(&datagram, &source.into(), &target.into(), &ChecksumCapabilities::default()).ok()?;
            Content::Udp { key: key(repr.src_port, repr.dst_port), payload: datagram.payload() }
        }
        IpProtocol::Icmp => {
            let message = Icmpv4Packet::new_checked(payload).ok()?;
            match Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).ok()? {
                Icmpv4Repr::EchoRequest { ident, seq_no, data } => Content::Echo { target, ident, sequence: seq_no, data },
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((source, content))
}

/// A packet for the guest that needs no connection, ready to be written into a frame.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    /// An ARP packet.
    Arp(ArpRepr),
    /// A UDP datagram; source and destination are the key's remote and guest end.
    Udp { key: FlowKey, payload: &'a [u8] },
    /// The answer of `source` to an ICMP echo request of `guest`.
    Echo { source: Ipv4Addr, guest: Ipv4Addr, ident: u16, sequence: u16, data: &'a [u8] },
}

impl Reply<'_> {
    /// The reply to the guest's ARP request for `target`: all addresses are ours.
    pub(crate) fn arp(target: Ipv4Addr, guest: Ipv4Addr, guest_mac: EthernetAddress) -> Self {
        Reply::Arp(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(GATEWAY_MAC),
            source_protocol_addr: target,
            target_hardware_addr: guest_mac,
            target_protocol_addr: guest,
        })
    }

    /// The question for the guest's Ethernet address.
    pub(crate) fn arp_request(gateway: Ipv4Addr, guest: Ipv4Addr) -> Self {
        Reply::Arp(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(GATEWAY_MAC),
            source_protocol_addr: gateway,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: guest,
        })
    }

    /// What the Ethernet header says of the packet.
    pub(crate) fn protocol(&self) -> EthernetProtocol {
        match self {
            Reply::Arp(_) => EthernetProtocol::Arp,
            Reply::Udp { .. } | Reply::Echo { .. } => EthernetProtocol::Ipv4,
        }
    }

    /// Bytes of the packet, Ethernet header not counted.
    pub(crate) fn len(&self) -> usize {
        match self {
            Reply::Arp(repr) => repr.buffer_len(),
            Reply::Udp { payload, .. } => IPV4_HEADER_LEN + UDP_HEADER_LEN + payload.len(),
            Reply::Echo { data, .. } => IPV4_HEADER_LEN + echo_reply(0, 0, data).buffer_len(),
        }
    }

    /// Writes the packet into `buffer`, which is [`Reply::len`] bytes long.
    pub(crate) fn emit(&self, buffer: &mut [u8]) {
        let checksums = ChecksumCapabilities::default();
        match *self {
            Reply::Arp(repr) => repr.emit(&mut ArpPacket::new_unchecked(buffer)),
            Reply::Udp { key: FlowKey { guest, remote }, payload } => {
                let packet = emit_ipv4(buffer, *remote.ip(), *guest.ip(), IpProtocol::Udp);
                let repr = UdpRepr { src_port: remote.port(), dst_port: guest.port() };
                let (source, destination) = ((*remote.ip()).into(), (*guest.ip()).into());
                let copy = |buffer: &mut [u8]| buffer.copy_from_slice(payload);
                repr.emit(&mut UdpPacket::new_unchecked(packet), &source, &destination, payload.len(), copy, &checksums);
            }
            Reply::Echo { source, guest, ident, sequence, data } => {
                let packet = emit_ipv4(buffer, source, guest, IpProtocol::Icmp);
                echo_reply(ident, sequence, data).emit(&mut Icmpv4Packet::new_unchecked(packet), &checksums);
            }
        }
    }
}

fn echo_reply(ident: u16, seq_no: u16, data: &[u8]) -> Icmpv4Repr<'_> {
    Icmpv4Repr::EchoReply { ident, seq_no, data }
}

/// Writes an IPv4 header for a packet that fills `buffer` and returns the room behind it.
fn emit_ipv4(buffer: &mut [u8], src_addr: Ipv4Addr, dst_addr: Ipv4Addr, next_header: IpProtocol) -> &mut [u8] {
    let payload_len = buffer.len() - IPV4_HEADER_LEN;
    let repr = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: 64 };
    repr.emit(&mut Ipv4Packet::new_unchecked(&mut *buffer), &ChecksumCapabilities::default());
    &mut buffer[IPV4_HEADER_LEN..]
}
