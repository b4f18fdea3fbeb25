//! The network ring: frames move between guest and tender through shared memory, without leaving the guest for each one.
//!
//! The guest writes entries and advances its tail; the tender takes them, answers reads with commits, and advances its own indices
//! (`hvt_ring.h` of Solo5 0.12.1). The tender's indices and the layout are its own: what the guest writes over them in shared memory
//! changes nothing here. Everything the guest writes is copied before it is looked at and may be any value: an index that no honest
//! guest can reach ends the run with an error, as a bad pointer does.

use core::sync::atomic::{AtomicU32, Ordering, fence};

use crate::memory::{GuestMemory, PointerError, Sink, Source};

/// Entries, and commits, in the ring (`HVT_RING_SIZE`): a power of two.
pub(crate) const SLOTS: u32 = 1024;
/// Bytes of shared memory that the ring takes (`sizeof(struct hvt_ring)`).
pub(crate) const SIZE: u64 = COMMITS + COMMIT_SIZE * SLOTS as u64;

// Offsets in `struct hvt_ring`.
const SUBMITTED: u64 = 0;
const REAPED: u64 = 4;
const TAKEN: u64 = 64;
const COMMITTED: u64 = 68;
const NEEDS_KICK: u64 = 72;
const ENTRIES: u64 = 128;
const COMMITS: u64 = ENTRIES + ENTRY_SIZE * SLOTS as u64;
/// `sizeof(struct hvt_ring_entry)`: operation, handle; data; len, id; reserved.
const ENTRY_SIZE: u64 = 32;
/// `sizeof(struct hvt_ring_commit)`: id, ret; len, reserved.
const COMMIT_SIZE: u64 = 16;

/// `HVT_RING_NET_WRITE`.
const OPERATION_WRITE: u32 = 1;
/// `HVT_RING_NET_READ`.
const OPERATION_READ: u32 = 2;

/// What a guest is told about a request: `solo5_result_t` of `solo5.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Status {
    /// Done.
    Ok = 0,
    /// No frame is waiting.
    Again = 1,
    /// The handle is not of such a device, or a size or an offset is wrong.
    Invalid = 2,
    /// The host could not do it.
    Unspecified = 3,
}

/// Where frames go to and come from.
pub(crate) trait Frames {
    /// Why the run cannot go on.
    type Error;

    /// Sends a frame, or drops it if the device has no room or does not exist.
    ///
    /// # Errors
    /// Only what ends the run.
    fn send(&self, handle: u64, frame: Source<'_>) -> Result<Status, Self::Error>;

    /// Takes a frame that is waiting; its length counts with [`Status::Ok`] alone.
    ///
    /// # Errors
    /// Only what ends the run.
    fn receive(&self, handle: u64, buffer: Sink<'_>) -> Result<(Status, u32), Self::Error>;
}

/// Why the ring cannot be served any longer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RingError<E> {
    /// The guest's tail is further ahead than the ring is long.
    #[error("the guest claims {0} entries in the network ring, which has room for {SLOTS}")]
    Overrun(u32),
    /// The guest asks for more frames than it makes room for.
    #[error("the guest left no room for another commit in the network ring: it must take commits before it submits more reads")]
    CommitsFull,
    /// An entry's buffer is not the guest's.
    #[error("a buffer in the network ring: {0}")]
    Pointer(#[from] PointerError),
    /// A network device failed.
    #[error("{0}")]
    Device(E),
}

/// The tender's end of a ring.
#[derive(Debug)]
pub(crate) struct Consumer<'m> {
    memory: &'m GuestMemory,
    submitted: &'m AtomicU32,
    reaped: &'m AtomicU32,
    taken: &'m AtomicU32,
    committed: &'m AtomicU32,
    needs_kick: &'m AtomicU32,
    base: u64,
    /// Entries taken so far, and commits made so far: modulo 2^32, as in shared memory.
    head: u32,
    tail: u32,
}

impl<'m> Consumer<'m> {
    /// Serves the ring at a guest address, all zeroes until now.
    ///
    /// # Errors
    /// [`PointerError::Outside`] if the ring is not all in memory, or not aligned to 8 bytes.
    pub(crate) fn new(memory: &'m GuestMemory, base: u64) -> Result<Self, PointerError> {
        let outside = PointerError::Outside { address: base, length: SIZE, end: memory.size() };
        let last = base.checked_add(SIZE - size_of::<u64>() as u64).ok_or(outside)?;
        memory.cell_u64(last)?;
        Ok(Self {
            memory,
            submitted: memory.cell_u32(base + SUBMITTED)?,
            reaped: memory.cell_u32(base + REAPED)?,
            taken: memory.cell_u32(base + TAKEN)?,
            committed: memory.cell_u32(base + COMMITTED)?,
            needs_kick: memory.cell_u32(base + NEEDS_KICK)?,
            base,
            head: 0,
            tail: 0,
        })
    }

