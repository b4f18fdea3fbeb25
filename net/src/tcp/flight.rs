//! Segments in flight: which have arrived, which are lost, and which to send again.
//!
//! Loss is told by time, as RFC 8985 (RACK) says: a segment is lost when one that was sent later has arrived and a reordering window has passed. Where
//! the peer gives no selective acknowledgements, three duplicates tell the first segment as lost (RFC 5681, section 3.2), and a partial
//! acknowledgement the next (RFC 6582).

use alloc::collections::VecDeque;

use smoltcp::time::{Duration, Instant};

use super::sequence::Seq;

/// Later segments that have arrived before an earlier one counts as lost, while the path has not been seen to reorder (RFC 8985, section 6.2, step 4).
const DUPLICATES: usize = 3;

/// Records that are kept for the next connection.
const KEPT: usize = 16;

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

    fn is_in_flight(&self) -> bool {
        !self.arrived && !self.lost
    }
}

#[derive(Debug, Default)]
pub(crate) struct Flight {
    sent: VecDeque<Sent>,
    /// Bytes in flight.
    bytes: usize,
    lost: usize,
    arrived: usize,
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

    pub(crate) fn segments(&self) -> usize {
        self.sent.len()
    }

    /// Forgets everything. What was needed for a large window is not kept.
    pub(crate) fn clear(&mut self) {
        let mut sent = core::mem::take(&mut self.sent);
        sent.clear();
        sent.shrink_to(KEPT);
        *self = Self { sent, ..Self::default() };
    }

    /// A new segment has been sent.
    pub(crate) fn push(&mut self, start: Seq, end: Seq, now: Instant) {
        if self.sent.is_empty() {
            self.furthest = start;
        }
        self.sent.push_back(Sent { start, end, at: now, arrived: false, lost: false, again: false });
        self.bytes += end.beyond(start);
    }

    /// The first lost segment, to be sent again: it is in flight from now on.
    pub(crate) fn send_lost(&mut self, now: Instant) -> Option<(Seq, Seq)> {
        if self.lost == 0 {
            return None;
        }
        let sent = self.sent.iter_mut().find(|sent| sent.lost)?;
        (sent.lost, sent.again, sent.at) = (false, true, now);
        let range = (sent.start, sent.end);
        self.lost -= 1;
        self.bytes += range.1.beyond(range.0);
        Some(range)
    }

    /// The last segment, to be sent again as a probe (RFC 8985, section 7.3). Not counted twice.
    pub(crate) fn send_last(&mut self, now: Instant) -> Option<(Seq, Seq)> {
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
        while let Some(sent) = self.sent.front_mut() {
            if sent.start >= next {
                break;
            }
            if sent.end > next {
                // A part of a segment: the rest counts as a segment of its own.
                let part = next.beyond(sent.start);
                if sent.is_in_flight() {
                    self.bytes -= part;
                }
                sent.start = next;
                told.arrived += part;
                break;
            }
            let sent = *sent;
            self.sent.pop_front();
            if sent.arrived {
                self.arrived -= 1;
            } else {
                self.note(&sent, told);
            }
        }
    }

    /// The peer says that it has what is from `start` to `end`.
    pub(crate) fn acknowledge_range(&mut self, start: Seq, end: Seq, told: &mut Told) {
        let first = self.sent.partition_point(|sent| sent.start < start);
        for index in first..self.sent.len() {
            let sent = &mut self.sent[index];
            if sent.end > end {
                break;
            }
            if !sent.arrived {
                let copy = *sent;
                sent.arrived = true;
                sent.lost = false;
                self.arrived += 1;
                self.note(&copy, told);
            }
        }
    }

    /// `sent` has arrived.
    fn note(&mut self, sent: &Sent, told: &mut Told) {
        told.arrived += sent.len();
        if sent.lost {
            self.lost -= 1;
        } else {
            self.bytes -= sent.len();
        }
        if sent.again {
            // It may be the first copy that has arrived, which tells nothing of time.
        } else {
            if sent.end < self.furthest {
                self.reorders = true;
            }
            told.sample = told.sample.max(Some(sent.at));
        }
        self.furthest = self.furthest.max(sent.end);
        if self.newest.is_none_or(|newest| is_after((sent.at, sent.end), newest)) {
            self.newest = Some((sent.at, sent.end));
        }
    }

