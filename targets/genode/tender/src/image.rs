//! An image for Genode: a shared object within the limits of Genode's dynamic linker and of Solo5 0.6's library.
//!
//! Where the limits come from: `base/src/lib/ldso` of Genode (program headers, rights, tags, relocations), `bindings/genode` of Solo5 0.6.9 (names,
//! manifest).

use core::ops::Range;

use fogbow_tender::manifest::{DeviceKind, Manifest};
use fogbow_tender::memory::GuestMemory;

use crate::ImageError;

/// The library that an image is linked against: a ROM module of this name.
pub const LIBRARY: &str = "solo5.lib.so";
/// What an image may import from [`LIBRARY`]: the functions of Solo5 0.6.9's `solo5.h`.
pub const LIBRARY_FUNCTIONS: [&str; 13] = [
    "solo5_exit",
    "solo5_abort",
    "solo5_console_write",
    "solo5_clock_monotonic",
    "solo5_clock_wall",
    "solo5_yield",
    "solo5_net_acquire",
    "solo5_net_read",
    "solo5_net_write",
    "solo5_block_acquire",
    "solo5_block_read",
    "solo5_block_write",
    "solo5_set_tls_base",
];
/// What an image may import from Genode's `ld.lib.so`, which is always there.
pub const LINKER_FUNCTIONS: [&str; 5] = ["memcpy", "memmove", "memset", "__stack_chk_guard", "__stack_chk_fail"];
/// Where the binary of a component is loaded.
pub const BASE: u64 = 0x100_0000;
/// Bytes of a page.
pub const PAGE: u64 = 0x1000;
/// Program headers that Genode's linker has room for.
pub const MAX_PROGRAM_HEADERS: u16 = 10;
/// The greatest handle that the library can signal: a bit of an `int`, whose highest is its sign.
pub const MAX_NET_HANDLE: usize = 30;
/// Bytes of address space that an image may take; the linker's own area is far larger.
const MAX_SIZE: u64 = 1 << 30;

/// What the library calls.
const MAIN: &str = "solo5_app_main";
/// What it reads the manifest from.
const NOTE: &str = "__solo5_mft1_note";

/// A part of the image's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its bytes in memory.
    pub memory: Range<u64>,
    /// Its bytes in the file.
    pub file: Range<usize>,
    /// True when it is written and not executed, false when it is the other way round.
    pub is_writable: bool,
}

impl Segment {
    /// The pages that it lies on.
    #[must_use]
    pub fn pages(&self) -> Range<u64> {
        self.memory.start / PAGE * PAGE..self.memory.end.next_multiple_of(PAGE)
    }
}

/// A checked image.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    file: &'a [u8],
    segments: [Segment; 2],
    symbols: Vec<Symbol<'a>>,
    relocations: Vec<Relocation>,
    manifest: Manifest,
    main: u64,
}

#[derive(Clone, Copy, Debug)]
struct Symbol<'a> {
    name: &'a str,
    /// `STT_*`.
    kind: u8,
    /// `None` for an import.
    value: Option<u64>,
    size: u64,
}

#[derive(Clone, Copy, Debug)]
struct Relocation {
    address: u64,
    /// `R_X86_64_*`.
    kind: u32,
    symbol: usize,
    addend: u64,
}

/// `R_X86_64_*` of the System V ABI for x86-64.
mod relocation {
    pub(super) const ABSOLUTE: u32 = 1;
    pub(super) const COPY: u32 = 5;
    pub(super) const GLOBAL_DATA: u32 = 6;
    pub(super) const JUMP_SLOT: u32 = 7;
    pub(super) const RELATIVE: u32 = 8;
}

/// `DT_*` of the System V ABI.
mod tag {
    pub(super) const NEEDED: u64 = 1;
    pub(super) const PLT_SIZE: u64 = 2;
    pub(super) const HASH: u64 = 4;
    pub(super) const STRINGS: u64 = 5;
    pub(super) const SYMBOLS: u64 = 6;
    pub(super) const RELOCATIONS: u64 = 7;
    pub(super) const RELOCATIONS_SIZE: u64 = 8;
    pub(super) const STRINGS_SIZE: u64 = 10;
    pub(super) const INIT: u64 = 12;
    pub(super) const TEXT_RELOCATIONS: u64 = 22;
    pub(super) const PLT_RELOCATIONS: u64 = 23;
    pub(super) const INIT_ARRAY: u64 = 25;
}

