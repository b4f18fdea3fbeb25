//! A frame device as smoltcp wants to see it: one frame in at most, frames out.

use core::net::Ipv4Addr;

use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::frame::{ETHERNET_HEADER, FrameTransmitter};

/// The device for one call into smoltcp.
pub(super) struct Port<'a, T> {
    pub(super) frame: Option<&'a [u8]>,
    pub(super) transmitter: &'a mut T,
    pub(super) mtu: usize,
    pub(super) sent: &'a mut u64,
}

impl<T: FrameTransmitter> Device for Port<'_, T> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Transmit<'b, T>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let frame = self.frame.take()?;
        Some((Received(frame), Transmit { transmitter: self.transmitter, sent: self.sent }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        self.transmitter.has_room().then_some(Transmit { transmitter: self.transmitter, sent: self.sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER;
        capabilities
    }
}

pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, consume: F) -> R {
        consume(self.0)
    }
}

pub(super) struct Transmit<'a, T> {
    transmitter: &'a mut T,
    sent: &'a mut u64,
}

impl<T: FrameTransmitter> TxToken for Transmit<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        *self.sent += 1;
        self.transmitter.transmit(length, fill)
    }
}

/// Asks who has `target`; asking for the own address announces it (RFC 5227, section 2.3).
pub(super) fn send_arp_request(transmitter: &mut impl FrameTransmitter, mac: EthernetAddress, address: Ipv4Addr, target: Ipv4Addr) {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac,
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let ethernet = EthernetRepr { src_addr: mac, dst_addr: EthernetAddress::BROADCAST, ethertype: EthernetProtocol::Arp };
    transmitter.transmit(ETHERNET_HEADER + arp.buffer_len(), |frame| {
        let mut frame = EthernetFrame::new_unchecked(frame);
        ethernet.emit(&mut frame);
        arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    });
}

/// Answers a TCP segment of a connection whose socket is gone with what its last acknowledgement said: `next` comes next.
pub(super) fn acknowledge_again(transmitter: &mut impl FrameTransmitter, segment: &[u8], next: TcpSeqNumber) {
    let Some((ethernet, ip, tcp)) = answer_to(segment, next) else { return };
    transmitter.transmit(ETHERNET_HEADER + ip.buffer_len() + tcp.buffer_len(), |frame| {
        let checksums = ChecksumCapabilities::default();
        let mut frame = EthernetFrame::new_unchecked(frame);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        let (source, destination) = (IpAddress::Ipv4(ip.src_addr), IpAddress::Ipv4(ip.dst_addr));
        tcp.emit(&mut TcpPacket::new_unchecked(packet.payload_mut()), &source, &destination, &checksums);
    });
}

fn answer_to(segment: &[u8], next: TcpSeqNumber) -> Option<(EthernetRepr, Ipv4Repr, TcpRepr<'static>)> {
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
    let frame = EthernetRepr { src_addr: ethernet.dst_addr(), dst_addr: ethernet.src_addr(), ethertype: EthernetProtocol::Ipv4 };
    Some((frame, packet, answer))
}
