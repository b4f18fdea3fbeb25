//! The heap: talc behind a spin lock that is never contended in an image of one thread.
//!
//! A target puts one [`Heap`] into a `#[global_allocator]` static and gives it memory once at start of day. Exhausted memory ends the image:
//! `alloc`'s handler panics with the size that was asked for.

use core::alloc::{GlobalAlloc, Layout};

use talc::TalcLock;
use talc::source::Manual;

/// A global allocator over memory that is handed to it.
pub struct Heap(TalcLock<spin::Mutex<()>, Manual>);

impl Heap {
    /// A heap without memory: every allocation fails until [`claim`](Self::claim).
    #[must_use]
    pub const fn new() -> Self {
        Self(TalcLock::new(Manual))
    }

    /// Gives `size` bytes from `start` to the heap. Returns false when the range is too small to be of use.
    ///
    /// # Safety
    /// The range is valid for reads and writes, is used by nothing else, and stays so for the life of the program.
    pub unsafe fn claim(&self, start: *mut u8, size: usize) -> bool {
        // SAFETY: passed on to the caller, word by word.
        unsafe { self.0.lock().claim(start, size) }.is_some()
    }

    /// Bytes that are allocated now, the allocator's own bookkeeping not counted.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.lock().counters().allocated_bytes
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
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps this method's own contract.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps this method's own contract.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps this method's own contract.
        unsafe { self.0.realloc(block, layout, size) }
    }
}
