//! Filling the guest's memory before it starts: its size, its image, its boot information.

use fogbow_tender::boot::{BootError, Placed, place};
use fogbow_tender::elf::{Image, ImageError, Layout, ReadAt};
use fogbow_tender::memory::GuestMemory as LoaderMemory;
use std::ffi::OsString;
use std::io;

use crate::cpu::{BOOT_INFO, IMAGE_BASE, LARGE_PAGE, MAX_MEMORY, write_tables};
use crate::memory::GuestMemory;
use crate::ring;

/// Bytes of `struct hvt_boot_info` (`hvt_abi.h`).
const BOOT_INFO_SIZE: u64 = 56;
/// `HVT_FEATURE_RING_IO`.
const FEATURE_RING: u32 = 1 << 0;

/// How much memory a guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemorySize {
    /// What the guest is told: a multiple of [`LARGE_PAGE`].
    pub(crate) guest: u64,
    /// What is mapped: that, and room for the network ring above it.
    pub(crate) mapped: u64,
}

/// Why a guest's memory cannot be filled in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// More memory than the tables can map.
    #[error("guest memory size {0} bytes exceeds the max size {MAX_MEMORY} bytes: give at most --mem={max}", max = MAX_MEMORY >> 20)]
    TooMuchMemory(u64),
    /// The image cannot be loaded.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A segment's rights cannot be set.
    #[error("cannot set the rights of the guest's memory: {0}")]
    Rights(io::Error),
    /// Boot information does not fit.
    #[error(transparent)]
    Boot(#[from] BootError),
}

impl MemorySize {
    /// The size for `asked` bytes, rounded down to a multiple of 2 MiB (2 MiB at least), with a ring or without.
    ///
    /// # Errors
    /// [`LoadError::TooMuchMemory`].
    pub(crate) fn new(asked: u64, with_ring: bool) -> Result<Self, LoadError> {
        let guest = (asked / LARGE_PAGE * LARGE_PAGE).max(LARGE_PAGE);
        if guest > MAX_MEMORY {
            return Err(LoadError::TooMuchMemory(guest));
        }
        let ring = if with_ring { ring::SIZE.next_multiple_of(LARGE_PAGE) } else { 0 };
        // At the very limit the ring takes its room from the guest.
        let mapped = (guest + ring).min(MAX_MEMORY);
        Ok(Self { guest: mapped - ring, mapped })
    }

    /// Where the network ring is, if there is room for one.
    pub(crate) fn ring(self) -> Option<u64> {
        (self.guest < self.mapped).then_some(self.guest)
    }
}

/// Loads an image's segments, and writes the processor's tables.
///
/// # Errors
/// [`LoadError::Image`].
pub(crate) fn load<F: ReadAt + ?Sized>(memory: &mut GuestMemory, image: &Image<'_, F>) -> Result<Layout, LoadError> {
    let end = memory.end() as usize;
    let layout = image.load(&mut LoaderMemory::new(0, &mut memory.bytes_mut()[..end]))?;
    write_tables(memory);
    Ok(layout)
}

/// Takes the right to write away from all segments but the writable ones. (What a guest may execute is for its own tables to say: KVM
/// has no such rights on x86.)
///
/// # Errors
/// [`LoadError::Rights`].
pub(crate) fn protect(memory: &mut GuestMemory, layout: &Layout) -> Result<(), LoadError> {
    let read_only = layout.segments.iter().filter(|segment| !segment.protection.write);
    read_only.map(|segment| segment.pages.clone()).try_for_each(|pages| memory.protect_read_only(pages).map_err(LoadError::Rights))
}

/// Writes `struct hvt_boot_info`, and the manifest and the command line that it points to.
///
/// # Errors
/// [`LoadError::Boot`].
pub(crate) fn write_boot_info(
    memory: &mut GuestMemory,
    kernel_end: u64,
    cycle_frequency: u64,
    manifest: &[u8],
    arguments: &[OsString],
    ring: Option<u64>,
) -> Result<(), LoadError> {
    let memory_size = memory.end();
    let low = &mut memory.bytes_mut()[..IMAGE_BASE as usize];
    let Placed { manifest, command_line } = place(&mut LoaderMemory::new(0, low), BOOT_INFO + BOOT_INFO_SIZE, manifest, arguments)?;
    // The guest's own features, which share a word with the host's, are not for us to say.
    let features = ring.map_or(0, |_| u64::from(FEATURE_RING));
    let words = [memory_size, kernel_end, cycle_frequency, command_line, manifest, features, ring.unwrap_or(0)];
    for (index, word) in words.into_iter().enumerate() {
        let start = BOOT_INFO as usize + index * size_of::<u64>();
        low[start..start + size_of::<u64>()].copy_from_slice(&word.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_rounded_and_the_ring_comes_on_top() {
        let size = |asked, ring| MemorySize::new(asked, ring).map(|size| (size.guest >> 20, size.mapped >> 20)).ok();
        assert_eq!(size(1 << 20, false), Some((2, 2)));
        assert_eq!(size(5 << 20, false), Some((4, 4)));
        assert_eq!(size(5 << 20, true), Some((4, 6)));
        assert_eq!(size(MAX_MEMORY, false), Some((4096, 4096)));
        assert_eq!(size(MAX_MEMORY, true), Some((4094, 4096)));
        assert_eq!(size(MAX_MEMORY + LARGE_PAGE, false), None);
        assert_eq!(size(u64::MAX, true), None);
        assert_eq!(MemorySize::new(4 << 20, false).unwrap().ring(), None);
        assert_eq!(MemorySize::new(4 << 20, true).unwrap().ring(), Some(4 << 20));
    }

    #[test]
    fn boot_information_is_where_the_header_says() {
        let mut memory = GuestMemory::new(6 << 20, 4 << 20).unwrap();
        write_boot_info(&mut memory, 0x12_3000, 2_000_000_000, b"manifest", &["a".into(), "b".into()], Some(4 << 20)).unwrap();
        let word = |index: u64| u64::from_le_bytes(memory.load(BOOT_INFO + index * 8).unwrap());
        assert_eq!([word(0), word(1), word(2)], [4 << 20, 0x12_3000, 2_000_000_000]);
        assert_eq!(memory.load(word(3)).unwrap(), *b"a b\0");
        assert_eq!(memory.load(word(4)).unwrap(), *b"manifest");
        assert_eq!([word(5), word(6)], [1, 4 << 20]);
    }
}
