//! RFC 9293, section by section, against a peer made by hand. RFC 1122 and RFC 5961 where they say more.

use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

use super::peer::{Peer, Seen, segment};
use super::*;

/// A server that listens on port 7, and a peer.
async fn server() -> (Direct, TcpListener, Peer) {
    let switch = Switch::new();
    let server = stack(&switch, config(SERVER));
    let listener = server.listen(7).unwrap();
    let peer = Peer::new(&switch, 1).await;
    (server, listener, peer)
}

/// A connection from the peer's port 1024, its next sequence number 1001, and the server's next.
async fn connection() -> (Direct, TcpStream, Peer, TcpSeqNumber) {
    let (server, mut listener, mut peer) = server().await;
    let next = peer.open(1024, 7).await;
    let stream = listener.accept().await.unwrap();
    spawn(async move { while listener.accept().await.is_ok() {} }).detach();
    (server, stream, peer, next)
}

fn data(sequence: u32, acknowledged: TcpSeqNumber, payload: &[u8]) -> TcpRepr<'_> {
    TcpRepr { payload, ..segment(1024, 7, TcpControl::Psh, sequence, Some(acknowledged)) }
}

fn control(control: TcpControl, sequence: u32, acknowledged: TcpSeqNumber) -> TcpRepr<'static> {
    segment(1024, 7, control, sequence, Some(acknowledged))
}

/// What one segment says where none other came.
fn only(seen: &[Seen]) -> &Seen {
    assert_eq!(seen.len(), 1, "{seen:?}");
    &seen[0]
}

fn lengths(seen: &[Seen]) -> Vec<usize> {
    seen.iter().map(|seen| seen.payload.len()).collect()
}

#[test]
fn section_3_4_1_initial_sequence_numbers_follow_a_clock_and_a_secret() {
    simulate(1, async {
        let (_server, _listener, mut peer) = server().await;
        let mut initial = Vec::new();
        for port in [2000, 2001, 2002] {
            peer.send(&segment(port, 7, TcpControl::Syn, 1, None));
            initial.push(only(&peer.seen().await).sequence);
            peer.send(&segment(port, 7, TcpControl::Rst, 2, None));
        }
        assert!(initial[1].0.wrapping_sub(initial[0].0).unsigned_abs() > 1_000_000, "another pair, another secret");
        peer.send(&segment(2000, 7, TcpControl::Syn, 1, None));
        // Three tenths of a second later the clock of 4 µs shows 75,000 more.
        assert_eq!(only(&peer.seen().await).sequence.0.wrapping_sub(initial[0].0), 75_000);
    });
}

#[test]
fn section_3_5_two_ends_that_open_at_once_make_one_connection() {
    simulate(1, async {
        let (switch, _server, client) = network();
        let mut peer = Peer::new(&switch, 1).await;
        peer.introduce_to(CLIENT, 2);
        let to = SocketAddr::from((peer.address, 1024));
        let connecting = spawn(async move { client.connect(to).await });
        let syn = only(&peer.seen().await).clone();
        peer.send(&segment(1024, syn.from_port, TcpControl::Syn, 1000, None));
        let answer = only(&peer.seen().await).clone();
        assert_eq!((answer.control, answer.sequence, answer.acknowledged), (TcpControl::Syn, syn.sequence, Some(TcpSeqNumber(1001))));
        peer.send(&segment(1024, syn.from_port, TcpControl::Syn, 1000, Some(syn.sequence + 1)));
        peer.send(&segment(1024, syn.from_port, TcpControl::None, 1001, Some(syn.sequence + 1)));
        connecting.await.unwrap();
    });
}

#[test]
fn section_3_5_1_a_syn_to_a_connection_is_challenged_and_an_answer_resets_it() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        // The peer has restarted (figure 9); RFC 5961, section 4.2.
        peer.send(&segment(1024, 7, TcpControl::Syn, 5000, None));
        let seen = peer.seen().await;
        assert_eq!((only(&seen).control, seen[0].sequence, seen[0].acknowledged), (TcpControl::None, next, Some(TcpSeqNumber(1001))));
        peer.send(&segment(1024, 7, TcpControl::Rst, 1001, None));
        assert_eq!(stream.read(&mut [0; 8]).await, Err(StreamError::Reset));
    });
}

