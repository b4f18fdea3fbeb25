//! Frames onto the wire.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use fogbow_net::frame::{Finish, FrameTransmitter, virtio};

use super::{HEADER, Terms};
use crate::guest::Guest;
use crate::queue::{Piece, Queue};
use crate::slots::Slots;

/// How long the device is waited for when it has no room, in nanoseconds at a time, and how often, before a frame is given up: a second in all.
const WAIT: u64 = 10_000_000;
const WAITS: u32 = 100;

/// The half of a [`Net`](super::Net) that puts frames on the wire.
pub struct Transmitter {
    queue: Queue,
    slots: Slots,
    row: Row,
    largest: usize,
    guest: &'static Guest,
}

impl Transmitter {
    pub(super) fn new(queue: Queue, terms: &Terms, guest: &'static Guest) -> Self {
        let count = terms.slots.min(usize::from(queue.ring().size()));
        let slots = Slots::new(terms.slot, count.max((HEADER + terms.info.largest_sent()).div_ceil(terms.slot)));
        Self { queue, slots, row: Row::new(count), largest: terms.info.largest_sent(), guest }
    }

    fn slots_for(&self, length: usize) -> usize {
        (HEADER + length).div_ceil(self.slots.size())
    }

    /// Takes back what the device has sent.
    fn reclaim(&mut self) {
        loop {
            match self.queue.take() {
                Ok(Some(used)) => self.row.release(used.head),
                Ok(None) => return,
                Err(error) => fogbow::log::error!("{error}: no more frames are sent by this network device"),
            }
        }
    }

    /// Whether a frame of `length` bytes has room, after a look at what the device has sent.
    fn fits(&mut self, length: usize) -> bool {
        let count = self.slots_for(length);
        if self.row.place(count).is_some() {
            return true;
        }
        self.reclaim();
        self.row.place(count).is_some()
    }
}

impl FrameTransmitter for Transmitter {
    /// On a full queue this waits for the device, which works meanwhile: nothing else would tell when there is room again.
    fn has_room(&mut self) -> bool {
        // What is given to a broken device is lost, as on a wire.
        if self.fits(self.largest) || self.queue.is_broken() {
            return true;
        }
        self.queue.publish();
        (0..WAITS).any(|_| {
            self.guest.wait_for(self.queue.ring(), WAIT);
            self.fits(self.largest) || self.queue.is_broken()
        })
    }

    fn transmit<R>(&mut self, length: usize, finish: Finish, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        assert!(length <= self.largest, "a frame of {length} bytes exceeds the device's {}", self.largest);
        let count = self.slots_for(length);
        let is_lost = self.queue.is_broken() || !self.fits(length);
        let slot = if is_lost { None } else { self.row.take(count) };
        let Some(slot) = slot else { return fill(&mut alloc::vec![0; length]) };
        // SAFETY: the row says that the device does not have these slots.
        let (header, frame) = unsafe { self.slots.bytes(slot.into(), 0, HEADER + length) }.split_at_mut(HEADER);
        header[..virtio::HEADER].copy_from_slice(&virtio::header(finish));
        header[virtio::HEADER..].fill(0);
        let result = fill(frame);
        let piece = Piece { address: self.slots.address(slot.into()), length: (HEADER + length) as u32, writable: false };
        self.queue.ring().descriptors[usize::from(slot)].set(piece, None);
        self.queue.offer(slot, None);
        result
    }

    fn flush(&mut self) {
        self.queue.publish();
    }
}

/// Slots that are taken in order, as many in a row as a frame needs, and released in any.
#[derive(Debug)]
struct Row {
    count: usize,
    /// Where the next frame would begin.
    next: usize,
    /// The first slots of frames that are under way, in order.
    frames: VecDeque<u16>,
    /// Of each slot that is a frame's first: whether the frame has been sent, though not those before it.
    sent: Box<[bool]>,
}

impl Row {
    fn new(count: usize) -> Self {
        Self { count, next: 0, frames: VecDeque::with_capacity(count), sent: (0..count).map(|_| false).collect() }
    }

    /// Where `count` slots in a row are free.
    fn place(&self, count: usize) -> Option<usize> {
        let Some(first) = self.frames.front().map(|first| usize::from(*first)) else {
            return (count <= self.count).then_some(0);
        };
        if self.next > first {
            if self.count - self.next >= count {
                return Some(self.next);
            }
            return (first >= count).then_some(0);
        }
        (first - self.next >= count).then_some(self.next)
    }

    fn take(&mut self, count: usize) -> Option<u16> {
        let place = self.place(count)?;
        self.next = place + count;
        self.frames.push_back(place as u16);
        Some(place as u16)
    }

    /// The frame that begins at `first` has been sent.
    fn release(&mut self, first: u16) {
        self.sent[usize::from(first)] = true;
        while let Some(first) = self.frames.front().map(|first| usize::from(*first))
            && core::mem::take(&mut self.sent[first])
        {
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn no_slot_is_taken_twice_and_all_come_back(count in 1_usize..40, steps in prop::collection::vec((1_usize..12, any::<prop::sample::Index>(), any::<bool>()), 1..200)) {
            let mut row = Row::new(count);
            let mut under_way: Vec<(u16, usize)> = Vec::new();
            for (length, which, send) in steps {
                if send {
                    let free = under_way.is_empty() && length <= count;
                    let place = row.place(length);
                    prop_assert_eq!(row.take(length).map(usize::from), place);
                    prop_assert!(place.is_some() || !free, "an empty row has room");
                    if let Some(place) = place {
                        prop_assert!(place + length <= count);
                        for (other, others) in &under_way {
                            let other = usize::from(*other);
                            prop_assert!(place + length <= other || other + others <= place, "slots of another frame");
                        }
                        under_way.push((place as u16, length));
                    }
                } else if !under_way.is_empty() {
                    let (first, _) = under_way.remove(which.index(under_way.len()));
                    row.release(first);
                }
            }
            for (first, _) in under_way.drain(..) {
                row.release(first);
            }
            prop_assert_eq!(row.place(count), Some(0));
        }
    }
}
