//! A frame device as smoltcp wants to see it: one packet in at most, packets out.
//!
//! smoltcp sees IP packets alone. Their way to the neighbours is the stack's own: it puts the Ethernet header before each.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IPV4_HEADER_LEN, IpAddress,
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::config::Ipv4Cidr;
use super::counters::{Cause, Statistics};
use super::neighbours::Neighbours;
use crate::frame::{ETHERNET_HEADER, Finish, FrameTransmitter, Offload, TCP_CHECKSUM};
use crate::tcp::Seq;

/// The frame device with this stack's name on it.
pub(super) struct Wire<'a, T> {
    pub(super) transmitter: &'a mut T,
    pub(super) statistics: &'a mut Statistics,
    pub(super) mac: EthernetAddress,
    pub(super) offload: Offload,
}

impl<T: FrameTransmitter> Wire<'_, T> {
    /// Sends a frame whose payload of `length` bytes `fill` writes.
    fn transmit<R>(&mut self, to: EthernetAddress, ethertype: EthernetProtocol, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.transmit_unfinished(to, ethertype, length, Finish::Nothing, fill)
    }

    /// Sends a frame that the device is to finish.
    fn transmit_unfinished<R>(
        &mut self,
        to: EthernetAddress,
        ethertype: EthernetProtocol,
        length: usize,
        finish: Finish,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        self.statistics.frames_sent += 1;
        self.statistics.bytes_sent += (ETHERNET_HEADER + length) as u64;
        let header = EthernetRepr { src_addr: self.mac, dst_addr: to, ethertype };
        self.transmitter.transmit(ETHERNET_HEADER + length, finish, |frame| {
            header.emit(&mut EthernetFrame::new_unchecked(&mut *frame));
            fill(&mut frame[ETHERNET_HEADER..])
        })
    }

    /// Sends an ARP message, if the device has room.
    fn send_arp(&mut self, to: EthernetAddress, arp: &ArpRepr) {
        if self.transmitter.has_room() {
            self.transmit(to, EthernetProtocol::Arp, arp.buffer_len(), |payload| arp.emit(&mut ArpPacket::new_unchecked(payload)));
        }
    }

    /// Asks who has `target`; asking for the own address announces it (RFC 5227, section 2.3), and asking from no address probes whether another
    /// has it (section 2.1).
    pub(super) fn ask_for(&mut self, target: Ipv4Addr, from: Ipv4Addr) {
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: self.mac,
            source_protocol_addr: from,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        };
        self.send_arp(EthernetAddress::BROADCAST, &arp);
    }

    /// Answers a neighbour that has asked for `own`.
    pub(super) fn answer_arp(&mut self, own: Ipv4Addr, to: EthernetAddress, target: Ipv4Addr) {
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: self.mac,
            source_protocol_addr: own,
            target_hardware_addr: to,
            target_protocol_addr: target,
        };
        self.send_arp(to, &arp);
    }

    /// Sends a TCP segment: `header`, and the two pieces of its payload. The device cuts it where it has more payload than `segment` bytes.
    pub(super) fn send_segment(
        &mut self,
        to: EthernetAddress,
        from: Ipv4Addr,
        remote: Ipv4Addr,
        header: &TcpRepr,
        (first, second): (&[u8], &[u8]),
        segment: usize,
    ) {
        let payload = first.len() + second.len();
        let length = header.header_len() + payload;
        let start = ETHERNET_HEADER + IPV4_HEADER_LEN;
        let finish = match self.offload.checksum {
            false => Finish::Nothing,
            true if payload > segment => Finish::Segments { start, headers: start + header.header_len(), payload: segment },
            true => Finish::Checksum { start, field: start + TCP_CHECKSUM },
        };
        let ip = Ipv4Repr { src_addr: from, dst_addr: remote, next_header: IpProtocol::Tcp, payload_len: length, hop_limit: 64 };
        self.transmit_unfinished(to, EthernetProtocol::Ipv4, ip.buffer_len() + length, finish, |bytes| {
            ip.emit(&mut Ipv4Packet::new_unchecked(&mut *bytes), &ChecksumCapabilities::default());
            let bytes = &mut bytes[IPV4_HEADER_LEN..];
            let (source, destination) = (IpAddress::Ipv4(from), IpAddress::Ipv4(remote));
            header.emit(&mut TcpPacket::new_unchecked(&mut *bytes), &source, &destination, &ChecksumCapabilities::ignored());
            let payload = &mut bytes[header.header_len()..];
            payload[..first.len()].copy_from_slice(first);
            payload[first.len()..].copy_from_slice(second);
            if finish == Finish::Nothing {
                TcpPacket::new_unchecked(bytes).fill_checksum(&source, &destination);
            } else {
                TcpPacket::new_unchecked(bytes).set_checksum(pseudo_header_sum(from, remote, length));
            }
        });
    }

    /// Answers a TCP segment of a connection whose socket is gone with what its last acknowledgement said: `next` comes next.
    pub(super) fn acknowledge_again(&mut self, to: EthernetAddress, own: Ipv4Addr, remote: Ipv4Addr, segment: &TcpRepr, next: Seq) {
        let header = TcpRepr { ack_number: Some(TcpSeqNumber(next.0.cast_signed())), ..bare(segment) };
        self.send_segment(to, own, remote, &header, (&[], &[]), usize::MAX);
    }

    /// Answers a TCP segment that belongs to no connection with a reset, unless it is one itself (RFC 9293, section 3.5.2, group 1).
    pub(super) fn refuse(&mut self, to: EthernetAddress, own: Ipv4Addr, remote: Ipv4Addr, segment: &TcpRepr) {
        if segment.control == TcpControl::Rst || !self.transmitter.has_room() {
            return;
        }
        let ack_number = segment.ack_number.is_none().then(|| segment.seq_number + segment.segment_len());
        let header = TcpRepr { control: TcpControl::Rst, ack_number, ..bare(segment) };
        self.send_segment(to, own, remote, &header, (&[], &[]), usize::MAX);
    }

    /// Answers a connection request with the sequence number `first`, and no option but the segment size.
    pub(super) fn answer_request(
        &mut self,
        to: EthernetAddress,
        own: Ipv4Addr,
        remote: Ipv4Addr,
        syn: &TcpRepr,
        first: u32,
        (segment, window): (u16, u16),
    ) {
        let header = TcpRepr {
            control: TcpControl::Syn,
            seq_number: TcpSeqNumber(first.cast_signed()),
            ack_number: Some(syn.seq_number + 1),
            window_len: window,
            max_seg_size: Some(segment),
            ..bare(syn)
        };
        self.send_segment(to, own, remote, &header, (&[], &[]), usize::MAX);
    }
}