#[test]
fn section_3_5_2_segments_to_no_connection_are_reset() {
    simulate(1, async {
        let (_server, _listener, mut peer) = server().await;
        peer.send(&segment(1024, 9, TcpControl::Syn, 41, None));
        let seen = peer.seen().await;
        assert_eq!(
            (only(&seen).control, seen[0].sequence, seen[0].acknowledged),
            (TcpControl::Rst, TcpSeqNumber(0), Some(TcpSeqNumber(42)))
        );
        peer.send(&segment(1024, 7, TcpControl::None, 41, Some(TcpSeqNumber(77))));
        assert_eq!((only(&peer.seen().await).control, seen.len()), (TcpControl::Rst, 1));
        // Without an acknowledgement the answer says what it answers, data and FIN counted.
        let (none, zero) = (TcpControl::None, TcpSeqNumber(0));
        for (control, payload, acknowledged) in [(none, &b"data"[..], 45), (TcpControl::Fin, b"end", 45)] {
            peer.send(&TcpRepr { payload, ..segment(1024, 9, control, 41, None) });
            let seen = peer.seen().await;
            assert_eq!(
                (only(&seen).control, seen[0].sequence, seen[0].acknowledged),
                (TcpControl::Rst, zero, Some(TcpSeqNumber(acknowledged)))
            );
        }
        peer.send(&segment(1024, 9, TcpControl::Rst, 41, None));
        assert_eq!(peer.seen().await, []);
        // An acknowledgement of what was not sent, in a handshake.
        peer.send(&segment(1025, 7, TcpControl::Syn, 41, None));
        let next = only(&peer.seen().await).sequence + 1;
        peer.send(&segment(1025, 7, TcpControl::None, 42, Some(next + 5)));
        let seen = peer.seen().await;
        assert_eq!((only(&seen).control, seen[0].sequence), (TcpControl::Rst, next + 5));
    });
}

#[test]
fn section_3_10_7_2_a_listener_says_nothing_to_what_neither_asks_nor_acknowledges() {
    simulate(1, async {
        let (_server, _listener, mut peer) = server().await;
        for control in [TcpControl::None, TcpControl::Psh, TcpControl::Fin, TcpControl::Rst] {
            peer.send(&TcpRepr { payload: b"data", ..segment(1024, 7, control, 41, None) });
            assert_eq!(peer.seen().await, []);
        }
    });
}

#[test]
fn section_3_10_7_4_what_comes_after_the_end_is_ignored() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        peer.send(&control(TcpControl::Fin, 1001, next));
        assert_eq!(only(&peer.seen().await).acknowledged, Some(TcpSeqNumber(1002)));
        peer.send(&data(1002, next, b"more"));
        assert_eq!(peer.seen().await, []);
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(0));
    });
}

#[test]
fn section_3_5_3_only_an_exact_reset_ends_a_connection() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        // RFC 5961, section 3.2: one within the window is challenged, one outside of it is dropped.
        peer.send(&segment(1024, 7, TcpControl::Rst, 2000, None));
        assert_eq!(only(&peer.seen().await).acknowledged, Some(TcpSeqNumber(1001)));
        peer.send(&segment(1024, 7, TcpControl::Rst, 900, None));
        peer.send(&segment(1024, 7, TcpControl::Rst, 1001 + 70_000, None));
        assert_eq!(peer.seen().await, []);
        peer.send(&data(1001, next, b"alive"));
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(5));
        peer.send(&segment(1024, 7, TcpControl::Rst, 1006, None));
        assert_eq!(stream.read(&mut [0; 8]).await, Err(StreamError::Reset));
    });
}

#[test]
fn section_3_6_case_1_this_end_closes_first() {
    simulate(1, async {
        let (server, stream, mut peer, next) = connection().await;
        drop(stream);
        let seen = peer.seen().await;
        assert_eq!((only(&seen).control, seen[0].sequence), (TcpControl::Fin, next));
        peer.send(&control(TcpControl::None, 1001, next + 1));
        peer.send(&control(TcpControl::Fin, 1001, next + 1));
        assert_eq!(only(&peer.seen().await).acknowledged, Some(TcpSeqNumber(1002)));
        assert_eq!((server.statistics().connections, server.statistics().reserved), (0, 1));
    });
}

#[test]
fn section_3_6_case_2_the_peer_closes_first() {
    simulate(1, async {
        let (server, mut stream, mut peer, next) = connection().await;
        peer.send(&control(TcpControl::Fin, 1001, next));
        assert_eq!(only(&peer.seen().await).acknowledged, Some(TcpSeqNumber(1002)));
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(0));
        drop(stream);
        assert_eq!(only(&peer.seen().await).control, TcpControl::Fin);
        peer.send(&control(TcpControl::None, 1002, next + 1));
        settle().await;
        assert_eq!((server.statistics().connections, server.statistics().reserved), (0, 0));
    });
}

