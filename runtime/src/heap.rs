//! The heap: talc behind a spin lock that is never contended in an image of one thread.
//!
//! A target puts one [`Heap`] into a `#[global_allocator]` static and gives it memory once at start of day. Exhausted memory ends the image:
//! `alloc`'s handler panics with the size that was asked for.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use talc::TalcLock;
use talc::source::Manual;

use crate::platform::Memory;

/// A global allocator over memory that is handed to it.
pub struct Heap {
    talc: TalcLock<spin::Mutex<()>, Manual>,
    /// The most bytes that were allocated at a time.
    peak: AtomicUsize,
    /// The size of the last allocation that there was no room for.
    refused: AtomicUsize,
}

impl Heap {
    /// A heap without memory: every allocation fails until [`claim`](Self::claim).
    #[must_use]
    pub const fn new() -> Self {
        Self { talc: TalcLock::new(Manual), peak: AtomicUsize::new(0), refused: AtomicUsize::new(0) }
    }

    /// Gives `size` bytes from `start` to the heap. Returns false when the range is too small to be of use.
    ///
    /// # Safety
    /// The range is valid for reads and writes, is used by nothing else, and stays so for the life of the program.
    pub unsafe fn claim(&self, start: *mut u8, size: usize) -> bool {
        // SAFETY: passed on to the caller, word by word.
        unsafe { self.talc.lock().claim(start, size) }.is_some()
    }

    /// What [`Platform::memory`](crate::Platform::memory) gives, for an image of `total` bytes of which `heap` were claimed. The allocator's own bookkeeping
    /// is not counted as used.
    #[must_use]
    pub fn memory(&self, total: usize, heap: usize) -> Memory {
        let counters = *self.talc.lock().counters();
        Memory {
            total,
            heap,
            used: counters.allocated_bytes,
            peak: self.peak.load(Relaxed),
            blocks: counters.allocation_count,
            allocations: counters.total_allocation_count,
            holes: counters.fragment_count,
            refused: self.refused.load(Relaxed),
        }
    }

    /// Keeps account of an allocation of `size` bytes in all, and passes it on.
    fn account(&self, block: *mut u8, size: usize) -> *mut u8 {
        if block.is_null() {
            self.refused.store(size, Relaxed);
        } else {
            // One thread: nobody allocates between the two.
            let used = self.talc.lock().counters().allocated_bytes;
            if used > self.peak.load(Relaxed) {
                self.peak.store(used, Relaxed);
            }
        }
        block
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: every method passes on to talc's own implementation of this trait.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps this method's own contract.
        self.account(unsafe { self.talc.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps this method's own contract.
        unsafe { self.talc.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps this method's own contract.
        self.account(unsafe { self.talc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps this method's own contract.
        self.account(unsafe { self.talc.realloc(block, layout, size) }, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn the_account_is_right_and_what_does_not_fit_is_remembered() {
        const SIZE: usize = 64 * 1024;
        let mut room = vec![0u64; SIZE / 8];
        let heap = Heap::new();
        let block = Layout::from_size_align(1000, 8).unwrap();
        let large = Layout::from_size_align(2 * SIZE, 8).unwrap();
        // SAFETY: the room is the heap's alone and lives longer; each block is freed once, with its layout.
        unsafe {
            assert!(heap.claim(room.as_mut_ptr().cast(), SIZE));
            let blocks = [heap.alloc(block), heap.alloc_zeroed(block), heap.alloc(block)];
            heap.dealloc(blocks[1], block);
            assert!(heap.alloc(large).is_null());
            let memory = heap.memory(2 * SIZE, SIZE);
            assert_eq!((memory.total, memory.heap, memory.used, memory.peak), (2 * SIZE, SIZE, 2000, 3000));
            assert_eq!((memory.blocks, memory.allocations, memory.refused), (2, 3, 2 * SIZE));
            assert!(memory.holes >= 1);
            heap.dealloc(blocks[0], block);
            heap.dealloc(blocks[2], block);
        }
        assert_eq!(heap.memory(0, 0).used, 0);
    }
}