impl<'a> Image<'a> {
    /// Checks an image.
    ///
    /// # Errors
    /// One of [`ImageError`], for the first limit that it does not keep.
    pub fn read(file: &'a [u8]) -> Result<Self, ImageError> {
        let headers = program_headers(file)?;
        let segments = segments(file, &headers)?;
        refuse_abi_note(file, &headers)?;
        let (_, dynamic) = headers.iter().find(|(kind, _)| *kind == 2).ok_or(ImageError::Missing("dynamic section (PT_DYNAMIC)"))?;
        let dynamic = Dynamic::read(file, dynamic, &segments)?;
        let symbols = dynamic.symbols()?;
        dynamic.check_needed()?;
        let relocations = dynamic.relocations(&symbols, &segments[1])?;
        let mut image = Self { file, segments, symbols, relocations, manifest: Manifest::default(), main: 0 };
        image.check_imports()?;
        image.main = image.export(MAIN, 2)?.0;
        image.manifest = image.read_manifest()?;
        Ok(image)
    }

    /// The devices that it asks for.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its two segments, code and constants first.
    #[must_use]
    pub fn segments(&self) -> &[Segment; 2] {
        &self.segments
    }

    /// The addresses that it takes, in whole pages.
    #[must_use]
    pub fn addresses(&self) -> Range<u64> {
        self.segments[0].pages().start..self.segments[1].pages().end
    }

    /// Copies the segments into `memory`, relocates them, with `resolve` for the addresses of imports, and gives the address of `solo5_app_main`.
    ///
    /// # Errors
    /// [`ImageError::Outside`] when `memory` does not have all of [`addresses`](Self::addresses); [`ImageError::Import`].
    pub fn load(&self, memory: &mut GuestMemory<'_>, resolve: impl Fn(&str) -> Option<u64>) -> Result<u64, ImageError> {
        for segment in &self.segments {
            let start = segment.memory.start;
            let place = memory.slice_mut(start..start + segment.file.len() as u64).ok_or(ImageError::Outside("segment"))?;
            place.copy_from_slice(&self.file[segment.file.clone()]);
        }
        for relocation in &self.relocations {
            let symbol = || {
                let symbol = self.symbols.get(relocation.symbol).ok_or(ImageError::Outside("symbol"))?;
                let address = symbol.value.or_else(|| resolve(symbol.name));
                address.ok_or_else(|| ImageError::Import(symbol.name.to_owned()))
            };
            let value = match relocation.kind {
                // Loaded where it was linked for.
                relocation::RELATIVE => relocation.addend,
                relocation::ABSOLUTE => symbol()?.wrapping_add(relocation.addend),
                relocation::GLOBAL_DATA | relocation::JUMP_SLOT => symbol()?,
                // A copy of a variable of the library, which exports none.
                kind => return Err(ImageError::Relocation { kind, address: relocation.address }),
            };
            let place =
                memory.slice_mut(relocation.address..relocation.address + 8).ok_or(ImageError::RelocationPlace(relocation.address))?;
            place.copy_from_slice(&value.to_le_bytes());
        }
        Ok(self.main)
    }

    fn check_imports(&self) -> Result<(), ImageError> {
        let allowed = |name: &str| LIBRARY_FUNCTIONS.contains(&name) || LINKER_FUNCTIONS.contains(&name);
        match self.symbols.iter().find(|symbol| symbol.value.is_none() && !symbol.name.is_empty() && !allowed(symbol.name)) {
            Some(symbol) => Err(ImageError::Import(symbol.name.to_owned())),
            None => Ok(()),
        }
    }