/// A header that answers `segment`, with the sequence number that this acknowledges.
fn bare(segment: &TcpRepr) -> TcpRepr<'static> {
    TcpRepr {
        src_port: segment.dst_port,
        dst_port: segment.src_port,
        control: TcpControl::None,
        seq_number: segment.ack_number.unwrap_or_default(),
        ack_number: None,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

/// The sum of the pseudo-header (RFC 9293, section 3.1) of a TCP segment of `length` bytes, headers counted: what a device begins with.
fn pseudo_header_sum(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> u16 {
    let halves = |address: Ipv4Addr| (address.to_bits() >> 16) + (address.to_bits() & 0xffff);
    let sum = halves(from) + halves(to) + u32::from(u8::from(IpProtocol::Tcp)) + length as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Where the packets of one call into smoltcp go.
pub(super) enum To<'a> {
    /// Nowhere: the device has no room for any.
    Nobody,
    /// All to this neighbour.
    Neighbour(EthernetAddress),
    /// Each where its destination says. They are written to `scratch` first, as it is not known before whether they can be sent.
    Any { neighbours: &'a mut Neighbours, network: &'a Ipv4Cidr, gateway: Option<Ipv4Addr>, now: Instant, scratch: &'a mut Vec<u8> },
}

/// The device for one call into smoltcp.
pub(super) struct Port<'a, T> {
    pub(super) packet: Option<&'a [u8]>,
    pub(super) wire: Wire<'a, T>,
    pub(super) to: To<'a>,
    pub(super) mtu: usize,
}

/// What smoltcp is told of the device: packets of at most `mtu` bytes, whose checksums have been verified before it sees them.
fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu;
    capabilities.checksum.ipv4 = Checksum::Tx;
    capabilities.checksum.tcp = Checksum::Tx;
    capabilities.checksum.udp = Checksum::Tx;
    capabilities.checksum.icmpv4 = Checksum::Tx;
    capabilities
}

impl<'a, T: FrameTransmitter> Device for Port<'a, T> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Transmit<'b, 'a, T>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), Transmit { wire: &mut self.wire, to: &mut self.to }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        (!matches!(self.to, To::Nobody) && self.wire.transmitter.has_room()).then_some(Transmit { wire: &mut self.wire, to: &mut self.to })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, consume: F) -> R {
        consume(self.0)
    }
}

pub(super) struct Transmit<'b, 'a, T> {
    wire: &'b mut Wire<'a, T>,
    to: &'b mut To<'a>,
}

impl<T: FrameTransmitter> TxToken for Transmit<'_, '_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let Self { wire, to } = self;
        match to {
            To::Nobody => fill(&mut alloc::vec![0; length]),
            To::Neighbour(hardware) => wire.transmit(*hardware, EthernetProtocol::Ipv4, length, fill),
            To::Any { neighbours, network, gateway, now, scratch } => {
                scratch.clear();
                scratch.resize(length, 0);
                let result = fill(scratch);
                let destination = Ipv4Packet::new_unchecked(&scratch[..]).dst_addr();
                match hardware_address(destination, neighbours, network, *gateway, *now) {
                    Some(hardware) => wire.transmit(hardware, EthernetProtocol::Ipv4, length, |packet| packet.copy_from_slice(scratch)),
                    None => wire.statistics.drops.count(Cause::NoNeighbour),
                }
                result
            }
        }
    }
}

/// The hardware address that a packet to `destination` goes to.
fn hardware_address(
    destination: Ipv4Addr,
    neighbours: &mut Neighbours,
    network: &Ipv4Cidr,
    gateway: Option<Ipv4Addr>,
    now: Instant,
) -> Option<EthernetAddress> {
    if destination.is_broadcast() || network.broadcast() == Some(destination) {
        return Some(EthernetAddress::BROADCAST);
    }
    if destination.is_multicast() {
        // RFC 1112, section 6.4: the low 23 bits of the group.
        let [_, b, c, d] = destination.octets();
        return Some(EthernetAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d]));
    }
    neighbours.find(if network.contains(destination) { destination } else { gateway? }, now)
}

/// Where a frame comes from, and the packet in it. It has been classified before.
pub(super) fn open(frame: &[u8]) -> (EthernetAddress, &[u8]) {
    (EthernetFrame::new_unchecked(frame).src_addr(), frame.get(ETHERNET_HEADER..).unwrap_or_default())
}
