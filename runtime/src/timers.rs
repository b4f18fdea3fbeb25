//! The timer queue: a four-ary heap of deadlines whose entries know their place in it.
//!
//! Insert, cancel and fire cost O(log n) comparisons and no allocation once the queue has grown to its greatest size. A timer is named by its
//! slot and by the slot's generation, so that a stale name never touches another timer.

use alloc::vec::Vec;
use core::task::Waker;

use crate::time::Instant;

/// Children per node: four halve the depth of a binary heap and keep siblings in one cache line.
const ARITY: usize = 4;

/// Names a pending timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId {
    slot: u32,
    generation: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Where the heap holds this slot; meaningless while `waker` is `None`.
    place: u32,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    deadline: Instant,
    slot: u32,
}

/// Pending timers, earliest first.
#[derive(Debug)]
pub(crate) struct TimerQueue {
    heap: Vec<Node>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl TimerQueue {
    pub(crate) const fn new() -> Self {
        Self { heap: Vec::new(), slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub(crate) fn insert(&mut self, deadline: Instant, waker: Waker) -> TimerId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, place: 0, waker: None });
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize].waker = Some(waker);
        self.heap.push(Node { deadline, slot });
        self.sift_up(self.heap.len() - 1);
        TimerId { slot, generation: self.slots[slot as usize].generation }
    }

    /// `Some` while the timer has neither fired nor been cancelled. Its waker is then `waker`; a former one that wakes another task is given back,
    /// for the caller to drop once the queue is no longer borrowed.
    pub(crate) fn refresh(&mut self, id: TimerId, waker: &Waker) -> Option<Option<Waker>> {
        let held = self.slot_of(id)?.waker.as_mut()?;
        let is_same = held.will_wake(waker);
        Some((!is_same).then(|| core::mem::replace(held, waker.clone())))
    }

    /// Takes all timers out, for the caller to drop.
    pub(crate) fn take_all(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }

    /// Removes the timer and gives its waker back, for the caller to drop once the queue is no longer borrowed. A timer that has fired already is
    /// left alone.
    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<Waker> {
        let place = self.slot_of(id)?.place as usize;
        self.remove(place)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|node| node.deadline)
    }

    /// Removes the earliest timer if its deadline has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        if self.next_deadline()? > now { None } else { self.remove(0) }
    }

    fn slot_of(&mut self, id: TimerId) -> Option<&mut Slot> {
        self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation && slot.waker.is_some())
    }

    fn remove(&mut self, place: usize) -> Option<Waker> {
        let node = self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.sift_down(place);
            self.sift_up(place);
        }
        let slot = &mut self.slots[node.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(node.slot);
        slot.waker.take()
    }

    fn sift_up(&mut self, mut place: usize) {
        let node = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.heap[parent].deadline <= node.deadline {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, node);
    }

    fn sift_down(&mut self, mut place: usize) {
        let node = self.heap[place];
        loop {
            let first = place * ARITY + 1;
            let last = (first + ARITY).min(self.heap.len());
            let Some(least) = (first..last).min_by_key(|&child| self.heap[child].deadline) else {
                break;
            };
            if self.heap[least].deadline >= node.deadline {
                break;
            }
            self.put(place, self.heap[least]);
            place = least;
        }
        self.put(place, node);
    }

    fn put(&mut self, place: usize, node: Node) {
        self.heap[place] = node;
        self.slots[node.slot as usize].place = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Operation {
        Insert(u64),
        Cancel(usize),
        Fire(u64),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (0..1000u64).prop_map(Operation::Insert),
            any::<usize>().prop_map(Operation::Cancel),
            (0..1000u64).prop_map(Operation::Fire),
        ]
    }

    proptest! {
        /// The queue against an ordered map: the same timers pending, the same number due, at every step.
        #[test]
        fn behaves_as_an_ordered_map(operations in proptest::collection::vec(operation(), 1..400)) {
            let mut queue = TimerQueue::new();
            let mut model: BTreeMap<Instant, TimerId> = BTreeMap::new();
            for (serial, operation) in operations.into_iter().enumerate() {
                match operation {
                    Operation::Insert(deadline) => {
                        // Deadlines differ, so that model and queue must agree on which timer is next.
                        let deadline = Instant::from_nanos(deadline * 1000 + serial as u64);
                        model.insert(deadline, queue.insert(deadline, Waker::noop().clone()));
                    }
                    Operation::Cancel(which) if !model.is_empty() => {
                        let deadline = *model.keys().nth(which % model.len()).unwrap();
                        let id = model.remove(&deadline).unwrap();
                        prop_assert!(queue.refresh(id, Waker::noop()).is_some());
                        prop_assert!(queue.cancel(id).is_some());
                        prop_assert!(queue.cancel(id).is_none());
                        prop_assert!(queue.refresh(id, Waker::noop()).is_none());
                    }
                    Operation::Cancel(_) => {}
                    Operation::Fire(now) => {
                        let now = Instant::from_nanos(now * 1000);
                        while let Some((&deadline, &id)) = model.iter().next().filter(|(deadline, _)| **deadline <= now) {
                            prop_assert_eq!(queue.next_deadline(), Some(deadline));
                            prop_assert!(queue.pop_due(now).is_some());
                            prop_assert!(queue.refresh(id, Waker::noop()).is_none());
                            model.remove(&deadline);
                        }
                        prop_assert!(queue.pop_due(now).is_none());
                    }
                }
                prop_assert_eq!(queue.next_deadline(), model.keys().next().copied());
                prop_assert_eq!(queue.heap.len(), model.len());
            }
        }
    }

    #[test]
    fn a_stale_name_leaves_the_timer_alone_that_has_its_place_now() {
        let mut queue = TimerQueue::new();
        let insert = |queue: &mut TimerQueue, deadline| queue.insert(Instant::from_nanos(deadline), Waker::noop().clone());
        let stale = insert(&mut queue, 1);
        assert!(queue.pop_due(Instant::from_nanos(1)).is_some());
        let later = insert(&mut queue, 2);
        assert_eq!(later.slot, stale.slot);
        assert!(queue.refresh(stale, Waker::noop()).is_none() && queue.cancel(stale).is_none());
        assert_eq!(queue.next_deadline(), Some(Instant::from_nanos(2)));
        assert!(queue.cancel(later).is_some());
    }

    /// The last timer, which takes the place of one that is cancelled, may be due before its new parent: it is from another branch.
    #[test]
    fn timers_fire_in_order_after_one_of_another_branch_was_cancelled() {
        let mut queue = TimerQueue::new();
        // As they lie in the heap: the second timer's children are 101 to 104, the third's is 2.
        let deadlines = [0, 100, 1, 200, 300, 101, 102, 103, 104, 2];
        let ids = deadlines.map(|deadline| queue.insert(Instant::from_nanos(deadline), Waker::noop().clone()));
        assert!(queue.cancel(ids[5]).is_some());
        let mut fired = Vec::new();
        while let Some(deadline) = queue.next_deadline() {
            fired.push(deadline.as_nanos());
            assert!(queue.pop_due(deadline).is_some());
        }
        assert_eq!(fired, [0, 1, 2, 100, 102, 103, 104, 200, 300]);
    }
}