    /// Address and size of an exported symbol.
    fn export(&self, name: &'static str, kind: u8) -> Result<(u64, u64), ImageError> {
        let symbol = self.symbols.iter().find(|symbol| symbol.name == name && symbol.kind == kind);
        symbol.and_then(|symbol| Some((symbol.value?, symbol.size))).ok_or(ImageError::Export(name))
    }

    fn read_manifest(&self) -> Result<Manifest, ImageError> {
        let (address, size) = self.export(NOTE, 1)?;
        let note = at(self.file, &self.segments, address, size).ok_or(ImageError::Outside("manifest note"))?;
        // Sizes of name and descriptor, type "MFT1", the name, and padding that counts as part of the descriptor: `struct mft1_note`.
        let expected = [6, (size.saturating_sub(20)) as u32, 0x3154_464d].map(u32::to_le_bytes).concat();
        if note.len() < 24 || note[..12] != expected || note[12..20] != *b"Solo5\0\0\0" {
            return Err(ImageError::ManifestNote);
        }
        let manifest = Manifest::parse(&note[24..])?;
        let mut devices = (1..).zip(manifest.devices());
        match devices.find(|(handle, device)| device.kind == DeviceKind::Net && *handle > MAX_NET_HANDLE) {
            Some((handle, device)) => Err(ImageError::NetHandle(device.name.to_string(), handle)),
            None => Ok(manifest),
        }
    }
}

/// A program header: type and the rest.
type Header = (u32, ProgramHeader);

#[derive(Clone, Copy, Debug)]
struct ProgramHeader {
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
    alignment: u64,
}

fn program_headers(file: &[u8]) -> Result<Vec<Header>, ImageError> {
    // Class 64, little-endian, version 1; machine x86-64 (62).
    if file.get(..7) != Some(b"\x7fELF\x02\x01\x01") || number::<2>(file, 18) != Some(62) {
        return Err(ImageError::NotElf);
    }
    let field = |offset| number::<8>(file, offset).ok_or(ImageError::NotElf);
    let half = |offset| number::<2>(file, offset).map(|value| value as u16).ok_or(ImageError::NotElf);
    if half(16)? != 3 {
        return Err(ImageError::Type(half(16)?));
    }
    if field(24)? != 0 {
        return Err(ImageError::Entry(field(24)?));
    }
    let (place, size, count) = (field(32)?, half(54)?, half(56)?);
    if count > MAX_PROGRAM_HEADERS {
        return Err(ImageError::ProgramHeaders(count));
    }
    if size != 56 {
        return Err(ImageError::NotElf);
    }
    let headers = (0..usize::from(count)).map(|index| {
        let start = usize::try_from(place).ok()?.checked_add(index * 56)?;
        let header = file.get(start..)?.first_chunk::<56>()?;
        let word = |offset| number::<8>(header, offset);
        let header = ProgramHeader {
            flags: number::<4>(header, 4)? as u32,
            offset: word(8)?,
            address: word(16)?,
            file_size: word(32)?,
            memory_size: word(40)?,
            alignment: word(48)?,
        };
        Some((number::<4>(file, start)? as u32, header))
    });
    headers.collect::<Option<_>>().ok_or(ImageError::Outside("program header table"))
}