#[test]
fn section_3_6_case_3_both_close_at_once() {
    simulate(1, async {
        let (server, stream, mut peer, next) = connection().await;
        drop(stream);
        assert_eq!(only(&peer.seen().await).control, TcpControl::Fin);
        peer.send(&control(TcpControl::Fin, 1001, next));
        assert_eq!(only(&peer.seen().await).acknowledged, Some(TcpSeqNumber(1002)));
        assert_eq!(server.statistics().reserved, 0);
        peer.send(&control(TcpControl::None, 1002, next + 1));
        settle().await;
        assert_eq!((server.statistics().connections, server.statistics().reserved), (0, 1));
    });
}

#[test]
fn section_3_7_1_segments_are_as_large_as_the_peer_takes() {
    simulate(1, async {
        let (_server, mut listener, mut peer) = server().await;
        for (port, told, expected) in [(2000, None, 536), (2001, Some(1000), 1000), (2002, Some(9000), 1460), (2003, Some(1), 88)] {
            peer.send(&TcpRepr { max_seg_size: told, ..segment(port, 7, TcpControl::Syn, 1000, None) });
            let seen = peer.seen().await;
            assert_eq!(only(&seen).options.0, Some(1460));
            peer.send(&segment(port, 7, TcpControl::None, 1001, Some(seen[0].sequence + 1)));
            let mut stream = listener.accept().await.unwrap();
            stream.write_all(&[1; 3000]).await.unwrap();
            assert_eq!(peer.seen_now_after_a_moment().await[0].payload.len(), expected);
            stream.abort();
            peer.seen().await;
        }
    });
}

#[test]
fn section_3_8_1_what_is_not_acknowledged_is_sent_again_later_and_later() {
    simulate(1, async {
        let (server, mut stream, mut peer, next) = connection().await;
        stream.write_all(b"hello").await.unwrap();
        let seen = peer.seen_for(Duration::from_secs(14)).await;
        assert!(seen.iter().all(|seen| seen.sequence == next && seen.payload == b"hello"));
        // RFC 6298, sections 2.2 and 5.4 to 5.6: the handshake took 100 ms, so that the first wait is 100 + 4 · 50.
        let times: Vec<u64> = seen.iter().map(|seen| seen.at.as_millis() as u64).collect();
        assert_eq!(times, [10, 310, 910, 2110, 4510, 9310]);
        assert_eq!(stream.counters().retransmissions, 5);
        assert_eq!(server.statistics().retransmissions, 5);
        // RFC 1122, section 4.2.3.5: not for ever.
        assert_eq!(stream.read(&mut [0; 8]).await, Err(StreamError::TimedOut));
    });
}

#[test]
fn section_3_8_4_a_silent_peer_is_asked_and_given_up_when_it_does_not_answer() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        let seen = peer.seen_for(Duration::from_secs(100)).await;
        let times: Vec<u64> = seen.iter().map(|seen| seen.at.as_secs()).collect();
        assert_eq!(times, [45, 90]);
        assert!(seen.iter().all(|seen| seen.sequence == next - 1 && seen.payload.is_empty()));
        peer.send(&control(TcpControl::None, 1001, next));
        assert_eq!(peer.seen_for(Duration::from_secs(100)).await.len(), 2);
        assert_eq!(stream.read(&mut [0; 8]).await, Err(StreamError::TimedOut));
    });
}

#[test]
fn section_3_8_6_1_a_closed_window_is_probed_and_its_opening_goes_on_at_once() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        peer.send(&TcpRepr { window_len: 0, ..control(TcpControl::None, 1001, next) });
        settle().await;
        stream.write_all(&[1; 5000]).await.unwrap();
        let seen = peer.seen_for(Duration::from_secs(2)).await;
        assert!(seen.len() >= 3 && seen.iter().all(|seen| seen.sequence == next && seen.payload.len() == 1), "{seen:?}");
        peer.send(&control(TcpControl::None, 1001, next));
        let total: usize = lengths(&peer.seen().await).iter().sum();
        assert!(total >= 4999, "{total}");
    });
}

#[test]
fn section_3_8_6_1_a_peer_that_keeps_its_window_closed_and_answers_is_kept() {
    simulate(1, async {
        let (server, mut stream, mut peer, next) = connection().await;
        let closed = TcpRepr { window_len: 0, ..control(TcpControl::None, 1001, next) };
        peer.send(&closed);
        settle().await;
        stream.write_all(&[1; 5000]).await.unwrap();
        for _ in 0..600 {
            if !peer.seen_for(Duration::from_secs(1)).await.is_empty() {
                peer.send(&closed);
            }
        }
        assert_eq!(server.statistics().connections, 1);
        peer.send(&control(TcpControl::None, 1001, next));
        assert!(lengths(&peer.seen().await).iter().sum::<usize>() >= 4999);
    });
}

