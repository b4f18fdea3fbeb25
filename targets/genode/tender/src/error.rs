//! What an image does not keep to.

use fogbow_tender::manifest::ManifestError;

use crate::image::{BASE, LIBRARY, MAX_NET_HANDLE, MAX_PROGRAM_HEADERS, PAGE};

/// Why a file is no image for Genode. Each message names the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not a 64-bit little-endian ELF file for x86-64.
    #[error("not an ELF file for x86-64: give the path of a built image")]
    NotElf,
    /// Not `ET_DYN`.
    #[error("its ELF type is {0}, and Genode loads a shared object (ET_DYN, 3)")]
    Type(u16),
    /// It has an entry point.
    #[error("its entry point is {0:#x}, and an image has none (0): the library calls solo5_app_main")]
    Entry(u64),
    /// Too many program headers.
    #[error("it has {0} program headers, and Genode's linker reads at most {MAX_PROGRAM_HEADERS}")]
    ProgramHeaders(u16),
    /// A part that the file says it has lies outside of it.
    #[error("its {0} does not lie within the file or its segments")]
    Outside(&'static str),
    /// A program header that an image must not have.
    #[error("it has {0}, which an image on Genode cannot have")]
    Forbidden(&'static str),
    /// Not one R+X and one R+W segment.
    #[error("segment rights are {0}, and Genode's linker takes one segment R+X, then one R+W, and no other")]
    Rights(String),
    /// A segment's alignment.
    #[error("the segment at {address:#x} is aligned to {alignment:#x}, which is no multiple of a page ({PAGE:#x})")]
    Alignment {
        /// Its address.
        address: u64,
        /// Its alignment.
        alignment: u64,
    },
    /// A segment that does not begin with a page.
    #[error("the segment at {address:#x}, {offset:#x} in the file, does not begin with a page ({PAGE:#x}) in both")]
    PageStart {
        /// Its address.
        address: u64,
        /// Its place in the file.
        offset: u64,
    },
    /// Not at the address for a component's binary.
    #[error("its first segment is at {0:#x}, and a component's binary is loaded at {BASE:#x}")]
    Base(u64),
    /// Segments that share pages, or are larger in the file than in memory, or larger than the address space for them.
    #[error("the segment at {0:#x} overlaps another or has an impossible size")]
    Size(u64),
    /// Something that the dynamic linker needs is missing.
    #[error("it has no {0}, which Genode's linker needs")]
    Missing(&'static str),
    /// Needed libraries.
    #[error("it needs the libraries [{0}], and an image needs {LIBRARY} and nothing else")]
    Needed(String),
    /// A kind of relocation that Genode's linker does not know.
    #[error(
        "the relocation of {address:#x} is of type {kind}, and Genode's linker knows R_X86_64_64, COPY, GLOB_DAT, JUMP_SLOT and RELATIVE"
    )]
    Relocation {
        /// `R_X86_64_*`.
        kind: u32,
        /// What it would change.
        address: u64,
    },
    /// A relocation of something that is not in the writable segment.
    #[error("the relocation of {0:#x} is not within the writable segment")]
    RelocationPlace(u64),
    /// Exported symbol missing or of the wrong type.
    #[error("it does not export {0}, which the library needs, or not as that type of symbol")]
    Export(&'static str),
    /// Imported symbol that nothing offers.
    #[error("it imports {0}, which neither {LIBRARY} nor what an image may use of ld.lib.so offers")]
    Import(String),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The note around the manifest.
    #[error("its manifest note does not have the name, type or size that Solo5's mft_abi.h demands")]
    ManifestNote,
    /// A note that other targets have.
    #[error("it has an ABI1 note: it was built for another target")]
    AbiNote,
    /// A network device that the library cannot signal.
    #[error(
        "net device '{0}' is number {1} of the manifest, and the library signals those up to {MAX_NET_HANDLE}: declare network devices first"
    )]
    NetHandle(String, usize),
}
