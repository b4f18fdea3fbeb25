//! Segments in flight: which have arrived, which are lost, and which to send again.
//!
//! Loss is told by time, as RFC 8985 (RACK) says: a segment is lost when one that was sent later has arrived and a reordering window has passed. Where
//! the peer gives no selective acknowledgements, three duplicates tell the first segment as lost (RFC 5681, section 3.2), and a partial
//! acknowledgement the next (RFC 6582).
//!
//! Segments that a device has cut from one frame are one record while the same is known of all of them; it is split between segments where that ends.

use alloc::collections::VecDeque;

use smoltcp::time::{Duration, Instant};

use super::sequence::Seq;

/// Later segments that have arrived before an earlier one counts as lost, while the path has not been seen to reorder (RFC 8985, section 6.2, step 4).
const DUPLICATES: usize = 3;

/// Records that are kept for the next connection.
const KEPT: usize = 16;

/// One segment, or several in a row that were sent together.
#[derive(Clone, Copy, Debug)]
struct Sent {
    start: Seq,
    end: Seq,
    at: Instant,
    /// The peer has it, as it says.
    arrived: bool,
    /// Lost and not sent again yet.
    lost: bool,
    again: bool,
}

impl Sent {
    fn len(&self) -> usize {
        self.end.beyond(self.start)
    }

    /// How many segments of `segment` bytes it is.
    fn segments(&self, segment: usize) -> usize {
        self.len().div_ceil(segment.max(1)).max(1)
    }

    fn is_in_flight(&self) -> bool {
        !self.arrived && !self.lost
    }
}

#[derive(Debug, Default)]
pub(crate) struct Flight {
    sent: VecDeque<Sent>,
    /// Bytes in a full segment.
    segment: usize,
    /// Segments in all records, and in those that have arrived.
    segments: usize,
    arrived: usize,
    /// Bytes in flight.
    bytes: usize,
    /// Records that are lost.
    lost: usize,
    /// When the segment was sent that was sent last of those that have arrived, and where it ends.
    newest: Option<(Instant, Seq)>,
    /// The path has delivered a later segment before an earlier one.
    reorders: bool,
    /// The end of the furthest segment that has arrived.
    furthest: Seq,
}

/// What an acknowledgement has told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// Bytes that have newly arrived.
    pub(crate) arrived: usize,
    /// When the last sent of them was sent, if it was sent once only.
    pub(crate) sample: Option<Instant>,
    /// Something counted as lost, was not sent again, and has been acknowledged in its turn.
    pub(crate) was_not_lost: bool,
    /// Nothing that was sent again was needed, as a time stamp tells.
    pub(crate) is_late: bool,
    /// What was sent again later than this was so too short a time ago to be what has arrived: it was an earlier copy.
    pub(crate) latest: Option<Instant>,
}

impl Flight {
    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Bytes that are under way.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn has_lost(&self) -> bool {
        self.lost > 0
    }

    /// Segments that are not acknowledged.
    pub(crate) fn segments(&self) -> usize {
        self.segments
    }

    /// Forgets everything. What was needed for a large window is not kept.
    pub(crate) fn clear(&mut self) {
        let mut sent = core::mem::take(&mut self.sent);
        sent.clear();
        sent.shrink_to(KEPT);
        *self = Self { sent, ..Self::default() };
    }

    /// New segments have been sent, each of `segment` bytes but for the last.
    pub(crate) fn push(&mut self, start: Seq, end: Seq, segment: usize, now: Instant) {
        if self.sent.is_empty() {
            self.furthest = start;
        }
        let sent = Sent { start, end, at: now, arrived: false, lost: false, again: false };
        self.segment = segment;
        self.segments += sent.segments(segment);
        self.bytes += sent.len();
        self.sent.push_back(sent);
    }

    /// Makes two records of one that holds more than `count` whole segments.
    fn split(&mut self, index: usize, count: usize) {
        let Some(sent) = self.sent.get_mut(index) else { return };
        let middle = sent.start + count * self.segment;
        if count == 0 || middle >= sent.end {
            return;
        }
        let rest = Sent { start: middle, ..*sent };
        sent.end = middle;
        self.lost += usize::from(rest.lost);
        self.sent.insert(index + 1, rest);
    }

