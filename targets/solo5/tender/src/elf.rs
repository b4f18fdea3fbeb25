//! An image as an ELF file: its headers, its notes, and its segments on the way into guest memory.
//!
//! [`Image::read`] takes in the headers alone; [`Image::layout`] checks where every segment would go without reading one;
//! [`Image::load`] reads each segment's bytes from the file straight into guest memory. Everything is checked before it is used, and on
//! the copy that was checked: a file that changes underneath can only change what the guest itself sees.
//!
//! The rules are those of Solo5 0.12.1's loader (`tenders/common/elf.c`), with these differences, all towards refusing earlier:
//! the entry point has to be inside an executable segment, the interpreter has to be `/nonexistent/solo5/`, and there is a limit to the
//! count of program headers. A segment with memory but no bytes in the file (`.bss` alone) counts like any other, where Solo5 leaves
//! it out of the end of the kernel.

use core::ops::Range;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::manifest::{self, Manifest, ManifestError};
use crate::memory::GuestMemory;

mod headers;

use headers::Header;
pub use headers::{MAX_PROGRAM_HEADERS, ProgramHeader, SegmentType};

/// The lowest address a segment may have: `HVT_GUEST_MIN_BASE` and `SPT_GUEST_MIN_BASE`.
pub const GUEST_MIN_BASE: u64 = 0x10_0000;
/// The page size that segments are aligned to and memory rights are given in.
pub const PAGE_SIZE: u64 = 0x1000;
/// The program interpreter every image names, so that no host starts it by mistake (`DECLARE_ELF_INTERP` in `elf_abi.h`).
pub const INTERPRETER: &[u8] = b"/nonexistent/solo5/";

/// `ABI1_NOTE_TYPE`.
const ABI_NOTE: u32 = 0x3149_4241;
/// `MFT1_NOTE_TYPE`.
const MANIFEST_NOTE: u32 = 0x3154_464d;
/// `ABI1_NOTE_NAME` and `MFT1_NOTE_NAME`, padded to four bytes.
const NOTE_NAME: &[u8; 8] = b"Solo5\0\0\0";
/// Bytes of the note's name that count, with its terminator.
const NOTE_NAME_SIZE: u32 = 6;
/// Bytes of an ELF note header without its name.
const NOTE_HEADER_SIZE: u64 = 12;
/// Bytes of a note header with the name above.
const SOLO5_NOTE_HEADER_SIZE: u64 = 20;
/// Bytes of `struct abi1_info`.
const ABI_INFO_SIZE: usize = 16;
/// `ABI1_NOTE_MAX_SIZE`.
const ABI_NOTE_MAX: u32 = 32;
/// Bytes between a manifest note's header and its `struct mft`, which is aligned to 8 bytes (`MFT1_NOTE_ALIGN`).
const MANIFEST_NOTE_PADDING: u64 = 4;
/// `MFT1_NOTE_MAX_SIZE`.
const MANIFEST_NOTE_MAX: u32 = (12 + manifest::MAX_ENTRIES * manifest::ENTRY_SIZE) as u32;

/// A file that can be read at any place.
pub trait ReadAt {
    /// Reads at most `buffer.len()` bytes from `offset`, as [`FileExt::read_at`] does.
    ///
    /// # Errors
    /// As the file gives them.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or(&[]);
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

/// The target an image is for: `enum abi_target` of `elf_abi.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the targets' own names")]
pub enum Target {
    Hvt = 1,
    Spt = 2,
    Virtio = 3,
    Muen = 4,
    Genode = 5,
    Xen = 6,
}

impl Target {
    /// The target's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hvt => "hvt",
            Self::Spt => "spt",
            Self::Virtio => "virtio",
            Self::Muen => "muen",
            Self::Genode => "genode",
            Self::Xen => "xen",
        }
    }

    fn from_abi(number: u32) -> Option<Self> {
        [Self::Hvt, Self::Spt, Self::Virtio, Self::Muen, Self::Genode, Self::Xen].into_iter().find(|target| *target as u32 == number)
    }
}

