//! Paths that deliver twice, late or in another order: RFC 2883, 3522, 3708, 5682 and 8985, against a peer made by hand.

use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use super::peer::{Peer, Seen, segment};
use super::rfc_others::{acknowledgement, connection, offsets, syn};
use super::*;
use crate::simulation::Impairment;

/// Bytes in a segment without options.
const SEGMENT: usize = 1460;

/// A connection with selective acknowledgements.
async fn selective() -> (TcpStream, Peer, TcpSeqNumber) {
    let (stream, peer, answer) = connection(TcpRepr { sack_permitted: true, ..syn() }).await;
    (stream, peer, answer.sequence + 1)
}

/// The same, of which each step takes as long as a round trip.
async fn selective_after(round_trip: Duration) -> (TcpStream, Peer, TcpSeqNumber) {
    let switch = Switch::new();
    let server = stack(&switch, config(SERVER));
    let mut listener = server.listen(7).unwrap();
    let mut peer = Peer::new(&switch, 1).await;
    peer.send(&TcpRepr { sack_permitted: true, ..syn() });
    let next = peer.seen_now_after_a_moment().await[0].sequence + 1;
    time::sleep(round_trip - Duration::from_millis(1)).await;
    peer.send(&acknowledgement(next));
    (listener.accept().await.unwrap(), peer, next)
}

/// Ten bytes of the peer's, `offset` after its first.
fn ten(offset: u32, next: TcpSeqNumber) -> TcpRepr<'static> {
    TcpRepr { payload: b"0123456789", ..segment(1024, 7, TcpControl::None, 1001 + offset, Some(next)) }
}

/// What a segment acknowledges, counted from the peer's first byte, and the ranges that it tells, likewise.
fn told(seen: &Seen) -> (usize, Vec<(u32, u32)>) {
    let ranges = seen.sacks.iter().map(|&(start, end)| (start - 1001, end - 1001));
    (seen.acknowledged.unwrap() - TcpSeqNumber(1001), ranges.collect())
}

/// What is from one segment to another, counted from `first`.
fn range(first: TcpSeqNumber, from: usize, to: usize) -> Option<(u32, u32)> {
    Some(((first + from * SEGMENT).0 as u32, (first + to * SEGMENT).0 as u32))
}

/// Writes more than may be in flight, and goes on reading nothing.
fn write_much(mut stream: TcpStream) {
    spawn(async move {
        stream.write_all(&[1; 60_000]).await.unwrap();
        std::future::pending::<()>().await;
    })
    .detach();
}

#[test]
fn rfc2883_section_4_what_comes_twice_is_told_once() {
    simulate(1, async {
        let (_stream, mut peer, next) = selective().await;
        for (offset, expected) in [
            (0, None),
            // Acknowledged (section 4.1.1).
            (0, Some((10, vec![(0, 10)]))),
            (30, Some((10, vec![(30, 40)]))),
            // Out of order (section 4.1.3): the range that it is in follows.
            (30, Some((10, vec![(30, 40), (30, 40)]))),
            // In part acknowledged (section 4.2.1).
            (5, Some((15, vec![(5, 10), (30, 40)]))),
            // In part out of order (section 4.2.3).
            (35, Some((15, vec![(35, 40), (30, 45)]))),
            // It fills the gap, and more (section 4.2.3).
            (60, Some((15, vec![(60, 70), (30, 45)]))),
            (15, Some((25, vec![(60, 70), (30, 45)]))),
            (25, Some((45, vec![(30, 35), (60, 70)]))),
            (80, Some((45, vec![(80, 90), (60, 70)]))),
        ] {
            peer.send(&ten(offset, next));
            let seen = peer.seen_now_after_a_moment().await;
            assert_eq!(seen.first().map(told), expected, "{offset}");
        }
    });
}

#[test]
fn rfc2883_section_4_each_duplicate_has_an_acknowledgement_of_its_own() {
    simulate(1, async {
        let (mut stream, mut peer, next) = selective().await;
        (0..5).for_each(|index| peer.send(&ten(10 * index, next)));
        peer.seen().await;
        // They come together, and there are data to go with the acknowledgement.
        stream.write_all(b"data").await.unwrap();
        [0, 20, 40].into_iter().for_each(|offset| peer.send(&ten(offset, next)));
        let seen = peer.seen_now_after_a_moment().await;
        let told: Vec<_> = seen.iter().filter(|seen| seen.payload.is_empty()).map(told).collect();
        assert_eq!(told, [(50, vec![(0, 10)]), (50, vec![(20, 30)]), (50, vec![(40, 50)])]);
    });
}

