//! What a stack holds, and what work it does, is bounded.

use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

use super::peer::{Peer, segment};
use super::*;

#[test]
fn work_per_request_does_not_depend_on_idle_connections() {
    let polls_with = |idle: usize| {
        simulate(1, async move {
            let switch = Switch::new();
            let mut settings = config(SERVER);
            settings.set_tcp_buffer((2048, 2048));
            let server = stack(&switch, settings.clone());
            let client = stack(&switch, Config { ipv4: Ipv4Cidr { address: CLIENT, prefix_length: 24 }, ..settings });
            serve_echo(&server, 7);
            let mut connections = Vec::new();
            for _ in 0..idle {
                connections.push(client.connect(at(7)).await.unwrap());
            }
            let mut stream = client.connect(at(7)).await.unwrap();
            let mut buffer = [0; 64];
            stream.write_all(b"first").await.unwrap();
            stream.read(&mut buffer).await.unwrap();
            let before = server.statistics();
            for _ in 0..1000 {
                stream.write_all(b"request").await.unwrap();
                stream.read(&mut buffer).await.unwrap();
            }
            let after = server.statistics();
            assert_eq!(after.connections, idle + 1);
            (after.flow_polls - before.flow_polls, after.frames_received - before.frames_received, after.frames_sent - before.frames_sent)
        })
    };
    let alone = polls_with(0);
    assert_eq!(alone, (2000, 1000, 1000));
    assert_eq!(polls_with(1500), alone);
}

#[test]
fn nothing_is_allocated_for_a_request_with_a_wrong_checksum() {
    simulate(1, async {
        let (switch, server, _client) = network();
        let _listener = server.listen(7).unwrap();
        let mut peer = Peer::new(&switch, 1).await;
        let good = peer.tcp_frame(peer.address, &segment(1024, 7, TcpControl::Syn, 1, None));
        for (offset, name) in [(14 + 10, "IP checksum"), (34 + 16, "TCP checksum"), (34 + 4, "sequence number")] {
            let mut bad = good.clone();
            bad[offset] ^= 1;
            peer.device.send(&bad);
            assert_eq!(peer.seen().await, [], "{name}");
            assert_eq!(server.statistics().connections, 0, "{name}");
        }
        peer.device.send(&good);
        assert_eq!(peer.seen().await.len(), 1);
    });
}

#[test]
fn connections_beyond_the_limit_wait_for_a_place() {
    simulate(1, async {
        let switch = Switch::new();
        let mut settings = config(SERVER);
        settings.set_max_connections(3);
        settings.half_open = 3;
        let server = stack(&switch, settings);
        let client = stack(&switch, config(CLIENT));
        serve_echo(&server, 7);
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(client.connect(at(7)).await.unwrap());
        }
        let late = spawn(async move { client.connect(at(7)).await });
        settle().await;
        assert!(!late.is_finished());
        assert_eq!(server.statistics().connections, 3);
        streams.pop();
        assert!(late.await.is_ok());
    });
}

#[test]
fn a_flood_of_requests_beside_connections_that_take_nearly_all_places_leaves_the_last_ones_to_others() {
    simulate(1, async {
        let switch = Switch::new();
        let mut settings = config(SERVER);
        settings.set_max_connections(32);
        settings.half_open = 32;
        let server = stack(&switch, settings);
        let client = stack(&switch, config(CLIENT));
        serve_echo(&server, 7);
        let mut held = Vec::new();
        for _ in 0..24 {
            held.push(client.connect(at(7)).await.unwrap());
        }
        let mut peer = Peer::new(&switch, 1).await;
        for number in 0..2000_u16 {
            peer.send(&segment(1024 + number, 7, TcpControl::Syn, 1, None));
            fogbow::task::yield_now().await;
            if number % 100 == 99 {
                let started = time::now();
                let mut stream = client.connect(at(7)).await.unwrap();
                stream.write_all(b"still served").await.unwrap();
                assert_eq!(stream.read(&mut [0; 64]).await, Ok(12));
                assert!(started.elapsed() < Duration::from_millis(10), "{:?}", started.elapsed());
                assert!(server.statistics().connections <= 32);
                stream.abort();
                settle().await;
            }
        }
    });
}

