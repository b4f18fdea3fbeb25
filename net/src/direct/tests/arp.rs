//! Neighbours and addresses: RFC 826 and RFC 5227.

use smoltcp::wire::*;

use super::peer::{Peer, segment};
use super::*;
use crate::frame::MacAddress;
use crate::simulation::Impairment;

#[test]
fn rfc5227_section_2_1_a_probe_finds_that_an_address_is_in_use() {
    simulate(1, async {
        let (switch, _server, _client) = network();
        assert_eq!(Direct::new_after_probe(switch.device(1500), config(SERVER)).await.err(), Some(DirectError::AddressInUse));
    });
}

#[test]
fn rfc5227_section_2_1_of_two_hosts_that_probe_for_one_address_one_has_it_at_most() {
    for seed in 1..20 {
        simulate(seed, async {
            let switch = Switch::new();
            let other = spawn(Direct::new_after_probe(switch.device(1500), config(SERVER)));
            let one = Direct::new_after_probe(switch.device(1500), config(SERVER)).await;
            assert!(one.is_err() || other.await.err() == Some(DirectError::AddressInUse));
        });
    }
}

#[test]
fn rfc5227_section_2_1_a_free_address_is_used_after_three_probes() {
    simulate(1, async {
        let switch = Switch::new();
        let mut listening = switch.device(1500);
        let client = stack(&switch, config(CLIENT));
        listening.receive().await;
        let started = time::now();
        let server = Direct::new_after_probe(switch.device(1500), config(SERVER)).await.unwrap();
        assert!((4..=7).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
        serve_echo(&server, 7);
        client.connect(at(7)).await.unwrap();
        for source in [Ipv4Addr::UNSPECIFIED; 3].into_iter().chain([SERVER]) {
            let ArpRepr::EthernetIpv4 { source_protocol_addr, target_protocol_addr, .. } = arp(&listening.receive().await).unwrap() else {
                unreachable!()
            };
            assert_eq!((source_protocol_addr, target_protocol_addr), (source, SERVER));
        }
    });
}

fn arp(frame: &[u8]) -> Option<ArpRepr> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).ok()?).ok()
}

#[test]
fn rfc5227_section_2_4_an_address_is_defended_every_ten_seconds_at_most() {
    simulate(1, async {
        let (switch, server, _client) = network();
        let mut peer = Peer::new(&switch, 1).await;
        for _ in 0..12 {
            peer.say(ArpOperation::Request, SERVER, SERVER);
            time::sleep(Duration::from_secs(1)).await;
        }
        let mut defences = 0;
        while let Some(frame) = peer.device.try_receive() {
            defences += usize::from(matches!(arp(&frame), Some(ArpRepr::EthernetIpv4 { source_protocol_addr: SERVER, .. })));
        }
        assert_eq!(defences, 2);
        assert_eq!(server.statistics().address_conflicts, 12);
    });
}

#[test]
fn rfc826_a_request_is_answered_and_teaches_and_what_is_not_for_this_host_does_not() {
    simulate(1, async {
        let switch = Switch::new();
        let server = stack(&switch, config(SERVER));
        let mut peer = Peer::new(&switch, 1).await;
        assert_eq!(server.statistics().neighbours, 1);
        peer.address = Ipv4Addr::new(10, 0, 0, 78);
        peer.say(ArpOperation::Request, peer.address, CLIENT);
        peer.say(ArpOperation::Reply, peer.address, SERVER);
        settle().await;
        assert_eq!((peer.device.try_receive(), server.statistics().neighbours), (None, 1));
    });
}

#[test]
fn rfc826_a_neighbour_that_changes_its_hardware_address_is_followed() {
    simulate(1, async {
        let switch = Switch::new();
        let server = stack(&switch, config(SERVER));
        let mut listener = server.listen(7).unwrap();
        let mut old = Peer::new(&switch, 1).await;
        let next = old.open(1024, 7).await;
        let mut stream = listener.accept().await.unwrap();
        let mut new = Peer::new_at(&switch, 1, old.address);
        new.say(ArpOperation::Request, new.address, new.address);
        settle().await;
        stream.write_all(b"moved").await.unwrap();
        assert_eq!(new.seen().await[0].payload, b"moved");
        assert_eq!(old.seen().await, []);
        new.send(&TcpRepr { payload: b"yes", ..segment(1024, 7, TcpControl::Psh, 1001, Some(next + 5)) });
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(3));
    });
}