fn segments(file: &[u8], headers: &[Header]) -> Result<[Segment; 2], ImageError> {
    for (kind, _) in headers {
        match kind {
            3 => return Err(ImageError::Forbidden("a program interpreter (PT_INTERP)")),
            7 => return Err(ImageError::Forbidden("thread-local storage (PT_TLS)")),
            _ => {}
        }
    }
    let loads: Vec<&ProgramHeader> = headers.iter().filter(|(kind, _)| *kind == 1).map(|(_, header)| header).collect();
    // PF_X, PF_W, PF_R.
    if loads.iter().map(|header| header.flags).ne([5, 6]) {
        let letter = |flags: u32, bit, letter| if flags & bit != 0 { letter } else { '-' };
        let rights = |header: &&ProgramHeader| [letter(header.flags, 4, 'R'), letter(header.flags, 2, 'W'), letter(header.flags, 1, 'X')];
        return Err(ImageError::Rights(loads.iter().map(|header| String::from_iter(rights(header))).collect::<Vec<_>>().join(", ")));
    }
    if loads[0].address != BASE {
        return Err(ImageError::Base(loads[0].address));
    }
    let mut end = BASE;
    let mut segment = |header: &ProgramHeader| {
        let ProgramHeader { address, offset, alignment, file_size, memory_size, .. } = *header;
        if alignment == 0 || alignment % PAGE != 0 {
            return Err(ImageError::Alignment { address, alignment });
        }
        if address % PAGE != 0 || offset % PAGE != 0 {
            return Err(ImageError::PageStart { address, offset });
        }
        let memory_end = address.checked_add(memory_size).filter(|end| *end <= BASE + MAX_SIZE);
        let memory_end =
            memory_end.filter(|_| address >= end && memory_size > 0 && file_size <= memory_size).ok_or(ImageError::Size(address))?;
        end = memory_end.next_multiple_of(PAGE);
        let start = usize::try_from(offset).map_err(|_| ImageError::Outside("segment"))?;
        let file_end = offset.checked_add(file_size).and_then(|end| usize::try_from(end).ok()).filter(|end| *end <= file.len());
        let file = start..file_end.ok_or(ImageError::Outside("segment"))?;
        Ok(Segment { memory: address..memory_end, file, is_writable: header.flags & 2 != 0 })
    };
    Ok([segment(loads[0])?, segment(loads[1])?])
}

/// A target's note is the Solo5 tenders' way to know an image; the library has none.
fn refuse_abi_note(file: &[u8], headers: &[Header]) -> Result<(), ImageError> {
    for (_, header) in headers.iter().filter(|(kind, _)| *kind == 4) {
        let kind = header.offset.checked_add(8).and_then(|place| usize::try_from(place).ok()).and_then(|place| number::<4>(file, place));
        if kind.ok_or(ImageError::Outside("note"))? == 0x3149_4241 {
            return Err(ImageError::AbiNote);
        }
    }
    Ok(())
}

/// The dynamic section, with what it leads to.
struct Dynamic<'a, 's> {
    file: &'a [u8],
    segments: &'s [Segment; 2],
    /// Tags and values.
    entries: Vec<(u64, u64)>,
    strings: &'a [u8],
}

impl<'a, 's> Dynamic<'a, 's> {
    fn read(file: &'a [u8], header: &ProgramHeader, segments: &'s [Segment; 2]) -> Result<Self, ImageError> {
        let outside = ImageError::Outside("dynamic section");
        let section = at(file, segments, header.address, header.file_size).ok_or(outside)?;
        let entries = section.as_chunks::<16>().0.iter().map_while(|entry| Some((number::<8>(entry, 0)?, number::<8>(entry, 8)?)));
        let entries: Vec<_> = entries.take_while(|(tag, _)| *tag != 0).collect();
        let mut dynamic = Self { file, segments, entries, strings: &[] };
        for (forbidden, name) in [
            (tag::INIT, "static constructors (DT_INIT), which nothing runs"),
            (tag::INIT_ARRAY, "static constructors (DT_INIT_ARRAY), which nothing runs"),
            (tag::TEXT_RELOCATIONS, "relocations of code (DT_TEXTREL)"),
        ] {
            if dynamic.get(forbidden).is_some() {
                return Err(ImageError::Forbidden(name));
            }
        }
        let (strings, size) =
            (dynamic.need(tag::STRINGS, "string table (DT_STRTAB)")?, dynamic.need(tag::STRINGS_SIZE, "string table's size")?);
        dynamic.strings = at(file, segments, strings, size).ok_or(ImageError::Outside("string table"))?;
        Ok(dynamic)
    }

    fn get(&self, tag: u64) -> Option<u64> {
        self.entries.iter().find(|(present, _)| *present == tag).map(|(_, value)| *value)
    }

    fn need(&self, tag: u64, name: &'static str) -> Result<u64, ImageError> {
        self.get(tag).ok_or(ImageError::Missing(name))
    }

