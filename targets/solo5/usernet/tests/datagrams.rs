//! UDP, ARP and ICMP echo.

mod common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;

use common::{GUEST_MAC, Guest, next_frame, start};
use fogbow_usernet::{DEFAULT_MTU, DNS, GATEWAY, GATEWAY_MAC, GUEST, MAX_UDP_FLOWS};
use rustix::net::SendFlags;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4Packet, Icmpv4Repr, IpProtocol,
    Ipv4Packet, Ipv4Repr,
};

/// A socket on the host's loopback whose thread answers one datagram in capitals.
fn capitals() -> (SocketAddr, thread::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&buffer[..length].to_ascii_uppercase(), from).unwrap();
    });
    (address, thread)
}

#[test]
fn clients_reach_the_guest_and_are_answered() {
    let (link, network) = start("hostfwd=udp:0:53,hostfwd=udp:0:54", None);
    let host = network.hosts[0];
    let clients = thread::spawn(move || {
        let clients: Vec<UdpSocket> = (0..MAX_UDP_FLOWS + 8).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for (number, client) in clients.iter().enumerate() {
            client.send_to(number.to_string().as_bytes(), host).unwrap();
            let mut buffer = [0; 100];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (format!("{number} from 10.0.2.2").as_bytes(), host));
        }
        clients.len()
    });
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handle = guest.bind_udp(53);
    let mut answered = 0;
    guest.run_until(|guest| {
        let socket = guest.udp(handle);
        while socket.can_recv() {
            let (data, meta) = socket.recv().unwrap();
            let answer = format!("{} from {}", std::str::from_utf8(data).unwrap(), meta.endpoint.addr);
            socket.send_slice(answer.as_bytes(), meta.endpoint).unwrap();
            answered += 1;
        }
        (answered == MAX_UDP_FLOWS + 8).then_some(())
    });
    assert_eq!(clients.join().unwrap(), answered);
    drop(guest);
    network.end();
}

#[test]
fn the_guest_reaches_the_host_and_the_name_server() {
    let (server, server_thread) = capitals();
    let (resolver, resolver_thread) = capitals();
    let (link, network) = start("", Some(resolver));
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handle = guest.bind_udp(4000);
    for (remote, text) in [((GATEWAY, server.port()), "hello"), ((DNS, 53), "who is?")] {
        guest.udp(handle).send_slice(text.as_bytes(), remote).unwrap();
        let (answer, from) = guest.run_until(|guest| guest.udp(handle).recv().ok().map(|(data, meta)| (data.to_vec(), meta.endpoint)));
        assert_eq!(answer, text.to_uppercase().as_bytes());
        assert_eq!(from, remote.into());
    }
    server_thread.join().unwrap();
    resolver_thread.join().unwrap();
    drop(guest);
    network.end();
}

fn send(link: &OwnedFd, protocol: EthernetProtocol, length: usize, fill: impl FnOnce(&mut [u8])) {
    let mut bytes = vec![0; 14 + length];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr { src_addr: GUEST_MAC, dst_addr: EthernetAddress(GATEWAY_MAC), ethertype: protocol }.emit(&mut frame);
    fill(frame.payload_mut());
    rustix::net::send(link, &bytes, SendFlags::NOSIGNAL).unwrap();
}

fn ask_arp(link: &OwnedFd, target: Ipv4Addr) {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: GUEST_MAC,
        source_protocol_addr: GUEST,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    send(link, EthernetProtocol::Arp, request.buffer_len(), |bytes| request.emit(&mut ArpPacket::new_unchecked(bytes)));
}

#[test]
fn arp_is_answered_for_every_address_but_the_guests() {
    let (link, network) = start("", None);
    // Frames are answered in order, so an answer for the guest's own address would come first.
    ask_arp(&link, GUEST);
    for target in [GATEWAY, DNS, Ipv4Addr::new(10, 0, 2, 99)] {
        ask_arp(&link, target);
        let bytes = next_frame(&link);
        let frame = EthernetFrame::new_checked(&bytes[..]).unwrap();
        assert_eq!((frame.src_addr(), frame.dst_addr()), (EthernetAddress(GATEWAY_MAC), GUEST_MAC));
        let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, .. } =
            ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap()
        else {
            panic!("not ARP for IPv4")
        };
        assert_eq!((operation, source_hardware_addr, source_protocol_addr), (ArpOperation::Reply, EthernetAddress(GATEWAY_MAC), target));
    }
    drop(link);
    network.end();
}

#[test]
fn the_gateway_answers_echo_and_others_do_not() {
    let (link, network) = start("", None);
    let checksums = ChecksumCapabilities::default();
    for target in [Ipv4Addr::new(10, 0, 2, 99), GATEWAY] {
        let echo = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data: b"are you there?" };
        let ip =
            Ipv4Repr { src_addr: GUEST, dst_addr: target, next_header: IpProtocol::Icmp, payload_len: echo.buffer_len(), hop_limit: 64 };
        send(&link, EthernetProtocol::Ipv4, ip.buffer_len() + ip.payload_len, |bytes| {
            ip.emit(&mut Ipv4Packet::new_unchecked(&mut *bytes), &checksums);
            echo.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[ip.buffer_len()..]), &checksums);
        });
    }
    let bytes = next_frame(&link);
    let frame = EthernetFrame::new_checked(&bytes[..]).unwrap();
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    let ip = Ipv4Repr::parse(&packet, &checksums).unwrap();
    assert_eq!((ip.src_addr, ip.dst_addr), (GATEWAY, GUEST));
    let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    assert_eq!(Icmpv4Repr::parse(&message, &checksums), Ok(Icmpv4Repr::EchoReply { ident: 7, seq_no: 9, data: b"are you there?" }));
    drop(link);
    network.end();
}