    /// Finds what is lost by now. Gives whether something is, and when more may be.
    pub(crate) fn detect(&mut self, now: Instant, round_trip: Duration, shortest: Duration, in_recovery: bool) -> (bool, Option<Instant>) {
        let Some(newest) = self.newest else { return (false, None) };
        if self.arrived == 0 && !self.reorders {
            return (false, None);
        }
        // A quarter of the shortest round trip; nothing where enough later segments have arrived on a path that keeps their order.
        let window = if !self.reorders && (in_recovery || self.arrived >= DUPLICATES) {
            Duration::ZERO
        } else {
            Duration::from_micros(shortest.total_micros() / 4)
        };
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
        let Some(sent) = self.sent.front_mut().filter(|sent| sent.is_in_flight() && !sent.again) else { return false };
        sent.lost = true;
        let length = sent.len();
        self.lost += 1;
        self.bytes -= length;
        true
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
        self.arrived = self.sent.iter().filter(|sent| sent.arrived).count();
        self.lost = self.sent.len() - self.arrived;
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

    fn at(millis: i64) -> Instant {
        Instant::from_millis(millis)
    }

    fn flight(segments: usize) -> Flight {
        let mut flight = Flight::default();
        for index in 0..segments {
            flight.push(Seq(0) + index * 100, Seq(0) + (index + 1) * 100, at(index as i64));
        }
        flight
    }

    #[test]
    fn rfc8985_section_6_2_a_segment_is_lost_when_three_later_ones_have_arrived() {
        let mut flight = flight(10);
        let mut told = Told::default();
        flight.acknowledge_range(Seq(100), Seq(300), &mut told);
        assert_eq!(flight.detect(at(22), ROUND_TRIP, ROUND_TRIP, false), (false, Some(at(25))));
        flight.acknowledge_range(Seq(100), Seq(400), &mut told);
        assert_eq!((told.arrived, told.sample), (300, Some(at(3))));
        assert_eq!(flight.detect(at(23), ROUND_TRIP, ROUND_TRIP, false), (true, None));
        assert_eq!((flight.send_lost(at(23)), flight.send_lost(at(23)), flight.bytes()), (Some((Seq(0), Seq(100))), None, 700));
    }

    #[test]
    fn rfc8985_section_6_2_a_path_that_reorders_has_a_quarter_of_a_round_trip_more() {
        let mut flight = flight(10);
        let mut told = Told::default();
        flight.acknowledge_range(Seq(100), Seq(200), &mut told);
        flight.acknowledge(Seq(200), &mut told);
        assert!(flight.reorders);
        flight.acknowledge_range(Seq(300), Seq(800), &mut told);
        assert_eq!(flight.detect(at(22), ROUND_TRIP, ROUND_TRIP, false), (false, Some(at(27))));
        assert!(flight.detect(at(27), ROUND_TRIP, ROUND_TRIP, false).0);
    }

    #[test]
    fn rfc8985_section_6_2_a_segment_sent_again_can_be_lost_again() {
        let mut flight = flight(6);
        let mut told = Told::default();
        flight.acknowledge_range(Seq(100), Seq(500), &mut told);
        assert!(flight.detect(at(25), ROUND_TRIP, ROUND_TRIP, false).0);
        flight.send_lost(at(25));
        flight.push(Seq(600), Seq(700), at(26));
        assert!(!flight.detect(at(46), ROUND_TRIP, ROUND_TRIP, true).0);
        flight.acknowledge_range(Seq(600), Seq(700), &mut told);
        assert!(flight.detect(at(46), ROUND_TRIP, ROUND_TRIP, true).0);
        assert_eq!(flight.send_lost(at(46)), Some((Seq(0), Seq(100))));
    }

    #[test]
    fn rfc2018_section_8_after_a_timeout_the_peer_may_have_forgotten_what_it_had() {
        let mut flight = flight(3);
        let mut told = Told::default();
        flight.acknowledge_range(Seq(0), Seq(100), &mut told);
        flight.lose_all();
        assert_eq!((flight.lost, flight.arrived, flight.bytes()), (3, 0, 0));
    }

    proptest! {
        /// The counts are what the records say, whatever the peer says.
        #[test]
        fn counts_are_right(steps in proptest::collection::vec((0..7_u8, 0..2500_u32, 0..500_u32), 1..100)) {
            let mut flight = Flight::default();
            let (mut next, mut una, mut now) = (Seq(0), Seq(0), 0);
            for (step, place, length) in steps {
                now += 1;
                let mut told = Told::default();
                let place = una + (place as usize).min(next.beyond(una));
                match step {
                    0 | 1 => {
                        flight.push(next, next + 100, at(now));
                        next = next + 100;
                    }
                    2 => {
                        flight.acknowledge(place, &mut told);
                        una = place;
                    }
                    3 => flight.acknowledge_range(place, place + length as usize, &mut told),
                    4 => { flight.detect(at(now), ROUND_TRIP, ROUND_TRIP, length % 2 == 0); }
                    5 => { if length % 2 == 0 { flight.send_lost(at(now)); } else { flight.send_last(at(now)); } }
                    _ => { if length % 2 == 0 { flight.lose_all(); } else { flight.lose_first(); } }
                }
                let count = |which: fn(&Sent) -> bool| flight.sent.iter().filter(|sent| which(sent)).count();
                prop_assert_eq!(flight.lost, count(|sent| sent.lost));
                prop_assert_eq!(flight.arrived, count(|sent| sent.arrived));
                prop_assert_eq!(flight.bytes, flight.sent.iter().filter(|sent| sent.is_in_flight()).map(Sent::len).sum::<usize>());
            }
        }
    }
}
