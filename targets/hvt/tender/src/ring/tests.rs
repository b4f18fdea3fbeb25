//! The ring against an honest guest and against a hostile one.

use std::cell::RefCell;

use proptest::prelude::*;

use super::*;

const END: u64 = 1 << 20;
const RING: u64 = END;
const MEMORY: u64 = 2 << 20;
/// The only device there is.
const NET: u32 = 1;

/// A device that notes what was asked of it. Each read gets a frame as long as its buffer.
#[derive(Default)]
struct Log {
    sent: RefCell<Vec<(u64, usize)>>,
    received: RefCell<Vec<usize>>,
}

impl Frames for Log {
    type Error = std::convert::Infallible;

    fn send(&self, handle: u64, frame: Source<'_>) -> Result<Status, Self::Error> {
        self.sent.borrow_mut().push((handle, frame.len()));
        Ok(Status::Ok)
    }

    fn receive(&self, handle: u64, buffer: Sink<'_>) -> Result<(Status, u32), Self::Error> {
        if handle != u64::from(NET) {
            return Ok((Status::Invalid, 0));
        }
        self.received.borrow_mut().push(buffer.len());
        Ok((Status::Ok, buffer.len() as u32))
    }
}

/// The guest's end, which can write what it likes.
struct Guest<'m>(&'m GuestMemory);

impl Guest<'_> {
    fn put(&self, offset: u64, value: u32) {
        self.0.cell_u32(RING + offset).unwrap().store(value, Ordering::Release);
    }

    fn get(&self, offset: u64) -> u32 {
        self.0.cell_u32(RING + offset).unwrap().load(Ordering::Acquire)
    }

    fn write_entry(&self, index: u32, operation: u32, handle: u32, address: u64, length: u32, id: u32) {
        let entry = ENTRIES + u64::from(index % SLOTS) * ENTRY_SIZE;
        let words = [(0, operation), (4, handle), (8, address as u32), (12, (address >> 32) as u32), (16, length), (20, id)];
        for (offset, value) in words {
            self.put(entry + offset, value);
        }
    }

    fn commit(&self, index: u32) -> (u32, u32, u32) {
        let commit = COMMITS + u64::from(index % SLOTS) * COMMIT_SIZE;
        (self.get(commit), self.get(commit + 4), self.get(commit + 8))
    }
}

fn memory() -> GuestMemory {
    GuestMemory::new(MEMORY, END).unwrap()
}

#[test]
fn layout_is_that_of_the_header() {
    assert_eq!(SIZE, 128 + 1024 * 32 + 1024 * 16);
}

#[test]
fn a_ring_must_be_in_memory() {
    let memory = memory();
    assert!(Consumer::new(&memory, MEMORY - SIZE).is_ok());
    for base in [MEMORY - SIZE + 8, MEMORY, u64::MAX - 8, RING + 4] {
        assert!(Consumer::new(&memory, base).is_err(), "{base:#x}");
    }
}

#[test]
fn indices_wrap_and_every_request_is_served_in_order() {
    let memory = memory();
    let guest = Guest(&memory);
    let log = Log::default();
    let mut ring = Consumer::new(&memory, RING).unwrap();
    let start = u32::MAX - 700;
    (ring.head, ring.tail) = (start, start);
    guest.put(REAPED, start);
    for round in 0..5_u32 {
        let from = start.wrapping_add(round * 300);
        for step in 0..300 {
            let operation = if step % 3 == 0 { OPERATION_READ } else { OPERATION_WRITE };
            guest.write_entry(from.wrapping_add(step), operation, NET, 0x1000, step, round * 1000 + step);
        }
        guest.put(SUBMITTED, from.wrapping_add(300));
        assert!(ring.has_work());
        ring.drain(&log).unwrap();
        assert!(!ring.has_work());
        assert_eq!(guest.get(TAKEN), from.wrapping_add(300));
        let commits = start.wrapping_add(round * 100);
        assert_eq!(guest.get(COMMITTED), commits.wrapping_add(100));
        for step in 0..100 {
            assert_eq!(guest.commit(commits.wrapping_add(step)), (round * 1000 + step * 3, 0, step * 3));
        }
        guest.put(REAPED, commits.wrapping_add(100));
    }
    assert_eq!(log.sent.borrow().len(), 1000);
    assert_eq!(log.received.borrow().len(), 500);
}