    /// The first lost segments, to be sent again, `most` bytes of them or one: they are in flight from now on.
    pub(crate) fn send_lost(&mut self, most: usize, now: Instant) -> Option<(Seq, Seq)> {
        if self.lost == 0 {
            return None;
        }
        let index = self.sent.iter().position(|sent| sent.lost)?;
        self.split(index, (most / self.segment.max(1)).max(1));
        let sent = self.sent.get_mut(index)?;
        (sent.lost, sent.again, sent.at) = (false, true, now);
        let range = (sent.start, sent.end);
        self.lost -= 1;
        self.bytes += range.1.beyond(range.0);
        Some(range)
    }

    /// The last segment, to be sent again as a probe (RFC 8985, section 7.3). Not counted twice.
    pub(crate) fn send_last(&mut self, now: Instant) -> Option<(Seq, Seq)> {
        let last = self.sent.len().checked_sub(1)?;
        self.split(last, self.sent[last].segments(self.segment) - 1);
        let sent = self.sent.back_mut()?;
        if sent.lost {
            self.lost -= 1;
            self.bytes += sent.len();
        }
        (sent.lost, sent.again, sent.at) = (false, true, now);
        Some((sent.start, sent.end))
    }

    /// All before `next` has arrived.
    pub(crate) fn acknowledge(&mut self, next: Seq, told: &mut Told) {
        while let Some(&sent) = self.sent.front() {
            if sent.start >= next {
                break;
            }
            let whole = next.beyond(sent.start) / self.segment.max(1);
            if sent.end > next && whole > 0 {
                self.split(0, whole);
                continue;
            }
            let segments = sent.segments(self.segment);
            self.segments -= segments;
            self.arrived -= if sent.arrived { segments } else { 0 };
            if sent.end > next {
                self.acknowledge_part(next, told);
                break;
            }
            self.sent.pop_front();
            told.was_not_lost |= sent.lost && !sent.again;
            if !sent.arrived {
                self.note(&sent, told);
            }
        }
    }

    /// A part of the first segment has arrived: the rest counts as a segment of its own.
    fn acknowledge_part(&mut self, next: Seq, told: &mut Told) {
        let Some(sent) = self.sent.front_mut() else { return };
        let part = next.beyond(sent.start);
        if sent.is_in_flight() {
            self.bytes -= part;
        }
        sent.start = next;
        let segments = sent.segments(self.segment);
        self.segments += segments;
        if sent.arrived {
            self.arrived += segments;
        } else {
            told.arrived += part;
        }
    }

    /// The peer says that it has what is from `start` to `end`.
    pub(crate) fn acknowledge_range(&mut self, start: Seq, end: Seq, told: &mut Told) {
        let mut index = self.sent.partition_point(|sent| sent.end <= start);
        while let Some(&sent) = self.sent.get(index).filter(|sent| sent.start < end) {
            // Whole segments alone: the first of the record, and the one after the last, that the range holds.
            let first = start.beyond(sent.start).div_ceil(self.segment.max(1));
            let last = if sent.end <= end { sent.segments(self.segment) } else { end.beyond(sent.start) / self.segment.max(1) };
            if !sent.arrived && first < last {
                self.split(index, last);
                self.split(index, first);
                index += usize::from(first > 0);
                self.arrive(index, told);
            }
            index += 1;
        }
    }

    /// The peer has this record, as it says.
    fn arrive(&mut self, index: usize, told: &mut Told) {
        let Some(sent) = self.sent.get_mut(index) else { return };
        let copy = *sent;
        (sent.arrived, sent.lost) = (true, false);
        self.arrived += copy.segments(self.segment);
        self.note(&copy, told);
    }