#[test]
fn rfc2883_section_4_nothing_is_told_to_a_peer_that_does_not_know_of_it() {
    simulate(1, async {
        let (_stream, mut peer, answer) = connection(syn()).await;
        for offset in [0, 0, 30, 30] {
            peer.send(&ten(offset, answer.sequence + 1));
            assert!(peer.seen().await.iter().all(|seen| told(seen) == (10, vec![])));
        }
    });
}

/// Ten segments are in flight; the first of them is overtaken by four others, and sent again. Then all are acknowledged by what `last` makes of that
/// acknowledgement. Gives how many segments may be in flight after that.
async fn window_after(options: TcpRepr<'static>, last: impl FnOnce(TcpRepr<'static>, &Seen) -> TcpRepr<'static>) -> usize {
    let (stream, mut peer, answer) = connection(TcpRepr { sack_permitted: true, ..options }).await;
    let first = answer.sequence + 1;
    write_much(stream);
    let seen = peer.seen_now_after_a_moment().await;
    let (segment, stamp) = (seen[0].payload.len(), seen[0].stamp);
    assert_eq!(seen.len(), 10);
    time::sleep(Duration::from_millis(20)).await;
    let at = |count: usize| (first + count * segment).0 as u32;
    let answer = |to: TcpSeqNumber| {
        let timestamp = stamp.map(|stamp| TcpTimestampRepr::new(502, stamp.tsval));
        TcpRepr { timestamp, ..acknowledgement(to) }
    };
    peer.send(&TcpRepr { sack_ranges: [Some((at(1), at(5))), None, None], ..answer(first) });
    let seen = peer.seen_for(Duration::from_millis(30)).await;
    assert_eq!(seen.iter().filter(|seen| seen.sequence == first).count(), 1, "{:?}", offsets(&seen, first));
    let sent = 10 + seen.iter().filter(|seen| seen.sequence >= first + 10 * segment).count();
    let again = seen.into_iter().find(|seen| seen.sequence == first).unwrap();
    peer.send(&last(answer(first + 10 * segment), &again));
    sent + peer.seen_now_after_a_moment().await.len() - 10
}

#[test]
fn rfc3708_section_2_the_window_is_as_it_was_when_all_that_was_sent_again_came_twice() {
    simulate(1, async {
        let told = |from: usize, to: usize| {
            move |last: TcpRepr<'static>, again: &Seen| TcpRepr {
                sack_ranges: [range(again.sequence + from, 0, 1).map(|(start, end)| (start, end + to as u32 - SEGMENT as u32)), None, None],
                ..last
            }
        };
        let kept = window_after(syn(), |last, _| last).await;
        let undone = window_after(syn(), told(0, SEGMENT)).await;
        assert_eq!((kept, undone), (10, 20));
        // Less than that, or what was not sent again.
        for (from, to) in [(0, SEGMENT - 1), (0, SEGMENT + 1), (SEGMENT, SEGMENT)] {
            assert_eq!(window_after(syn(), told(from, to)).await, kept, "{from} {to}");
        }
    });
}

#[test]
fn rfc3522_section_3_2_the_window_is_as_it_was_when_what_was_sent_first_has_arrived() {
    simulate(1, async {
        let options = TcpRepr { timestamp: Some(TcpTimestampRepr::new(500, 0)), ..syn() };
        let undone = window_after(options, |last, _| last).await;
        let kept = window_after(options, |last, again| TcpRepr {
            timestamp: Some(TcpTimestampRepr::new(502, again.stamp.unwrap().tsval)),
            ..last
        });
        assert_eq!((undone, kept.await), (20, 10));
    });
}

