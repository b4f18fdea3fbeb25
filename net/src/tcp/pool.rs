//! Memory for connections: what each is sure of, and what they may have beyond that while there is enough.
//!
//! Each of the connections that are allowed is sure of the least buffer for each direction, whether it is there yet or not. Beyond that buffers grow
//! out of the rest, each by an eighth of what is left of that at most, so that no one takes all. Buffers are powers of two; those given back are kept
//! for the next, so that a connection in its steady state allocates nothing.

use alloc::vec;
use alloc::vec::Vec;

/// What a connection takes besides its buffers, in bytes: its state, the records of its segments in flight, its places in the tables.
const OVERHEAD: usize = 2048;
/// The smallest buffer is 2¹¹ bytes, the largest that is kept 2²⁰.
const SMALLEST: u32 = 11;
const CLASSES: usize = 10;
/// A buffer's records take this part of it: 32 bytes for each segment, of at least 1024 bytes in the mean.
const RECORDS: usize = 32;
/// A buffer may be in one piece for each so many bytes, and in so many in any case.
const PIECE: usize = 1024;
const LEAST_PIECES: usize = 64;
/// Of all memory this part may be kept for the next connection.
const KEPT: usize = 16;
/// A buffer grows by this part of what is left at most.
const FAIR: usize = 8;

/// What a connection takes at least, with buffers of `least` bytes per direction.
pub(crate) const fn cost(least: usize) -> usize {
    2 * least.next_power_of_two() + OVERHEAD
}

#[derive(Debug)]
pub(crate) struct Pool {
    limit: usize,
    least: usize,
    most: usize,
    connections: usize,
    /// What buffers have beyond what was promised, and may have together.
    extra: usize,
    most_extra: usize,
    /// What is kept in `free`.
    kept: usize,
    free: [Vec<Vec<u8>>; CLASSES],
}

impl Pool {
    /// A pool of `limit` bytes for so many connections; buffers have between `least` and `most`.
    pub(crate) fn new(limit: usize, (least, most): (usize, usize), connections: usize) -> Self {
        let least = least.next_power_of_two().max(1 << SMALLEST);
        let most_extra = limit.saturating_sub(connections.saturating_mul(cost(least)));
        let free = [const { Vec::new() }; CLASSES];
        Self { limit, least, most: most.max(least), connections: 0, extra: 0, most_extra, kept: 0, free }
    }

    /// Memory in use or kept, in bytes.
    pub(crate) fn used(&self) -> usize {
        self.promised() + self.extra + self.kept
    }

    fn promised(&self) -> usize {
        self.connections * cost(self.least)
    }

    /// What is neither promised to a connection that is there nor taken.
    fn unused(&self) -> usize {
        self.limit.saturating_sub(self.promised() + self.extra)
    }

    /// What buffers may grow by.
    fn left(&self) -> usize {
        self.most_extra.saturating_sub(self.extra)
    }

    /// Whether a new connection can be promised its least.
    pub(crate) fn has_room(&self) -> bool {
        self.unused() >= cost(self.least)
    }

    /// Promises a new connection its least. False when there is not enough.
    pub(crate) fn admit(&mut self) -> bool {
        if !self.has_room() {
            return false;
        }
        self.connections += 1;
        self.drop_kept();
        true
    }

    /// A connection has ended and given its buffers back.
    pub(crate) fn dismiss(&mut self) {
        self.connections -= 1;
    }

    /// How large a buffer of a connection may be by now: between the least and the most. Buffers are powers of two, and a peer that is told of a window
    /// which its buffer cannot grow to loses what it sends into it.
    pub(crate) fn share(&self) -> usize {
        let most = self.left() / FAIR * RECORDS / (RECORDS + 1);
        most.checked_ilog2().map_or(0, |exponent| 1 << exponent).clamp(self.least, self.most)
    }

    /// The buffer that each connection is sure of.
    pub(crate) fn least(&self) -> usize {
        self.least
    }