    /// `sent` has arrived.
    fn note(&mut self, sent: &Sent, told: &mut Told) {
        told.arrived += sent.len();
        if sent.lost {
            self.lost -= 1;
        } else {
            self.bytes -= sent.len();
        }
        if !sent.again {
            if sent.end < self.furthest {
                self.reorders = true;
            }
            told.sample = told.sample.max(Some(sent.at));
        }
        self.furthest = self.furthest.max(sent.end);
        // It may be the first copy that has arrived, which tells nothing of time (RFC 8985, section 6.2, step 2).
        let is_first = sent.again && told.latest.is_some_and(|latest| sent.at > latest);
        if !is_first && self.newest.is_none_or(|newest| is_after((sent.at, sent.end), newest)) {
            self.newest = Some((sent.at, sent.end));
        }
    }

    /// Something was sent again in vain: the path delivers later segments first.
    pub(crate) fn saw_reordering(&mut self) {
        self.reorders = true;
    }

    /// Finds what is lost by now: what was sent a round trip and a reordering `window` ago, and before something that has arrived. Gives whether
    /// something is, and when more may be.
    pub(crate) fn detect(&mut self, now: Instant, round_trip: Duration, window: Duration, in_recovery: bool) -> (bool, Option<Instant>) {
        let Some(newest) = self.newest else { return (false, None) };
        if self.arrived == 0 && !self.reorders {
            return (false, None);
        }
        // None where enough later segments have arrived on a path that keeps their order.
        let window = if !self.reorders && (in_recovery || self.arrived >= DUPLICATES) { Duration::ZERO } else { window };
        let (mut found, mut next) = (false, None::<Instant>);
        for sent in self.sent.iter_mut().filter(|sent| sent.is_in_flight()) {
            if !is_after(newest, (sent.at, sent.end)) {
                if sent.again {
                    continue;
                }
                break;
            }
            let limit = sent.at + round_trip + window;
            if limit <= now {
                sent.lost = true;
                self.lost += 1;
                self.bytes -= sent.len();
                found = true;
            } else {
                next = Some(next.map_or(limit, |next| next.min(limit)));
            }
        }
        (found, next)
    }

    /// The first segment is lost. False when that was known, or it has been sent again already.
    pub(crate) fn lose_first(&mut self) -> bool {
        self.split(0, 1);
        let Some(sent) = self.sent.front_mut().filter(|sent| sent.is_in_flight() && !sent.again) else { return false };
        sent.lost = true;
        let length = sent.len();
        self.lost += 1;
        self.bytes -= length;
        true
    }

    /// Nothing is lost: what counted as such and was not sent again is in flight, and what comes next is to tell anew what was overtaken.
    pub(crate) fn lose_none(&mut self) {
        self.newest = None;
        if self.lost > 0 {
            for sent in self.sent.iter_mut().filter(|sent| sent.lost) {
                sent.lost = false;
                self.bytes += sent.len();
            }
            self.lost = 0;
        }
    }

    /// All that has not arrived counts as lost. What the peer has said to have is forgotten when it has taken that back (RFC 2018, section 8).
    pub(crate) fn lose_all(&mut self) {
        let reneged = self.sent.front().is_some_and(|sent| sent.arrived);
        for sent in &mut self.sent {
            if reneged {
                sent.arrived = false;
            }
            sent.lost = !sent.arrived;
        }
        self.arrived = self.sent.iter().filter(|sent| sent.arrived).map(|sent| sent.segments(self.segment)).sum();
        self.lost = self.sent.iter().filter(|sent| sent.lost).count();
        self.bytes = 0;
    }
}

