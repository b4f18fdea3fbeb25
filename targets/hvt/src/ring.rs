//! The ring through which the tender's own thread moves frames without an exit per frame (`hvt_ring.h`).
//!
//! The image appends entries (read into this, write from that) and publishes them together; the tender takes them in order, and answers each read
//! with a commit. Each side writes its own indices alone, and they only ever count up, modulo 2^32. Nothing tells an image that a commit has come:
//! it has to look.
//!
//! What the tender writes is input. Indices that run ahead of what was asked, an unknown answer or one for nothing that was asked break the ring:
//! from then on it takes no entry and gives no commit, and nothing it says reaches memory.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::hypercall::{AGAIN, OK};

/// Entries in the ring, and commits (`HVT_RING_SIZE`).
pub(crate) const SIZE: u32 = 1024;

/// Entries that may be in use: Solo5's guests leave one free.
const USABLE: u32 = SIZE - 1;

/// `HVT_RING_NET_WRITE`.
const WRITE: u32 = 1;
/// `HVT_RING_NET_READ`.
const READ: u32 = 2;

/// The memory that image and tender share (`struct hvt_ring`). All of it is atomic, since the tender may write any of it at any time.
#[repr(C)]
pub(crate) struct SharedRing {
    /// Entries that the image has published.
    entry_tail: AtomicU32,
    /// Commits that the image has taken.
    commit_head: AtomicU32,
    padding: [AtomicU32; 14],
    /// Entries that the tender has taken.
    entry_head: AtomicU32,
    /// Commits that the tender has published.
    commit_tail: AtomicU32,
    /// Not zero when the tender's thread wants the doorbell.
    needs_kick: AtomicU32,
    more_padding: [AtomicU32; 13],
    entries: [Entry; SIZE as usize],
    commits: [CommitEntry; SIZE as usize],
}

/// `struct hvt_ring_entry`.
#[repr(C)]
struct Entry {
    operation: AtomicU32,
    device: AtomicU32,
    data: AtomicU64,
    length: AtomicU32,
    id: AtomicU32,
    reserved: AtomicU64,
}

/// `struct hvt_ring_commit`.
#[repr(C)]
struct CommitEntry {
    id: AtomicU32,
    result: AtomicU32,
    length: AtomicU32,
    reserved: AtomicU32,
}

/// What the tender is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    /// The device, by its index in the manifest.
    pub(crate) device: u32,
    /// The address of the buffer.
    pub(crate) data: u64,
    /// Bytes of the buffer, or of the frame in it.
    pub(crate) length: u32,
    /// What the commit calls it.
    pub(crate) id: u32,
}

/// The tender's answer to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// The id of the read. It is the caller's to check that such a read is under way, and that its buffer is as long as the frame.
    pub(crate) id: u32,
    /// Bytes of the frame, or `None` when none waited.
    pub(crate) frame: Option<u32>,
}

/// What the tender did that breaks the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RingError {
    /// It took more entries than there were.
    Entries { taken: u32, published: u32 },
    /// It answered more reads than there were.
    Commits { published: u32, expected: u32 },
    /// It gave an answer that means nothing.
    Result { id: u32, result: i32 },
    /// It answered a read that was not asked for, or with more than was asked for.
    Answer { id: u32, length: u32 },
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tender broke its network ring: ")?;
        match self {
            Self::Entries { taken, published } => write!(f, "it took {taken} entries of {published}"),
            Self::Commits { published, expected } => write!(f, "it published {published} commits for {expected} reads"),
            Self::Result { id, result } => write!(f, "it answered read {id} with result {result}"),
            Self::Answer { id, length } => write!(f, "it answered with {length} bytes a read {id} that did not ask for them"),
        }
    }
}

/// The image's side of the ring.
pub(crate) struct Ring {
    shared: &'static SharedRing,
    /// Entries written, published or not.
    tail: u32,
    /// Entries published.
    published: u32,
    /// Entries that the tender has taken, as last seen.
    taken: u32,
    /// Commits taken.
    commits: u32,
    /// Reads published.
    reads: u32,
    /// Reads written, published or not.
    reads_written: u32,
    broken: Option<RingError>,
}

impl Ring {
    /// The image's side of a ring that nothing has used yet.
    pub(crate) fn new(shared: &'static SharedRing) -> Self {
        let tail = shared.entry_tail.load(Ordering::Relaxed);
        let commits = shared.commit_head.load(Ordering::Relaxed);
        Self { shared, tail, published: tail, taken: tail, commits, reads: commits, reads_written: commits, broken: None }
    }

