//! What has arrived out of order: ranges beyond the next byte that is missing.

use alloc::vec::Vec;

use super::sequence::Seq;

/// Ranges remembered at most; what would make one more is dropped, so that a peer cannot make the stack search for long.
const MOST: usize = 64;
/// Ranges told to the peer at once: as many as fit beside time stamps (RFC 2018, section 3).
pub(crate) const TOLD: usize = 3;

/// Disjoint ranges of sequence numbers in order.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    ranges: Vec<(Seq, Seq)>,
    /// Where the last segment out of order came, to be told first.
    last: Seq,
}

impl Reassembly {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Adds the range from `start` to `end`. False when there are too many.
    pub(crate) fn add(&mut self, start: Seq, end: Seq) -> bool {
        let first = self.ranges.partition_point(|range| range.1 < start);
        let after = first + self.ranges[first..].partition_point(|range| range.0 <= end);
        if first == after {
            if self.ranges.len() >= MOST {
                return false;
            }
            self.ranges.insert(first, (start, end));
        } else {
            let merged = (self.ranges[first].0.min(start), self.ranges[after - 1].1.max(end));
            self.ranges[first] = merged;
            self.ranges.drain(first + 1..after);
        }
        self.last = start;
        true
    }

    /// All up to `next` has arrived: gives the end of what follows without a gap.
    pub(crate) fn advance(&mut self, next: Seq) -> Seq {
        let mut reached = next;
        let gone = self.ranges.iter().take_while(|range| range.0 <= next).count();
        for (_, end) in self.ranges.drain(..gone) {
            reached = reached.max(end);
        }
        // Ranges never touch, so that none follows what was reached.
        reached
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// What to tell the peer: the range that has changed last first (RFC 2018, section 4).
    pub(crate) fn told(&self) -> [Option<(u32, u32)>; TOLD] {
        let mut told = [None; TOLD];
        let newest = self.ranges.iter().position(|range| range.0 <= self.last && self.last < range.1);
        let others = (0..self.ranges.len()).filter(|&index| Some(index) != newest);
        for (place, index) in told.iter_mut().zip(newest.into_iter().chain(others)) {
            let (start, end) = self.ranges[index];
            *place = Some((start.0, end.0));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn rfc2018_section_4_the_newest_range_is_told_first() {
        let mut reassembly = Reassembly::default();
        for start in [100, 300, 500, 700, 900] {
            assert!(reassembly.add(Seq(start), Seq(start + 50)));
        }
        reassembly.add(Seq(350), Seq(400));
        assert_eq!(reassembly.told(), [Some((300, 400)), Some((100, 150)), Some((500, 550))]);
    }

    proptest! {
        /// Against a set of numbers, around the end of the circle too.
        #[test]
        fn ranges_are_a_set(base in prop_oneof![Just(0_u32), Just(u32::MAX - 100), any::<u32>()], segments in proptest::collection::vec((1..200_u32, 1..20_u32), 1..40)) {
            let (mut reassembly, mut model) = (Reassembly::default(), BTreeSet::new());
            for (offset, length) in segments {
                prop_assert!(reassembly.add(Seq(base) + offset as usize, Seq(base) + (offset + length) as usize));
                model.extend(offset..offset + length);
                let total: usize = reassembly.ranges.iter().map(|range| range.1.beyond(range.0)).sum();
                prop_assert_eq!(total, model.len());
                prop_assert!(reassembly.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
            // The gap before the first closes.
            let first = *model.first().unwrap();
            let reached = (first..).take_while(|number| model.contains(number)).count();
            prop_assert_eq!(reassembly.advance(Seq(base) + first as usize), Seq(base) + first as usize + reached);
        }
    }
}
