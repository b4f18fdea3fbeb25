//! A guest that sends what it likes: the network stays up and ends in order.

mod common;

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::{GUEST_MAC, next_frame, readable, start};
use fogbow_usernet::{DNS, GATEWAY, GATEWAY_MAC, GUEST};
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::SendFlags;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket, UdpRepr,
};

const GUEST_PORT: u16 = 50_000;

fn send(link: &OwnedFd, frame: &[u8]) {
    while rustix::net::send(link, frame, SendFlags::NOSIGNAL) == Err(rustix::io::Errno::AGAIN) {
        poll(&mut [PollFd::new(link, PollFlags::OUT)], None).unwrap();
    }
}

fn ethernet(ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr { src_addr: GUEST_MAC, dst_addr: EthernetAddress(GATEWAY_MAC), ethertype }.emit(&mut frame);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

/// An IPv4 packet from the guest, with a valid header.
fn ipv4(dst_addr: Ipv4Addr, next_header: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr { src_addr: GUEST, dst_addr, next_header, payload_len: payload.len(), hop_limit: 64 };
    let mut bytes = vec![0; repr.buffer_len() + payload.len()];
    repr.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[..]), &ChecksumCapabilities::default());
    bytes[repr.buffer_len()..].copy_from_slice(payload);
    ethernet(EthernetProtocol::Ipv4, &bytes)
}

fn udp(dst_addr: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: 1, dst_port: 53 };
    let mut bytes = vec![0; 8 + payload.len()];
    let mut packet = UdpPacket::new_unchecked(&mut bytes[..]);
    let fill = |buffer: &mut [u8]| buffer.copy_from_slice(payload);
    repr.emit(&mut packet, &GUEST.into(), &dst_addr.into(), payload.len(), fill, &ChecksumCapabilities::default());
    ipv4(dst_addr, IpProtocol::Udp, &bytes)
}

/// A segment whose header the proptest below makes up, with valid checksums.
#[derive(Clone, Debug)]
struct Segment {
    flags: u8,
    sequence: i32,
    acknowledges: i32,
    window: u16,
    payload: Vec<u8>,
    max_segment: Option<u16>,
    window_scale: Option<u8>,
}

impl Segment {
    /// The opening SYN.
    fn opening() -> Self {
        Segment {
            flags: 0x02,
            sequence: -1,
            acknowledges: 0,
            window: 1000,
            payload: Vec::new(),
            max_segment: Some(1460),
            window_scale: Some(3),
        }
    }