    /// Whether the guest has submitted anything that was not taken yet.
    pub(crate) fn has_work(&self) -> bool {
        self.submitted.load(Ordering::Relaxed) != self.head
    }

    /// Tells the guest whether the next submission needs a kick. After asking for kicks, look at [`has_work`](Self::has_work) once
    /// more before sleeping: what was submitted just before comes without one.
    pub(crate) fn ask_for_kicks(&self, wanted: bool) {
        self.needs_kick.store(u32::from(wanted), Ordering::Relaxed);
        // The guest stores its tail, then loads this; we store this, then load its tail. Only a full fence keeps both from missing.
        fence(Ordering::SeqCst);
    }

    /// Serves all that is submitted now: at most [`SLOTS`] entries, however fast the guest adds more.
    ///
    /// # Errors
    /// [`RingError`], after which the ring cannot be used again.
    pub(crate) fn drain<F: Frames>(&mut self, frames: &F) -> Result<(), RingError<F::Error>> {
        let pending = self.submitted.load(Ordering::Acquire).wrapping_sub(self.head);
        if pending > SLOTS {
            return Err(RingError::Overrun(pending));
        }
        for _ in 0..pending {
            self.serve_next(frames)?;
        }
        self.taken.store(self.head, Ordering::Release);
        Ok(())
    }

    fn serve_next<F: Frames>(&mut self, frames: &F) -> Result<(), RingError<F::Error>> {
        let entry = self.base + ENTRIES + u64::from(self.head % SLOTS) * ENTRY_SIZE;
        let [operation, handle] = self.halves(entry)?;
        let address = self.memory.cell_u64(entry + 8)?.load(Ordering::Relaxed);
        let [length, id] = self.halves(entry + 16)?;
        self.head = self.head.wrapping_add(1);
        match operation {
            OPERATION_WRITE => {
                let frame = self.memory.source(address, u64::from(length))?;
                // A write gets no commit: there is nobody to tell how it went.
                frames.send(u64::from(handle), frame).map_err(RingError::Device)?;
            }
            OPERATION_READ => {
                if self.tail.wrapping_sub(self.reaped.load(Ordering::Acquire)) >= SLOTS {
                    return Err(RingError::CommitsFull);
                }
                let buffer = self.memory.sink(address, u64::from(length))?;
                let (status, received) = frames.receive(u64::from(handle), buffer).map_err(RingError::Device)?;
                self.commit(id, status, received)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Publishes what was taken so far, and then the answer: a guest that has its answer finds its entry free.
    fn commit(&mut self, id: u32, status: Status, length: u32) -> Result<(), PointerError> {
        let commit = self.base + COMMITS + u64::from(self.tail % SLOTS) * COMMIT_SIZE;
        let answer = u64::from(id) | (status as u64) << 32;
        self.memory.cell_u64(commit)?.store(answer, Ordering::Relaxed);
        self.memory.cell_u64(commit + 8)?.store(u64::from(length), Ordering::Relaxed);
        self.tail = self.tail.wrapping_add(1);
        self.taken.store(self.head, Ordering::Release);
        self.committed.store(self.tail, Ordering::Release);
        Ok(())
    }

    fn halves(&self, address: u64) -> Result<[u32; 2], PointerError> {
        let word = self.memory.cell_u64(address)?.load(Ordering::Relaxed);
        Ok([word as u32, (word >> 32) as u32])
    }
}

#[cfg(test)]
mod tests;
