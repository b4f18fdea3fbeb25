//! Attacks, each with an honest client that goes on being served and memory that stays within its limit. Floods of requests and of addresses, and
//! peers that vanish, are in `limits`, `arp` and `tcp`.

use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpControl, TcpRepr, TcpSeqNumber};

use super::peer::{Peer, segment};
use super::*;

/// What TCP connections of the server under attack may use, in bytes.
const LIMIT: usize = 2 * 1024 * 1024;

/// A server that echoes on port 7, an honest client that is connected, and an attacker.
struct Scene {
    server: Direct,
    client: Direct,
    kept: TcpStream,
    attacker: Peer,
}

impl Scene {
    async fn new() -> Self {
        let switch = Switch::new();
        let mut settings = config(SERVER);
        settings.tcp_memory = LIMIT;
        settings.set_tcp_buffer((4096, 64 * 1024));
        let server = stack(&switch, settings);
        serve_echo(&server, 7);
        let client = stack(&switch, config(CLIENT));
        let kept = client.connect(at(7)).await.unwrap();
        let attacker = Peer::new(&switch, 1).await;
        Self { server, client, kept, attacker }
    }

    /// The connection that is there and a new one are served at once.
    async fn check(&mut self) {
        let started = time::now();
        let mut new = self.client.connect(at(7)).await.expect("a new client is served");
        for stream in [&mut self.kept, &mut new] {
            stream.write_all(b"honest").await.unwrap();
            let mut buffer = [0; 6];
            stream.read_exact(&mut buffer).await.unwrap();
            assert_eq!(&buffer, b"honest");
        }
        assert!(started.elapsed() < Duration::from_millis(20), "served after {:?}", started.elapsed());
        let memory = self.server.statistics().tcp_memory;
        assert!(memory <= LIMIT, "{memory} bytes");
        while self.attacker.device.try_receive().is_some() {}
    }

    /// The sequence number that the server expects of the honest client next, and what that has not acknowledged.
    fn numbers(&self) -> (u32, i32) {
        let port = self.kept.local().port();
        self.server.0.with(|engine| {
            let mut flows = engine.flows.iter_mut().filter_map(|(_, flow)| flow.tcp());
            let flow = flows.find(|flow| flow.key.remote_port() == port).unwrap();
            (flow.socket.expected().0, flow.socket.unacknowledged().0.cast_signed())
        })
    }

    /// Opens a connection as fast as a machine does.
    async fn open(&mut self, port: u16) -> TcpSeqNumber {
        self.attacker.send(&segment(port, 7, TcpControl::Syn, 1000, None));
        let answers = self.attacker.seen_now_after_a_moment().await;
        let answer = answers.iter().find(|answer| answer.to_port == port && answer.control == TcpControl::Syn).expect("an answer");
        self.attacker.send(&segment(port, 7, TcpControl::None, 1001, Some(answer.sequence + 1)));
        answer.sequence + 1
    }

    /// Nothing is left in the end.
    async fn finish(self) {
        let Self { server, client, kept, .. } = self;
        drop((kept, client));
        time::sleep(Duration::from_secs(400)).await;
        let statistics = server.statistics();
        assert_eq!((statistics.connections, statistics.handshakes, statistics.reserved), (0, 0, 0), "{statistics:?}");
    }
}

#[test]
fn a_storm_of_resets() {
    simulate(1, async {
        let mut scene = Scene::new().await;
        let victim = scene.kept.local().port();
        for number in 0..20_000_u32 {
            // In the name of the honest client, and in its own.
            let reset = segment(victim, 7, TcpControl::Rst, number.wrapping_mul(214_013), None);
            let frame = scene.attacker.tcp_frame(CLIENT, &reset);
            scene.attacker.device.send(&frame);
            scene.attacker.send(&segment(number as u16, 7, TcpControl::Rst, number, None));
            if number % 2000 == 0 {
                scene.check().await;
            }
        }
        scene.finish().await;
    });
}