    /// The largest buffer that a connection can ever have.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// What a buffer of `size` bytes takes beyond what was promised, with the records of its segments in flight.
    fn charge(&self, size: usize) -> usize {
        let beyond = size.saturating_sub(self.least);
        beyond + beyond / RECORDS
    }

    /// A buffer of `size` bytes, a power of two, in place of one of `former` bytes.
    fn take(&mut self, size: usize, former: usize) -> Option<Vec<u8>> {
        let size = size.max(self.least);
        let (charge, freed) = (self.charge(size), self.charge(former));
        if charge > 0 && charge > (self.left() + freed) / FAIR {
            return None;
        }
        self.extra += charge;
        let storage = match self.free.get_mut(class(size)).and_then(Vec::pop) {
            Some(storage) => {
                self.kept -= size;
                storage
            }
            None => vec![0; size],
        };
        self.drop_kept();
        Some(storage)
    }

    fn give(&mut self, storage: Vec<u8>) {
        let size = storage.len();
        self.extra -= self.charge(size);
        if self.kept + size <= (self.limit / KEPT).min(self.unused())
            && let Some(list) = self.free.get_mut(class(size))
        {
            self.kept += size;
            list.push(storage);
        }
    }

    /// Drops what is kept while it is in the way.
    fn drop_kept(&mut self) {
        while self.kept > self.unused() {
            let Some(storage) = self.free.iter_mut().rev().find_map(Vec::pop) else { break };
            self.kept -= storage.len();
        }
    }
}

fn class(size: usize) -> usize {
    (size.ilog2().saturating_sub(SMALLEST)) as usize
}

/// Bytes of one direction of a connection: a ring that has no memory while it is empty, and grows.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    storage: Vec<u8>,
    head: usize,
    length: usize,
    /// The most that it has held since it had memory, and what it had held when that was given back: it will need as much again, and growing to it
    /// step by step would copy what is there at each.
    peak: usize,
    former: usize,
}

impl Ring {
    /// How many bytes it holds.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// How many pieces of what it holds may be told apart, each by 8 bytes of what is charged for records.
    pub(crate) fn records(&self) -> usize {
        (self.storage.len() / PIECE).max(LEAST_PIECES)
    }

    /// Makes room for `span` bytes in all, those it holds included. Gives how many there is room for, which is less when memory is short.
    pub(crate) fn make_room(&mut self, span: usize, pool: &mut Pool) -> usize {
        if span > self.storage.len() {
            let wanted = span.next_power_of_two();
            let again = self.former.next_power_of_two().min(pool.most());
            let storage = (again > wanted).then(|| pool.take(again, self.storage.len())).flatten();
            if let Some(mut storage) = storage.or_else(|| pool.take(wanted, self.storage.len())) {
                let (first, second) = self.storage.split_at(self.head);
                storage[..second.len()].copy_from_slice(second);
                storage[second.len()..self.storage.len()].copy_from_slice(first);
                let former = core::mem::replace(&mut self.storage, storage);
                self.head = 0;
                if !former.is_empty() {
                    pool.give(former);
                }
            } else if self.storage.is_empty() {
                // The least is promised.
                self.storage = pool.take(0, 0).unwrap_or_default();
            }
        }
        self.storage.len()
    }