#[test]
fn rfc5681_section_4_1_after_a_pause_nothing_is_undone() {
    simulate(1, async {
        for pause in [0, 1000] {
            let (mut stream, mut peer, first) = selective().await;
            stream.write_all(&[1; 10 * SEGMENT]).await.unwrap();
            peer.seen_now_after_a_moment().await;
            peer.send(&TcpRepr { sack_ranges: [range(first, 1, 5), None, None], ..acknowledgement(first) });
            assert_eq!(peer.seen_for(Duration::from_millis(30)).await[0].sequence, first);
            peer.send(&acknowledgement(first + 10 * SEGMENT));
            time::sleep(Duration::from_millis(pause)).await;
            write_much(stream);
            assert_eq!(peer.seen_now_after_a_moment().await.len(), 7);
            peer.send(&TcpRepr { sack_ranges: [range(first, 0, 1), None, None], ..acknowledgement(first + 10 * SEGMENT) });
            assert_eq!(peer.seen_now_after_a_moment().await.is_empty(), pause > 0);
        }
    });
}

/// Nothing is answered until ten segments, and the one that the tail was probed with, have timed out. Gives the repetition of the first.
async fn timed_out(options: TcpRepr<'static>) -> (Peer, Seen) {
    let (stream, mut peer, _) = connection(options).await;
    write_much(stream);
    let seen = peer.seen_now_after_a_moment().await;
    assert_eq!(seen.len(), 10);
    loop {
        let again = peer.seen_for(Duration::from_millis(10)).await.into_iter().find(|again| again.sequence == seen[0].sequence);
        if let Some(again) = again {
            return (peer, again);
        }
    }
}

#[test]
fn rfc5682_section_3_1_a_timeout_is_undone_when_what_was_not_sent_again_is_acknowledged() {
    simulate(1, async {
        for sack_permitted in [false, true] {
            let (mut peer, again) = timed_out(TcpRepr { sack_permitted, ..syn() }).await;
            let first = again.sequence;
            // Step 2: new segments, not what counts as lost.
            peer.send(&acknowledgement(first + SEGMENT));
            assert_eq!(offsets(&peer.seen_now_after_a_moment().await, first), [11 * SEGMENT, 12 * SEGMENT]);
            // Step 3: the second was not sent again. Ten are in flight, and may be.
            peer.send(&acknowledgement(first + 2 * SEGMENT));
            assert_eq!(offsets(&peer.seen_now_after_a_moment().await, first), [] as [usize; 0]);
            peer.send(&acknowledgement(first + 3 * SEGMENT));
            assert_eq!(offsets(&peer.seen_for(Duration::from_millis(40)).await, first)[0], 13 * SEGMENT);
        }
    });
}

#[test]
fn rfc5682_section_3_1_a_timeout_stands_when_the_next_answer_is_a_duplicate() {
    simulate(1, async {
        for sack_permitted in [false, true] {
            let (mut peer, again) = timed_out(TcpRepr { sack_permitted, ..syn() }).await;
            let first = again.sequence;
            peer.send(&acknowledgement(first + SEGMENT));
            assert_eq!(offsets(&peer.seen_now_after_a_moment().await, first), [11 * SEGMENT, 12 * SEGMENT]);
            let sack_ranges = [range(first, 11, 12).filter(|_| sack_permitted), None, None];
            peer.send(&TcpRepr { sack_ranges, ..acknowledgement(first + SEGMENT) });
            assert_eq!(offsets(&peer.seen_now_after_a_moment().await, first)[0], SEGMENT);
        }
    });
}

#[test]
fn rfc4015_section_3_a_timeout_is_undone_by_the_first_answer_with_a_time_stamp_from_before() {
    simulate(1, async {
        for is_late in [true, false] {
            let (mut peer, again) = timed_out(TcpRepr { timestamp: Some(TcpTimestampRepr::new(500, 0)), ..syn() }).await;
            let (first, length, stamp) = (again.sequence, again.payload.len(), again.stamp.unwrap().tsval);
            let timestamp = Some(TcpTimestampRepr::new(502, if is_late { stamp - 1 } else { stamp }));
            peer.send(&TcpRepr { timestamp, ..acknowledgement(first + length) });
            // Ten are in flight, and eleven may be. If they count as lost, two new ones are to tell (RFC 5682).
            let expected = if is_late { vec![11 * length] } else { vec![11 * length, 12 * length] };
            assert_eq!(offsets(&peer.seen_now_after_a_moment().await, first), expected);
            if is_late {
                // Nothing that was in flight is sent again.
                peer.send(&TcpRepr { timestamp, ..acknowledgement(first + 3 * length) });
                assert_eq!(offsets(&peer.seen_now_after_a_moment().await, first)[..2], [12 * length, 13 * length]);
            }
        }
    });
}

