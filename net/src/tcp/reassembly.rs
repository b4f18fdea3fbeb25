//! What has arrived: ranges beyond the next byte that is missing, and what has come twice.

use super::ranges::Ranges;
use super::sequence::Seq;

/// Ranges told to the peer at once: as many as fit beside time stamps (RFC 2018, section 3).
pub(crate) const TOLD: usize = 3;
/// Duplicates that wait to be told, each by an acknowledgement of its own: those of a batch of frames, as a rule. More are not told of.
const WAITING: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    ranges: Ranges,
    /// Where the last segment out of order came, to be told first.
    last: Seq,
    /// What has come twice, the first to be told of first, and how many of these there are.
    twice: [(Seq, Seq); WAITING],
    waiting: u8,
}

impl Reassembly {
    /// Nothing is beyond what is missing.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether there is something that the peer is to be told at once.
    pub(crate) fn has_to_tell(&self) -> bool {
        self.waiting > 0
    }

    /// Adds the range from `start` to `end`. False when that would make more than `most`.
    pub(crate) fn add(&mut self, start: Seq, end: Seq, most: usize) -> bool {
        let held = self.ranges.held(start, end);
        if !self.ranges.add(start, end, most) {
            return false;
        }
        self.last = start;
        held.into_iter().for_each(|(start, end)| self.came_twice(start, end));
        true
    }

    /// All up to `next` has arrived, from `start` with the last segment: gives the end of what follows without a gap.
    pub(crate) fn advance(&mut self, start: Seq, next: Seq) -> Seq {
        if self.ranges.is_empty() {
            return next;
        }
        let held = self.ranges.held(start, next);
        held.into_iter().for_each(|(start, end)| self.came_twice(start, end));
        self.ranges.advance(next)
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// What is from `start` to `end` has come again (RFC 2883, section 4). What follows on one that waits to be told is told with it.
    pub(crate) fn came_twice(&mut self, start: Seq, end: Seq) {
        let waiting = usize::from(self.waiting);
        if let Some(last) = self.twice[..waiting].last_mut()
            && last.1 == start
        {
            last.1 = end;
        } else if let Some(place) = self.twice.get_mut(waiting) {
            *place = (start, end);
            self.waiting += 1;
        }
    }

    /// What to tell the peer: a duplicate once, the range that it is in next (RFC 2883, section 4), the range that has changed last before others (RFC
    /// 2018, section 4).
    pub(crate) fn tell(&mut self) -> [Option<(u32, u32)>; TOLD] {
        let twice = (self.waiting > 0).then(|| {
            self.twice.rotate_left(1);
            self.waiting -= 1;
            self.twice[WAITING - 1]
        });
        let mut told = [None; TOLD];
        if twice.is_none() && self.ranges.is_empty() {
            return told;
        }
        let newest = self.ranges.around(twice.map_or(self.last, |(start, _)| start)).or_else(|| self.ranges.around(self.last));
        let others = self.ranges.iter().filter(|&range| Some(range) != newest);
        for (place, (start, end)) in told.iter_mut().zip(twice.into_iter().chain(newest).chain(others)) {
            *place = Some((start.0, end.0));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc2018_section_4_the_newest_range_is_told_first() {
        let mut reassembly = Reassembly::default();
        for start in [100, 300, 500, 700, 900] {
            assert!(reassembly.add(Seq(start), Seq(start + 50), 9));
        }
        reassembly.add(Seq(350), Seq(400), 9);
        assert_eq!(reassembly.tell(), [Some((300, 400)), Some((100, 150)), Some((500, 550))]);
    }

    #[test]
    fn rfc2883_section_4_duplicates_are_told_once_each_and_before_the_range_that_they_are_in() {
        let mut reassembly = Reassembly::default();
        for (start, end) in [(100, 200), (300, 400), (500, 600), (110, 120), (120, 130), (350, 420), (40, 60)] {
            reassembly.add(Seq(start), Seq(end), 9);
        }
        reassembly.came_twice(Seq(10), Seq(20));
        assert!(reassembly.has_to_tell());
        assert_eq!(reassembly.tell(), [Some((110, 130)), Some((100, 200)), Some((40, 60))]);
        assert_eq!(reassembly.tell(), [Some((350, 400)), Some((300, 420)), Some((40, 60))]);
        assert_eq!(reassembly.tell(), [Some((10, 20)), Some((40, 60)), Some((100, 200))]);
        assert!(!reassembly.has_to_tell());
        assert_eq!(reassembly.tell(), [Some((40, 60)), Some((100, 200)), Some((300, 420))]);
    }

    #[test]
    fn rfc2883_section_4_of_what_fills_a_gap_the_first_duplicate_is_told() {
        let mut reassembly = Reassembly::default();
        for (start, end) in [(100, 200), (300, 400)] {
            reassembly.add(Seq(start), Seq(end), 9);
        }
        assert_eq!(reassembly.advance(Seq(0), Seq(350)), Seq(400));
        assert_eq!(reassembly.tell(), [Some((100, 200)), None, None]);
    }

    #[test]
    fn no_more_duplicates_wait_than_there_is_place_for() {
        let mut reassembly = Reassembly::default();
        (0..10).for_each(|index| reassembly.came_twice(Seq(100 * index), Seq(100 * index + 50)));
        for index in 0..WAITING as u32 {
            assert_eq!(reassembly.tell()[0], Some((100 * index, 100 * index + 50)));
        }
        assert_eq!(reassembly.tell(), [None; TOLD]);
    }
}