#[test]
fn memory_stays_within_its_limit_and_each_connection_is_sure_of_a_part() {
    simulate(1, async {
        const LIMIT: usize = 4 * 1024 * 1024;
        let switch = Switch::new();
        let mut settings = config(SERVER);
        settings.tcp_memory = LIMIT;
        settings.set_tcp_buffer((4096, 256 * 1024));
        let most = settings.max_connections;
        assert!(most > 200, "{most}");
        let server = stack(&switch, settings);
        let client = stack(&switch, config(CLIENT));
        let mut listener = server.listen(7).unwrap();
        let (mut held, mut written) = (Vec::new(), Vec::new());
        let data = vec![7; 300_000];
        for _ in 0..most {
            let mut connected = client.connect(at(7)).await.unwrap();
            let mut accepted = listener.accept().await.unwrap();
            // Nobody reads: both directions fill up.
            let mut both = [0, 0];
            for stream in [&mut connected, &mut accepted] {
                while let Ok(length) = time::timeout(Duration::from_millis(5), stream.write(&data)).await {
                    both[usize::from(stream.local() == at(7))] += length.unwrap();
                    assert!(server.statistics().tcp_memory <= LIMIT);
                }
            }
            written.push(both);
            held.push((connected, accepted));
        }
        assert!(written[0][1] > 100_000 && written.iter().all(|both| both[1] >= 4096), "{written:?}");
        // The last is served as well as the first.
        let (connected, accepted) = held.last_mut().unwrap();
        for (stream, length) in [(accepted, written.last().unwrap()[0]), (connected, written.last().unwrap()[1])] {
            let mut buffer = vec![0; length];
            stream.read_exact(&mut buffer).await.unwrap();
        }
        drop(held);
        time::sleep(Duration::from_secs(70)).await;
        assert!(server.statistics().tcp_memory < LIMIT / 8, "{}", server.statistics().tcp_memory);
    });
}

#[test]
fn a_closed_connection_is_only_a_record_that_answers_and_gives_way() {
    simulate(1, async {
        let (switch, server, _client) = network();
        let mut listener = server.listen(7).unwrap();
        let mut peer = Peer::new(&switch, 1).await;
        let next = peer.open(1024, 7).await;
        drop(listener.accept().await.unwrap());
        let seen = peer.seen().await;
        assert_eq!((seen.len(), seen[0].control), (1, TcpControl::Fin));
        let fin = segment(1024, 7, TcpControl::Fin, 1001, Some(next + 1));
        peer.send(&fin);
        let acknowledgement = peer.seen().await;
        assert_eq!((acknowledgement.len(), acknowledgement[0].acknowledged), (1, Some(TcpSeqNumber(1002))));
        let held = |server: &Direct| (server.statistics().connections, server.statistics().reserved);
        assert_eq!(held(&server), (0, 1));

        // The peer has not seen the acknowledgement, and repeats its FIN.
        peer.send(&fin);
        let again = peer.seen().await;
        assert_eq!((again.len(), again[0].sequence, again[0].acknowledged), (1, acknowledgement[0].sequence, Some(TcpSeqNumber(1002))));
        // A reset does not end the wait, an old request is not answered.
        peer.send(&segment(1024, 7, TcpControl::Rst, 1002, None));
        peer.send(&segment(1024, 7, TcpControl::Syn, 900, None));
        assert_eq!(peer.seen().await, []);
        assert_eq!(held(&server), (0, 1));
        // A new connection takes its place.
        peer.send(&segment(1024, 7, TcpControl::Syn, 5000, None));
        assert_eq!(peer.seen().await[0].acknowledged, Some(TcpSeqNumber(5001)));
        assert_eq!(held(&server).0, 1);
    });
}

#[test]
fn reserved_address_pairs_expire_and_are_bounded() {
    simulate(1, async {
        let switch = Switch::new();
        let server = stack(&switch, Config { time_wait_records: 50, ..config(SERVER) });
        let client = stack(&switch, config(CLIENT));
        let mut listener = server.listen(7).unwrap();
        for _ in 0..100 {
            let mut stream = client.connect(at(7)).await.unwrap();
            drop(listener.accept().await.unwrap());
            assert_eq!(stream.read(&mut [0; 8]).await, Ok(0));
        }
        settle().await;
        assert_eq!(server.statistics().reserved, 50);
        assert_eq!(server.statistics().connections, 0);
        time::sleep(Duration::from_secs(61)).await;
        let _ = client.connect(at(7)).await.unwrap();
        assert_eq!(server.statistics().reserved, 0);
    });
}

#[test]
fn a_handshake_that_is_not_completed_is_given_up() {
    simulate(1, async {
        let (switch, server, _client) = network();
        let _listener = server.listen(7).unwrap();
        let mut peer = Peer::new(&switch, 1).await;
        peer.send(&segment(1024, 7, TcpControl::Syn, 1, None));
        settle().await;
        assert_eq!(server.statistics().handshakes, 1);
        time::sleep(Duration::from_secs(11)).await;
        assert_eq!((server.statistics().handshakes, server.statistics().connections), (0, 0));
        // The first answer and its repetitions after 1, 3 and 7 seconds.
        assert_eq!(peer.seen().await.len(), 4);
        // A reset gives it up at once.
        peer.send(&segment(1025, 7, TcpControl::Syn, 1, None));
        settle().await;
        peer.send(&TcpRepr { control: TcpControl::Rst, ..segment(1025, 7, TcpControl::Rst, 2, None) });
        settle().await;
        assert_eq!(server.statistics().connections, 0);
    });
}
