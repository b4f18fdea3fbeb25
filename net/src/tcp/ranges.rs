//! Sets of sequence numbers, as ranges.

use alloc::vec::Vec;

use super::sequence::Seq;

/// Disjoint ranges of sequence numbers in order, none of which touch.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(Seq, Seq)>);

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Seq, Seq)> {
        self.0.iter().copied()
    }

    /// The ranges that hold something from `start` to `end`, which are next to each other.
    fn touched(&self, start: Seq, end: Seq) -> core::ops::Range<usize> {
        let first = self.0.partition_point(|range| range.1 <= start);
        first..first + self.0[first..].partition_point(|range| range.0 < end)
    }

    /// The first part of the range from `start` to `end` that the set holds.
    pub(super) fn held(&self, start: Seq, end: Seq) -> Option<(Seq, Seq)> {
        let range = self.0.get(self.touched(start, end))?.first()?;
        Some((range.0.max(start), range.1.min(end)))
    }

    /// The range that holds `number`.
    pub(super) fn around(&self, number: Seq) -> Option<(Seq, Seq)> {
        self.0.get(self.touched(number, number + 1))?.first().copied()
    }

    /// Adds the range from `start` to `end`. False when that would make more than `most`.
    pub(super) fn add(&mut self, start: Seq, end: Seq, most: usize) -> bool {
        let first = self.0.partition_point(|range| range.1 < start);
        let after = first + self.0[first..].partition_point(|range| range.0 <= end);
        if first == after {
            if self.0.len() >= most {
                return false;
            }
            self.0.insert(first, (start, end));
        } else {
            let merged = (self.0[first].0.min(start), self.0[after - 1].1.max(end));
            self.0[first] = merged;
            self.0.drain(first + 1..after);
        }
        true
    }

    /// Takes the range from `start` to `end` out of the set. False when the set does not hold all of it, or when that would make more ranges than `most`.
    pub(super) fn remove(&mut self, start: Seq, end: Seq, most: usize) -> bool {
        let index = self.0.partition_point(|range| range.1 < end);
        let length = self.0.len();
        let Some(range) = self.0.get_mut(index).filter(|range| range.0 <= start) else { return false };
        let rest = (end, range.1);
        match (start > range.0, end < range.1) {
            (true, true) if length >= most => return false,
            (true, true) => {
                range.1 = start;
                self.0.insert(index + 1, rest);
            }
            (true, false) => range.1 = start,
            (false, true) => range.0 = end,
            (false, false) => {
                self.0.remove(index);
            }
        }
        true
    }

    /// Takes out the ranges that begin at `next` or before. Gives how far they reach.
    pub(super) fn advance(&mut self, next: Seq) -> Seq {
        let gone = self.0.iter().take_while(|range| range.0 <= next).count();
        // Ranges never touch, so that none follows what was reached.
        self.0.drain(..gone).fold(next, |reached, (_, end)| reached.max(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_more_than_so_many() {
        let mut ranges = Ranges::default();
        assert!((0..3).all(|index| ranges.add(Seq(0) + 100 * index, Seq(50) + 100 * index, 3)));
        assert!(!ranges.add(Seq(60), Seq(70), 3) && ranges.add(Seq(50), Seq(60), 3));
        assert!(!ranges.remove(Seq(10), Seq(20), 3) && ranges.remove(Seq(40), Seq(60), 3) && !ranges.remove(Seq(30), Seq(110), 3));
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(Seq(0), Seq(40)), (Seq(100), Seq(150)), (Seq(200), Seq(250))]);
    }

    proptest! {
        /// Against a set of numbers, around the end of the circle too.
        #[test]
        fn ranges_are_a_set(
            base in prop_oneof![Just(0_u32), Just(u32::MAX - 100), any::<u32>()],
            steps in proptest::collection::vec((any::<bool>(), 1..100_u32, 1..20_u32), 1..60),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            let at = |offset: u32| Seq(base) + offset as usize;
            for (adds, offset, length) in steps {
                let held = (offset..offset + length).find(|number| model.contains(number));
                let until = held.map(|first| (first..offset + length).find(|number| !model.contains(number)).unwrap_or(offset + length));
                prop_assert_eq!(ranges.held(at(offset), at(offset + length)), held.zip(until).map(|(from, to)| (at(from), at(to))));
                if adds {
                    prop_assert!(ranges.add(at(offset), at(offset + length), 100));
                    model.extend(offset..offset + length);
                } else {
                    let is_whole = (offset..offset + length).all(|number| model.contains(&number));
                    prop_assert_eq!(ranges.remove(at(offset), at(offset + length), 100), is_whole);
                    model.retain(|number| !is_whole || !(offset..offset + length).contains(number));
                }
                prop_assert_eq!(ranges.iter().map(|range| range.1.beyond(range.0)).sum::<usize>(), model.len());
                prop_assert!(ranges.0.iter().all(|range| range.0 < range.1) && ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
                prop_assert!(model.iter().all(|&number| ranges.around(at(number)).is_some_and(|range| range.0 <= at(number) && at(number) < range.1)));
            }
            // The gap before the first closes.
            if let Some(&first) = model.first() {
                let reached = (first..).take_while(|number| model.contains(number)).count();
                prop_assert_eq!(ranges.advance(at(first)), at(first) + reached);
            }
        }
    }
}
