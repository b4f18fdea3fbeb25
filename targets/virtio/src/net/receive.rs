//! Frames from the wire.

use alloc::vec::Vec;
use core::task::{Context, Poll};

use fogbow_net::frame::{Checksums, FrameReceiver, virtio};

use super::{HEADER, Terms};
use crate::guest::Guest;
use crate::queue::{Piece, Queue, QueueError};
use crate::slots::Slots;

/// Buffers that are given back before the device is told.
const BATCH: usize = 32;

/// The half of a [`Net`](super::Net) that takes frames from the wire.
pub struct Receiver {
    source: Source,
    guest: &'static Guest,
    watch: usize,
}

impl Receiver {
    pub(super) fn new(queue: Queue, terms: &Terms, guest: &'static Guest, watch: usize) -> Self {
        Self { source: Source::new(queue, terms), guest, watch }
    }
}

impl FrameReceiver for Receiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R> {
        match self.source.next() {
            Ok(arrived) => {
                let arrived = arrived?;
                let (header, frame) = self.source.frame(&arrived);
                let result = consume(frame, header.first_chunk().map_or(Checksums::Unknown, virtio::checksums));
                self.source.give_back();
                Some(result)
            }
            Err(error) => {
                fogbow::log::error!("{error}: no more frames are taken from this network device");
                None
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.guest.poll(self.watch, context)
    }
}

/// The queue and its buffers.
#[derive(Debug)]
struct Source {
    queue: Queue,
    /// One for each descriptor that is used; then as many as the largest frame takes, for frames that do not lie in one piece.
    slots: Slots,
    /// Slots that the device gets.
    count: usize,
    merges: bool,
    largest: usize,
    /// The slots of the frame that has arrived last, with the bytes in each.
    pieces: Vec<(u16, usize)>,
    /// Buffers that the device has not been told of.
    unpublished: usize,
}

/// A frame that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arrived {
    /// Where it begins, with its header.
    slot: usize,
    /// Bytes in all.
    length: usize,
}

impl Source {
    fn new(mut queue: Queue, terms: &Terms) -> Self {
        let count = terms.slots.min(usize::from(queue.ring().size()));
        let spare = (HEADER + terms.info.largest_received()).div_ceil(terms.slot);
        let slots = Slots::new(terms.slot, count + spare);
        for slot in 0..count {
            let piece = Piece { address: slots.address(slot), length: terms.slot as u32, writable: true };
            queue.ring().descriptors[slot].set(piece, None);
            queue.offer(slot as u16, Some(terms.slot as u32));
        }
        queue.publish();
        let largest = terms.info.largest_received();
        Self { queue, slots, count, merges: terms.merges, largest, pieces: Vec::with_capacity(count), unpublished: 0 }
    }

    /// The next frame. Those that are larger than what was agreed on are passed over.
    fn next(&mut self) -> Result<Option<Arrived>, QueueError> {
        loop {
            self.pieces.clear();
            let Some(length) = self.take()? else {
                self.publish();
                return Ok(None);
            };
            if length <= HEADER + self.largest {
                return Ok(Some(self.in_one_piece(length)));
            }
            self.give_back();
        }
    }

    /// Takes the buffers of a frame: its length with its header.
    fn take(&mut self) -> Result<Option<usize>, QueueError> {
        let Some(first) = self.queue.take()? else { return Ok(None) };
        let mut length = first.length as usize;
        if length < HEADER {
            return Err(self.queue.fail(QueueError::Nonsense("a frame without its header")));
        }
        self.pieces.push((first.head, length));
        // SAFETY: the device has given the slot back, and no frame of it is in use.
        let header = unsafe { self.slots.bytes(first.head.into(), 0, HEADER) };
        let buffers = if self.merges { u16::from_le_bytes([header[10], header[11]]) } else { 1 };
        if buffers == 0 {
            return Err(self.queue.fail(QueueError::Nonsense("a frame in no buffer")));
        }
        for _ in 1..buffers {
            let Some(used) = self.queue.take()? else {
                return Err(self.queue.fail(QueueError::Nonsense("a frame in fewer buffers than it says")));
            };
            self.pieces.push((used.head, used.length as usize));
            length += used.length as usize;
        }
        Ok(Some(length))
    }

    /// Sees to it that the frame lies in one piece: as devices fill buffers in the order in which they got them, it does, but for one that goes on at the
    /// first slot. The part that does then follows the last slot.
    fn in_one_piece(&self, length: usize) -> Arrived {
        let (first, size) = (usize::from(self.pieces[0].0), self.slots.size());
        let last = self.pieces.len() - 1;
        let in_order = self
            .pieces
            .iter()
            .enumerate()
            .all(|(index, (slot, length))| usize::from(*slot) == (first + index) % self.count && (index == last || *length == size));
        let start = if in_order { first } else { self.count };
        let mut offset = 0;
        for (index, (slot, length)) in self.pieces.iter().enumerate() {
            if !in_order || first + index >= self.count {
                // SAFETY: the device has given the slot back, and never has those after the last. All of the frame fits behind `start`.
                unsafe { self.slots.bytes(start, offset, *length).copy_from_slice(self.slots.bytes((*slot).into(), 0, *length)) };
            }
            offset += length;
        }
        Arrived { slot: start, length }
    }

    /// The header and the frame.
    fn frame(&mut self, arrived: &Arrived) -> (&mut [u8], &mut [u8]) {
        // SAFETY: the device has given these slots back, or never has them; they are this source's until `give_back`.
        unsafe { self.slots.bytes(arrived.slot, 0, arrived.length) }.split_at_mut(HEADER)
    }

    /// Gives the buffers of the last frame back to the device.
    fn give_back(&mut self) {
        for (slot, _) in self.pieces.drain(..) {
            self.queue.offer(slot, Some(self.slots.size() as u32));
            self.unpublished += 1;
        }
        if self.unpublished >= BATCH {
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.queue.publish();
        self.unpublished = 0;
    }
}

#[cfg(test)]
mod tests;
