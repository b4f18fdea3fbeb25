//! Memory that a device reads or writes: slots of equal size in a row, which are never freed, as a device may write to them for as long as it runs.

use alloc::alloc::{Layout, alloc, handle_alloc_error};
use core::ptr::NonNull;

/// Memory is zeroed in pieces of this size: with longer ones the memory function takes `rep stosb`, which is slow where a processor is emulated.
const PIECE: usize = 2048;

/// Slots of equal size, one after the other.
#[derive(Debug)]
pub(crate) struct Slots {
    base: NonNull<u8>,
    size: usize,
    count: usize,
}

// SAFETY: the memory belongs to the slots alone, as a box's would.
unsafe impl Send for Slots {}

impl Slots {
    /// `count` slots of `size` bytes, both at least one.
    pub(crate) fn new(size: usize, count: usize) -> Self {
        let bytes = size.max(1).saturating_mul(count.max(1)).min(isize::MAX as usize - PIECE);
        let Ok(layout) = Layout::from_size_align(bytes, 64) else { unreachable!("the size is small enough for any alignment") };
        // SAFETY: the layout's size is not zero.
        let Some(base) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        for offset in (0..bytes).step_by(PIECE) {
            // SAFETY: the piece lies within the allocation.
            unsafe { base.add(offset).write_bytes(0, PIECE.min(bytes - offset)) };
        }
        Self { base, size, count: bytes / size.max(1) }
    }

    /// Bytes in a slot.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// Where a slot lies, for the device.
    pub(crate) fn address(&self, slot: usize) -> u64 {
        self.base.as_ptr().wrapping_add(slot * self.size).expose_provenance() as u64
    }

    /// The `length` bytes from byte `offset` of `slot` on, which may reach into the slots after it.
    ///
    /// # Panics
    /// When they do not lie within the slots.
    ///
    /// # Safety
    /// The device has none of the slots that they lie in, nor does other code; this is so for as long as the result is used.
    #[expect(clippy::mut_from_ref, reason = "slots are told apart by who has them, which the caller knows")]
    pub(crate) unsafe fn bytes(&self, slot: usize, offset: usize, length: usize) -> &mut [u8] {
        let start = slot * self.size + offset;
        assert!(start + length <= self.size * self.count, "{length} bytes at {start} exceed the slots");
        // SAFETY: they lie within the allocation, which is never freed and was initialized; nobody else has them, says the caller.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr().add(start), length) }
    }
}