    /// Writes bytes `offset` after the first that it holds; there must be room.
    pub(crate) fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mask = self.storage.len() - 1;
        let start = (self.head + offset) & mask;
        let first = bytes.len().min(self.storage.len() - start);
        self.storage[start..start + first].copy_from_slice(&bytes[..first]);
        self.storage[..bytes.len() - first].copy_from_slice(&bytes[first..]);
    }

    /// Takes `count` more bytes, written before, for held.
    pub(crate) fn extend(&mut self, count: usize) {
        self.length += count;
        self.peak = self.peak.max(self.length);
    }

    /// The `count` bytes from `offset` on, in one or two pieces.
    pub(crate) fn pieces(&self, offset: usize, count: usize) -> (&[u8], &[u8]) {
        if count == 0 {
            return (&[], &[]);
        }
        let mask = self.storage.len() - 1;
        let start = (self.head + offset) & mask;
        let first = count.min(self.storage.len() - start);
        (&self.storage[start..start + first], &self.storage[..count - first])
    }

    /// Forgets the first `count` bytes.
    pub(crate) fn discard(&mut self, count: usize) {
        let count = count.min(self.length);
        self.length -= count;
        if !self.storage.is_empty() {
            self.head = (self.head + count) & (self.storage.len() - 1);
        }
    }

    /// Gives its memory back, with all that it holds.
    pub(crate) fn release(&mut self, pool: &mut Pool) {
        if !self.storage.is_empty() {
            pool.give(core::mem::take(&mut self.storage));
            (self.former, self.peak) = (self.peak, 0);
        }
        (self.head, self.length) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn the_least_is_sure_and_the_rest_is_shared() {
        let mut pool = Pool::new(1 << 20, (4096, 256 * 1024), 50);
        let mut rings: Vec<Ring> = Vec::new();
        while pool.admit() {
            let mut ring = Ring::default();
            while ring.make_room(ring.storage.len() + 1, &mut pool) > ring.len() && ring.length < ring.storage.len() {
                ring.extend(ring.storage.len() - ring.length);
            }
            rings.push(ring);
            assert!(pool.used() <= 1 << 20, "{}", pool.used());
        }
        let sizes: Vec<usize> = rings.iter().map(|ring| ring.storage.len()).collect();
        assert!(sizes.len() >= 50 && sizes[0] > 32 * 1024 && *sizes.last().unwrap() == 4096, "{sizes:?}");
        for mut ring in rings {
            ring.release(&mut pool);
            pool.dismiss();
        }
        assert!(pool.used() <= 1 << 16 && pool.extra == 0, "{pool:?}");
    }

    #[test]
    fn a_large_ring_may_be_in_more_pieces() {
        let mut pool = Pool::new(1 << 24, (2048, 1 << 20), 1);
        assert!(pool.admit());
        let mut ring = Ring::default();
        for (room, expected) in [(0, 64), (2048, 64), (1 << 17, 128), (1 << 20, 1024)] {
            ring.make_room(room, &mut pool);
            assert_eq!(ring.records(), expected);
        }
    }

    proptest! {
        /// A window of that size can be told.
        #[test]
        fn a_buffer_can_grow_to_its_share(limit in 1_usize << 16..1 << 24, former in 0_usize..1 << 20) {
            let mut pool = Pool::new(limit, (2048, 1 << 20), 1);
            prop_assert!(pool.admit());
            let mut ring = Ring::default();
            ring.make_room(former.min(pool.share()), &mut pool);
            let share = pool.share();
            prop_assert!(ring.make_room(share, &mut pool) >= share, "{share} of {limit}");
        }

        /// Against a queue of bytes.
        #[test]
        fn a_ring_is_a_queue(operations in proptest::collection::vec((0..3_u8, 0..3000_usize), 1..100)) {
            let mut pool = Pool::new(1 << 20, (2048, 16384), 1);
            prop_assert!(pool.admit());
            let (mut ring, mut model, mut next) = (Ring::default(), VecDeque::new(), 0_u8);
            for (operation, count) in operations {
                match operation {
                    0 => {
                        let room = ring.make_room(model.len() + count, &mut pool).saturating_sub(model.len()).min(count);
                        let bytes: Vec<u8> = (0..room).map(|_| { next = next.wrapping_add(1); next }).collect();
                        ring.write_at(model.len(), &bytes);
                        ring.extend(room);
                        model.extend(bytes);
                    }
                    1 => {
                        ring.discard(count);
                        model.drain(..count.min(model.len()));
                    }
                    _ => {
                        if model.is_empty() {
                            ring.release(&mut pool);
                        }
                    }
                }
                prop_assert_eq!(ring.len(), model.len());
                let (first, second) = ring.pieces(0, ring.len());
                prop_assert!(first.iter().chain(second).eq(model.iter()));
            }
        }
    }
}
