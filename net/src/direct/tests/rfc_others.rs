//! RFC 2018, 5681, 6928, 7323 and 8985, against a peer made by hand.

use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use super::peer::{Peer, Seen, segment};
use super::*;

/// A connection from the peer's port 1024 with the options of `syn`, its next sequence number 1001; and what answered.
pub(super) async fn connection(syn: TcpRepr<'_>) -> (TcpStream, Peer, Seen) {
    let switch = Switch::new();
    let server = stack(&switch, config(SERVER));
    let mut listener = server.listen(7).unwrap();
    let mut peer = Peer::new(&switch, 1).await;
    peer.send(&syn);
    let answer = peer.seen_now_after_a_moment().await.remove(0);
    let stamp = answer.stamp.map(|stamp| TcpTimestampRepr::new(syn.timestamp.unwrap().tsval + 1, stamp.tsval));
    peer.send(&TcpRepr { timestamp: stamp, ..segment(1024, 7, TcpControl::None, 1001, Some(answer.sequence + 1)) });
    let stream = listener.accept().await.unwrap();
    spawn(async move { while listener.accept().await.is_ok() {} }).detach();
    (stream, peer, answer)
}

pub(super) fn syn() -> TcpRepr<'static> {
    segment(1024, 7, TcpControl::Syn, 1000, None)
}

pub(super) fn acknowledgement(next: TcpSeqNumber) -> TcpRepr<'static> {
    segment(1024, 7, TcpControl::None, 1001, Some(next))
}

pub(super) fn offsets(seen: &[Seen], from: TcpSeqNumber) -> Vec<usize> {
    seen.iter().map(|seen| seen.sequence - from).collect()
}

#[test]
fn rfc6928_section_2_ten_segments_may_be_sent_at_first() {
    simulate(1, async {
        let (mut stream, mut peer, _) = connection(syn()).await;
        stream.write_all(&[1; 40_000]).await.unwrap();
        assert_eq!(peer.seen_now_after_a_moment().await.len(), 10);
    });
}

#[test]
fn rfc5681_section_3_2_the_third_duplicate_acknowledgement_repeats_the_first_segment() {
    simulate(1, async {
        let (mut stream, mut peer, answer) = connection(syn()).await;
        let next = answer.sequence + 1;
        stream.write_all(&[1; 40_000]).await.unwrap();
        peer.seen_now_after_a_moment().await;
        peer.send(&acknowledgement(next + 1460));
        peer.seen_now_after_a_moment().await;
        for duplicate in 1..=3 {
            peer.send(&acknowledgement(next + 1460));
            let seen = peer.seen_now_after_a_moment().await;
            let again = seen.iter().filter(|seen| seen.sequence == next + 1460).count();
            assert_eq!(again, usize::from(duplicate == 3), "{duplicate}: {:?}", offsets(&seen, next));
        }
        // RFC 6582, section 3.2, step 3: a partial acknowledgement repeats the next that is missing.
        peer.send(&acknowledgement(next + 2 * 1460));
        assert_eq!(offsets(&peer.seen_now_after_a_moment().await, next)[0], 2 * 1460);
    });
}

#[test]
fn rfc2018_section_4_what_is_out_of_order_is_told_though_there_are_data_to_send() {
    simulate(1, async {
        let (mut stream, mut peer, answer) = connection(TcpRepr { sack_permitted: true, ..syn() }).await;
        let next = answer.sequence + 1;
        spawn(async move {
            let mut buffer = [0; 8];
            while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..length]).await.unwrap();
            }
        })
        .detach();
        for (sequence, payload) in [(1011, b"later"), (1001, b"first")] {
            peer.send(&TcpRepr { payload, ..segment(1024, 7, TcpControl::Psh, sequence, Some(next)) });
        }
        let seen = peer.seen_now_after_a_moment().await;
        assert_eq!(seen[0].sacks, [(1011, 1016)]);
        assert_eq!(seen.iter().map(|seen| seen.payload.len()).collect::<Vec<_>>(), [0, 5]);
    });
}

#[test]
fn rfc2018_section_5_only_what_is_missing_is_sent_again() {
    simulate(1, async {
        let (mut stream, mut peer, answer) = connection(TcpRepr { sack_permitted: true, ..syn() }).await;
        assert!(answer.options.2);
        let next = answer.sequence + 1;
        stream.write_all(&[1; 14_600]).await.unwrap();
        assert_eq!(peer.seen_now_after_a_moment().await.len(), 10);
        // The second and the fifth are missing.
        let at = |index: usize| (next + index * 1460).0 as u32;
        let sack_ranges = [Some((at(5), at(10))), Some((at(2), at(4))), None];
        peer.send(&TcpRepr { sack_ranges, ..acknowledgement(next + 1460) });
        assert_eq!(offsets(&peer.seen_now_after_a_moment().await, next), [1460, 4 * 1460]);
        peer.send(&acknowledgement(next + 14_600));
        assert_eq!(peer.seen().await, []);
    });
}

