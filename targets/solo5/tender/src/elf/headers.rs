//! The two ELF structures a loader reads, field by field: `Elf64_Ehdr` and `Elf64_Phdr` of the System V ABI, little-endian.

use super::{ImageError, Protection};

/// The most program headers an image may have. Images have about ten; the limit bounds what is read from a hostile one.
pub const MAX_PROGRAM_HEADERS: u16 = 64;

/// Bytes of an `Elf64_Ehdr`.
pub(super) const HEADER_SIZE: usize = 64;
/// Bytes of an `Elf64_Phdr`.
pub(super) const PROGRAM_HEADER_SIZE: usize = 56;

/// `p_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentType(pub u32);

impl SegmentType {
    /// `PT_LOAD`.
    pub const LOAD: Self = Self(1);
    /// `PT_INTERP`.
    pub const INTERPRETER: Self = Self(3);
    /// `PT_NOTE`.
    pub const NOTE: Self = Self(4);
}

/// What a loader needs of the file header.
pub(super) struct Header {
    pub(super) entry: u64,
    pub(super) program_headers_offset: u64,
    program_header_count: u16,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_SIZE]) -> Result<Self, ImageError> {
        // The operating system's ABI (offset 7) is not looked at: tool chains give no way to set it.
        let fields: [(bool, &'static str, u64); 8] = [
            (bytes[0..4] == *b"\x7fELF", "no ELF magic number", 0),
            (bytes[4] == 2, "not a 64-bit file", 4),
            (bytes[5] == 1, "not little-endian", 5),
            (u32_at(bytes, 20) == 1, "unknown ELF version", 20),
            (u16_at(bytes, 16) == 2, "not a statically linked executable at fixed addresses (ET_EXEC)", 16),
            (u16_at(bytes, 18) == 62, "not for x86-64", 18),
            (u16_at(bytes, 52) as usize == HEADER_SIZE, "wrong size of the file header", 52),
            (u16_at(bytes, 54) as usize == PROGRAM_HEADER_SIZE, "wrong size of a program header", 54),
        ];
        if let Some(&(_, what, offset)) = fields.iter().find(|(right, ..)| !right) {
            return Err(ImageError::Header { what, offset });
        }
        let program_header_count = u16_at(bytes, 56);
        if !(1..=MAX_PROGRAM_HEADERS).contains(&program_header_count) {
            return Err(ImageError::ProgramHeaderCount(program_header_count));
        }
        Ok(Self { entry: u64_at(bytes, 24), program_headers_offset: u64_at(bytes, 32), program_header_count })
    }

    pub(super) fn program_header_table_size(&self) -> usize {
        usize::from(self.program_header_count) * PROGRAM_HEADER_SIZE
    }
}

/// A program header as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramHeader {
    /// `p_type`.
    pub segment_type: SegmentType,
    /// `p_flags`.
    pub flags: u32,
    /// `p_offset`: where its bytes are in the file.
    pub file_offset: u64,
    /// `p_vaddr`: where they go in memory.
    pub address: u64,
    /// `p_filesz`: bytes in the file.
    pub file_size: u64,
    /// `p_memsz`: bytes in memory.
    pub memory_size: u64,
    /// `p_align`.
    pub alignment: u64,
}

impl ProgramHeader {
    /// The rights that `p_flags` asks for.
    #[must_use]
    pub fn protection(&self) -> Protection {
        Protection { execute: self.flags & 1 != 0, write: self.flags & 2 != 0, read: self.flags & 4 != 0 }
    }

    /// Of exactly [`PROGRAM_HEADER_SIZE`] bytes.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self {
            segment_type: SegmentType(u32_at(bytes, 0)),
            flags: u32_at(bytes, 4),
            file_offset: u64_at(bytes, 8),
            address: u64_at(bytes, 16),
            file_size: u64_at(bytes, 32),
            memory_size: u64_at(bytes, 40),
            alignment: u64_at(bytes, 48),
        }
    }
}

/// The number at an offset that the caller knows to be inside.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, offset))
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, offset))
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    core::array::from_fn(|index| bytes[offset + index])
}
