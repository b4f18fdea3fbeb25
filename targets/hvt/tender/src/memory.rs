//! The guest's memory, and the only way from an address that a guest gives to memory of this process.
//!
//! A guest address is a number until [`GuestMemory`] has checked it: no address, length or sum of the two reaches host memory outside
//! the guest's, nor writes where the guest itself may not. Guest memory may change under the tender at any time (the network ring's
//! thread runs beside the guest), so no Rust reference into it ever exists while the guest can run: values are copied out before
//! they are looked at, and system calls get raw pointers.

use core::ffi::c_void;
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

/// Size and alignment of the pages that rights are given to.
pub(crate) const PAGE_SIZE: u64 = 4096;

/// A guest's memory: guest addresses 0 up to the size it was made with.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    base: NonNull<u8>,
    size: usize,
    /// Where the part ends that addresses in hypercalls may point into; what follows is the network ring.
    end: u64,
    /// What the guest cannot write, and so neither can the tender on its behalf.
    read_only: Vec<Range<u64>>,
}

// SAFETY: the mapping belongs to this value alone and lives as long as it does. After boot it is reached only through atomics and
// system calls, both of which any thread may make at any time.
unsafe impl Send for GuestMemory {}
// SAFETY: as for Send; everything that changes `read_only` or hands out a slice takes `&mut self`.
unsafe impl Sync for GuestMemory {}

/// Why an address given by the guest is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PointerError {
    /// Some byte is not guest memory.
    #[error("address {address:#x} with length {length:#x} is not in guest memory, which ends at {end:#x}")]
    Outside {
        /// The first byte's guest address.
        address: u64,
        /// In bytes.
        length: u64,
        /// Where guest memory ends.
        end: u64,
    },
    /// Some byte is of a segment the guest may not write (text or read-only data).
    #[error("address {address:#x} with length {length:#x} is to be written, and touches read-only memory")]
    ReadOnly {
        /// The first byte's guest address.
        address: u64,
        /// In bytes.
        length: u64,
    },
}