/// What an image's ABI note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abi {
    /// The target the image is for.
    pub target: Target,
    /// The version of that target's ABI.
    pub version: u32,
}

/// The rights a segment asks for on its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
}

/// A segment that has passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its program header's index.
    pub index: usize,
    /// Where its bytes are in the file.
    pub file_offset: u64,
    /// Where they go: inside `pages`.
    pub contents: Range<u64>,
    /// The whole pages it owns, contents and zeros; no other segment has any of them.
    pub pages: Range<u64>,
    /// The rights on those pages: never both `write` and `execute`.
    pub protection: Protection,
}

/// Where an image goes in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The address to start at: inside an executable segment.
    pub entry: u64,
    /// The address past the last page of the last segment: `kernel_end` of the boot information.
    pub end: u64,
    /// The segments in ascending order.
    pub segments: Vec<Segment>,
}

/// Why a file is not an image that can be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The host cannot read the file.
    #[error("cannot read at offset {offset:#x}: {source}")]
    Read {
        /// Where in the file.
        offset: u64,
        /// What the host says.
        source: io::Error,
    },
    /// The file ends early.
    #[error("{what} should be {size} bytes at offset {offset:#x}, and the file ends before: it is damaged, build or copy it again")]
    Truncated {
        /// What was to be read.
        what: String,
        /// Where in the file.
        offset: u64,
        /// Bytes wanted.
        size: u64,
    },
    /// The file header is not that of an x86-64 ELF executable.
    #[error("not an x86-64 unikernel image: {what} at offset {offset:#x}: give the path of a built image")]
    Header {
        /// The field that is wrong.
        what: &'static str,
        /// Where it is in the file.
        offset: u64,
    },
    /// The count of program headers is 0 or beyond [`MAX_PROGRAM_HEADERS`].
    #[error("{0} program headers, and 1 to {MAX_PROGRAM_HEADERS} are allowed (offset 0x38): rebuild the image")]
    ProgramHeaderCount(u16),
    /// The interpreter is missing or another: the file is an ordinary program.
    #[error("no program interpreter \"/nonexistent/solo5/\": this is not a unikernel image; build it for the hvt or spt target")]
    Interpreter,
    /// A segment breaks a rule.
    #[error("program header {index} (address {address:#x}): {problem}")]
    Segment {
        /// The program header's index.
        index: usize,
        /// Its address.
        address: u64,
        /// The rule broken.
        problem: SegmentProblem,
    },
    /// No segment has anything to load.
    #[error("no segment to load: the image is empty, rebuild it")]
    NothingToLoad,
    /// The entry point is outside the executable segments.
    #[error("entry point {0:#x} is not inside an executable segment: rebuild the image with the target's linker script")]
    Entry(u64),
    /// A note's size is wrong.
    #[error("program header {index}: note does not fall within valid size ({found} bytes, at most {limit}): rebuild the image")]
    NoteSize {
        /// The program header's index.
        index: usize,
        /// The size found.
        found: u64,
        /// The largest that is allowed there.
        limit: u64,
    },
    /// There is no such note.
    #[error("no Solo5 {0} note: this is not a unikernel image; build it for the hvt or spt target")]
    NoteMissing(&'static str),
    /// The ABI note names a target that does not exist.
    #[error("the ABI note names target {0}, which does not exist: rebuild the image")]
    UnknownTarget(u32),
    /// The image is for another target.
    #[error("the image is for {}, and this tender runs {} images: build it with --target {}", .found.name(), .wanted.name(), .wanted.name())]
    WrongTarget {
        /// What the image is for.
        found: Target,
        /// What is wanted.
        wanted: Target,
    },
    /// The image needs another version of the ABI.
    #[error("the image needs version {found} of the {} ABI, and this tender offers version {wanted}: rebuild the image", .target.name())]
    WrongVersion {
        /// The target.
        target: Target,
        /// What the image needs.
        found: u32,
        /// What is offered.
        wanted: u32,
    },
    /// The manifest is not one.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// The rule a segment breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentProblem {
    /// Starts under [`GUEST_MIN_BASE`].
    #[error("starts below {GUEST_MIN_BASE:#x}, the lowest address for an image: link it higher")]
    TooLow,
    /// Ends beyond guest memory.
    #[error("ends at {end:#x}, beyond the guest's memory of {memory_size:#x} bytes: give it --mem={} or more", .end.div_ceil(1 << 20))]
    TooHigh {
        /// Where it would end.
        end: u64,
        /// Where memory ends.
        memory_size: u64,
    },
    /// Address and size do not fit 64 bits.
    #[error("its address and size overflow: rebuild the image")]
    Overflow,
    /// More bytes in the file than in memory.
    #[error("{file_size:#x} bytes in the file but only {memory_size:#x} in memory: rebuild the image")]
    FileLarger {
        /// Bytes in the file.
        file_size: u64,
        /// Bytes in memory.
        memory_size: u64,
    },
    /// The alignment is no power of two or less than a page.
    #[error("its alignment is {0:#x}, which is not a power of two of at least {PAGE_SIZE:#x}: link with max-page-size=4096")]
    Alignment(u64),
    /// Comes before or shares a page with the one before it.
    #[error(
        "starts before the preceding segment's last page ends at {0:#x}: segments must be in ascending order, each on pages of its own"
    )]
    Overlap(u64),
    /// Both writable and executable.
    #[error("asks to be both writable and executable: link code and data into segments of their own")]
    WritableAndExecutable,
}

