//! Which flow a frame belongs to: a look at its headers, before anything is allocated or changed.
//!
//! Nothing here is trusted: a frame that lies about its ports reaches a flow that rejects it by its checksum. Only what creates state, a connection
//! request, is verified at once ([`is_genuine`]).

use core::hash::{BuildHasher, Hasher};
use core::net::Ipv4Addr;

use siphasher::sip::SipHasher13;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket,
};

use super::config::is_host;

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

    pub(super) fn local_port(self) -> u16 {
        self.0 as u16
    }
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A TCP segment to this stack.
    Tcp(Segment),
    /// A UDP datagram to this port.
    Udp(u16),
    /// An ARP message to this stack from that neighbour.
    Arp(Ipv4Addr),
    /// Something else that the interface may answer, such as an echo request.
    Other,
    /// Nothing for this stack.
    Ignored,
}

/// The parts of a TCP header that the stack itself decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) key: FlowKey,
    pub(super) syn: bool,
    pub(super) ack: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) sequence: TcpSeqNumber,
    /// Its length in sequence numbers, SYN and FIN counted.
    pub(super) length: usize,
    /// How many bytes it carries.
    pub(super) payload: usize,
}

/// Looks at a frame that has come to a stack with the addresses given.
pub(super) fn classify(frame: &[u8], mac: EthernetAddress, address: Ipv4Addr) -> Frame {
    parse(frame, mac, address).unwrap_or(Frame::Ignored)
}

fn parse(frame: &[u8], mac: EthernetAddress, address: Ipv4Addr) -> Option<Frame> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let to_us_alone = ethernet.dst_addr() == mac;
    if !to_us_alone && ethernet.dst_addr().is_unicast() {
        return None;
    }
    match ethernet.ethertype() {
        EthernetProtocol::Arp => {
            let ArpRepr::EthernetIpv4 { source_protocol_addr, target_protocol_addr, .. } =
                ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).ok()?).ok()?
            else {
                return None;
            };
            (target_protocol_addr == address).then_some(Frame::Arp(source_protocol_addr))
        }
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            if ip.more_frags() || ip.frag_offset() != 0 {
                return None;
            }
            if ip.next_header() == IpProtocol::Udp {
                return Some(Frame::Udp(UdpPacket::new_checked(ip.payload()).ok()?.dst_port()));
            }
            // Answering what was sent to everyone would make this stack part of an amplifier (RFC 1122, 3.2.2.6 and 4.2.3.10).
            if !to_us_alone || ip.dst_addr() != address || ip.src_addr() == address {
                return None;
            }
            match ip.next_header() {
                IpProtocol::Tcp => segment(&ip).map(Frame::Tcp),
                _ => Some(Frame::Other),
            }
        }
        _ => None,
    }
}

fn segment(ip: &Ipv4Packet<&[u8]>) -> Option<Segment> {
    let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
    Some(Segment {
        key: FlowKey::new(ip.src_addr(), tcp.src_port(), tcp.dst_port()),
        syn: tcp.syn(),
        ack: tcp.ack(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        sequence: tcp.seq_number(),
        length: tcp.segment_len(),
        payload: tcp.payload().len(),
    })
}

/// Whether a TCP frame that [`classify`] let through has right checksums and well-formed headers and comes from the address of one host.
pub(super) fn is_genuine(frame: &[u8], is_broadcast: impl FnOnce(Ipv4Addr) -> bool) -> bool {
    let check = || {
        let checksums = ChecksumCapabilities::default();
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
        let Ipv4Repr { src_addr, dst_addr, .. } = Ipv4Repr::parse(&ip, &checksums).ok()?;
        let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
        TcpRepr::parse(&tcp, &IpAddress::Ipv4(src_addr), &IpAddress::Ipv4(dst_addr), &checksums).ok()?;
        (ethernet.src_addr().is_unicast() && is_host(src_addr) && !is_broadcast(src_addr)).then_some(())
    };
    check().is_some()
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