#[test]
fn rfc8985_section_6_2_step_4_a_path_that_is_told_to_reorder_has_more_time() {
    simulate(1, async {
        for tells in [true, false] {
            let (mut stream, mut peer, mut next) = selective_after(Duration::from_millis(40)).await;
            let mut again = Vec::new();
            for _ in 0..2 {
                // Of five segments the first comes 15 ms after the others, which is 5 ms more than a quarter of a round trip.
                stream.write_all(&[1; 5 * SEGMENT]).await.unwrap();
                assert_eq!(peer.seen_now_after_a_moment().await.len(), 5);
                time::sleep(Duration::from_millis(39)).await;
                peer.send(&TcpRepr { sack_ranges: [range(next, 1, 5), None, None], ..acknowledgement(next) });
                let is_again = !peer.seen_for(Duration::from_millis(15)).await.is_empty();
                let sack_ranges = [range(next, 0, 1).filter(|_| is_again && tells), None, None];
                next += 5 * SEGMENT;
                peer.send(&TcpRepr { sack_ranges, ..acknowledgement(next) });
                peer.seen().await;
                again.push(is_again);
            }
            assert_eq!(again, [true, !tells]);
        }
    });
}

#[test]
fn what_is_overtaken_all_the_time_is_not_sent_again_all_the_time() {
    simulate(1, async {
        let (switch, server, client) = network();
        let millisecond = Duration::from_millis(1);
        switch.impair(Impairment { delay: millisecond, jitter: millisecond, ..Impairment::default() });
        let mut listener = server.listen(7).unwrap();
        let connect = spawn(async move { client.connect(at(7)).await.unwrap() });
        let (mut accepted, mut sender) = (listener.accept().await.unwrap(), connect.await);
        const LENGTH: usize = 4_000_000;
        let send = spawn(async move {
            sender.write_all(&vec![7; LENGTH]).await.unwrap();
            sender
        });
        let (mut buffer, started) = (vec![0; LENGTH], time::now());
        accepted.read_exact(&mut buffer).await.unwrap();
        let repeated = send.await.counters().retransmissions;
        // 64 KiB in each 4 ms take 250 ms.
        assert!(repeated < 20 && started.elapsed() < Duration::from_millis(500), "{repeated} sent again in {:?}", started.elapsed());
    });
}

/// How many segments are sent at once after three, of which the last was probed for, and more were acknowledged; `told` is said of the three.
async fn sent_after_a_probe(told: &[Option<(usize, usize)>]) -> usize {
    let (mut stream, mut peer, next) = selective().await;
    stream.write_all(&[1; 3 * SEGMENT]).await.unwrap();
    let seen = peer.seen_for(Duration::from_millis(150)).await;
    assert_eq!(offsets(&seen, next), [0, SEGMENT, 2 * SEGMENT, 2 * SEGMENT]);
    for duplicate in told {
        let first = duplicate.and_then(|(from, to)| range(next, from, to));
        peer.send(&TcpRepr { sack_ranges: [first, None, None], ..acknowledgement(next + 3 * SEGMENT) });
    }
    settle().await;
    write_much(stream);
    let sent = peer.seen_now_after_a_moment().await.len();
    peer.send(&acknowledgement(next + (3 + sent) * SEGMENT));
    peer.seen_now_after_a_moment().await.len()
}

#[test]
fn rfc8985_section_7_4_2_a_tail_that_a_probe_has_repaired_is_congestion() {
    simulate(1, async {
        let repaired = sent_after_a_probe(&[None]).await;
        for needless in [&[None, None][..], &[None, Some((2, 3))], &[Some((2, 3))]] {
            let sent = sent_after_a_probe(needless).await;
            assert!(repaired * 2 <= sent, "{repaired} after a loss, {sent} without");
        }
    });
}