/// An image whose headers have been read.
#[derive(Debug)]
pub struct Image<'file, F: ?Sized> {
    file: &'file F,
    entry: u64,
    program_headers: Vec<ProgramHeader>,
}

impl<'file, F: ReadAt + ?Sized> Image<'file, F> {
    /// Reads the file header and the program headers, and checks that this is an ELF executable for x86-64.
    ///
    /// # Errors
    /// [`ImageError::Read`], [`ImageError::Truncated`], [`ImageError::Header`], [`ImageError::ProgramHeaderCount`].
    pub fn read(file: &'file F) -> Result<Self, ImageError> {
        let mut bytes = [0; headers::HEADER_SIZE];
        read_exact(file, &mut bytes, 0, || "the ELF header".to_owned())?;
        let header = Header::parse(&bytes)?;
        let mut table = vec![0; header.program_header_table_size()];
        read_exact(file, &mut table, header.program_headers_offset, || "the table of program headers".to_owned())?;
        let program_headers = table.chunks_exact(headers::PROGRAM_HEADER_SIZE).map(ProgramHeader::parse).collect();
        Ok(Self { file, entry: header.entry, program_headers })
    }

    /// The program headers as the file has them, not yet checked.
    #[must_use]
    pub fn program_headers(&self) -> &[ProgramHeader] {
        &self.program_headers
    }

    /// What the image's ABI note says.
    ///
    /// # Errors
    /// Those of reading; [`ImageError::NoteMissing`], [`ImageError::NoteSize`], [`ImageError::UnknownTarget`].
    pub fn abi(&self) -> Result<Abi, ImageError> {
        let note = self.note(ABI_NOTE, "ABI", ABI_NOTE_MAX, 0)?;
        let size = note.bytes.len() as u64;
        let info: &[u8; ABI_INFO_SIZE] =
            note.bytes.first_chunk().ok_or(ImageError::NoteSize { index: note.index, found: size, limit: ABI_INFO_SIZE as u64 })?;
        let number = headers::u32_at(info, 0);
        let target = Target::from_abi(number).ok_or(ImageError::UnknownTarget(number))?;
        Ok(Abi { target, version: headers::u32_at(info, 4) })
    }

