//! Memory that start-up code or assembler writes, and the image reads.

use core::cell::UnsafeCell;

/// Something that is written before anything else reads it, or by assembler alone. Whoever goes through the pointer says why no other access is under way.
#[derive(Debug)]
#[repr(transparent)]
pub struct Shared<T>(UnsafeCell<T>);

// SAFETY: it gives nothing but a pointer, whose use each access has to justify; an image has one thread.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// With what it holds before anything is written.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Where it lies.
    pub const fn get(&self) -> *mut T {
        self.0.get()
    }
}