#[test]
fn a_storm_of_ends() {
    simulate(1, async {
        let mut scene = Scene::new().await;
        let victim = scene.kept.local().port();
        let (expected, unacknowledged) = scene.numbers();
        for number in 0..20_000_u32 {
            scene.attacker.send(&segment(number as u16, 7, TcpControl::Fin, number, Some(TcpSeqNumber(number as i32))));
            // In the name of the honest client, beyond the window: it would end what is still to come.
            let early = segment(victim, 7, TcpControl::Fin, expected.wrapping_add(70_000 + number), Some(TcpSeqNumber(unacknowledged)));
            let frame = scene.attacker.tcp_frame(CLIENT, &early);
            scene.attacker.device.send(&frame);
            // It neither ends a connection nor begins one.
            scene.attacker.send(&segment(number as u16, 7, TcpControl::Fin, number, None));
            if number % 500 == 0 {
                fogbow::task::yield_now().await;
                time::sleep(Duration::from_millis(1)).await;
            }
            if number % 2000 == 0 {
                // One of its own too, whose end comes again and again.
                let next = scene.open(60_000 + (number / 2000) as u16).await;
                for _ in 0..100 {
                    scene.attacker.send(&segment(60_000 + (number / 2000) as u16, 7, TcpControl::Fin, 1001, Some(next)));
                }
                scene.check().await;
            }
        }
        let drops = scene.server.statistics().drops;
        assert!(drops.of(Cause::OutsideWindow) >= 20_000, "{drops:?}");
        assert_eq!((drops.of(Cause::HandshakeReplaced), drops.of(Cause::HandshakeTimeout)), (0, 0));
        let (data, mut back) = (vec![7; 100_000], vec![0; 100_000]);
        let (mut reader, mut writer) = scene.kept.split();
        let writing = spawn(async move {
            writer.write_all(&data).await.unwrap();
            writer
        });
        reader.read_exact(&mut back).await.expect("all that the honest client has sent comes back");
        drop((reader, writing.await, scene.client));
        time::sleep(Duration::from_secs(400)).await;
        assert_eq!(scene.server.statistics().connections, 0);
    });
}

#[test]
fn connections_that_come_and_go() {
    simulate(1, async {
        let mut scene = Scene::new().await;
        for number in 0..3000_u16 {
            let next = scene.open(10_000 + number).await;
            let control = if number % 2 == 0 { TcpControl::Rst } else { TcpControl::Fin };
            scene.attacker.send(&segment(10_000 + number, 7, control, 1001, Some(next)));
            if number % 300 == 0 {
                scene.check().await;
            }
        }
        assert!(scene.server.statistics().connections_accepted > 3000);
        scene.finish().await;
    });
}

#[test]
fn connections_that_say_nothing_take_little() {
    simulate(1, async {
        let mut scene = Scene::new().await;
        let most = scene.server.0.with(|engine| engine.config.max_connections);
        let mut opened = Vec::new();
        for number in 0..most as u16 - 10 {
            opened.push(scene.open(10_000 + number).await);
        }
        scene.check().await;
        // Half a request each, and nothing more.
        for (number, next) in (0..).zip(opened) {
            scene.attacker.send(&TcpRepr { payload: b"G", ..segment(10_000 + number, 7, TcpControl::Psh, 1001, Some(next)) });
        }
        scene.check().await;
        // Many more than there may be.
        for number in 0..1000 {
            scene.attacker.send(&segment(20_000 + number, 7, TcpControl::Syn, 1000, None));
            let answer = scene.attacker.seen_now_after_a_moment().await.pop();
            if let Some(answer) = answer.filter(|answer| answer.control == TcpControl::Syn) {
                scene.attacker.send(&segment(20_000 + number, 7, TcpControl::None, 1001, Some(answer.sequence + 1)));
            }
            let statistics = scene.server.statistics();
            assert!(statistics.connections <= most && statistics.tcp_memory <= LIMIT, "{statistics:?}");
        }
        let mut buffer = [0; 6];
        scene.kept.write_all(b"honest").await.unwrap();
        scene.kept.read_exact(&mut buffer).await.unwrap();
        scene.finish().await;
    });
}

#[test]
fn windows_that_close_and_never_open() {
    simulate(1, async {
        let mut scene = Scene::new().await;
        for number in 0..50_u16 {
            let next = scene.open(10_000 + number).await;
            // Sends much to be echoed, and takes nothing back.
            for piece in 0..40_u32 {
                let data = TcpRepr {
                    payload: &[7; 1400],
                    window_len: 0,
                    ..segment(10_000 + number, 7, TcpControl::Psh, 1001 + piece * 1400, Some(next))
                };
                scene.attacker.send(&data);
            }
            if number % 5 == 0 {
                scene.check().await;
            }
        }
        scene.finish().await;
    });
}

