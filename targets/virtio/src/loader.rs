//! What the loader says: memory, command line, where ACPI is. One module for each protocol.
//!
//! All of it is input: addresses and lengths are checked against what can be read before they are followed.

use core::fmt;
use core::ops::Range;

use fogbow_x86::layout::HIGHEST;

pub(crate) mod multiboot;
pub(crate) mod pvh;

/// Entries of a memory map that are looked at.
const MAX_ENTRIES: u32 = 128;

/// The greatest length of a command line in bytes, its terminator included.
pub(crate) const COMMAND_LINE_SIZE: usize = 4096;

/// By which protocol an image was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Pvh,
    Multiboot,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pvh => "PVH",
            Self::Multiboot => "multiboot",
        })
    }
}

/// Why an image cannot start with what its loader says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoaderError {
    /// It is not where it should be, or not a start-of-day structure.
    Unknown,
    /// It has no memory map.
    NoMemoryMap,
    /// Something that it refers to lies where it cannot be read: at this address.
    OutOfReach(u64),
    /// The command line does not end.
    LongCommandLine,
    /// No memory in the map holds the image.
    NoMemory,
}

impl fmt::Display for LoaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("it was started neither by PVH nor by multiboot: use qemu-system-x86_64 -kernel, or GRUB's multiboot")
            }
            Self::NoMemoryMap => f.write_str(
                "the loader gives no memory map: it needs version 1 of PVH's start information (QEMU 4.0 or later), or multiboot 1",
            ),
            Self::OutOfReach(address) => {
                write!(f, "the loader's information at {address:#x} is out of reach: it should lie below 1 GiB, beside the image")
            }
            Self::LongCommandLine => write!(f, "the command line is longer than {} bytes: shorten it", COMMAND_LINE_SIZE - 1),
            Self::NoMemory => f.write_str("the loader's memory map has no memory where the image lies"),
        }
    }
}

impl core::error::Error for LoaderError {}

/// What the loader says, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    /// Where the memory ends that the image lies in.
    pub(crate) memory: u64,
    /// The largest piece of memory from 4 GiB on.
    pub(crate) high: Option<Range<u64>>,
    /// The command line, without its terminator.
    pub(crate) command_line: &'a [u8],
    /// The address of ACPI's root pointer; zero if the loader gives none.
    pub(crate) root_pointer: u64,
}

/// Memory that may be read: what lies below the image, and beyond it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach<'a>(pub(crate) [(u64, &'a [u8]); 2]);

impl<'a> Reach<'a> {
    /// All bytes from `address` on.
    fn from(self, address: u64) -> Result<&'a [u8], LoaderError> {
        let within = |(start, bytes): (u64, &'a [u8])| bytes.get(usize::try_from(address.checked_sub(start)?).ok()?..);
        self.0.into_iter().filter_map(within).find(|bytes| !bytes.is_empty()).ok_or(LoaderError::OutOfReach(address))
    }

    fn exactly<const SIZE: usize>(self, address: u64) -> Result<&'a [u8; SIZE], LoaderError> {
        self.from(address)?.first_chunk().ok_or(LoaderError::OutOfReach(address))
    }

    /// The text at `address`, which ends with a zero byte; none at address 0.
    fn text(self, address: u64) -> Result<&'a [u8], LoaderError> {
        if address == 0 {
            return Ok(&[]);
        }
        let bytes = self.from(address)?;
        let bytes = &bytes[..bytes.len().min(COMMAND_LINE_SIZE)];
        let length = bytes.iter().position(|byte| *byte == 0).ok_or(LoaderError::LongCommandLine)?;
        Ok(&bytes[..length])
    }
}

/// Reads what the loader left at `info`, for an image that lies at `image`.
///
/// # Errors
/// [`LoaderError`].
pub(crate) fn read<'a>(protocol: Protocol, info: u64, image: &Range<u64>, reach: Reach<'a>) -> Result<Said<'a>, LoaderError> {
    match protocol {
        Protocol::Pvh => pvh::read(info, image, reach),
        Protocol::Multiboot => multiboot::read(info, image, reach),
    }
}

/// What is looked for in a memory map: the piece that holds the image, and the largest from 4 GiB on.
struct Search<'a> {
    image: &'a Range<u64>,
    memory: Option<u64>,
    high: Option<Range<u64>>,
}

impl<'a> Search<'a> {
    const fn new(image: &'a Range<u64>) -> Self {
        Self { image, memory: None, high: None }
    }

    /// Looks at a piece of memory.
    fn see(&mut self, start: u64, size: u64) {
        let end = start.saturating_add(size);
        if start <= self.image.start && end >= self.image.end {
            self.memory = Some(end);
        }
        let length = |piece: &Range<u64>| piece.end - piece.start;
        let high = start.max(HIGHEST)..end;
        if high.start < high.end && self.high.as_ref().is_none_or(|found| length(found) < length(&high)) {
            self.high = Some(high);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_is_what_lies_beside_the_image() {
        let reach = Reach([(0x10, b"low\0"), (0x100, b"high")]);
        assert_eq!([reach.text(0), reach.text(0x11)], [Ok(&b""[..]), Ok(&b"ow"[..])]);
        assert_eq!(reach.exactly::<4>(0x100), Ok(b"high"));
        assert_eq!(reach.exactly::<4>(0x101), Err(LoaderError::OutOfReach(0x101)));
        assert_eq!(reach.text(0x100), Err(LoaderError::LongCommandLine));
        for address in [0xf, 0x14, 0x80, 0x104, u64::MAX] {
            assert_eq!(reach.from(address), Err(LoaderError::OutOfReach(address)));
        }
    }

    #[test]
    fn the_largest_piece_beyond_4_gib_counts() {
        let image = 0x10_0000..0x20_0000;
        let mut search = Search::new(&image);
        for (start, end) in [(0, 0x9_fc00), (0x10_0000, 3 << 30), (4 << 30, 5 << 30), (8 << 30, 16 << 30), (20 << 30, 21 << 30)] {
            search.see(start, end - start);
        }
        assert_eq!((search.memory, search.high.clone()), (Some(3 << 30), Some(8 << 30..16 << 30)));
        search.see(16 << 30, u64::MAX);
        assert_eq!(search.high, Some(16 << 30..u64::MAX));
    }
}