impl GuestMemory {
    /// Maps `size` bytes of zeroes, of which hypercalls may point into the first `end`. Pages cost nothing until they are touched.
    ///
    /// # Errors
    /// The host's error if it has no room for the mapping.
    pub(crate) fn new(size: u64, end: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new private mapping at an address the kernel chooses touches no memory in use.
        let base = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE)?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, size, end: end.min(size as u64), read_only: Vec::new() })
    }

    /// Where the mapping begins in this process, for KVM.
    pub(crate) fn host_address(&self) -> u64 {
        self.base.as_ptr().addr() as u64
    }

    /// Bytes mapped.
    pub(crate) fn size(&self) -> u64 {
        self.size as u64
    }

    /// Where the guest's own memory ends: what it is told as its size.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// All of the memory, to fill before the guest first runs and before any of it is protected.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has `size` bytes; `&mut self` proves that no guest, ring or other slice exists yet, as all of those
        // borrow this value.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.size) }
    }

    /// Takes the right to write a range away from the guest and, for its hypercalls, from the tender. The range is widened to whole pages.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if the range is not in memory; the host's error if it refuses.
    pub(crate) fn protect_read_only(&mut self, addresses: Range<u64>) -> io::Result<()> {
        let start = addresses.start / PAGE_SIZE * PAGE_SIZE;
        let end = addresses.end.checked_next_multiple_of(PAGE_SIZE).ok_or(io::ErrorKind::InvalidInput)?;
        let Some(length) = end.checked_sub(start).filter(|_| end <= self.size()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: the pages are inside the mapping, checked above, and `&mut self` proves that nobody relies on writing them.
        unsafe { rustix::mm::mprotect(self.at(start).cast::<c_void>(), length as usize, MprotectFlags::READ)? };
        self.read_only.push(start..end);
        Ok(())
    }

    /// Copies a structure out of guest memory.
    ///
    /// # Errors
    /// [`PointerError::Outside`].
    pub(crate) fn load<const N: usize>(&self, address: u64) -> Result<[u8; N], PointerError> {
        self.check(address, N as u64)?;
        let mut bytes = [0; N];
        for (offset, byte) in (0..).zip(&mut bytes) {
            // SAFETY: `check` has shown that all N bytes are in the mapping; an atomic of one byte is aligned anywhere.
            *byte = unsafe { AtomicU8::from_ptr(self.at(address + offset)) }.load(Ordering::Relaxed);
        }
        Ok(bytes)
    }

    /// Copies bytes into guest memory.
    ///
    /// # Errors
    /// [`PointerError`].
    pub(crate) fn store(&self, address: u64, bytes: &[u8]) -> Result<(), PointerError> {
        self.check_writable(address, bytes.len() as u64)?;
        for (offset, byte) in (0..).zip(bytes) {
            // SAFETY: `check_writable` has shown that all bytes are in the mapping and may be written.
            unsafe { AtomicU8::from_ptr(self.at(address + offset)) }.store(*byte, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Guest memory that a system call may read from.
    ///
    /// # Errors
    /// [`PointerError::Outside`].
    pub(crate) fn source(&self, address: u64, length: u64) -> Result<Source<'_>, PointerError> {
        self.check(address, length)?;
        Ok(Source { start: self.at(address), length: length as usize, memory: PhantomData })
    }

    /// Guest memory that a system call may write to.
    ///
    /// # Errors
    /// [`PointerError`].
    pub(crate) fn sink(&self, address: u64, length: u64) -> Result<Sink<'_>, PointerError> {
        self.check_writable(address, length)?;
        Ok(Sink { start: self.at(address), length: length as usize, memory: PhantomData })
    }

    /// A 32-bit cell shared with the guest. For the tender's own addresses, beyond [`end`](Self::end) too.
    ///
    /// # Errors
    /// [`PointerError::Outside`] if the cell is not in the mapping or not aligned.
    pub(crate) fn cell_u32(&self, address: u64) -> Result<&AtomicU32, PointerError> {
        let start = self.cell(address, size_of::<u32>() as u64)?;
        // SAFETY: `cell` has shown that the four bytes are in the mapping and aligned; they are borrowed from `self`.
        Ok(unsafe { AtomicU32::from_ptr(start.cast()) })
    }

    /// A 64-bit cell shared with the guest, as [`cell_u32`](Self::cell_u32).
    ///
    /// # Errors
    /// [`PointerError::Outside`] if the cell is not in the mapping or not aligned.
    pub(crate) fn cell_u64(&self, address: u64) -> Result<&AtomicU64, PointerError> {
        let start = self.cell(address, size_of::<u64>() as u64)?;
        // SAFETY: `cell` has shown that the eight bytes are in the mapping and aligned; they are borrowed from `self`.
        Ok(unsafe { AtomicU64::from_ptr(start.cast()) })
    }

    fn cell(&self, address: u64, length: u64) -> Result<*mut u8, PointerError> {
        let inside = address.checked_add(length).is_some_and(|end| end <= self.size());
        if inside && address.is_multiple_of(length) {
            Ok(self.at(address))
        } else {
            Err(PointerError::Outside { address, length, end: self.size() })
        }
    }

    fn check(&self, address: u64, length: u64) -> Result<(), PointerError> {
        match address.checked_add(length) {
            Some(end) if end <= self.end => Ok(()),
            _ => Err(PointerError::Outside { address, length, end: self.end }),
        }
    }

    fn check_writable(&self, address: u64, length: u64) -> Result<(), PointerError> {
        self.check(address, length)?;
        // An image has a handful of segments: no need for more than a list.
        let touches = |range: &Range<u64>| address < range.end && range.start < address + length;
        if self.read_only.iter().any(touches) {
            return Err(PointerError::ReadOnly { address, length });
        }
        Ok(())
    }

    /// Where a guest address is in this process; the caller has checked that it is in the mapping.
    fn at(&self, address: u64) -> *mut u8 {
        self.base.as_ptr().wrapping_add(address as usize)
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and everything that points into it borrows this value. Failure would leave it mapped.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.size) };
    }
}

/// Checked guest memory that the host reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    start: *const u8,
    length: usize,
    memory: PhantomData<&'a GuestMemory>,
}

impl Source<'_> {
    /// In bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// What remains after the first `count` bytes.
    pub(crate) fn skip(self, count: usize) -> Self {
        let count = count.min(self.length);
        Self { start: self.start.wrapping_add(count), length: self.length - count, ..self }
    }

    /// `write(2)`: how many bytes went.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn write(&self, descriptor: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: `start` and `length` were checked when this value was made, and the memory outlives it. The kernel only reads it.
        count(unsafe { libc::write(descriptor.as_raw_fd(), self.start.cast(), self.length) })
    }

    /// `pwrite(2)`: how many bytes went.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn write_at(&self, descriptor: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: as for `write`.
        count(unsafe { libc::pwrite64(descriptor.as_raw_fd(), self.start.cast(), self.length, offset) })
    }
}

