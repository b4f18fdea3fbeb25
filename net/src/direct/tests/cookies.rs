//! Floods of connection requests, and SYN cookies (RFC 4987, section 3.6).

use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

use super::peer::{Peer, Seen, segment};
use super::*;

/// A server with room for so many connections, whose handshakes are at most as many, and a peer of it.
async fn server(connections: usize, handshakes: usize) -> (Switch, Direct, Peer) {
    let switch = Switch::new();
    let mut settings = config(SERVER);
    settings.set_max_connections(connections);
    settings.half_open = handshakes;
    let server = stack(&switch, settings);
    let peer = Peer::new(&switch, 1).await;
    (switch, server, peer)
}

/// A connection request of the peer's, and the answer.
async fn request(peer: &mut Peer, syn: &TcpRepr<'_>) -> Seen {
    peer.send(syn);
    peer.seen().await.pop().unwrap()
}

/// What follows the answer to a request.
fn next<'a>(answer: &Seen, sequence: u32, payload: &'a [u8]) -> TcpRepr<'a> {
    TcpRepr { payload, ..segment(answer.to_port, answer.from_port, TcpControl::None, sequence, Some(answer.sequence + 1)) }
}

#[test]
fn a_flood_of_requests_is_bounded_and_locks_nobody_out() {
    simulate(1, async {
        let (switch, server, client) = network();
        serve_echo(&server, 7);
        client.connect(at(7)).await.unwrap();
        let limit = server.0.with(|engine| engine.config.half_open);
        let mut peer = Peer::new(&switch, 1).await;
        for number in 0..20_000_u32 {
            let source = Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 0, 0).to_bits() + number);
            let frame = peer.tcp_frame(source, &segment(1024, 7, TcpControl::Syn, number, None));
            peer.device.send(&frame);
            if number % 100 == 0 {
                fogbow::task::yield_now().await;
                fogbow::task::yield_now().await;
                fogbow::task::yield_now().await;
                assert!(server.statistics().handshakes <= limit);
            }
            if number % 5000 == 4999 {
                let started = time::now();
                let mut stream = client.connect(at(7)).await.unwrap();
                stream.write_all(b"still served").await.unwrap();
                assert_eq!(stream.read(&mut [0; 64]).await, Ok(12));
                assert!(started.elapsed() < Duration::from_millis(10), "{:?}", started.elapsed());
            }
        }
        let statistics = server.statistics();
        assert_eq!(statistics.cookies_sent, 20_000 + 4 - limit as u64);
        assert_eq!(statistics.cookies_accepted, 4);
        // What is left of it goes away.
        time::sleep(Duration::from_secs(70)).await;
        assert_eq!(server.statistics().handshakes, 0);
        assert_eq!(server.statistics().connections, 0);
    });
}

#[test]
fn a_burst_of_requests_may_take_all_room() {
    simulate(1, async {
        let (_switch, server, mut peer) = server(60, 60).await;
        let _listener = server.listen(7).unwrap();
        for number in 0..60 {
            peer.send(&segment(1024 + number, 7, TcpControl::Syn, 1, None));
        }
        assert_eq!(peer.seen().await.len(), 60);
        assert_eq!((server.statistics().handshakes, server.statistics().cookies_sent), (60, 0));
        // There is no room for another before one of them has proved that it is there.
        let answer = request(&mut peer, &segment(2000, 7, TcpControl::Syn, 1, None)).await;
        assert_eq!((server.statistics().handshakes, server.statistics().cookies_sent), (60, 1));
        peer.send(&next(&answer, 2, b""));
        settle().await;
        let statistics = server.statistics();
        assert_eq!((statistics.connections, statistics.handshakes, statistics.connections_accepted), (60, 59, 1));
        assert_eq!(statistics.drops.of(Cause::HandshakeReplaced), 1);
    });
}

