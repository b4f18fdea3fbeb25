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
use super::counters::{Cause, FlowCounters, Statistics};
use super::neighbours::Neighbours;
use crate::frame::{ETHERNET_HEADER, FrameTransmitter};

/// The frame device with this stack's name on it.
pub(super) struct Wire<'a, T> {
    pub(super) transmitter: &'a mut T,
    pub(super) statistics: &'a mut Statistics,
    pub(super) mac: EthernetAddress,
}

impl<T: FrameTransmitter> Wire<'_, T> {
    /// Sends a frame whose payload of `length` bytes `fill` writes.
    fn transmit<R>(&mut self, to: EthernetAddress, ethertype: EthernetProtocol, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.statistics.frames_sent += 1;
        self.statistics.bytes_sent += (ETHERNET_HEADER + length) as u64;
        let header = EthernetRepr { src_addr: self.mac, dst_addr: to, ethertype };
        self.transmitter.transmit(ETHERNET_HEADER + length, |frame| {
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

    /// Answers a TCP segment of a connection whose socket is gone with what its last acknowledgement said: `next` comes next.
    pub(super) fn acknowledge_again(&mut self, segment: &[u8], next: TcpSeqNumber) {
        let Some((to, ip, tcp)) = answer_to(segment, next) else { return };
        self.transmit(to, EthernetProtocol::Ipv4, ip.buffer_len() + tcp.buffer_len(), |payload| {
            let checksums = ChecksumCapabilities::default();
            let mut packet = Ipv4Packet::new_unchecked(payload);
            ip.emit(&mut packet, &checksums);
            let (source, destination) = (IpAddress::Ipv4(ip.src_addr), IpAddress::Ipv4(ip.dst_addr));
            tcp.emit(&mut TcpPacket::new_unchecked(packet.payload_mut()), &source, &destination, &checksums);
        });
    }
}

/// Where the packets of one call into smoltcp go.
pub(super) enum To<'a> {
    /// Nowhere: the device has no room for any.
    Nobody,
    /// All to this neighbour.
    Neighbour(EthernetAddress),
    /// All to this neighbour, as segments of one connection.
    Peer(EthernetAddress, &'a mut Tally),
    /// Each where its destination says. They are written to `scratch` first, as it is not known before whether they can be sent.
    Any { neighbours: &'a mut Neighbours, network: &'a Ipv4Cidr, gateway: Option<Ipv4Addr>, now: Instant, scratch: &'a mut Vec<u8> },
}

/// What is counted of a connection.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) counters: FlowCounters,
    /// The sequence number after the last byte sent, once one was.
    sent_up_to: Option<TcpSeqNumber>,
}

impl Tally {
    /// Counts a segment that is being sent. True when it repeats bytes.
    fn sent(&mut self, packet: &[u8]) -> bool {
        let tcp = TcpPacket::new_unchecked(&packet[IPV4_HEADER_LEN..]);
        let (start, length) = (tcp.seq_number(), tcp.segment_len());
        self.counters.segments_sent += 1;
        self.counters.bytes_sent += tcp.payload().len() as u64;
        let repeats = length > 0 && self.sent_up_to.is_some_and(|sent| start < sent);
        let end = start + length;
        if self.sent_up_to.is_none_or(|sent| end > sent) {
            self.sent_up_to = Some(end);
        }
        self.counters.retransmissions += u64::from(repeats);
        repeats
    }
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
            To::Peer(hardware, tally) => {
                let (result, repeats) = wire.transmit(*hardware, EthernetProtocol::Ipv4, length, |packet| {
                    let result = fill(packet);
                    (result, tally.sent(packet))
                });
                wire.statistics.retransmissions += u64::from(repeats);
                result
            }
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

fn answer_to(segment: &[u8], next: TcpSeqNumber) -> Option<(EthernetAddress, Ipv4Repr, TcpRepr<'static>)> {
    let ethernet = EthernetFrame::new_checked(segment).ok()?;
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
    let answer = TcpRepr {
        src_port: tcp.dst_port(),
        dst_port: tcp.src_port(),
        control: TcpControl::None,
        seq_number: tcp.ack_number(),
        ack_number: Some(next),
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let packet = Ipv4Repr {
        src_addr: ip.dst_addr(),
        dst_addr: ip.src_addr(),
        next_header: IpProtocol::Tcp,
        payload_len: answer.buffer_len(),
        hop_limit: 64,
    };
    Some((ethernet.src_addr(), packet, answer))
}
