//! What the stack answers to frames made by hand, well-formed and not.

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;
use std::vec;

use super::peer::{Peer, segment};
use super::*;

fn echo_request(peer: &Peer, ident: u16) -> Vec<u8> {
    let icmp = Icmpv4Repr::EchoRequest { ident, seq_no: 1, data: b"are you there?" };
    peer.packet(peer.address, IpProtocol::Icmp, icmp.buffer_len(), |payload| {
        icmp.emit(&mut Icmpv4Packet::new_unchecked(payload), &ChecksumCapabilities::default());
    })
}

#[test]
fn the_address_is_announced_and_echo_requests_are_answered() {
    simulate(1, async {
        let switch = Switch::new();
        let mut listening = switch.device(1500);
        let _server = stack(&switch, config(SERVER));
        let announcement = listening.receive().await;
        let frame = EthernetFrame::new_checked(&announcement[..]).unwrap();
        assert!(frame.dst_addr().is_broadcast());
        let arp = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap();
        let ArpRepr::EthernetIpv4 { source_protocol_addr, target_protocol_addr, .. } = arp else { unreachable!() };
        assert_eq!((source_protocol_addr, target_protocol_addr), (SERVER, SERVER));

        let mut peer = Peer::new(&switch, 2).await;
        let request = echo_request(&peer, 7);
        peer.device.send(&request);
        let answer = peer.device.receive().await;
        let ip = Ipv4Packet::new_checked(&answer[14..]).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr()), (SERVER, peer.address));
        let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
        let icmp = Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap();
        assert_eq!(icmp, Icmpv4Repr::EchoReply { ident: 7, seq_no: 1, data: b"are you there?" });
    });
}

#[test]
fn a_segment_to_no_connection_is_reset() {
    simulate(1, async {
        let (switch, _server, _client) = network();
        let mut peer = Peer::new(&switch, 1).await;
        peer.send(&segment(1024, 9, TcpControl::None, 1, Some(TcpSeqNumber(5))));
        let seen = peer.seen().await;
        assert_eq!((seen.len(), seen[0].control, seen[0].sequence), (1, TcpControl::Rst, TcpSeqNumber(5)));
        peer.send(&segment(1024, 9, TcpControl::Rst, 1, None));
        assert_eq!(peer.seen().await, []);
    });
}

#[test]
fn what_was_sent_to_everyone_is_not_answered() {
    simulate(1, async {
        let (switch, server, _client) = network();
        let _listener = server.listen(7).unwrap();
        let mut peer = Peer::new(&switch, 1).await;
        peer.seen().await;
        for port in [7, 9] {
            let mut frame = peer.tcp_frame(peer.address, &segment(1024, port, TcpControl::Syn, 1, None));
            frame[..6].fill(0xff);
            peer.device.send(&frame);
        }
        let mut echo = echo_request(&peer, 1);
        echo[..6].fill(0xff);
        peer.device.send(&echo);
        settle().await;
        assert_eq!(peer.device.try_receive(), None);
        assert_eq!(server.statistics().connections, 0);
    });
}

#[test]
fn a_reset_with_a_wrong_sequence_number_does_not_end_a_connection() {
    simulate(1, async {
        let (switch, server, _client) = network();
        let mut listener = server.listen(7).unwrap();
        let mut peer = Peer::new(&switch, 1).await;
        let next = peer.open(1024, 7).await;
        let mut stream = listener.accept().await.unwrap();
        peer.send(&segment(1024, 7, TcpControl::Rst, 900, None));
        peer.send(&TcpRepr { payload: b"alive", ..segment(1024, 7, TcpControl::Psh, 1001, Some(next)) });
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(5));
        peer.send(&segment(1024, 7, TcpControl::Rst, 1006, None));
        assert_eq!(stream.read(&mut [0; 8]).await, Err(StreamError::Reset));
    });
}

#[test]
fn segments_beyond_the_window_do_no_harm() {
    simulate(1, async {
        let (switch, server, _client) = network();
        let mut listener = server.listen(7).unwrap();
        let mut peer = Peer::new(&switch, 1).await;
        let payload = vec![1; 1000];
        let mut held = Vec::new();
        // Each the first of a connection, when nothing but the answer to its SYN has told a window.
        for (port, offset) in (2000..).zip([64_000, 65_000, 65_535, 65_536, 100_000, 130_000]) {
            let next = peer.open(port, 7).await;
            peer.send(&TcpRepr { payload: &payload, ..segment(port, 7, TcpControl::None, 1001 + offset, Some(next)) });
            peer.seen().await;
            held.push(listener.accept().await.unwrap());
        }
        let next = peer.open(1024, 7).await;
        let mut stream = listener.accept().await.unwrap();
        let data = |offset: u32| TcpRepr { payload: &payload, ..segment(1024, 7, TcpControl::None, 1001 + offset, Some(next)) };
        for offset in (0..65_536).step_by(1000) {
            peer.send(&data(offset));
        }
        let mut total = 0;
        let mut buffer = vec![0; 10_000];
        while total < 66_000 {
            total += stream.read(&mut buffer).await.unwrap();
        }
        assert_eq!(total, 66_000);
    });
}

