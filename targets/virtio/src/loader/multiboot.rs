//! Multiboot 1 (Multiboot Specification 0.6.96; sections are named where they are used), for loaders that know no PVH, such as GRUB.
//!
//! The image's header asks for the whole file at the image's address (section 3.1.3): not all loaders know 64-bit ELF files. It stands in the last 32 of the
//! 8192 bytes that a header may stand in. QEMU, which prefers multiboot to PVH, looks for one with the 48 bytes of all fields: it goes on to PVH, with
//! which a microvm learns of its devices. The header itself is `image.ld`'s.

use core::arch::naked_asm;
use core::ops::Range;

use super::{LoaderError, MAX_ENTRIES, Map, Reach, Said, long, word};
use crate::entry::{self, BY_MULTIBOOT};

/// Bytes of the information up to the loader's name (section 3.3).
const INFO_SIZE: usize = 68;

/// Bits of its flags: the amounts of memory, the command line, the memory map and the loader's name are there.
const HAS_AMOUNTS: u32 = 1 << 0;
const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MAP: u32 = 1 << 6;
const HAS_NAME: u32 = 1 << 9;

/// Where the second amount of memory begins, which is in KiB.
const UPPER_MEMORY: u64 = 1 << 20;

/// Bytes of an entry of the memory map without those that later versions may add.
const ENTRY_SIZE: usize = 24;

/// The type of memory that may be used.
const RAM: u32 = 1;

/// Fields of an ELF file's header and of its program headers, and the type of a segment that is loaded (System V ABI, chapters 4 and 5).
const HEADERS: usize = 32;
const HEADER_COUNT: usize = 56;
const HEADER_SIZE: usize = 56;
const LOAD: u32 = 1;
const FILE_OFFSET: usize = 8;
const ADDRESS: usize = 16;
const FILE_SIZE: usize = 32;
const MEMORY_SIZE: usize = 40;

/// What the first instructions of an image jump to where a multiboot loader starts it: puts the segments in their places, the last one first as all
/// go up, and fills what is not in the file with zeros. The first segment, with the headers and this code, is in its place.
///
/// # Safety
/// As [`entry::enter`], but with the address of the file in EAX and that of the program in EBP. No stack is used: ESP is a register as others.
#[unsafe(naked)]
pub unsafe extern "C" fn enter() -> ! {
    naked_asm!(
        ".code32",
        "cld",
        "mov esp, eax",
        "movzx edx, word ptr [esp + {header_count}]",
        "imul edx, edx, {header_size}",
        "add edx, [esp + {headers}]",
        "add edx, esp",
        "2:",
        "sub edx, {header_size}",
        "cmp dword ptr [edx], {load}",
        "jne 4f",
        "mov ecx, [edx + {file_size}]",
        "mov esi, [edx + {file_offset}]",
        "add esi, esp",
        "mov edi, [edx + {address}]",
        "cmp esi, edi",
        "je 3f",
        "lea esi, [esi + ecx - 1]",
        "lea edi, [edi + ecx - 1]",
        "std",
        "rep movsb",
        "cld",
        "3:",
        "mov ecx, [edx + {file_size}]",
        "mov edi, [edx + {address}]",
        "add edi, ecx",
        "neg ecx",
        "add ecx, [edx + {memory_size}]",
        "xor eax, eax",
        "rep stosb",
        "4:",
        "mov eax, [esp + {headers}]",
        "add eax, esp",
        "cmp edx, eax",
        "ja 2b",
        "mov byte ptr [{by_multiboot}], 1",
        "mov esi, ebp",
        "jmp {enter}",
        ".code64",
        headers = const HEADERS,
        header_count = const HEADER_COUNT,
        header_size = const HEADER_SIZE,
        load = const LOAD,
        file_offset = const FILE_OFFSET,
        address = const ADDRESS,
        file_size = const FILE_SIZE,
        memory_size = const MEMORY_SIZE,
        by_multiboot = sym BY_MULTIBOOT,
        enter = sym entry::enter,
    )
}

/// Reads what the loader left at `info`, for an image that lies at `image`.
pub(super) fn read<'a>(info: u64, image: &Range<u64>, reach: Reach<'a>) -> Result<Said<'a>, LoaderError> {
    let info: &[u8; INFO_SIZE] = reach.exactly(info).map_err(|_| LoaderError::Unknown)?;
    let flags = word(info, 0);
    let text = |flag: u32, at: usize| if flags & flag != 0 { reach.text(word(info, at).into()) } else { Ok(&[][..]) };
    let command_line = without_name(text(HAS_COMMAND_LINE, 16)?, text(HAS_NAME, 64)?);
    let mut map = Map::new();
    if flags & HAS_MAP != 0 {
        let (mut left, mut at) = (u64::from(word(info, 44)), u64::from(word(info, 48)));
        for _ in 0..MAX_ENTRIES {
            if left < ENTRY_SIZE as u64 {
                break;
            }
            let entry: &[u8; ENTRY_SIZE] = reach.exactly(at)?;
            map.add(long(entry, 4), long(entry, 12), word(entry, 20) == RAM);
            // The size does not count itself.
            let size = u64::from(word(entry, 0)) + 4;
            (left, at) = (left.saturating_sub(size), at + size);
        }
    } else if flags & HAS_AMOUNTS != 0 {
        map.add(UPPER_MEMORY, u64::from(word(info, 8)) << 10, true);
    } else {
        return Err(LoaderError::NoMemoryMap);
    }
    let memory = map.around(image).ok_or(LoaderError::NoMemory)?;
    Ok(Said { memory, high: map.high(), command_line, root_pointer: 0 })
}