    /// Why the ring is of no use any more.
    pub(crate) const fn broken(&self) -> Option<RingError> {
        self.broken
    }

    /// Breaks the ring: an answer was wrong in a way that only the caller can see.
    pub(crate) fn refuse(&mut self, commit: Commit) {
        self.broken = Some(RingError::Answer { id: commit.id, length: commit.frame.unwrap_or(0) });
    }

    /// Entries that can be written now; none when the ring is broken.
    pub(crate) fn room(&mut self) -> u32 {
        if self.tail.wrapping_sub(self.taken) >= USABLE / 2 {
            self.look_at_taken();
        }
        if self.broken.is_some() { 0 } else { USABLE - self.tail.wrapping_sub(self.taken) }
    }

    /// True when the tender has taken the entry before which [`position`](Self::position) gave `position`, however long ago.
    pub(crate) fn has_taken(&mut self, position: u32) -> bool {
        // The entries not taken yet are a window that ends at the tail.
        let is_taken = |ring: &Self| {
            let distance = ring.tail.wrapping_sub(position);
            distance == 0 || distance > ring.tail.wrapping_sub(ring.taken)
        };
        is_taken(self) || {
            self.look_at_taken();
            is_taken(self)
        }
    }

    /// Where the next entry goes.
    pub(crate) const fn position(&self) -> u32 {
        self.tail
    }

    /// Reads published that have no commit yet, as far as commits were taken.
    pub(crate) const fn reads_under_way(&self) -> u32 {
        if self.broken.is_some() { 0 } else { self.reads.wrapping_sub(self.commits) }
    }

    /// Asks for a frame to be read; true when there was room for the entry.
    pub(crate) fn read(&mut self, transfer: Transfer) -> bool {
        let written = self.append(READ, transfer);
        self.reads_written = self.reads_written.wrapping_add(u32::from(written));
        written
    }

    /// Asks for a frame to be sent; true when there was room for the entry.
    pub(crate) fn write(&mut self, transfer: Transfer) -> bool {
        self.append(WRITE, transfer)
    }

    fn append(&mut self, operation: u32, transfer: Transfer) -> bool {
        if self.room() == 0 {
            return false;
        }
        let entry = &self.shared.entries[(self.tail % SIZE) as usize];
        entry.operation.store(operation, Ordering::Relaxed);
        entry.device.store(transfer.device, Ordering::Relaxed);
        entry.data.store(transfer.data, Ordering::Relaxed);
        entry.length.store(transfer.length, Ordering::Relaxed);
        entry.id.store(transfer.id, Ordering::Relaxed);
        self.tail = self.tail.wrapping_add(1);
        true
    }

    /// Shows the tender all entries written. True when it wants the doorbell.
    pub(crate) fn publish(&mut self) -> bool {
        if self.tail == self.published {
            return false;
        }
        self.published = self.tail;
        self.reads = self.reads_written;
        self.shared.entry_tail.store(self.tail, Ordering::Release);
        // The tender says that it sleeps and then looks at the tail; here the tail is said and then looked whether it sleeps. Each side needs its
        // store to be seen before its load, or both miss the other.
        fence(Ordering::SeqCst);
        self.shared.needs_kick.load(Ordering::Relaxed) != 0
    }

    /// Takes the next commit.
    pub(crate) fn next_commit(&mut self) -> Option<Commit> {
        if self.broken.is_some() {
            return None;
        }
        let published = self.shared.commit_tail.load(Ordering::Acquire);
        let expected = self.reads.wrapping_sub(self.commits);
        let waiting = published.wrapping_sub(self.commits);
        if waiting > expected {
            self.broken = Some(RingError::Commits { published: waiting, expected });
            return None;
        }
        if waiting == 0 {
            return None;
        }
        let commit = &self.shared.commits[(self.commits % SIZE) as usize];
        let id = commit.id.load(Ordering::Relaxed);
        let frame = match commit.result.load(Ordering::Relaxed).cast_signed() {
            OK => Some(commit.length.load(Ordering::Relaxed)),
            AGAIN => None,
            result => {
                self.broken = Some(RingError::Result { id, result });
                return None;
            }
        };
        self.commits = self.commits.wrapping_add(1);
        self.shared.commit_head.store(self.commits, Ordering::Release);
        Some(Commit { id, frame })
    }