/// Whether the first segment was sent after the second (RFC 8985, section 5.1).
fn is_after(first: (Instant, Seq), second: (Instant, Seq)) -> bool {
    first.0 > second.0 || (first.0 == second.0 && first.1 > second.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUND_TRIP: Duration = Duration::from_millis(20);
    const WINDOW: Duration = Duration::from_millis(5);

    fn at(millis: i64) -> Instant {
        Instant::from_millis(millis)
    }

    fn flight(segments: usize) -> Flight {
        let mut flight = Flight::default();
        for index in 0..segments {
            flight.push(Seq(0) + index * 100, Seq(0) + (index + 1) * 100, 100, at(index as i64));
        }
        flight
    }

    #[test]
    fn rfc8985_section_6_2_a_segment_is_lost_when_three_later_ones_have_arrived() {
        let mut flight = flight(10);
        let mut told = Told::default();
        flight.acknowledge_range(Seq(100), Seq(300), &mut told);
        assert_eq!(flight.detect(at(22), ROUND_TRIP, WINDOW, false), (false, Some(at(25))));
        flight.acknowledge_range(Seq(100), Seq(400), &mut told);
        assert_eq!((told.arrived, told.sample), (300, Some(at(3))));
        assert_eq!(flight.detect(at(23), ROUND_TRIP, WINDOW, false), (true, None));
        assert_eq!((flight.send_lost(0, at(23)), flight.send_lost(0, at(23)), flight.bytes()), (Some((Seq(0), Seq(100))), None, 700));
    }

    #[test]
    fn rfc8985_section_6_2_a_path_that_reorders_has_a_quarter_of_a_round_trip_more() {
        let mut flight = flight(10);
        let mut told = Told::default();
        flight.acknowledge_range(Seq(100), Seq(200), &mut told);
        flight.acknowledge(Seq(200), &mut told);
        assert!(flight.reorders);
        flight.acknowledge_range(Seq(300), Seq(800), &mut told);
        assert_eq!(flight.detect(at(22), ROUND_TRIP, WINDOW, false), (false, Some(at(27))));
        assert!(flight.detect(at(27), ROUND_TRIP, WINDOW, false).0);
    }

    #[test]
    fn rfc8985_section_6_2_a_segment_sent_again_can_be_lost_again() {
        let mut flight = flight(6);
        let mut told = Told::default();
        flight.acknowledge_range(Seq(100), Seq(500), &mut told);
        assert!(flight.detect(at(25), ROUND_TRIP, WINDOW, false).0);
        flight.send_lost(0, at(25));
        flight.push(Seq(600), Seq(700), 100, at(26));
        assert!(!flight.detect(at(46), ROUND_TRIP, WINDOW, true).0);
        flight.acknowledge_range(Seq(600), Seq(700), &mut told);
        assert!(flight.detect(at(46), ROUND_TRIP, WINDOW, true).0);
        assert_eq!(flight.send_lost(0, at(46)), Some((Seq(0), Seq(100))));
    }

    #[test]
    fn rfc8985_section_6_2_step_2_an_answer_that_comes_too_soon_is_one_to_the_first_copy() {
        for (latest, expected) in [(30, false), (29, true)] {
            let mut flight = flight(6);
            flight.reorders = true;
            flight.acknowledge_range(Seq(100), Seq(200), &mut Told::default());
            assert!(flight.detect(at(26), ROUND_TRIP, WINDOW, false).0);
            flight.send_lost(0, at(30));
            // If it is one to what was sent at 30 ms, all that was sent before is lost.
            flight.acknowledge(Seq(100), &mut Told { latest: Some(at(latest)), ..Told::default() });
            assert_eq!(flight.detect(at(33), ROUND_TRIP, WINDOW, false).0, !expected);
        }
    }

    #[test]
    fn rfc4015_section_3_when_nothing_is_lost_what_was_sent_before_a_repetition_is_not_either() {
        let mut flight = flight(6);
        flight.lose_all();
        flight.send_lost(0, at(300));
        let mut told = Told::default();
        flight.acknowledge(Seq(100), &mut told);
        assert!(!told.was_not_lost);
        flight.acknowledge(Seq(200), &mut told);
        assert!(told.was_not_lost);
        flight.lose_none();
        flight.reorders = true;
        assert_eq!((flight.bytes(), flight.lost, flight.detect(at(330), ROUND_TRIP, WINDOW, false).0), (400, 0, false));
    }

    #[test]
    fn rfc2018_section_8_after_a_timeout_the_peer_may_have_forgotten_what_it_had() {
        let mut flight = flight(3);
        let mut told = Told::default();
        flight.acknowledge_range(Seq(0), Seq(100), &mut told);
        flight.lose_all();
        assert_eq!((flight.lost, flight.arrived, flight.bytes()), (3, 0, 0));
    }

    #[test]
    fn segments_sent_together_are_told_apart_where_they_fare_differently() {
        let mut flight = Flight::default();
        flight.push(Seq(0), Seq(1050), 100, at(0));
        assert_eq!((flight.segments(), flight.bytes()), (11, 1050));
        let mut told = Told::default();
        flight.acknowledge(Seq(200), &mut told);
        assert_eq!((told.arrived, told.sample, flight.segments()), (200, Some(at(0)), 9));
        // Two segments are missing; what the range has of others in part does not count.
        flight.acknowledge_range(Seq(350), Seq(450), &mut told);
        assert_eq!(told.arrived, 200);
        flight.acknowledge_range(Seq(400), Seq(1050), &mut told);
        assert_eq!((told.arrived, flight.bytes()), (850, 200));
        assert_eq!(flight.detect(at(20), ROUND_TRIP, WINDOW, false), (true, None));
        assert_eq!(flight.send_lost(100, at(21)), Some((Seq(200), Seq(300))));
        assert_eq!((flight.send_lost(500, at(21)), flight.send_lost(500, at(21))), (Some((Seq(300), Seq(400))), None));
        flight.acknowledge(Seq(1050), &mut told);
        assert!(flight.is_empty() && flight.segments() == 0 && flight.bytes() == 0);
    }

    #[test]
    fn of_segments_sent_together_the_last_is_the_probe_and_the_first_the_one_three_duplicates_tell_of() {
        let mut flight = Flight::default();
        flight.push(Seq(0), Seq(1000), 100, at(0));
        assert_eq!(flight.send_last(at(1)), Some((Seq(900), Seq(1000))));
        assert!(flight.lose_first());
        assert_eq!((flight.send_lost(5000, at(2)), flight.bytes()), (Some((Seq(0), Seq(100))), 1000));
        flight.lose_all();
        assert_eq!(flight.send_lost(5000, at(3)), Some((Seq(0), Seq(100))), "pieces stay pieces");
        assert_eq!(flight.send_lost(350, at(3)), Some((Seq(100), Seq(400))));
        assert_eq!((flight.send_lost(5000, at(3)), flight.bytes()), (Some((Seq(400), Seq(900))), 900));
    }

    proptest! {
        /// The counts are what the records say, whatever the peer says.
        #[test]
        fn counts_are_right(steps in proptest::collection::vec((0..8_u8, 0..2500_u32, 0..500_u32), 1..100)) {
            let mut flight = Flight::default();
            let (mut next, mut una, mut now) = (Seq(0), Seq(0), 0);
            for (step, place, length) in steps {
                now += 1;
                let mut told = Told::default();
                let place = una + (place as usize).min(next.beyond(una));
                match step {
                    0 | 1 => {
                        let end = next + if step == 0 { 100 } else { length as usize + 1 };
                        flight.push(next, end, 100, at(now));
                        next = end;
                    }
                    2 => {
                        flight.acknowledge(place, &mut told);
                        una = place;
                    }
                    3 => flight.acknowledge_range(place, place + length as usize, &mut told),
                    4 => { flight.detect(at(now), ROUND_TRIP, WINDOW, length % 2 == 0); }
                    5 => { if length % 2 == 0 { flight.send_lost(length as usize, at(now)); } else { flight.send_last(at(now)); } }
                    6 => { if length % 2 == 0 { flight.lose_all(); } else { flight.lose_first(); } }
                    _ => flight.lose_none(),
                }
                let count = |which: fn(&Sent) -> bool| flight.sent.iter().filter(|sent| which(sent)).count();
                prop_assert_eq!(flight.lost, count(|sent| sent.lost));
                let segments = |which: fn(&&Sent) -> bool| flight.sent.iter().filter(which).map(|sent| sent.segments(100)).sum::<usize>();
                prop_assert_eq!((flight.segments, flight.arrived), (segments(|_| true), segments(|sent| sent.arrived)));
                prop_assert!(flight.sent.iter().zip(flight.sent.iter().skip(1)).all(|(one, next)| one.start < one.end && one.end == next.start));
                prop_assert_eq!(flight.bytes, flight.sent.iter().filter(|sent| sent.is_in_flight()).map(Sent::len).sum::<usize>());
            }
        }
    }
}
