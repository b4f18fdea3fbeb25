//! What only a network turned by hand shows: the order of events is the test's.

use std::io::Read;
use std::net::{SocketAddrV4, TcpStream, UdpSocket};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::*;
use crate::{GATEWAY_MAC, bind_all, link};

const GUEST_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

/// A network that is turned by hand, its guest's end, and the host's addresses of its forwarded ports.
fn network(options: &str) -> (Network, OwnedFd, Vec<SocketAddrV4>) {
    let options = Options::parse(options).expect("options");
    let listeners = bind_all(&options).expect("free ports");
    let hosts = listeners.iter().map(|listener| listener.forward.host).collect();
    let (guest, end) = link().expect("a socket pair");
    (Network::new(end, &options, listeners).expect("a network"), guest, hosts)
}

/// Does all there is to do.
fn settle(network: &mut Network) {
    network.turn().expect("a turn");
    while !network.core.ready.is_empty() {
        network.turn().expect("a turn");
    }
}

fn send(guest: &OwnedFd, ethertype: EthernetProtocol, length: usize, fill: impl FnOnce(&mut [u8])) {
    let mut bytes = vec![0; crate::ETHERNET_HEADER + length];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr { src_addr: GUEST_MAC, dst_addr: EthernetAddress(GATEWAY_MAC), ethertype }.emit(&mut frame);
    fill(frame.payload_mut());
    rustix::net::send(guest, &bytes, SendFlags::NOSIGNAL).expect("room on the link");
}

/// Makes the guest known.
fn announce(guest: &OwnedFd) {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: GUEST_MAC,
        source_protocol_addr: GUEST,
        target_hardware_addr: EthernetAddress(GATEWAY_MAC),
        target_protocol_addr: GATEWAY,
    };
    send(guest, EthernetProtocol::Arp, repr.buffer_len(), |bytes| repr.emit(&mut ArpPacket::new_unchecked(bytes)));
}

fn receive(guest: &OwnedFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 2000];
    match rustix::net::recv(guest, &mut bytes[..], RecvFlags::empty()) {
        Ok((length, _)) => {
            bytes.truncate(length);
            Some(bytes)
        }
        Err(Errno::AGAIN) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The ports and sequence number of a SYN.
fn parse_syn(frame: &[u8]) -> Option<(u16, u16, TcpSeqNumber)> {
    let packet = Ipv4Packet::new_checked(frame.get(crate::ETHERNET_HEADER..)?).ok()?;
    let segment =
        TcpPacket::new_checked(packet.payload()).ok().filter(|segment| packet.next_header() == IpProtocol::Tcp && segment.syn())?;
    Some((segment.src_port(), segment.dst_port(), segment.seq_number()))
}

#[test]
fn a_connection_waits_for_room_on_the_link() {
    let (mut network, guest, hosts) = network("hostfwd=udp:0:53,hostfwd=0:80");
    announce(&guest);
    settle(&mut network);
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    while !network.core.link.is_blocked() {
        client.send_to(&[0; 1000], hosts[0]).expect("room");
        settle(&mut network);
    }
    let _stream = TcpStream::connect(hosts[1]).expect("accepted by the kernel");
    settle(&mut network);
    // The guest says nothing; that it takes frames must be enough.
    let syn = loop {
        match receive(&guest) {
            Some(frame) if parse_syn(&frame).is_some() => break parse_syn(&frame),
            Some(_) => {}
            None => settle(&mut network),
        }
    };
    assert_eq!(syn.map(|(_, port, _)| port), Some(80));
}

#[test]
fn what_a_deaf_guest_does_not_take_is_bounded() {
    let (mut network, guest, hosts) = network("hostfwd=udp:0:53");
    announce(&guest);
    settle(&mut network);
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    while !network.core.link.is_blocked() {
        client.send_to(&[0; 1000], hosts[0]).expect("room");
        settle(&mut network);
    }
    for _ in 0..1000 {
        client.send_to(&[0; 1000], hosts[0]).expect("room");
        settle(&mut network);
    }
    let mut frames = 0;
    loop {
        while receive(&guest).is_some() {
            frames += 1;
        }
        if !network.core.link.is_blocked() {
            break;
        }
        settle(&mut network);
    }
    assert!(frames < 1000, "{frames} frames were kept");
}

#[test]
fn what_the_guest_sent_last_is_passed_on_when_it_is_gone() {
    let (mut network, guest, hosts) = network("hostfwd=0:80");
    announce(&guest);
    settle(&mut network);
    let mut client = TcpStream::connect(hosts[0]).expect("accepted by the kernel");
    settle(&mut network);
    let (gateway_port, guest_port, theirs) = std::iter::from_fn(|| receive(&guest)).find_map(|frame| parse_syn(&frame)).expect("a SYN");
    let ours = TcpSeqNumber(1000);
    let segment = |control, seq_number, payload| {
        let repr = TcpRepr {
            src_port: guest_port,
            dst_port: gateway_port,
            control,
            seq_number,
            ack_number: Some(theirs + 1),
            window_len: 1000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let header =
            Ipv4Repr { src_addr: GUEST, dst_addr: GATEWAY, next_header: IpProtocol::Tcp, payload_len: repr.buffer_len(), hop_limit: 64 };
        send(&guest, EthernetProtocol::Ipv4, header.buffer_len() + header.payload_len, |bytes| {
            let checksums = ChecksumCapabilities::default();
            header.emit(&mut Ipv4Packet::new_unchecked(&mut *bytes), &checksums);
            let segment = &mut bytes[header.buffer_len()..];
            repr.emit(&mut TcpPacket::new_unchecked(segment), &GUEST.into(), &GATEWAY.into(), &checksums);
        });
    };
    segment(TcpControl::Syn, ours, b"");
    settle(&mut network);
    segment(TcpControl::Fin, ours + 1, b"goodbye");
    drop(guest);
    network.run().expect("an orderly end");
    let mut received = String::new();
    client.read_to_string(&mut received).expect("an orderly end");
    assert_eq!(received, "goodbye");
}