#[test]
fn a_probe_of_a_closed_window_is_answered() {
    simulate(1, async {
        let (switch, server, _client) = network();
        let mut listener = server.listen(7).unwrap();
        let mut peer = Peer::new(&switch, 1).await;
        let next = peer.open(1024, 7).await;
        let mut stream = listener.accept().await.unwrap();
        let payload = vec![1; 1024];
        for offset in (0..65_536).step_by(1024) {
            peer.send(&TcpRepr { payload: &payload, ..segment(1024, 7, TcpControl::None, 1001 + offset, Some(next)) });
        }
        assert_eq!(peer.seen().await.last().unwrap().acknowledged, Some(TcpSeqNumber(1001 + 65_535)));
        let probe = TcpRepr { payload: b"x", ..segment(1024, 7, TcpControl::None, 1001 + 65_535, Some(next)) };
        peer.send(&probe);
        assert_eq!(peer.seen().await.len(), 1);
        // Reading opens the window, which the peer is told.
        assert_eq!(stream.read(&mut vec![0; 65_536]).await, Ok(65_535));
        assert_eq!(peer.seen().await.len(), 1);
        peer.send(&probe);
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(1));
    });
}

/// Frames that are close to good ones, to reach deep.
#[derive(Clone, Debug)]
enum Hostile {
    Noise(Vec<u8>),
    Segment { port: u16, to: u16, flags: u8, sequence: u32, acknowledged: u32, window: u16, options: Vec<u8>, payload: usize },
    Changed { base: usize, changes: Vec<(usize, u8)>, cut: usize },
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let near = |number: u32| {
        prop_oneof![
            4 => (0..3000_u32).prop_map(move |offset| number.wrapping_add(offset)),
            2 => (62_000..68_000_u32).prop_map(move |offset| number.wrapping_add(offset)),
            1 => (0..300_000_u32).prop_map(move |offset| number.wrapping_add(offset)),
            1 => any::<u32>(),
        ]
    };
    prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..100).prop_map(Hostile::Noise),
        6 => (
            (1024..1027_u16, prop_oneof![Just(7_u16), Just(9), Just(0)], any::<u8>()),
            (near(999), near(0), any::<u16>()),
            proptest::collection::vec(any::<u8>(), 0..4),
            0..1460_usize,
        )
            .prop_map(|((port, to, flags), (sequence, acknowledged, window), options, payload)| Hostile::Segment {
                port, to, flags, sequence, acknowledged, window, options, payload,
            }),
        2 => (0..4_usize, proptest::collection::vec((0..90_usize, any::<u8>()), 0..4), 0..100_usize)
            .prop_map(|(base, changes, cut)| Hostile::Changed { base, changes, cut }),
    ]
}

/// A segment with any flags and options, its checksum right.
fn any_segment(peer: &Peer, hostile: &Hostile, base: TcpSeqNumber) -> Vec<u8> {
    let Hostile::Segment { port, to, flags, sequence, acknowledged, window, options, payload } = hostile else { unreachable!() };
    let header = 20 + 4 * options.len();
    peer.packet(peer.address, IpProtocol::Tcp, header + payload, |bytes| {
        let mut tcp = TcpPacket::new_unchecked(bytes);
        tcp.set_src_port(*port);
        tcp.set_dst_port(*to);
        tcp.set_seq_number(TcpSeqNumber(*sequence as i32));
        tcp.set_ack_number(TcpSeqNumber((base.0 as u32).wrapping_add(*acknowledged) as i32));
        tcp.set_window_len(*window);
        tcp.set_header_len(header as u8);
        let common = [[2, 4, 5, 180], [3, 3, 9, 1], [4, 2, 1, 1], [0, 0, 0, 0]];
        for (index, option) in options.iter().enumerate() {
            tcp.options_mut()[4 * index..4 * index + 4].copy_from_slice(&common[usize::from(*option) % 4]);
        }
        // Mostly one flag besides ACK, as others are refused early.
        tcp.set_syn(flags & 3 == 1);
        tcp.set_fin(flags & 3 == 2 || *flags == 255);
        tcp.set_rst(flags & 31 == 31);
        tcp.set_psh(flags & 32 != 0);
        tcp.set_ack(flags & 64 != 0 || flags & 3 == 2);
        tcp.fill_checksum(&IpAddress::Ipv4(peer.address), &IpAddress::Ipv4(SERVER));
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes, nothing panics, and everything is given back in the end.
    #[test]
    fn any_frames_are_survived_and_leave_nothing(frames in proptest::collection::vec(hostile(), 1..60)) {
        simulate(1, async move {
            let switch = Switch::new();
            let server = stack(&switch, config(SERVER));
            serve_echo(&server, 7);
            let socket = server.bind(53).unwrap();
            let mut peer = Peer::new(&switch, 1).await;
            let base = peer.open(1024, 7).await;
            let good = [
                echo_request(&peer, 1),
                peer.tcp_frame(peer.address, &segment(1024, 7, TcpControl::Psh, 1001, Some(base))),
                peer.tcp_frame(peer.address, &segment(1025, 7, TcpControl::Syn, 1, None)),
                peer.packet(peer.address, IpProtocol::Udp, 12, |payload| payload.copy_from_slice(&[0, 53, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4])),
            ];
            for frame in &frames {
                let bytes = match frame {
                    Hostile::Noise(bytes) => bytes.clone(),
                    Hostile::Segment { .. } => any_segment(&peer, frame, base),
                    Hostile::Changed { base, changes, cut } => {
                        let mut bytes = good[*base].clone();
                        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(70)));
                        for &(offset, value) in changes {
                            if let Some(byte) = bytes.get_mut(offset) {
                                *byte = value;
                            }
                        }
                        bytes
                    }
                };
                peer.device.send(&bytes);
                fogbow::task::yield_now().await;
                fogbow::task::yield_now().await;
            }
            drop(socket);
            time::sleep(Duration::from_secs(400)).await;
            peer.introduce().await;
            let statistics = server.statistics();
            assert_eq!((statistics.connections, statistics.handshakes, statistics.reserved), (0, 0, 0), "{statistics:?}");
            server.0.with(|engine| {
                assert_eq!((engine.connections.len(), engine.flows.len(), engine.timers.next()), (0, 0, None));
            });
        });
    }
}
