//! The places of a server: so many connections are served at once. When all are taken and another connection comes, one that waits for its client is
//! ended for it, so that clients which say nothing, or little at a time, cannot keep others out.
//!
//! Which one: the longest waiting of the kind that most are of. Many that send no request give way to one another before they push out those that are
//! idle between requests, and many idle ones do before they push out newcomers. A connection that is being handled does not give way.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};

/// What a connection waits for its client to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// To send a head, from its first byte on, or the first one of the connection.
    Head,
    /// To send more of a body, or to take more of a response.
    Transfer,
    /// To send another request.
    Idle,
}

/// No seat's number.
const NOBODY: usize = usize::MAX;

#[derive(Debug, Default)]
struct Chair {
    before: Option<usize>,
    after: Option<usize>,
    /// What the connection waits for; its place in the order of those is between `before` and `after`.
    waits: Option<Wait>,
    waker: Option<Waker>,
    is_told_to_leave: bool,
}

/// The ends of a list of chairs, the longest waiting first.
#[derive(Debug, Default)]
struct List {
    first: Option<usize>,
    last: Option<usize>,
    length: usize,
}

#[derive(Debug)]
struct Room {
    limit: usize,
    chairs: Vec<Chair>,
    free: Vec<usize>,
    lists: [List; 3],
    /// Who waits for a seat: one connection at most, as the server accepts no further one meanwhile.
    door: Option<Waker>,
    /// Who was told to leave for whoever is at the door, and has not left yet.
    leaving: usize,
}

/// The seats of a server.
#[derive(Debug)]
pub(super) struct Seats(Rc<RefCell<Room>>);

/// One connection's; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    room: Rc<RefCell<Room>>,
    number: usize,
}

impl Seats {
    pub(super) fn new(limit: usize) -> Self {
        let lists = [const { List { first: None, last: None, length: 0 } }; 3];
        Self(Rc::new(RefCell::new(Room { limit: limit.max(1), chairs: Vec::new(), free: Vec::new(), lists, door: None, leaving: NOBODY })))
    }

    /// Takes a seat, for which another connection may have to leave.
    pub(super) fn take(&self) -> impl Future<Output = Seat> + use<> {
        let shared = Rc::clone(&self.0);
        poll_fn(move |context| {
            let mut room = shared.borrow_mut();
            if room.chairs.len() - room.free.len() >= room.limit {
                room.door = Some(context.waker().clone());
                room.make_room();
                return Poll::Pending;
            }
            let number = room.free.pop().unwrap_or_else(|| {
                room.chairs.push(Chair::default());
                room.chairs.len() - 1
            });
            Poll::Ready(Seat { room: Rc::clone(&shared), number })
        })
    }
}

impl Seat {
    /// The connection waits for its client. True when it is to end instead.
    pub(super) fn wait(&self, wait: Wait, waker: &Waker) -> bool {
        let room = &mut *self.room.borrow_mut();
        let Some(chair) = room.chairs.get_mut(self.number) else { return false };
        if chair.is_told_to_leave {
            return true;
        }
        if chair.waker.as_ref().is_none_or(|former| !former.will_wake(waker)) {
            chair.waker = Some(waker.clone());
        }
        if chair.waits != Some(wait) {
            room.unlink(self.number);
            room.link(self.number, wait);
            if room.door.is_some() {
                room.make_room();
            }
        }
        false
    }

    /// It no longer does.
    pub(super) fn go_on(&self) {
        self.room.borrow_mut().unlink(self.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let room = &mut *self.room.borrow_mut();
        room.unlink(self.number);
        if let Some(chair) = room.chairs.get_mut(self.number) {
            *chair = Chair::default();
        }
        room.free.push(self.number);
        if room.leaving == self.number {
            room.leaving = NOBODY;
        }
        if let Some(door) = room.door.take() {
            door.wake();
        }
    }
}

impl Room {
    /// Tells the one whose turn it is to leave, unless somebody is leaving or nobody waits.
    fn make_room(&mut self) {
        let longest = self.lists.iter().max_by_key(|list| list.length).and_then(|list| list.first);
        let Some(number) = longest.filter(|_| self.leaving == NOBODY) else { return };
        self.unlink(number);
        self.leaving = number;
        if let Some(chair) = self.chairs.get_mut(number) {
            chair.is_told_to_leave = true;
            chair.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    fn link(&mut self, number: usize, wait: Wait) {
        let list = &mut self.lists[wait as usize];
        let before = list.last.replace(number);
        list.first.get_or_insert(number);
        list.length += 1;
        self.chairs[number].waits = Some(wait);
        self.chairs[number].before = before;
        if let Some(before) = before {
            self.chairs[before].after = Some(number);
        }
    }

    fn unlink(&mut self, number: usize) {
        let chair = &mut self.chairs[number];
        let Some(wait) = chair.waits.take() else { return };
        let (before, after) = (chair.before.take(), chair.after.take());
        let list = &mut self.lists[wait as usize];
        list.length -= 1;
        match before {
            Some(before) => self.chairs[before].after = after,
            None => list.first = after,
        }
        match after {
            Some(after) => self.chairs[after].before = before,
            None => list.last = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn sit(seats: &Seats) -> Option<Seat> {
        let mut seat = core::pin::pin!(seats.take());
        match seat.as_mut().poll(&mut core::task::Context::from_waker(Waker::noop())) {
            Poll::Ready(seat) => Some(seat),
            Poll::Pending => None,
        }
    }

    proptest! {
        /// Against three queues.
        #[test]
        fn the_longest_waiting_of_the_most_leaves(operations in proptest::collection::vec((0..6_u8, 0..8_usize), 1..200)) {
            let seats = Seats::new(8);
            let mut taken: Vec<Seat> = (0..8).map(|_| sit(&seats).unwrap()).collect();
            let mut queues: [VecDeque<usize>; 3] = Default::default();
            for (operation, who) in operations {
                let seat = &taken[who];
                let leave = |queues: &mut [VecDeque<usize>; 3]| queues.iter_mut().for_each(|queue| queue.retain(|&number| number != seat.number));
                match operation {
                    kind @ 0..3 => {
                        prop_assert!(!seat.wait([Wait::Head, Wait::Transfer, Wait::Idle][usize::from(kind)], Waker::noop()));
                        if !queues[usize::from(kind)].contains(&seat.number) {
                            leave(&mut queues);
                            queues[usize::from(kind)].push_back(seat.number);
                        }
                    }
                    3 => {
                        seat.go_on();
                        leave(&mut queues);
                    }
                    _ => {
                        prop_assert!(sit(&seats).is_none());
                        let longest = queues.iter().map(VecDeque::len).max().unwrap();
                        let told = taken.iter().position(|seat| seat.room.borrow().chairs[seat.number].is_told_to_leave);
                        prop_assert_eq!(told.is_some(), longest > 0);
                        if let Some(told) = told {
                            let number = taken[told].number;
                            let queue = queues.iter_mut().rfind(|queue| queue.len() == longest).unwrap();
                            prop_assert_eq!(queue.pop_front(), Some(number));
                            prop_assert!(taken[told].wait(Wait::Head, Waker::noop()));
                            drop(taken.remove(told));
                            taken.push(sit(&seats).unwrap());
                        } else {
                            // Nobody is at the door any more.
                            seats.0.borrow_mut().door = None;
                        }
                    }
                }
            }
        }
    }
}