#[test]
fn rfc2018_section_4_the_peer_is_told_what_has_come() {
    simulate(1, async {
        let (mut stream, mut peer, answer) = connection(TcpRepr { sack_permitted: true, ..syn() }).await;
        let next = answer.sequence + 1;
        let data = |offset: u32| TcpRepr { payload: b"0123456789", ..segment(1024, 7, TcpControl::None, 1001 + offset, Some(next)) };
        for (offset, told) in [(10, [(1011, 1021)].to_vec()), (30, [(1031, 1041), (1011, 1021)].to_vec()), (20, [(1011, 1041)].to_vec())] {
            peer.send(&data(offset));
            let seen = peer.seen_now_after_a_moment().await;
            assert_eq!((seen[0].acknowledged, &seen[0].sacks), (Some(TcpSeqNumber(1001)), &told));
        }
        peer.send(&data(0));
        let seen = peer.seen_now_after_a_moment().await;
        assert_eq!((seen[0].acknowledged, seen[0].sacks.len()), (Some(TcpSeqNumber(1041)), 0));
        stream.read_exact(&mut [0; 40]).await.unwrap();
    });
}

#[test]
fn rfc7323_section_2_2_windows_are_scaled_when_both_ends_say_so() {
    simulate(1, async {
        for (told, scale) in [(Some(7), Some(0)), (None, None)] {
            let (mut stream, mut peer, answer) = connection(TcpRepr { window_scale: told, window_len: 3000, ..syn() }).await;
            // The stack of these tests buffers 64 KiB at most, for which one bit is enough.
            assert_eq!(answer.options.1, scale.map(|scale: u8| scale + 1));
            peer.send(&TcpRepr { window_len: 3000, ..acknowledgement(answer.sequence + 1) });
            settle().await;
            stream.write_all(&[1; 10_000]).await.unwrap();
            let sent: usize = peer.seen_now_after_a_moment().await.iter().map(|seen| seen.payload.len()).sum();
            assert_eq!(sent, if told.is_some() { 10_000 } else { 3000 - 3000 % 1460 });
        }
    });
}

#[test]
fn rfc7323_section_3_2_time_stamps_are_echoed_when_both_ends_have_them() {
    simulate(1, async {
        let (mut stream, mut peer, answer) = connection(TcpRepr { timestamp: Some(TcpTimestampRepr::new(500, 0)), ..syn() }).await;
        assert_eq!(answer.stamp.unwrap().tsecr, 500);
        stream.write_all(&[1; 2000]).await.unwrap();
        let seen = peer.seen_now_after_a_moment().await;
        // The option takes 12 bytes of each segment (RFC 7323, appendix A).
        assert_eq!((seen[0].payload.len(), seen[0].stamp.unwrap().tsecr), (1448, 501));
        let (_, _, answer) = connection(syn()).await;
        assert_eq!(answer.stamp, None);
    });
}

#[test]
fn rfc7323_section_5_3_segments_from_the_past_are_not_taken() {
    simulate(1, async {
        let (mut stream, mut peer, answer) = connection(TcpRepr { timestamp: Some(TcpTimestampRepr::new(500, 0)), ..syn() }).await;
        let next = answer.sequence + 1;
        let data = |sequence: u32, stamp: u32| TcpRepr {
            payload: b"data",
            timestamp: Some(TcpTimestampRepr::new(stamp, answer.stamp.unwrap().tsval)),
            ..segment(1024, 7, TcpControl::Psh, sequence, Some(next))
        };
        peer.send(&data(1001, 600));
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(4));
        peer.seen().await;
        // As one would after four gibibytes.
        peer.send(&data(1005, 599));
        let seen = peer.seen_now_after_a_moment().await;
        assert_eq!((seen[0].acknowledged, seen[0].stamp.unwrap().tsecr), (Some(TcpSeqNumber(1005)), 600));
        peer.send(&data(1005, 600));
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(4));
    });
}

#[test]
fn rfc8985_section_7_the_tail_is_probed_for_before_the_timeout() {
    simulate(1, async {
        let (mut stream, mut peer, answer) = connection(TcpRepr { sack_permitted: true, ..syn() }).await;
        let next = answer.sequence + 1;
        stream.write_all(&[1; 4380]).await.unwrap();
        let seen = peer.seen_for(Duration::from_millis(150)).await;
        assert_eq!(offsets(&seen, next), [0, 1460, 2920, 2920]);
        assert!((50..80).contains(&(seen[3].at.as_millis() as u64)), "{:?}", seen[3].at);
        // The probe tells that all before it are lost.
        let sack_ranges = [Some(((next + 2920).0 as u32, (next + 4380).0 as u32)), None, None];
        peer.send(&TcpRepr { sack_ranges, ..acknowledgement(next) });
        let seen = peer.seen_for(Duration::from_millis(30)).await;
        assert_eq!(offsets(&seen, next), [0, 1460]);
    });
}
