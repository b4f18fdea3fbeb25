//! Small valid images for tests, written byte by byte, and machine code for them.

use crate::elf::Target;
use crate::manifest::Manifest;

/// The address of the code segment of [`ImageWriter`]'s images.
pub const CODE_ADDRESS: u64 = 0x10_0000;
/// The address of their data segment.
pub const DATA_ADDRESS: u64 = 0x10_1000;

/// Offset in the file of the notes and the interpreter, beyond the headers.
const METADATA_OFFSET: u64 = 0x400;
/// Offset in the file of the code.
const CODE_OFFSET: u64 = 0x3000;
/// Offset in the file of the data.
const DATA_OFFSET: u64 = 0x4000;
const PROGRAM_HEADER_COUNT: u16 = 5;

/// Functions that give the machine code of a few instructions each, which are assembled into the program that this is in.
#[macro_export]
macro_rules! machine_code {
    ($($(#[doc = $doc:literal])* $name:ident { $($line:literal)* })*) => {
        $(
            ::core::arch::global_asm!(
                concat!(".globl machine_code_", stringify!($name), "\nmachine_code_", stringify!($name), ":"),
                $($line,)*
                concat!(".globl machine_code_", stringify!($name), "_end\nmachine_code_", stringify!($name), "_end:"),
            );
            $(#[doc = $doc])*
            pub(crate) fn $name() -> Vec<u8> {
                unsafe extern "C" {
                    #[link_name = concat!("machine_code_", stringify!($name))]
                    static START: u8;
                    #[link_name = concat!("machine_code_", stringify!($name), "_end")]
                    static END: u8;
                }
                // SAFETY: the two symbols bound the instructions above, which are part of this program's text.
                unsafe {
                    let length = (&raw const END).addr() - (&raw const START).addr();
                    ::core::slice::from_raw_parts(&raw const START, length).to_vec()
                }
            }
        )*
    };
}

/// Writes an image with one page of code, one of data, the notes and the interpreter.
#[derive(Clone, Debug)]
pub struct ImageWriter {
    /// The target of the ABI note.
    pub target: Target,
    /// The ABI version of the ABI note.
    pub version: u32,
    /// The manifest note.
    pub manifest: Manifest,
    /// Machine code, a page at most, entered at its first byte.
    pub code: Vec<u8>,
    /// Initialised data, a page at most.
    pub data: Vec<u8>,
    /// Bytes of memory of the data segment.
    pub data_memory_size: u64,
}

impl ImageWriter {
    /// An image for this target that halts at once and has no device.
    #[must_use]
    pub fn new(target: Target, version: u32) -> Self {
        Self { target, version, manifest: Manifest::default(), code: vec![0xf4], data: b"data".to_vec(), data_memory_size: 0x2000 }
    }

    /// The image's bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let interpreter = *b"/nonexistent/solo5/\0\0\0\0\0";
        let mut abi = Vec::new();
        for word in [self.target as u32, self.version, 0, 0] {
            abi.extend(word.to_le_bytes());
        }
        let abi = note(0x3149_4241, &abi);
        let manifest = note(0x3154_464d, &[vec![0; 4], self.manifest.emit()].concat());
        let abi_offset = METADATA_OFFSET + interpreter.len() as u64;
        let manifest_offset = abi_offset + abi.len() as u64;

        let mut file = self.file_header();
        let data_size = self.data.len() as u64;
        let code_size = self.code.len() as u64;
        file.extend(program_header(3, 4, METADATA_OFFSET, 0, interpreter.len() as u64, interpreter.len() as u64, 8));
        file.extend(program_header(1, 5, CODE_OFFSET, CODE_ADDRESS, code_size, code_size, 0x1000));
        file.extend(program_header(1, 6, DATA_OFFSET, DATA_ADDRESS, data_size, self.data_memory_size, 0x1000));
        file.extend(program_header(4, 4, abi_offset, 0, abi.len() as u64, abi.len() as u64, 4));
        file.extend(program_header(4, 4, manifest_offset, 0, manifest.len() as u64, manifest.len() as u64, 4));
        for (offset, part) in [
            (METADATA_OFFSET, &interpreter[..]),
            (abi_offset, &abi),
            (manifest_offset, &manifest),
            (CODE_OFFSET, &self.code),
            (DATA_OFFSET, &self.data),
        ] {
            file.resize(offset as usize, 0);
            file.extend(part);
        }
        file
    }

    fn file_header(&self) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(16, 0);
        header.extend(2_u16.to_le_bytes());
        header.extend(62_u16.to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        header.extend(CODE_ADDRESS.to_le_bytes());
        header.extend(64_u64.to_le_bytes());
        header.extend([0; 12]);
        for half in [64, 56, PROGRAM_HEADER_COUNT, 64, 0, 0] {
            header.extend(half.to_le_bytes());
        }
        header
    }
}

fn note(note_type: u32, content: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [6, content.len() as u32, note_type] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Solo5\0\0\0");
    note.extend(content);
    note
}

fn program_header(segment_type: u32, flags: u32, offset: u64, address: u64, file_size: u64, memory_size: u64, alignment: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(segment_type.to_le_bytes());
    header.extend(flags.to_le_bytes());
    for word in [offset, address, address, file_size, memory_size, alignment] {
        header.extend(word.to_le_bytes());
    }
    header
}