    /// Checks that the image is for this target and this version of its ABI, and that no host would start it as a program.
    ///
    /// # Errors
    /// Those of [`abi`](Self::abi); [`ImageError::WrongTarget`], [`ImageError::WrongVersion`], [`ImageError::Interpreter`].
    pub fn require(&self, wanted: Abi) -> Result<(), ImageError> {
        let found = self.abi()?;
        if found.target != wanted.target {
            return Err(ImageError::WrongTarget { found: found.target, wanted: wanted.target });
        }
        if found.version != wanted.version {
            return Err(ImageError::WrongVersion { target: wanted.target, found: found.version, wanted: wanted.version });
        }
        self.require_interpreter()
    }

    /// The manifest that the image carries.
    ///
    /// # Errors
    /// Those of reading; [`ImageError::NoteMissing`], [`ImageError::NoteSize`], [`ImageError::Manifest`].
    pub fn manifest(&self) -> Result<Manifest, ImageError> {
        let note = self.note(MANIFEST_NOTE, "manifest", MANIFEST_NOTE_MAX, MANIFEST_NOTE_PADDING)?;
        Ok(Manifest::parse(&note.bytes)?)
    }

    /// Checks where every segment goes in a memory that ends at `memory_size`. Reads nothing.
    ///
    /// # Errors
    /// [`ImageError::Segment`], [`ImageError::NothingToLoad`], [`ImageError::Entry`].
    pub fn layout(&self, memory_size: u64) -> Result<Layout, ImageError> {
        let mut segments: Vec<Segment> = Vec::new();
        for (index, header) in self.program_headers.iter().enumerate() {
            if header.segment_type != SegmentType::LOAD || header.memory_size == 0 && header.file_size == 0 {
                continue;
            }
            let previous_end = segments.last().map_or(0, |segment| segment.pages.end);
            let segment = place_segment(index, header, previous_end, memory_size).map_err(|problem| ImageError::Segment {
                index,
                address: header.address,
                problem,
            })?;
            segments.push(segment);
        }
        let end = segments.last().ok_or(ImageError::NothingToLoad)?.pages.end;
        let entered = segments.iter().any(|segment| segment.protection.execute && segment.contents.contains(&self.entry));
        if !entered {
            return Err(ImageError::Entry(self.entry));
        }
        Ok(Layout { entry: self.entry, end, segments })
    }

    /// Reads every segment into guest memory, which must be all zero, and says where they are. The caller gives the pages their rights.
    ///
    /// # Errors
    /// Those of [`layout`](Self::layout) and of reading. Memory may have been written to then.
    pub fn load(&self, memory: &mut GuestMemory<'_>) -> Result<Layout, ImageError> {
        let layout = self.layout(memory.end())?;
        for segment in &layout.segments {
            let outside = || ImageError::Segment { index: segment.index, address: segment.contents.start, problem: SegmentProblem::TooLow };
            let destination = memory.slice_mut(segment.contents.clone()).ok_or_else(outside)?;
            self.read_segment(segment, destination)?;
        }
        Ok(layout)
    }

    /// Reads what a segment has in the file, as many bytes as `into` has.
    ///
    /// # Errors
    /// [`ImageError::Read`], [`ImageError::Truncated`].
    pub fn read_segment(&self, segment: &Segment, into: &mut [u8]) -> Result<(), ImageError> {
        read_exact(self.file, into, segment.file_offset, || format!("segment {}", segment.index))
    }

    fn require_interpreter(&self) -> Result<(), ImageError> {
        // The same 24 bytes as `__fake_interp` in elf_abi.h; a longer path cannot be the one wanted.
        let mut path = [0; 24];
        let header =
            self.program_headers.iter().find(|header| header.segment_type == SegmentType::INTERPRETER).ok_or(ImageError::Interpreter)?;
        let length = usize::try_from(header.file_size).ok().filter(|&size| size <= path.len()).ok_or(ImageError::Interpreter)?;
        let path = &mut path[..length];
        read_exact(self.file, path, header.file_offset, || "the program interpreter".to_owned())?;
        let named = path.split(|&byte| byte == 0).next().unwrap_or(&[]);
        if named == INTERPRETER { Ok(()) } else { Err(ImageError::Interpreter) }
    }