/// The command line begins with the file's name, up to a space (section 3.3), but for GRUB 2's, which calls itself `GRUB` and a version.
fn without_name<'a>(line: &'a [u8], loader: &[u8]) -> &'a [u8] {
    if loader.strip_prefix(b"GRUB ").is_some_and(|version| !version.starts_with(b"0.")) {
        return line;
    }
    let end = line.iter().position(|byte| *byte == b' ').map_or(line.len(), |space| space + 1);
    &line[end..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const IMAGE: Range<u64> = 0x10_0000..0x20_0000;

    /// Information at 0x1000 with everything: a map of low memory, of memory from 1 MiB on (in a longer entry) and above 4 GiB; a line, and a name.
    fn memory(flags: u32, line: &[u8], name: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x4000];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        for (at, value) in [(0, flags), (8, 31 << 10), (16, 0x2000), (44, 24 + 28 + 24), (48, 0x1100), (64, 0x3000)] {
            put(0x1000 + at, &u32::to_le_bytes(value));
        }
        let mut at = 0x1100;
        for (size, start, end) in [(20_u32, 0, 0x9_fc00), (24, 0x10_0000, 64 << 20), (20, 4 << 30, 6 << 30)] {
            put(at, &size.to_le_bytes());
            put(at + 4, &u64::to_le_bytes(start));
            put(at + 12, &u64::to_le_bytes(end - start));
            put(at + 20, &RAM.to_le_bytes());
            at += size as usize + 4;
        }
        put(0x2000, line);
        put(0x3000, name);
        bytes
    }

    fn read_from(bytes: &[u8]) -> Result<Said<'_>, LoaderError> {
        read(0x1000, &IMAGE, Reach([(0, bytes), (0, &[])]))
    }

    const ALL: u32 = HAS_AMOUNTS | HAS_COMMAND_LINE | HAS_MAP | HAS_NAME;

    #[test]
    fn memory_and_command_line_are_found() {
        let bytes = memory(ALL, b"/boot/image --a=1 b\0c", b"qemu\0");
        let expected = Said { memory: 64 << 20, high: Some(4 << 30..6 << 30), command_line: b"--a=1 b", root_pointer: 0 };
        assert_eq!(read_from(&bytes), Ok(expected.clone()));
        assert_eq!(read_from(&memory(ALL, b"--a=1 b\0", b"GRUB 2.06\0")), Ok(expected));
        let amounts = Said { memory: 32 << 20, high: None, command_line: b"", root_pointer: 0 };
        assert_eq!(read_from(&memory(HAS_AMOUNTS, b"a b\0", b"")), Ok(amounts));
    }

    #[test]
    fn the_files_name_is_no_argument() {
        for (line, loader, rest) in [
            (&b"image"[..], &b"qemu"[..], &b""[..]),
            (b"image ", b"", b""),
            (b"image --a", b"GRUB 0.97", b"--a"),
            (b"--a --b", b"GRUB 2.12~rc1", b"--a --b"),
            (b"", b"", b""),
        ] {
            assert_eq!(without_name(line, loader), rest);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = memory(ALL, b"\0", b"\0");
        let changed = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes
        };
        assert_eq!(read_from(&good[..0x1010]), Err(LoaderError::Unknown));
        assert_eq!(read_from(&changed(0x1000, &[0])), Err(LoaderError::NoMemoryMap));
        assert_eq!(read_from(&changed(0x1010, &[0xff; 4])), Err(LoaderError::OutOfReach(0xffff_ffff)));
        assert_eq!(read_from(&changed(0x1030, &[0xff; 4])), Err(LoaderError::OutOfReach(0xffff_ffff)));
        assert_eq!(read_from(&changed(0x1118 + 20, &[2])), Err(LoaderError::NoMemory));
        // Entries of no length are no endless walk.
        assert_eq!(read_from(&changed(0x1100, &[0; 8])), Err(LoaderError::NoMemory));
    }

    proptest! {
        #[test]
        fn nothing_that_a_loader_says_is_followed_out_of_reach(
            changes in prop::collection::vec((0x1000_usize..0x1200, any::<u8>()), 0..40), info in prop_oneof![Just(0x1000_u64), any::<u64>()],
        ) {
            let mut bytes = memory(ALL, b"line\0", b"name\0");
            for (at, value) in changes {
                bytes[at] = value;
            }
            let _ = read(info, &IMAGE, Reach([(0, &bytes), (0, &[])]));
        }
    }
}
