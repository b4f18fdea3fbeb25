//! Deadlines of flows in a heap, lazily: one that moves later stays where it is and is looked at again when it comes up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smoltcp::time::Instant;

/// A flow's number in its table. Numbers are never used twice.
pub(crate) type FlowId = u64;

/// The deadlines of one table's flows.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, FlowId)>>,
}

/// What the heap holds: look at the flow `id` at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: Instant,
    pub(crate) id: FlowId,
}

/// A flow's own deadline.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    due: Option<Instant>,
    /// The earliest of this flow's entries in the heap.
    queued: Option<Instant>,
}

impl Timers {
    /// Sets when the flow `id`, whose deadline is `deadline`, wants to be looked at.
    pub(crate) fn set(&mut self, id: FlowId, deadline: &mut Deadline, due: Option<Instant>) {
        deadline.due = due;
        if let Some(due) = due
            && deadline.queued.is_none_or(|queued| due < queued)
        {
            deadline.queued = Some(due);
            self.heap.push(Reverse((due, id)));
        }
    }

    /// When to call [`Timers::pop`] next. A flow's deadline may have moved later meanwhile.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|&Reverse((at, _))| at)
    }

    /// Takes an entry for `now` or earlier. Its flow may be gone; if not, [`Timers::is_due`] tells whether it is its turn.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Entry> {
        let &Reverse((at, id)) = self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some(Entry { at, id })
    }

    /// Takes the earliest entry, due or not.
    pub(crate) fn pop_earliest(&mut self) -> Option<Entry> {
        self.heap.pop().map(|Reverse((at, id))| Entry { at, id })
    }

    /// Whether the flow that `entry` names is due at `now`; if its deadline has moved later, it is queued again for then.
    pub(crate) fn is_due(&mut self, entry: Entry, deadline: &mut Deadline, now: Instant) -> bool {
        if deadline.queued == Some(entry.at) {
            deadline.queued = None;
        }
        match deadline.due {
            Some(due) if due <= now => {
                deadline.due = None;
                true
            }
            due => {
                self.set(entry.id, deadline, due);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Instant {
        Instant::from_millis(millis)
    }

    /// The flows due at `now`, of those whose deadlines are given with their numbers.
    fn due(timers: &mut Timers, flows: &mut [(FlowId, Deadline)], now: Instant) -> Vec<FlowId> {
        let mut due = Vec::new();
        while let Some(entry) = timers.pop(now) {
            if let Some((id, deadline)) = flows.iter_mut().find(|(id, _)| *id == entry.id)
                && timers.is_due(entry, deadline, now)
            {
                due.push(*id);
            }
        }
        due
    }

    #[test]
    fn a_deadline_moved_later_fires_once_and_late() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.set(1, &mut deadline, Some(at(10)));
        timers.set(1, &mut deadline, Some(at(20)));
        let mut flows = [(1, deadline)];
        assert_eq!(due(&mut timers, &mut flows, at(15)), []);
        assert_eq!(due(&mut timers, &mut flows, at(20)), [1]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_deadline_moved_earlier_fires_early_and_once() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.set(1, &mut deadline, Some(at(20)));
        timers.set(1, &mut deadline, Some(at(10)));
        let mut flows = [(1, deadline)];
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(due(&mut timers, &mut flows, at(10)), [1]);
        assert_eq!(due(&mut timers, &mut flows, at(30)), []);
    }

    #[test]
    fn flows_that_are_gone_and_deadlines_taken_back_are_skipped() {
        let (mut timers, mut gone, mut quiet) = (Timers::default(), Deadline::default(), Deadline::default());
        timers.set(1, &mut gone, Some(at(1)));
        timers.set(2, &mut quiet, Some(at(2)));
        timers.set(2, &mut quiet, None);
        assert_eq!(due(&mut timers, &mut [(2, quiet)], at(9)), []);
    }
}