#[test]
fn rfc4987_section_3_6_a_cookie_makes_a_connection_without_a_record() {
    simulate(1, async {
        let (_switch, server, mut peer) = server(8, 1).await;
        serve_echo(&server, 7);
        request(&mut peer, &segment(1000, 7, TcpControl::Syn, 1, None)).await;
        let syn = TcpRepr { max_seg_size: Some(1300), ..segment(1001, 7, TcpControl::Syn, 4_294_967_295, None) };
        let answer = request(&mut peer, &syn).await;
        assert_eq!((answer.control, answer.acknowledged), (TcpControl::Syn, Some(TcpSeqNumber(0))));
        assert_eq!((answer.options, answer.window, answer.stamp), ((Some(1460), None, false), 4096, None));
        assert_eq!((server.statistics().connections, server.statistics().cookies_sent), (1, 1));
        // The acknowledgement was lost: the first data bring it.
        peer.send(&next(&answer, 0, &[9; 2000][..1240]));
        peer.send(&next(&answer, 1240, &[9; 760]));
        let echoed = peer.seen().await;
        assert!(echoed.iter().all(|seen| seen.control != TcpControl::Rst), "{echoed:?}");
        // The size is the next smaller that a cookie can tell, and no option is used that the answer did not offer.
        assert_eq!(echoed.iter().map(|seen| seen.payload.len()).max(), Some(1240));
        assert!(echoed.iter().all(|seen| seen.stamp.is_none() && seen.sacks.is_empty()));
        assert_eq!(echoed.last().unwrap().acknowledged, Some(TcpSeqNumber(2000)));
        assert_eq!(server.statistics().cookies_accepted, 1);
    });
}

#[test]
fn a_cookie_is_good_for_its_peer_and_its_time_alone() {
    simulate(1, async {
        let (_switch, server, mut peer) = server(8, 1).await;
        let _listener = server.listen(7).unwrap();
        request(&mut peer, &segment(1000, 7, TcpControl::Syn, 1, None)).await;
        let answer = request(&mut peer, &segment(1001, 7, TcpControl::Syn, 1, None)).await;
        let good = next(&answer, 2, b"");
        let acknowledged = |by: i32| TcpRepr { ack_number: good.ack_number.map(|number| TcpSeqNumber(number.0.wrapping_add(by))), ..good };
        for bad in [
            TcpRepr { src_port: 1002, ..good },
            TcpRepr { seq_number: TcpSeqNumber(3), ..good },
            TcpRepr { control: TcpControl::Rst, ..good },
            acknowledged(1),
            acknowledged(1 << 24),
            acknowledged(1 << 27),
        ] {
            peer.send(&bad);
            let refused = peer.seen().await;
            assert!(refused.iter().all(|seen| seen.control == TcpControl::Rst), "{bad:?}: {refused:?}");
            assert_eq!((server.statistics().cookies_accepted, server.statistics().connections), (0, 1), "{bad:?}");
        }
        time::sleep(Duration::from_secs(129)).await;
        peer.send(&good);
        assert_eq!(peer.seen().await.last().map(|seen| seen.control), Some(TcpControl::Rst));
        // Another of that time is good for 64 seconds at least.
        request(&mut peer, &segment(1003, 7, TcpControl::Syn, 1, None)).await;
        let answer = request(&mut peer, &segment(1004, 7, TcpControl::Syn, 1, None)).await;
        time::sleep(Duration::from_secs(63)).await;
        peer.send(&next(&answer, 2, b""));
        settle().await;
        assert_eq!((server.statistics().cookies_accepted, server.statistics().connections_accepted), (1, 1));
    });
}

#[test]
fn a_cookie_that_comes_back_to_a_full_listener_is_dropped_and_good_later() {
    simulate(1, async {
        let switch = Switch::new();
        let mut settings = config(SERVER);
        (settings.half_open, settings.backlog) = (1, 1);
        let server = stack(&switch, settings);
        let mut peer = Peer::new(&switch, 1).await;
        let mut listener = server.listen(7).unwrap();
        request(&mut peer, &segment(1000, 7, TcpControl::Syn, 1, None)).await;
        let first = request(&mut peer, &segment(1001, 7, TcpControl::Syn, 1, None)).await;
        let second = request(&mut peer, &segment(1002, 7, TcpControl::Syn, 1, None)).await;
        peer.send(&next(&first, 2, b""));
        peer.send(&next(&second, 2, b"x"));
        assert_eq!(peer.seen().await, []);
        assert_eq!((server.statistics().cookies_accepted, server.statistics().drops.of(Cause::BacklogFull)), (1, 1));
        listener.accept().await.unwrap();
        peer.send(&next(&second, 2, b"x"));
        settle().await;
        assert_eq!(listener.accept().await.unwrap().peer().port(), 1002);
    });
}