#[test]
fn a_flood_of_addresses_pushes_out_no_neighbour_in_use_and_memory_is_bounded() {
    simulate(1, async {
        let switch = Switch::new();
        let server = stack(&switch, wide(SERVER));
        serve_echo(&server, 7);
        let client = stack(&switch, wide(CLIENT));
        let mut stream = client.connect(at(7)).await.unwrap();
        let mut flood = Peer::new(&switch, 1).await;
        // Strangers of the own network and of others, many more than there is room for.
        for number in 3..20_000_u32 {
            let stranger = Ipv4Addr::from_bits(u32::from_be_bytes([10, (number % 3) as u8, 0, 0]) + number);
            flood.say(ArpOperation::Request, stranger, SERVER);
            if number % 50 == 0 {
                let started = time::now();
                stream.write_all(b"x").await.unwrap();
                assert_eq!(stream.read(&mut [0; 8]).await, Ok(1));
                assert!(started.elapsed() < Duration::from_millis(1));
                assert!(server.statistics().neighbours <= 256);
                // Nobody had to be asked for: the client was known all the time.
                while let Some(frame) = flood.device.try_receive() {
                    assert!(!matches!(arp(&frame), Some(ArpRepr::EthernetIpv4 { operation: ArpOperation::Request, .. })));
                }
            }
        }
        assert_eq!(server.statistics().neighbours, 256);
    });
}

/// A network of 65,536 addresses, and room for 256 neighbours.
fn wide(address: Ipv4Addr) -> Config {
    Config { ipv4: super::Ipv4Cidr { address, prefix_length: 16 }, neighbours: 256, ..config(address) }
}

#[test]
fn neighbours_that_never_answer_keep_back_no_connection_that_is_there() {
    simulate(1, async {
        let switch = Switch::new();
        let (server, client) = (stack(&switch, wide(SERVER)), stack(&switch, wide(CLIENT)));
        serve_echo(&server, 7);
        let mut stream = client.connect(at(7)).await.unwrap();
        let mut attacker = Peer::new(&switch, 1).await;
        for number in 0..4000_u32 {
            // The client, silent for a while, is forgotten for strangers; and others that are not there want answers.
            let stranger = Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 100, 0]) + number);
            attacker.say(ArpOperation::Request, stranger, SERVER);
            let frame = attacker.tcp_frame(Ipv4Addr::from_bits(stranger.to_bits() + 0x4000), &segment(1024, 7, TcpControl::Syn, 1, None));
            attacker.device.send(&frame);
            if number % 50 == 0 {
                settle().await;
            }
            if number % 1000 == 999 {
                let started = time::now();
                stream.write_all(b"x").await.unwrap();
                assert_eq!(stream.read(&mut [0; 8]).await, Ok(1));
                assert!(started.elapsed() < Duration::from_millis(20), "served after {:?}", started.elapsed());
            }
        }
    });
}

#[test]
fn a_neighbour_that_comes_back_is_found_again() {
    simulate(1, async {
        let (switch, server, client) = network();
        serve_echo(&server, 7);
        let mut stream = client.connect(at(7)).await.unwrap();
        settle().await;
        let mac = MacAddress([2, 0, 0, 0, 0, 1]);
        switch.impair_link(mac, Some(Impairment::UNPLUGGED));
        time::sleep(Duration::from_secs(61)).await;
        stream.write_all(b"are you there?").await.unwrap();
        time::sleep(Duration::from_secs(10)).await;
        assert_eq!(client.statistics().neighbours, 0);
        switch.impair_link(mac, None);
        let started = time::now();
        assert_eq!(stream.read(&mut [0; 64]).await, Ok(14));
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    });
}