#[test]
fn a_guest_that_never_takes_commits_is_stopped() {
    let memory = memory();
    let guest = Guest(&memory);
    let log = Log::default();
    let mut ring = Consumer::new(&memory, RING).unwrap();
    for index in 0..SLOTS {
        guest.write_entry(index, OPERATION_READ, NET, 0x1000, 1514, index);
    }
    guest.put(SUBMITTED, SLOTS);
    ring.drain(&log).unwrap();
    guest.put(SUBMITTED, SLOTS + 1);
    assert_eq!(ring.drain(&log), Err(RingError::CommitsFull));
    assert_eq!(log.received.borrow().len(), SLOTS as usize);
}

#[test]
fn a_tail_beyond_the_ring_is_refused() {
    let memory = memory();
    let guest = Guest(&memory);
    let mut ring = Consumer::new(&memory, RING).unwrap();
    for (tail, claimed) in [(SLOTS + 1, SLOTS + 1), (u32::MAX, u32::MAX)] {
        guest.put(SUBMITTED, tail);
        assert_eq!(ring.drain(&Log::default()), Err(RingError::Overrun(claimed)));
    }
    guest.put(SUBMITTED, SLOTS);
    assert_eq!(ring.drain(&Log::default()), Ok(()));
    guest.put(SUBMITTED, SLOTS - 1);
    assert_eq!(ring.drain(&Log::default()), Err(RingError::Overrun(u32::MAX)));
}

#[test]
fn an_unknown_device_is_refused_and_an_unknown_operation_skipped() {
    let memory = memory();
    let guest = Guest(&memory);
    let mut ring = Consumer::new(&memory, RING).unwrap();
    guest.write_entry(0, 77, NET, u64::MAX, u32::MAX, 0);
    guest.write_entry(1, OPERATION_READ, 9, 0x1000, 64, 5);
    guest.put(SUBMITTED, 2);
    ring.drain(&Log::default()).unwrap();
    assert_eq!(guest.commit(0), (5, Status::Invalid as u32, 0));
}

#[test]
fn buffers_cannot_be_in_the_ring_itself() {
    let memory = memory();
    let guest = Guest(&memory);
    let mut ring = Consumer::new(&memory, RING).unwrap();
    guest.write_entry(0, OPERATION_READ, NET, RING, 64, 0);
    guest.put(SUBMITTED, 1);
    assert!(matches!(ring.drain(&Log::default()), Err(RingError::Pointer(_))));
}

proptest! {
    /// Whatever is in the ring: no panic, no more entries served than there are slots, every buffer in the guest's memory, and
    /// nothing written outside the tender's own part of the ring.
    #[test]
    fn a_hostile_ring_is_contained(
        submitted: u32,
        reaped: u32,
        ahead in 0..SLOTS + 3,
        honest: bool,
        words in proptest::collection::vec(
            (0..4_u32, 0..3_u32, prop_oneof![0..END, RING..MEMORY, any::<u64>()], prop_oneof![0..2000_u32, any::<u32>()], any::<u32>()),
            1..64,
        ),
        rubbish: [u32; 3],
    ) {
        let memory = memory();
        let guest = Guest(&memory);
        let log = Log::default();
        let mut ring = Consumer::new(&memory, RING).unwrap();
        for index in 0..SLOTS {
            let (operation, handle, address, length, id) = words[index as usize % words.len()];
            guest.write_entry(index, operation, handle, address, length, id);
        }
        // The tender's own cells are the guest's to write, and must not matter.
        for (offset, value) in [TAKEN, COMMITTED, NEEDS_KICK].into_iter().zip(rubbish) {
            guest.put(offset, value);
        }
        guest.put(SUBMITTED, if honest { ahead } else { submitted });
        guest.put(REAPED, if honest { 0 } else { reaped });
        let result = ring.drain(&log);
        let asked = if honest { ahead } else { submitted };
        if asked > SLOTS {
            prop_assert_eq!(result, Err(RingError::Overrun(asked)));
        }
        let served = log.sent.borrow().len() + log.received.borrow().len();
        prop_assert!(served <= asked.min(SLOTS) as usize);
        let largest = log.sent.borrow().iter().map(|(_, length)| *length).chain(log.received.borrow().iter().copied()).max();
        prop_assert!(largest.unwrap_or(0) as u64 <= END);
        prop_assert!(memory.load::<4096>(0).unwrap().iter().all(|&byte| byte == 0));
        prop_assert_eq!(guest.get(SUBMITTED), asked);
    }
}
