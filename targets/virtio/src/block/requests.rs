//! Requests that are under way, and their buffers.

use alloc::boxed::Box;
use core::task::{Context, Waker};

use crate::queue::{Piece, Queue, QueueError, Ring};
use crate::slots::Slots;

/// The most bytes of data in a request.
pub(super) const LONGEST: usize = 256 << 10;

/// What a request's buffer holds besides data (section 5.2.6): a header before it, and the status after room for the longest data.
const HEADER: usize = 16;
const STATUS: usize = HEADER + LONGEST;
const SIZE: usize = STATUS + 64;

/// Descriptors of a request: header, data, status.
const PIECES: usize = 3;

/// `VIRTIO_BLK_S_OK`.
const OK: u8 = 0;

/// What a status byte holds until the device has written one.
const NO_STATUS: u8 = 0xff;

/// What the device is asked for: `VIRTIO_BLK_T_IN`, `OUT`, `FLUSH`, `DISCARD`, `WRITE_ZEROES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read = 0,
    Write = 1,
    Flush = 4,
    Discard = 11,
    WriteZeroes = 13,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) kind: Kind,
    /// In units of 512 bytes.
    pub(super) sector: u64,
    /// Bytes of data, [`LONGEST`] at most.
    pub(super) length: usize,
}

#[derive(Debug)]
enum State {
    Free,
    /// The device has it; with the task that waits for it.
    UnderWay(Option<Waker>),
    /// The device has done it, well or not.
    Over(bool),
}

/// The queue, its buffers, and what becomes of them.
#[derive(Debug)]
pub(super) struct Requests {
    queue: Queue,
    slots: Slots,
    states: Box<[State]>,
}

impl Requests {
    /// For `count` requests at a time, or as many as fit into the queue; `None` when not even one does.
    pub(super) fn new(queue: Queue, count: usize) -> Option<Self> {
        let count = count.min(usize::from(queue.ring().size()) / PIECES);
        let states = (0..count).map(|_| State::Free).collect();
        (count > 0).then(|| Self { queue, slots: Slots::new(SIZE, count), states })
    }

    pub(super) fn ring(&self) -> &'static Ring {
        self.queue.ring()
    }

    pub(super) fn count(&self) -> usize {
        self.states.len()
    }

    /// Gives a request to the device, with the data that `fill` writes. `None` when the device is broken, or has all buffers.
    pub(super) fn begin(&mut self, request: Request, fill: impl FnOnce(&mut [u8])) -> Option<usize> {
        let slot = self.states.iter().position(|state| matches!(state, State::Free)).filter(|_| !self.queue.is_broken())?;
        let Request { kind, sector, length } = request;
        // SAFETY: the slot is free: the device does not have it.
        let bytes = unsafe { self.slots.bytes(slot, 0, SIZE) };
        bytes[..4].copy_from_slice(&(kind as u32).to_le_bytes());
        bytes[4..8].fill(0);
        bytes[8..HEADER].copy_from_slice(&sector.to_le_bytes());
        bytes[STATUS] = NO_STATUS;
        fill(&mut bytes[HEADER..STATUS][..length]);
        let piece = |offset: usize, length: usize, writable| Piece {
            address: self.slots.address(slot) + offset as u64,
            length: length as u32,
            writable,
        };
        let reads = kind == Kind::Read;
        let pieces = [piece(0, HEADER, false), piece(HEADER, length, reads), piece(STATUS, 1, true)];
        let first = slot * PIECES;
        let descriptors = &self.queue.ring().descriptors[first..first + PIECES];
        let [header, data, status] = [first, first + 1, first + 2].map(|index| index as u16);
        descriptors[0].set(pieces[0], Some(if length > 0 { data } else { status }));
        descriptors[1].set(pieces[1], Some(status));
        descriptors[2].set(pieces[2], None);
        self.states[slot] = State::UnderWay(None);
        // The status alone says what became of it.
        self.queue.offer(header, None);
        self.queue.publish();
        Some(slot)
    }

    /// Looks at what the device has done, and wakes those who wait for it. A device that lies has failed at all it has.
    pub(super) fn collect(&mut self) {
        loop {
            match self.queue.take() {
                Ok(None) => return,
                Ok(Some(used)) => self.end(usize::from(used.head) / PIECES),
                Err(error) => self.fail(error),
            }
        }
    }

    fn end(&mut self, slot: usize) {
        // SAFETY: the device has given the slot back.
        let status = unsafe { self.slots.bytes(slot, STATUS, 1) }[0];
        let State::UnderWay(waker) = &mut self.states[slot] else { return };
        let waker = waker.take();
        self.states[slot] = State::Over(status == OK);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn fail(&mut self, error: QueueError) {
        fogbow::log::error!("{error}: nothing more is asked of this block device");
        for state in &mut self.states {
            if let State::UnderWay(waker) = state {
                let waker = waker.take();
                *state = State::Over(false);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }

    /// Whether a request has ended well, if it has ended; otherwise the task is woken when it has.
    pub(super) fn poll(&mut self, slot: usize, context: &mut Context<'_>) -> Option<bool> {
        match &mut self.states[slot] {
            State::Over(is_good) => Some(*is_good),
            State::UnderWay(waker) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                None
            }
            State::Free => Some(false),
        }
    }

    pub(super) fn is_over(&self, slot: usize) -> bool {
        !matches!(self.states[slot], State::UnderWay(_))
    }

    /// The data of a request that has ended.
    pub(super) fn data(&mut self, slot: usize, request: Request) -> &[u8] {
        assert!(self.is_over(slot), "the device has the buffer");
        // SAFETY: the device has given the slot back, or is broken; then it may write to it still, which is seen as other bytes.
        unsafe { self.slots.bytes(slot, HEADER, request.length) }
    }

    /// Lets the buffer of a request that has ended be used again: by the device it is not, if it is broken.
    pub(super) fn release(&mut self, slot: usize) {
        if self.is_over(slot) {
            self.states[slot] = State::Free;
        }
    }
}

#[cfg(test)]
mod tests;