/// Checked guest memory that the host writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sink<'a> {
    start: *mut u8,
    length: usize,
    memory: PhantomData<&'a GuestMemory>,
}

impl Sink<'_> {
    /// In bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// What remains after the first `count` bytes.
    pub(crate) fn skip(self, count: usize) -> Self {
        let count = count.min(self.length);
        Self { start: self.start.wrapping_add(count), length: self.length - count, ..self }
    }

    /// `read(2)`: how many bytes came.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn read(&self, descriptor: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: `start` and `length` were checked when this value was made, and the memory outlives it. It is writable, belongs to
        // the guest, and no reference into it exists.
        count(unsafe { libc::read(descriptor.as_raw_fd(), self.start.cast(), self.length) })
    }

    /// `pread(2)`: how many bytes came.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn read_at(&self, descriptor: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: as for `read`.
        count(unsafe { libc::pread64(descriptor.as_raw_fd(), self.start.cast(), self.length, offset) })
    }
}

fn count(returned: isize) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 64 * PAGE_SIZE;
    const END: u64 = 60 * PAGE_SIZE;
    const TEXT: Range<u64> = 16 * PAGE_SIZE..20 * PAGE_SIZE;

    fn memory() -> GuestMemory {
        let mut memory = GuestMemory::new(SIZE, END).unwrap();
        memory.protect_read_only(TEXT).unwrap();
        memory
    }

    /// Addresses and lengths near every boundary, and anywhere.
    fn number() -> impl Strategy<Value = u64> {
        let near = |value: u64| (0_u64..9).prop_map(move |delta| value.wrapping_add(delta).wrapping_sub(4));
        prop_oneof![
            near(0),
            near(TEXT.start),
            near(TEXT.end),
            near(END),
            near(SIZE),
            near(u64::MAX),
            near(1 << 32),
            near(1 << 63),
            0..SIZE,
            any::<u64>()
        ]
    }

    proptest! {
        #[test]
        fn a_pointer_is_accepted_exactly_if_every_byte_is_the_guests(address in number(), length in number()) {
            let memory = memory();
            let end = u128::from(address) + u128::from(length);
            let inside = end <= u128::from(END);
            let in_text = length > 0 && address < TEXT.end && u128::from(TEXT.start) < end;
            prop_assert_eq!(memory.source(address, length).is_ok(), inside);
            if !(length == 0 && TEXT.contains(&address)) {
                prop_assert_eq!(memory.sink(address, length).is_ok(), inside && !in_text);
            }
            prop_assert_eq!(memory.load::<16>(address).is_ok(), u128::from(address) + 16 <= u128::from(END));
        }

        #[test]
        fn what_is_stored_is_loaded(address in 0..TEXT.start - 8, value: [u8; 8]) {
            let memory = memory();
            memory.store(address, &value).unwrap();
            prop_assert_eq!(memory.load::<8>(address).unwrap(), value);
        }

        #[test]
        fn cells_are_inside_and_aligned(address in number()) {
            let memory = memory();
            let inside = |length: u64| address.is_multiple_of(length) && u128::from(address) + u128::from(length) <= u128::from(SIZE);
            prop_assert_eq!(memory.cell_u32(address).is_ok(), inside(4));
            prop_assert_eq!(memory.cell_u64(address).is_ok(), inside(8));
        }
    }

    #[test]
    fn read_only_memory_refuses_a_store() {
        let memory = memory();
        let address = TEXT.end - 1;
        assert_eq!(memory.store(address, &[1, 2]), Err(PointerError::ReadOnly { address, length: 2 }));
        assert_eq!(memory.load::<2>(address), Ok([0, 0]));
    }

    #[test]
    fn ranges_outside_memory_cannot_be_protected() {
        let mut memory = memory();
        assert!(memory.protect_read_only(0..SIZE + 1).is_err());
        assert!(memory.protect_read_only(0..u64::MAX).is_err());
    }

    #[test]
    fn skipping_stays_inside() {
        let memory = memory();
        let source = memory.source(0, 10).unwrap();
        assert_eq!(source.skip(4).len(), 6);
        assert_eq!(source.skip(11).len(), 0);
        assert_eq!(memory.sink(0, 10).unwrap().skip(usize::MAX).len(), 0);
    }
}
