//! PVH: `struct hvm_start_info` in `xen/include/public/arch-x86/hvm/start_info.h` of Xen.

use core::ops::Range;

use super::{LoaderError, MAX_ENTRIES, Map, Reach, Said, long, word};

/// The note by which a loader finds where to begin in 32-bit mode: `XEN_ELFNOTE_PHYS32_ENTRY` (`xen/include/public/elfnote.h`).
///
/// Aligned to four bytes as notes are: loaders take the alignment from the program header.
#[derive(Debug)]
#[repr(C, packed(4))]
pub struct EntryNote {
    name_size: u32,
    description_size: u32,
    kind: u32,
    name: [u8; 4],
    entry: unsafe extern "C" fn() -> !,
}

impl EntryNote {
    /// The loader jumps to `entry`, code of 32 bits, with the address of its information in EBX.
    #[must_use]
    pub const fn new(entry: unsafe extern "C" fn() -> !) -> Self {
        Self { name_size: 4, description_size: 8, kind: 18, name: *b"Xen\0", entry }
    }
}

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;

/// Bytes of the structure, with the memory map that version 1 brought.
const INFO_SIZE: usize = 56;

/// Bytes of an entry of the memory map (`struct hvm_memmap_table_entry`).
const ENTRY_SIZE: usize = 24;

/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const RAM: u32 = 1;

/// Reads what the loader left at `info`, for an image that lies at `image`.
pub(super) fn read<'a>(info: u64, image: &Range<u64>, reach: Reach<'a>) -> Result<Said<'a>, LoaderError> {
    let info: &[u8; INFO_SIZE] = reach.exactly(info).map_err(|_| LoaderError::Unknown)?;
    if word(info, 0) != MAGIC {
        return Err(LoaderError::Unknown);
    }
    if word(info, 4) == 0 {
        return Err(LoaderError::NoMemoryMap);
    }
    let command_line = reach.text(long(info, 24))?;
    let (table, entries) = (long(info, 40), word(info, 48));
    let mut map = Map::new();
    for index in 0..entries.min(MAX_ENTRIES) {
        let entry: &[u8; ENTRY_SIZE] = reach.exactly(table.saturating_add(u64::from(index) * ENTRY_SIZE as u64))?;
        map.add(long(entry, 0), long(entry, 8), word(entry, 16) == RAM);
    }
    let memory = map.around(image).ok_or(LoaderError::NoMemory)?;
    Ok(Said { memory, high: map.high(), command_line, root_pointer: long(info, 32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::COMMAND_LINE_SIZE;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const IMAGE: Range<u64> = 0x10_0000..0x20_0000;

    /// Start information at 0x1000, with a map of one entry for low memory and one from 1 MiB to `memory`, and a command line.
    fn memory(memory: u64, line: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x4000];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0x1000, &MAGIC.to_le_bytes());
        put(0x1004, &1_u32.to_le_bytes());
        put(0x1018, &0x2000_u64.to_le_bytes());
        put(0x1020, &0xe_0014_u64.to_le_bytes());
        put(0x1028, &0x1100_u64.to_le_bytes());
        put(0x1030, &2_u32.to_le_bytes());
        for (index, (start, end)) in [(0, 0x9_fc00), (0x10_0000, memory)].into_iter().enumerate() {
            let at = 0x1100 + index * ENTRY_SIZE;
            put(at, &u64::to_le_bytes(start));
            put(at + 8, &u64::to_le_bytes(end - start));
            put(at + 16, &RAM.to_le_bytes());
        }
        put(0x2000, line);
        bytes
    }

    fn read_from(bytes: &[u8]) -> Result<Said<'_>, LoaderError> {
        read(0x1000, &IMAGE, Reach([(0, bytes), (0, &[])]))
    }

    #[test]
    fn memory_and_command_line_are_found() {
        let bytes = memory(64 << 20, b"--a=1 b\0c");
        assert_eq!(read_from(&bytes), Ok(Said { memory: 64 << 20, high: None, command_line: b"--a=1 b", root_pointer: 0xe_0014 }));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = memory(64 << 20, b"\0");
        let changed = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes
        };
        assert_eq!(read_from(&changed(0x1000, &[0])), Err(LoaderError::Unknown));
        assert_eq!(read_from(&good[..0x1010]), Err(LoaderError::Unknown));
        assert_eq!(read_from(&changed(0x1004, &[0])), Err(LoaderError::NoMemoryMap));
        assert_eq!(read_from(&changed(0x1018, &u64::MAX.to_le_bytes())), Err(LoaderError::OutOfReach(u64::MAX)));
        assert_eq!(read_from(&changed(0x1028, &(u64::MAX - 8).to_le_bytes())), Err(LoaderError::OutOfReach(u64::MAX - 8)));
        assert_eq!(read_from(&changed(0x1128, &[2])), Err(LoaderError::NoMemory));
        assert_eq!(read_from(&memory(0x1f_ffff, b"\0")), Err(LoaderError::NoMemory));
        assert_eq!(read_from(&memory(64 << 20, &[b'a'; COMMAND_LINE_SIZE])), Err(LoaderError::LongCommandLine));
    }

    proptest! {
        #[test]
        fn nothing_that_a_loader_says_is_followed_out_of_reach(
            changes in prop::collection::vec((0x1000_usize..0x1200, any::<u8>()), 0..40), info in prop_oneof![Just(0x1000_u64), any::<u64>()],
        ) {
            let mut bytes = memory(64 << 20, b"line\0");
            for (at, value) in changes {
                bytes[at] = value;
            }
            let _ = read(info, &IMAGE, Reach([(0, &bytes), (0, &[])]));
        }
    }
}