#[test]
fn holes_in_what_is_sent() {
    simulate(1, async {
        let mut scene = Scene::new().await;
        for number in 0..50_u16 {
            let next = scene.open(10_000 + number).await;
            // Every other byte of the window, so that each is a range of its own.
            for offset in (1..2000_u32).step_by(2) {
                scene.attacker.send(&TcpRepr { payload: b"x", ..segment(10_000 + number, 7, TcpControl::None, 1001 + offset, Some(next)) });
                if offset % 200 == 1 {
                    fogbow::task::yield_now().await;
                }
            }
            scene.check().await;
            // The first ones are filled up; behind those that may be remembered nothing was.
            scene.attacker.send(&TcpRepr { payload: &[7; 1401], ..segment(10_000 + number, 7, TcpControl::Psh, 1001, Some(next)) });
            let answers = scene.attacker.seen_now_after_a_moment().await;
            assert_eq!(answers.last().unwrap().acknowledged, Some(TcpSeqNumber(1001 + 1401)));
        }
        scene.finish().await;
    });
}

#[test]
fn segments_of_the_smallest_size() {
    simulate(1, async {
        let mut scene = Scene::new().await;
        let syn = TcpRepr { max_seg_size: Some(1), ..segment(1024, 7, TcpControl::Syn, 1000, None) };
        scene.attacker.send(&syn);
        let next = scene.attacker.seen_now_after_a_moment().await.pop().unwrap().sequence + 1;
        for piece in 0..40_u32 {
            scene.attacker.send(&TcpRepr { payload: &[7; 1400], ..segment(1024, 7, TcpControl::Psh, 1001 + piece * 1400, Some(next)) });
        }
        time::sleep(Duration::from_millis(5)).await;
        // As many frames as the first congestion window holds, and none with a byte alone.
        let frames: Vec<usize> = scene.attacker.seen_now().iter().map(|seen| seen.payload.len()).filter(|&length| length > 0).collect();
        assert!((1..50).contains(&frames.len()) && frames.iter().all(|&length| length >= 88), "{frames:?}");
        scene.check().await;
        scene.finish().await;
    });
}

#[test]
fn fragments() {
    simulate(1, async {
        let mut scene = Scene::new().await;
        for number in 0..20_000_u32 {
            let mut frame = scene.attacker.packet(scene.attacker.address, IpProtocol::Udp, 512, |payload| payload.fill(7));
            let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
            packet.set_ident(number as u16);
            packet.set_frag_offset((number % 8000) as u16 * 8);
            packet.set_more_frags(number % 3 > 0 || number % 8000 == 0);
            packet.fill_checksum();
            scene.attacker.device.send(&frame);
            if number % 2000 == 0 {
                scene.check().await;
            }
        }
        settle().await;
        assert_eq!(scene.server.statistics().drops.of(Cause::Fragment), 20_000);
        scene.finish().await;
    });
}

#[test]
fn wrong_checksums() {
    simulate(1, async {
        let mut scene = Scene::new().await;
        let before = scene.server.statistics().connections_accepted;
        for number in 0..20_000_u32 {
            let mut frame = scene.attacker.tcp_frame(scene.attacker.address, &segment(number as u16 | 1, 7, TcpControl::Syn, number, None));
            frame[if number % 2 == 0 { 14 + 10 } else { 34 + 16 }] ^= 0x55;
            scene.attacker.device.send(&frame);
            if number % 2000 == 0 {
                scene.check().await;
            }
        }
        settle().await;
        let drops = scene.server.statistics().drops;
        assert!(drops.of(Cause::IpChecksum) == 10_000 && drops.of(Cause::TcpChecksum) == 10_000, "{drops:?}");
        assert_eq!(scene.server.statistics().connections_accepted - before, 10);
        scene.finish().await;
    });
}

#[test]
fn every_port_in_use_is_an_error_and_free_ports_are_found_again() {
    simulate(1, async {
        let switch = Switch::new();
        let mut settings = config(CLIENT);
        settings.set_tcp_buffer((2048, 2048));
        settings.set_max_connections(20_000);
        let client = stack(&switch, settings);
        let server = stack(&switch, config(SERVER));
        serve_echo(&server, 7);
        // No neighbour answers: each attempt keeps its port while it waits.
        let nowhere = SocketAddr::from(([10, 0, 0, 99], 7));
        // More in all than there are ports.
        for _ in 0..4 {
            let mut attempts = Vec::new();
            for _ in 0..16_384 {
                let client = client.clone();
                attempts.push(spawn(async move { client.connect(nowhere).await.err() }));
            }
            fogbow::task::yield_now().await;
            assert_eq!(client.connect(nowhere).await.err(), Some(ConnectError::Exhausted));
            // Ports are those of one peer: another has as many.
            client.connect(at(7)).await.unwrap();
            for attempt in attempts {
                assert_eq!(attempt.await, Some(ConnectError::TimedOut));
            }
        }
        assert!(client.statistics().connections_begun > 65_535);
        assert_eq!(client.connect(nowhere).await.err(), Some(ConnectError::TimedOut));
    });
}
