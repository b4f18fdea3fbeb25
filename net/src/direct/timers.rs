//! When flows want attention next: one entry a flow at most, earliest first.
//!
//! An entry only ever moves to an earlier moment; a flow whose deadline has moved later is looked at once too early and then put back. That saves
//! moving entries at every segment. Entries know their place, so that removing one costs O(log n) too.

use alloc::vec::Vec;

use smoltcp::time::Instant;

/// The place of a flow that has no entry.
const NOWHERE: u32 = u32::MAX;

#[derive(Default)]
pub(super) struct Timers {
    heap: Vec<(Instant, u32)>,
    /// By flow: the place of its entry in `heap`.
    places: Vec<u32>,
}

impl Timers {
    /// Looks at `flow` at `deadline` at the latest.
    pub(super) fn at_latest(&mut self, flow: u32, deadline: Instant) {
        let index = flow as usize;
        if self.places.len() <= index {
            self.places.resize(index + 1, NOWHERE);
        }
        let place = match self.places[index] {
            NOWHERE => {
                self.heap.push((deadline, flow));
                self.heap.len() - 1
            }
            place => {
                let entry = &mut self.heap[place as usize];
                if entry.0 <= deadline {
                    return;
                }
                entry.0 = deadline;
                place as usize
            }
        };
        self.sift_up(place);
    }

    /// Forgets `flow`.
    pub(super) fn remove(&mut self, flow: u32) {
        if let Some(&place) = self.places.get(flow as usize)
            && place != NOWHERE
        {
            self.remove_at(place as usize);
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.0)
    }

    /// Removes and gives the flow with the earliest deadline if that has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let &(deadline, flow) = self.heap.first()?;
        if deadline > now {
            return None;
        }
        self.remove_at(0);
        Some(flow)
    }

    fn remove_at(&mut self, place: usize) {
        let (_, flow) = self.heap.swap_remove(place);
        self.places[flow as usize] = NOWHERE;
        if place < self.heap.len() {
            self.sift_down(place);
            self.sift_up(place);
        }
    }

    fn sift_up(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].0 <= entry.0 {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, entry);
    }

    fn sift_down(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let left = place * 2 + 1;
            let Some(least) = (left..(left + 2).min(self.heap.len())).min_by_key(|&child| self.heap[child].0) else { break };
            if self.heap[least].0 >= entry.0 {
                break;
            }
            self.put(place, self.heap[least]);
            place = least;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: (Instant, u32)) {
        self.heap[place] = entry;
        self.places[entry.1 as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a map from flow to deadline, at every step.
        #[test]
        fn behaves_as_a_map(operations in proptest::collection::vec((0..3u8, 0..20u32, 0..1000i64), 1..300)) {
            let mut timers = Timers::default();
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for (operation, flow, time) in operations {
                let time = Instant::from_micros(time);
                match operation {
                    0 => {
                        timers.at_latest(flow, time);
                        let entry = model.entry(flow).or_insert(time);
                        *entry = time.min(*entry);
                    }
                    1 => {
                        timers.remove(flow);
                        model.remove(&flow);
                    }
                    _ => {
                        while let Some(due) = timers.pop_due(time) {
                            prop_assert!(model.remove(&due).is_some_and(|deadline| deadline <= time));
                        }
                        prop_assert!(model.values().all(|&deadline| deadline > time));
                    }
                }
                prop_assert_eq!(timers.next(), model.values().min().copied());
                prop_assert_eq!(timers.heap.len(), model.len());
            }
        }
    }
}