    /// Learns how many entries the tender has taken.
    fn look_at_taken(&mut self) {
        let taken = self.shared.entry_head.load(Ordering::Acquire);
        let (published, newly) = (self.published.wrapping_sub(self.taken), taken.wrapping_sub(self.taken));
        if newly > published {
            self.broken.get_or_insert(RingError::Entries { taken: newly, published });
        } else {
            self.taken = taken;
        }
    }
}

/// The tender's side of a ring, for tests.
#[cfg(test)]
pub(crate) mod simulated {
    use super::*;
    use std::boxed::Box;

    /// A ring whose indices all stand at `start`.
    pub(crate) fn shared(start: u32) -> &'static SharedRing {
        // SAFETY: all of the structure is integers, for which zeroes are a value.
        let shared: Box<SharedRing> = unsafe { Box::new_zeroed().assume_init() };
        for index in [&shared.entry_tail, &shared.entry_head, &shared.commit_tail, &shared.commit_head] {
            index.store(start, Ordering::Relaxed);
        }
        Box::leak(shared)
    }

    /// The tender's side, as the ABI describes it.
    pub(crate) struct Tender(pub(crate) &'static SharedRing);

    impl Tender {
        /// Takes one entry: its operation, id and data.
        pub(crate) fn take(&self) -> Option<(u32, u32, u64)> {
            let head = self.0.entry_head.load(Ordering::Relaxed);
            if head == self.0.entry_tail.load(Ordering::Acquire) {
                return None;
            }
            let entry = &self.0.entries[(head % SIZE) as usize];
            let taken = (entry.operation.load(Ordering::Relaxed), entry.id.load(Ordering::Relaxed), entry.data.load(Ordering::Relaxed));
            self.0.entry_head.store(head.wrapping_add(1), Ordering::Release);
            Some(taken)
        }

        pub(crate) fn commit(&self, id: u32, result: i32, length: u32) {
            let tail = self.0.commit_tail.load(Ordering::Relaxed);
            let commit = &self.0.commits[(tail % SIZE) as usize];
            commit.id.store(id, Ordering::Relaxed);
            commit.result.store(result.cast_unsigned(), Ordering::Relaxed);
            commit.length.store(length, Ordering::Relaxed);
            self.0.commit_tail.store(tail.wrapping_add(1), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::simulated::{Tender, shared};
    use super::*;
    use core::mem::offset_of;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    fn transfer(id: u32) -> Transfer {
        Transfer { device: 1, data: 0x1000 * u64::from(id), length: 1514, id }
    }

    #[test]
    fn the_ring_lies_in_memory_as_the_abi_says() {
        assert_eq!(offset_of!(SharedRing, entry_head), 64);
        assert_eq!(offset_of!(SharedRing, entries), 128);
        assert_eq!((size_of::<Entry>(), size_of::<CommitEntry>()), (32, 16));
        assert_eq!((offset_of!(Entry, data), offset_of!(Entry, length), offset_of!(Entry, id)), (8, 16, 20));
        assert_eq!(size_of::<SharedRing>(), 49_280);
    }

    #[test]
    fn nothing_is_seen_before_it_is_published_and_the_doorbell_rings_when_wanted() {
        let shared = shared(0);
        let (mut ring, tender) = (Ring::new(shared), Tender(shared));
        assert!(ring.read(transfer(3)));
        assert!(tender.take().is_none());
        assert!(!ring.publish());
        assert_eq!(tender.take(), Some((READ, 3, 0x3000)));
        shared.needs_kick.store(1, Ordering::Relaxed);
        assert!(!ring.publish(), "nothing new needs no doorbell");
        assert!(ring.write(transfer(4)) && ring.publish());
    }

    #[test]
    fn a_full_ring_takes_no_more_until_the_tender_has_taken_some() {
        let shared = shared(u32::MAX - 5);
        let (mut ring, tender) = (Ring::new(shared), Tender(shared));
        let first = ring.position();
        assert_eq!((0..2 * SIZE).take_while(|id| ring.write(transfer(*id))).count(), USABLE as usize);
        assert!(!ring.has_taken(first));
        ring.publish();
        assert_eq!(ring.room(), 0);
        assert_eq!(tender.take(), Some((WRITE, 0, 0)));
        assert!(ring.has_taken(first) && !ring.has_taken(first.wrapping_add(1)));
        assert_eq!(ring.room(), 1);
    }

    #[test]
    fn an_entry_once_taken_stays_taken() {
        let shared = shared(0);
        let (mut ring, tender) = (Ring::new(shared), Tender(shared));
        let first = ring.position();
        for id in 0..5 * SIZE {
            assert!(ring.write(transfer(id)));
            assert!(!ring.has_taken(ring.position().wrapping_sub(1)));
            ring.publish();
            assert!(tender.take().is_some());
            assert!(ring.has_taken(first) && ring.has_taken(ring.position().wrapping_sub(1)));
        }
    }

    proptest! {
        #[test]
        fn every_read_is_answered_once_in_order_across_the_wrap(steps in prop::collection::vec(0_u8..4, 1..4000), start in prop_oneof![Just(0), Just(u32::MAX - 20), any::<u32>()]) {
            let shared = shared(start);
            let (mut ring, tender) = (Ring::new(shared), Tender(shared));
            let (mut next, mut taken, mut expected) = (0, VecDeque::new(), VecDeque::new());
            for step in steps {
                match step {
                    0 => {
                        if ring.read(transfer(next)) {
                            expected.push_back(next);
                            next += 1;
                        }
                    }
                    1 => { ring.publish(); }
                    2 => {
                        if let Some((operation, id, _)) = tender.take() {
                            prop_assert_eq!(operation, READ);
                            let answer = if id % 3 == 0 { (AGAIN, 0) } else { (OK, id) };
                            tender.commit(id, answer.0, answer.1);
                            taken.push_back(id);
                        }
                    }
                    _ => {
                        let id = taken.pop_front();
                        let commit = id.map(|id| Commit { id, frame: (id % 3 != 0).then_some(id) });
                        prop_assert_eq!(ring.next_commit(), commit);
                        if id.is_some() {
                            prop_assert_eq!(expected.pop_front(), id);
                        }
                    }
                }
                prop_assert_eq!(ring.broken(), None);
            }
        }

        #[test]
        fn a_tender_that_writes_anything_anywhere_gets_nothing_but_a_broken_ring(
            steps in prop::collection::vec((0_u8..6, any::<u32>(), 0_usize..SIZE as usize), 1..300),
        ) {
            let shared = shared(0);
            let mut ring = Ring::new(shared);
            let mut reads = 0_u32;
            let mut commits = Vec::new();
            for (step, value, index) in steps {
                match step {
                    0 => reads += u32::from(ring.read(transfer(value))),
                    1 => { ring.publish(); }
                    2 => commits.extend(ring.next_commit()),
                    3 => shared.commit_tail.store(value % 8, Ordering::Relaxed),
                    4 => shared.entry_head.store(value % 8, Ordering::Relaxed),
                    _ => shared.commits[index].result.store(value % 3, Ordering::Relaxed),
                }
                prop_assert!(commits.len() as u32 <= reads, "more answers than reads");
                prop_assert!(ring.room() <= USABLE && ring.reads_under_way() <= reads);
                if ring.broken().is_some() {
                    prop_assert!(ring.next_commit().is_none() && !ring.read(transfer(0)) && ring.reads_under_way() == 0);
                }
            }
        }
    }

    #[test]
    fn each_lie_is_called_by_its_name() {
        let broken = |lie: fn(&SharedRing)| {
            let shared = shared(0);
            let mut ring = Ring::new(shared);
            ring.read(transfer(7));
            ring.publish();
            lie(shared);
            let _ = ring.next_commit();
            let _ = ring.has_taken(0);
            ring.broken()
        };
        assert_eq!(broken(|_| ()), None);
        let two = broken(|shared| shared.commit_tail.store(2, Ordering::Relaxed));
        assert_eq!(two, Some(RingError::Commits { published: 2, expected: 1 }));
        let taken = broken(|shared| shared.entry_head.store(u32::MAX, Ordering::Relaxed));
        assert_eq!(taken, Some(RingError::Entries { taken: u32::MAX, published: 1 }));
        let result = broken(|shared| {
            shared.commits[0].result.store(2, Ordering::Relaxed);
            shared.commit_tail.store(1, Ordering::Relaxed);
        });
        assert_eq!(result, Some(RingError::Result { id: 0, result: 2 }));
    }
}