    fn string(&self, offset: u64) -> Result<&'a str, ImageError> {
        let text = usize::try_from(offset).ok().and_then(|offset| self.strings.get(offset..));
        let text = text.and_then(|text| text.split(|byte| *byte == 0).next()).and_then(|text| core::str::from_utf8(text).ok());
        text.ok_or(ImageError::Outside("string"))
    }

    fn check_needed(&self) -> Result<(), ImageError> {
        let needed = self.entries.iter().filter(|(tag, _)| *tag == tag::NEEDED).map(|(_, offset)| self.string(*offset));
        let needed = needed.collect::<Result<Vec<_>, _>>()?;
        if needed == [LIBRARY] { Ok(()) } else { Err(ImageError::Needed(needed.join(", "))) }
    }

    /// All symbols: the hash table that Genode's linker looks names up in says how many there are.
    fn symbols(&self) -> Result<Vec<Symbol<'a>>, ImageError> {
        let hash = self.need(tag::HASH, "System V hash table (DT_HASH)")?;
        let header = at(self.file, self.segments, hash, 8).ok_or(ImageError::Outside("hash table"))?;
        let (buckets, count) = (number::<4>(header, 0).unwrap_or(0), number::<4>(header, 4).unwrap_or(0));
        at(self.file, self.segments, hash, 8 + 4 * (buckets + count)).ok_or(ImageError::Outside("hash table"))?;
        let table = self.need(tag::SYMBOLS, "symbol table (DT_SYMTAB)")?;
        let table = at(self.file, self.segments, table, 24 * count).ok_or(ImageError::Outside("symbol table"))?;
        let symbols = table.as_chunks::<24>().0.iter().map(|entry| {
            let field = |offset| number::<8>(entry, offset).unwrap_or(0);
            let name = self.string(number::<4>(entry, 0).unwrap_or(0))?;
            let is_import = number::<2>(entry, 6) == Some(0);
            Ok(Symbol { name, kind: entry[4] & 15, value: (!is_import).then(|| field(8)), size: field(16) })
        });
        symbols.collect()
    }

    fn relocations(&self, symbols: &[Symbol<'_>], writable: &Segment) -> Result<Vec<Relocation>, ImageError> {
        let mut relocations = Vec::new();
        for (table, size) in [(tag::RELOCATIONS, tag::RELOCATIONS_SIZE), (tag::PLT_RELOCATIONS, tag::PLT_SIZE)] {
            let Some(table) = self.get(table) else { continue };
            let size = self.need(size, "size of a relocation table")?;
            let table = at(self.file, self.segments, table, size).ok_or(ImageError::Outside("relocation table"))?;
            for entry in table.as_chunks::<24>().0 {
                let field = |offset| number::<8>(entry, offset).unwrap_or(0);
                let (address, info, addend) = (field(0), field(8), field(16));
                let (kind, symbol) = (info as u32, (info >> 32) as usize);
                use relocation::{ABSOLUTE, COPY, GLOBAL_DATA, JUMP_SLOT, RELATIVE};
                if !matches!(kind, ABSOLUTE | COPY | GLOBAL_DATA | JUMP_SLOT | RELATIVE) {
                    return Err(ImageError::Relocation { kind, address });
                }
                if !writable.memory.contains(&address) || address.checked_add(8).is_none_or(|end| end > writable.memory.end) {
                    return Err(ImageError::RelocationPlace(address));
                }
                if symbol >= symbols.len() {
                    return Err(ImageError::Outside("symbol"));
                }
                relocations.push(Relocation { address, kind, symbol, addend });
            }
        }
        Ok(relocations)
    }
}

/// The bytes of the file that are loaded at these addresses.
fn at<'a>(file: &'a [u8], segments: &[Segment], address: u64, size: u64) -> Option<&'a [u8]> {
    segments.iter().find_map(|segment| {
        let start = usize::try_from(address.checked_sub(segment.memory.start)?).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        file.get(segment.file.clone())?.get(start..end)
    })
}

/// The little-endian number of `N` bytes at `offset`.
fn number<const N: usize>(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.first_chunk::<N>()?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests;