    /// The frame, with sequence numbers counted from the two sides' first.
    fn frame(&self, port: u16, ours: TcpSeqNumber, theirs: TcpSeqNumber) -> Vec<u8> {
        let sequence = |start: TcpSeqNumber, offset: i32| TcpSeqNumber(start.0.wrapping_add(offset));
        let repr = TcpRepr {
            src_port: GUEST_PORT,
            dst_port: port,
            control: TcpControl::None,
            seq_number: sequence(ours, self.sequence),
            ack_number: Some(sequence(theirs, self.acknowledges)),
            window_len: self.window,
            window_scale: self.window_scale,
            max_seg_size: self.max_segment,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &self.payload,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        let (source, destination) = (GUEST.into(), GATEWAY.into());
        repr.emit(&mut TcpPacket::new_unchecked(&mut bytes[..]), &source, &destination, &ChecksumCapabilities::default());
        // FIN, SYN, RST, PSH, ACK, URG are the low six bits of byte 13 (RFC 9293, section 3.1).
        bytes[13] = self.flags & 0x3f;
        TcpPacket::new_unchecked(&mut bytes[..]).fill_checksum(&source, &destination);
        ipv4(GATEWAY, IpProtocol::Tcp, &bytes)
    }
}

fn any_offset() -> impl Strategy<Value = i32> {
    prop_oneof![4 => -3..4, 2 => -70_000..200_000, 1 => any::<i32>()]
}

prop_compose! {
    fn any_segment()(
        flags in prop_oneof![Just(0x10), Just(0x18), Just(0x11), Just(0x04), Just(0x14), Just(0x02), any::<u8>()],
        sequence in any_offset(), acknowledges in any_offset(), window: u16, payload in prop::collection::vec(any::<u8>(), 0..64),
        max_segment: Option<u16>, window_scale in prop::option::of(0..16_u8),
    ) -> Segment {
        Segment { flags, sequence, acknowledges, window, payload, max_segment, window_scale }
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..120);
    let target = || prop_oneof![Just(GATEWAY), Just(DNS), Just(GUEST), any::<u32>().prop_map(Ipv4Addr::from)];
    let protocol =
        prop_oneof![Just(IpProtocol::Tcp), Just(IpProtocol::Udp), Just(IpProtocol::Icmp), any::<u8>().prop_map(IpProtocol::from)];
    let ethertype = prop_oneof![Just(EthernetProtocol::Arp), Just(EthernetProtocol::Ipv4), any::<u16>().prop_map(EthernetProtocol::from)];
    prop_oneof![
        bytes(),
        (ethertype, bytes()).prop_map(|(ethertype, payload)| ethernet(ethertype, &payload)),
        (target(), protocol, bytes()).prop_map(|(target, protocol, payload)| ipv4(target, protocol, &payload)),
        (target(), bytes()).prop_map(|(target, payload)| udp(target, &payload)),
        any_segment().prop_map(|segment| segment.frame(80, TcpSeqNumber(0), TcpSeqNumber(0))),
    ]
}

/// A valid frame of the guest's with one byte changed.
fn any_damaged_frame() -> impl Strategy<Value = Vec<u8>> {
    (any_frame(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut frame, place, value)| {
        if !frame.is_empty() {
            let place = place.index(frame.len());
            frame[place] = value;
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// The guest is restricted, or frames would leave this machine.
    #[test]
    fn arbitrary_frames_do_no_harm(frames in prop::collection::vec(prop_oneof![any_frame(), any_damaged_frame()], 1..40)) {
        let (link, network) = start("restrict=on,hostfwd=0:80,hostfwd=udp:0:53", None);
        for frame in &frames {
            send(&link, frame);
        }
        drop(link);
        network.end();
    }

    #[test]
    fn arbitrary_segments_on_an_open_connection_do_no_harm(segments in prop::collection::vec(any_segment(), 1..40), data: bool) {
        exchange(&segments, data);
    }
}

/// Such a segment reached beyond the buffer when the window was larger than the window field can say.
#[test]
fn a_segment_at_the_end_of_the_window_does_no_harm() {
    let established = Segment { flags: 0x10, sequence: 0, max_segment: None, window_scale: None, ..Segment::opening() };
    for window_end in [0xffff, 0x1_0000, 0x2_0000] {
        exchange(&[Segment { sequence: window_end - 10, payload: vec![0; 20], ..established.clone() }], false);
    }
}

/// Opens a connection to a server on the host, which sends something if `data`, and sends `segments` on it.
fn exchange(segments: &[Segment], data: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (link, network) = start("", None);
    let ours = TcpSeqNumber(i32::MAX - 10);
    send(&link, &Segment::opening().frame(port, ours, TcpSeqNumber(0)));
    let answer = next_frame(&link);
    let packet = Ipv4Packet::new_checked(&answer[14..]).unwrap();
    let theirs = TcpPacket::new_checked(packet.payload()).unwrap().seq_number() + 1;
    let (mut stream, _) = listener.accept().unwrap();
    let established = Segment { flags: 0x10, sequence: 0, max_segment: None, window_scale: None, ..Segment::opening() };
    send(&link, &established.frame(port, ours, theirs));
    if data {
        std::io::Write::write_all(&mut stream, &[7; 100_000]).unwrap();
        next_frame(&link);
    }
    for segment in segments {
        send(&link, &segment.frame(port, ours, theirs));
        while readable(&link, Duration::ZERO) {
            next_frame(&link);
        }
    }
    drop(link);
    network.end();
}