    /// Finds the Solo5 note of this type and reads its content after `padding` bytes.
    fn note(&self, note_type: u32, name: &'static str, size_limit: u32, padding: u64) -> Result<Note, ImageError> {
        for (index, header) in self.program_headers.iter().enumerate() {
            if header.segment_type != SegmentType::NOTE {
                continue;
            }
            if header.file_size < NOTE_HEADER_SIZE {
                return Err(ImageError::NoteSize { index, found: header.file_size, limit: NOTE_HEADER_SIZE });
            }
            if header.file_size < SOLO5_NOTE_HEADER_SIZE {
                continue;
            }
            let mut note_header = [0; SOLO5_NOTE_HEADER_SIZE as usize];
            read_exact(self.file, &mut note_header, header.file_offset, || format!("note {index}"))?;
            let ours = headers::u32_at(&note_header, 0) == NOTE_NAME_SIZE
                && note_header[12..12 + NOTE_NAME_SIZE as usize] == NOTE_NAME[..NOTE_NAME_SIZE as usize];
            if !ours || headers::u32_at(&note_header, 8) != note_type {
                continue;
            }
            let size = headers::u32_at(&note_header, 4);
            let limit = u64::from(size_limit).min(header.file_size - SOLO5_NOTE_HEADER_SIZE);
            let found = u64::from(size);
            let content_size = found.checked_sub(padding).filter(|&content| content > 0 && found <= limit);
            let content_size = content_size.ok_or(ImageError::NoteSize { index, found, limit })?;
            let offset = header.file_offset.saturating_add(SOLO5_NOTE_HEADER_SIZE + padding);
            let mut bytes = vec![0; content_size as usize];
            read_exact(self.file, &mut bytes, offset, || format!("note {index}"))?;
            return Ok(Note { index, bytes });
        }
        Err(ImageError::NoteMissing(name))
    }
}

struct Note {
    index: usize,
    bytes: Vec<u8>,
}

fn place_segment(index: usize, header: &ProgramHeader, previous_end: u64, memory_size: u64) -> Result<Segment, SegmentProblem> {
    let protection = header.protection();
    if protection.write && protection.execute {
        return Err(SegmentProblem::WritableAndExecutable);
    }
    if header.memory_size < header.file_size {
        return Err(SegmentProblem::FileLarger { file_size: header.file_size, memory_size: header.memory_size });
    }
    if !header.alignment.is_power_of_two() || header.alignment < PAGE_SIZE {
        return Err(SegmentProblem::Alignment(header.alignment));
    }
    let start = header.address & !(header.alignment - 1);
    let end = header.address.checked_add(header.memory_size).ok_or(SegmentProblem::Overflow)?;
    let end = end.checked_next_multiple_of(header.alignment).ok_or(SegmentProblem::Overflow)?;
    if start < GUEST_MIN_BASE {
        return Err(SegmentProblem::TooLow);
    }
    if start < previous_end {
        return Err(SegmentProblem::Overlap(previous_end));
    }
    if end > memory_size {
        return Err(SegmentProblem::TooHigh { end, memory_size });
    }
    Ok(Segment {
        index,
        file_offset: header.file_offset,
        contents: header.address..header.address + header.file_size,
        pages: start..end,
        protection,
    })
}

fn read_exact<F: ReadAt + ?Sized>(file: &F, buffer: &mut [u8], offset: u64, what: impl Fn() -> String) -> Result<(), ImageError> {
    let size = buffer.len() as u64;
    let truncated = || ImageError::Truncated { what: what(), offset, size };
    let mut done = 0;
    while done < buffer.len() {
        let at = offset.checked_add(done as u64).ok_or_else(truncated)?;
        match file.read_at(&mut buffer[done..], at) {
            Ok(0) => return Err(truncated()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The host refuses offsets beyond the largest signed number as it would a place beyond the file's end.
            Err(_) if i64::try_from(at).is_err() => return Err(truncated()),
            Err(source) => return Err(ImageError::Read { offset: at, source }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