#[test]
fn section_3_8_6_2_1_no_small_segments_into_a_small_window() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        stream.write_all(&[1; 2000]).await.unwrap();
        let length = lengths(&peer.seen().await).iter().sum::<usize>();
        assert_eq!(length, 2000);
        // Acknowledged, with room for 50 bytes where there had been 64,000 · 128.
        peer.send(&TcpRepr { window_len: 0, ..control(TcpControl::None, 1001, next + 2000) });
        settle().await;
        stream.write_all(&[2; 2000]).await.unwrap();
        peer.send(&TcpRepr { window_len: 1, ..control(TcpControl::None, 1001, next + 2000) });
        let seen = peer.seen().await;
        assert!(seen.is_empty(), "{seen:?}");
        peer.send(&TcpRepr { window_len: 12, ..control(TcpControl::None, 1001, next + 2000) });
        assert_eq!(peer.seen().await[0].payload.len(), 1460);
    });
}

#[test]
fn section_3_8_6_2_2_a_window_opens_by_much_or_not_at_all() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        let payload = [1; 1024];
        for index in 0..64 {
            peer.send(&data(1001 + index * 1024, next, &payload));
        }
        peer.seen().await;
        // A window that is closed for a moment is not opened byte by byte.
        for _ in 0..100 {
            assert_eq!(stream.read(&mut [0; 10]).await, Ok(10));
        }
        assert_eq!(peer.seen().await, []);
        stream.read_exact(&mut [0; 1000]).await.unwrap();
        // The stack of these tests scales windows by one bit.
        assert!(usize::from(only(&peer.seen().await).window) << 1 >= 1460);
    });
}

#[test]
fn section_3_8_6_3_every_second_full_segment_is_acknowledged_and_one_alone_soon() {
    simulate(1, async {
        let (_server, _stream, mut peer, next) = connection().await;
        let payload = [1; 1460];
        peer.send(&data(1001, next, &payload));
        assert_eq!(peer.seen_now_after_a_moment().await, []);
        peer.send(&data(2461, next, &payload));
        assert_eq!(only(&peer.seen_now_after_a_moment().await).acknowledged, Some(TcpSeqNumber(3921)));
        peer.send(&data(3921, next, b"x"));
        assert_eq!(peer.seen_now_after_a_moment().await, []);
        assert_eq!(only(&peer.seen().await).acknowledged, Some(TcpSeqNumber(3922)));
    });
}

#[test]
fn section_3_10_7_4_segments_outside_of_the_window_are_answered_and_not_taken() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        for sequence in [900, 1001 + 70_000, 1001_u32.wrapping_sub(1 << 31)] {
            peer.send(&data(sequence, next, b"old"));
            assert_eq!(only(&peer.seen().await).acknowledged, Some(TcpSeqNumber(1001)));
        }
        // What overlaps the window is taken from where it begins.
        peer.send(&data(999, next, b"abcdef"));
        let mut buffer = [0; 8];
        assert_eq!(stream.read(&mut buffer).await, Ok(4));
        assert_eq!(&buffer[..4], b"cdef");
    });
}

#[test]
fn section_3_10_7_4_an_acknowledgement_of_what_was_not_sent_is_not_taken() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        stream.write_all(b"hello").await.unwrap();
        peer.seen().await;
        peer.send(&data(1001, next + 6, b"no"));
        assert_eq!(only(&peer.seen_now_after_a_moment().await).acknowledged, Some(TcpSeqNumber(1001)));
        peer.send(&data(1001, next + 5, b"yes"));
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(3));
    });
}

#[test]
fn section_3_10_7_4_a_fin_waits_for_what_is_missing_before_it() {
    simulate(1, async {
        let (_server, mut stream, mut peer, next) = connection().await;
        peer.send(&TcpRepr { payload: b"end", ..control(TcpControl::Fin, 1004, next) });
        assert_eq!(only(&peer.seen().await).acknowledged, Some(TcpSeqNumber(1001)));
        peer.send(&data(1001, next, b"the"));
        assert_eq!(only(&peer.seen().await).acknowledged, Some(TcpSeqNumber(1008)));
        let mut buffer = [0; 8];
        assert_eq!(stream.read(&mut buffer).await, Ok(6));
        assert_eq!(stream.read(&mut buffer).await, Ok(0));
    });
}

#[test]
fn rfc1122_section_4_2_2_20_a_syn_that_is_repeated_is_answered_again() {
    simulate(1, async {
        let (server, _listener, mut peer) = server().await;
        let syn = segment(1024, 7, TcpControl::Syn, 1000, None);
        peer.send(&syn);
        let first = only(&peer.seen().await).clone();
        peer.send(&syn);
        assert_eq!(*only(&peer.seen().await), first);
        assert_eq!(server.statistics().handshakes, 1);
    });
}
