//! Memory at start of day: what the tender handed over, and what is left for the heap.
//!
//! Addresses are those of `image.ld`: code, constants, stack, variables, and then the heap up to the end of memory. The heap begins at
//! `kernel_end` of the tender's boot information.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::ops::Range;

/// The page size of x86-64, in bytes.
pub const PAGE: usize = 4096;

/// `SPT_CMDLINE_SIZE` and `HVT_CMDLINE_SIZE`: the greatest length of a command line in bytes, its terminator included.
pub const COMMAND_LINE_SIZE: usize = 8192;

/// The least heap that an image starts with, in bytes.
pub const MIN_HEAP: usize = 64 * 1024;

/// Why an image cannot use the memory it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// Less than [`MIN_HEAP`] is left beside the image itself.
    TooSmall {
        /// The image's memory in bytes.
        memory: u64,
        /// Where the image itself ends.
        kernel_end: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { memory, kernel_end } => {
                // The 64 KiB of the heap on top, rounded up to the tender's unit.
                let needed = kernel_end.saturating_add(MIN_HEAP as u64).div_ceil(1 << 20);
                write!(f, "{memory} bytes of memory are too few, for the image itself ends at {kernel_end}: give the tender --mem={needed}")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

/// The addresses that the heap may have: from `kernel_end` to `memory`, in whole pages.
///
/// # Errors
/// [`LayoutError`].
pub fn heap(kernel_end: u64, memory: u64) -> Result<Range<usize>, LayoutError> {
    let too_small = LayoutError::TooSmall { memory, kernel_end };
    let start = usize::try_from(kernel_end).ok().and_then(|end| end.checked_next_multiple_of(PAGE)).ok_or(too_small)?;
    let end = usize::try_from(memory).map_err(|_| too_small)? & !(PAGE - 1);
    match end.checked_sub(start) {
        Some(size) if size >= MIN_HEAP => Ok(start..end),
        _ => Err(too_small),
    }
}

/// The bytes at `address`, `limit` at most, that lie within `memory`; `None` if there are none.
///
/// # Safety
/// All of `memory` is readable, and the bytes given are not changed as long as the result is used.
#[must_use]
pub unsafe fn bytes(address: u64, limit: usize, memory: Range<u64>) -> Option<&'static [u8]> {
    if !memory.contains(&address) {
        return None;
    }
    let length = usize::try_from(memory.end - address).ok()?.min(limit);
    let start = core::ptr::with_exposed_provenance(usize::try_from(address).ok()?);
    // SAFETY: the range lies within `memory`, which the caller promises to be readable and unchanged.
    Some(unsafe { core::slice::from_raw_parts(start, length) })
}

/// The text of a command line, up to its terminator. Where it is not UTF-8, each byte beyond ASCII becomes U+FFFD: simpler than to tell which are not, and
/// a kilobyte less in every image.
#[must_use]
pub fn command_line(bytes: &[u8]) -> String {
    let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let bytes = &bytes[..length];
    match core::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| if byte.is_ascii() { byte.into() } else { char::REPLACEMENT_CHARACTER }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_heap_takes_what_the_image_leaves() {
        assert_eq!(heap(0x15_0001, 2 << 20), Ok(0x15_1000..0x20_0000));
        assert_eq!(heap(0x15_0000, 512 << 20), Ok(0x15_0000..0x2000_0000));
    }

    #[test]
    fn too_little_memory_says_how_much_is_needed() {
        let error = heap(0x1f_8000, 2 << 20).unwrap_err();
        assert_eq!(error.to_string(), "2097152 bytes of memory are too few, for the image itself ends at 2064384: give the tender --mem=3");
        assert!(heap(u64::MAX, 2 << 20).is_err());
        assert!(heap(0x20_0001, 0x20_0000).is_err());
    }

    #[test]
    fn only_bytes_within_memory_are_given() {
        let memory = *b"0123456789";
        let start = (&raw const memory).expose_provenance() as u64;
        let range = start..start + 10;
        // SAFETY: `memory` is readable and lives longer than the slices.
        unsafe {
            assert_eq!(bytes(start + 2, 3, range.clone()), Some(&b"234"[..]));
            assert_eq!(bytes(start + 8, 100, range.clone()), Some(&b"89"[..]));
            assert_eq!(bytes(start + 10, 1, range.clone()), None);
            assert_eq!(bytes(start - 1, 1, range), None);
        }
    }

    #[test]
    fn a_command_line_ends_at_its_terminator_or_at_its_limit() {
        assert_eq!(command_line(b"--a=1 b\0junk"), "--a=1 b");
        assert_eq!(command_line(b"--a"), "--a");
        assert_eq!(command_line(b"\xff\0"), "\u{fffd}");
    }
}
