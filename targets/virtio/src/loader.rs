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
            // QEMU 7.2's copies a command line of any length to 4096 bytes, with what it says behind them.
            Self::Unknown => {
                f.write_str("it was started neither by PVH nor by multiboot: use qemu-system-x86_64 -kernel, or GRUB's multiboot; ")?;
                write!(
                    f,
                    "or QEMU was given a command line longer than {} bytes, which destroys what it says: shorten it",
                    COMMAND_LINE_SIZE - 1
                )
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

/// A memory map: pieces of memory, and what is not to be used. Both may overlap and stand in any order; what anything says is not to be used is not.
struct Map {
    entries: [(Range<u64>, bool); MAX_ENTRIES as usize],
    count: usize,
}

impl Map {
    const fn new() -> Self {
        Self { entries: [const { (0..0, false) }; _], count: 0 }
    }

    /// Adds an entry of the loader's; those that are too many count as if they were not there.
    fn add(&mut self, start: u64, size: u64, is_memory: bool) {
        if let Some(entry) = self.entries.get_mut(self.count).filter(|_| size > 0) {
            *entry = (start..start.saturating_add(size), is_memory);
            self.count += 1;
        }
    }

    fn entries(&self, is_memory: bool) -> impl Iterator<Item = &Range<u64>> {
        self.entries[..self.count].iter().filter(move |entry| entry.1 == is_memory).map(|entry| &entry.0)
    }

    /// Where the memory ends that begins at `start`, as far as entries adjoin; `start` when there is none.
    fn end(&self, start: u64) -> u64 {
        let mut end = start;
        while let Some(next) = self.entries(true).find(|entry| (entry.start..entry.end).contains(&end)) {
            end = next.end;
        }
        end
    }

    /// Where the memory ends that `image` lies in. The loader knows why the image lies where it does.
    fn around(&self, image: &Range<u64>) -> Option<u64> {
        let end = self.end(image.start);
        let limits = self.entries(false).filter(|entry| entry.end > image.end).map(|entry| entry.start.max(image.end));
        Some(limits.fold(end, u64::min)).filter(|_| end >= image.end)
    }

    /// The largest piece of memory from 4 GiB on.
    fn high(&self) -> Option<Range<u64>> {
        let starts = self.entries(true).map(|entry| entry.start).chain(self.entries(false).map(|entry| entry.end));
        let piece = |start: u64| {
            let start = start.max(HIGHEST);
            let limits = self.entries(false).filter(|entry| entry.end > start).map(|entry| entry.start.max(start));
            start..limits.fold(self.end(start), u64::min)
        };
        starts.map(piece).filter(|piece| !piece.is_empty()).max_by_key(|piece| piece.end - piece.start)
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
    use proptest::prelude::*;

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

    const IMAGE: Range<u64> = 0x10_0000..0x20_0000;

    fn map(entries: &[(u64, u64, bool)]) -> Map {
        let mut map = Map::new();
        entries.iter().for_each(|(start, end, is_memory)| map.add(*start, end - start, *is_memory));
        map
    }

    #[test]
    fn the_largest_piece_beyond_4_gib_counts() {
        let pieces = [(0, 0x9_fc00), (0x10_0000, 3 << 30), (4 << 30, 5 << 30), (8 << 30, 16 << 30), (20 << 30, 21 << 30)];
        let mut map = map(&pieces.map(|(start, end)| (start, end, true)));
        assert_eq!((map.around(&IMAGE), map.high()), (Some(3 << 30), Some(8 << 30..16 << 30)));
        map.add(16 << 30, u64::MAX, true);
        assert_eq!(map.high(), Some(8 << 30..u64::MAX));
    }

    #[test]
    fn pieces_adjoin_and_what_is_not_to_be_used_is_not() {
        let adjoining = map(&[(2 << 20, 4 << 20, true), (3 << 20, 8 << 20, true), (0, 0x18_0000, true), (0x18_0000, 2 << 20, true)]);
        assert_eq!((adjoining.around(&IMAGE), adjoining.high()), (Some(8 << 20), None));
        // Tables in the middle of memory, below and beyond 4 GiB, said before and after.
        let tables = map(&[(6 << 20, 7 << 20, false), (0, 10 << 30, true), (5 << 30, 6 << 30, false), (3 << 30, 4 << 30, false)]);
        assert_eq!((tables.around(&IMAGE), tables.high()), (Some(6 << 20), Some(6 << 30..10 << 30)));
        // What is said of the place of the image itself, the loader has seen.
        let loaded = map(&[(0, 8 << 20, true), (0x10_0000, 0x18_0000, false)]);
        assert_eq!(loaded.around(&IMAGE), Some(8 << 20));
        let covered = map(&[(0, 8 << 20, true), (0, 8 << 20, false)]);
        assert_eq!(covered.around(&IMAGE), Some(IMAGE.end));
        assert_eq!(map(&[(0, 0x18_0000, true)]).around(&IMAGE), None);
        assert_eq!(map(&[]).around(&IMAGE), None);
    }

    proptest! {
        #[test]
        fn what_is_used_is_memory_and_nothing_else(entries in prop::collection::vec((0_u64..40, 0_u64..40, any::<bool>()), 0..20)) {
            const UNIT: u64 = 256 << 20;
            let mut map = Map::new();
            entries.iter().for_each(|(start, size, is_memory)| map.add(start * UNIT, size * UNIT, *is_memory));
            let has = |at: u64, is_memory| map.entries(is_memory).any(|entry| entry.contains(&at));
            let image = UNIT..2 * UNIT;
            if let Some(end) = map.around(&image) {
                prop_assert!((image.start..image.end).step_by(UNIT as usize).all(|at| has(at, true)));
                prop_assert!((image.end..end).step_by(UNIT as usize).all(|at| has(at, true) && !has(at, false)));
            }
            let largest = (0..80).fold((0, 0), |(most, row), unit: u64| {
                let at = unit * UNIT;
                let row = if at >= HIGHEST && has(at, true) && !has(at, false) { row + 1 } else { 0 };
                (row.max(most), row)
            });
            let high = map.high();
            prop_assert_eq!(high.as_ref().map_or(0, |high| (high.end - high.start) / UNIT), largest.0);
            prop_assert!(high.into_iter().flat_map(|high| high.step_by(UNIT as usize)).all(|at| has(at, true) && !has(at, false)));
        }
    }
}
