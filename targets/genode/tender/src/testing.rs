//! A small valid image for tests, written byte by byte.

use fogbow_tender::manifest::Manifest;

use crate::image::{BASE, PAGE};

// Where the parts of the small image are, in its first page and, from DYNAMIC on, in its second.
pub(crate) const NOTE_AT: usize = 0x200;
const HASH: usize = 0x8000;
const SYMBOLS: usize = 0x8100;
const STRINGS: usize = 0x8200;
pub(crate) const RELOCATIONS: usize = 0x8300;
pub(crate) const CODE: usize = 0x8f00;
pub(crate) const DYNAMIC: usize = 0x9000;
pub(crate) const POINTERS: usize = 0x9100;
const STRING_TABLE: &[u8] =
    b"\0solo5_exit\0solo5_app_main\0__solo5_mft1_note\0solo5.lib.so\0strlen\0solo5_console_write\0solo5_block_acquire\0solo5_block_read\0";

/// Where the address of the function that an image imports is, when it runs.
pub const IMPORT_ADDRESS: u64 = BASE + POINTERS as u64;

/// Writes an image of two segments that imports one function.
#[derive(Clone, Debug)]
pub struct ImageWriter {
    /// Its manifest.
    pub manifest: Manifest,
    /// A function of the library: one that the string table of these images has.
    pub import: &'static str,
    /// The machine code of `solo5_app_main`, 256 bytes at most.
    pub code: Vec<u8>,
}

impl ImageWriter {
    /// An image without devices, whose code does nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { manifest: Manifest::default(), import: "solo5_exit", code: Vec::new() }
    }

    /// The image's bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut file = vec![0; 0xa000];
        put(&mut file, 0, b"\x7fELF\x02\x01\x01");
        put(&mut file, 16, &[3, 0, 62, 0, 1, 0, 0, 0]);
        put_words(&mut file, 32, &[64]);
        put(&mut file, 54, &[56, 0, 4, 0]);
        let manifest = self.manifest.emit();
        let size = 24 + manifest.len() as u64;
        header(&mut file, 0, 1, 5, 0, 0x9000, 0x9000);
        header(&mut file, 1, 1, 6, DYNAMIC, 0x1000, 0x2000);
        header(&mut file, 2, 2, 6, DYNAMIC, 0x100, 0x100);
        header(&mut file, 3, 4, 4, NOTE_AT, size, size);
        put(&mut file, NOTE_AT, &[6, (size - 20) as u32, 0x3154_464d].map(u32::to_le_bytes).concat());
        put(&mut file, NOTE_AT + 12, b"Solo5");
        put(&mut file, NOTE_AT + 24, &manifest);
        put(&mut file, HASH, &[1, 4, 1].map(u32::to_le_bytes).concat());
        put(&mut file, STRINGS, STRING_TABLE);
        put(&mut file, CODE, &self.code);
        symbol(&mut file, 1, self.import, 0, None, 0);
        symbol(&mut file, 2, "solo5_app_main", 2, Some(CODE), 16);
        symbol(&mut file, 3, "__solo5_mft1_note", 1, Some(NOTE_AT), size);
        put_words(&mut file, RELOCATIONS, &[address(POINTERS), 1 << 32 | 6, 0]);
        put_words(&mut file, RELOCATIONS + 24, &[address(POINTERS + 8), 8, address(CODE)]);
        put_words(&mut file, RELOCATIONS + 48, &[address(POINTERS + 16), 2 << 32 | 1, 5]);
        let dynamic = [
            (1, string("solo5.lib.so")),
            (4, address(HASH)),
            (5, address(STRINGS)),
            (6, address(SYMBOLS)),
            (10, STRING_TABLE.len() as u64),
            (7, address(RELOCATIONS)),
            (8, 72),
        ];
        for (index, (tag, value)) in dynamic.into_iter().enumerate() {
            put_words(&mut file, DYNAMIC + 16 * index, &[tag, value]);
        }
        file
    }
}

impl Default for ImageWriter {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn put(file: &mut [u8], place: usize, bytes: &[u8]) {
    file[place..place + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn put_words(file: &mut [u8], place: usize, words: &[u64]) {
    put(file, place, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
}

pub(crate) fn header(file: &mut [u8], index: usize, kind: u32, flags: u32, place: usize, file_size: u64, memory_size: u64) {
    put(file, 64 + 56 * index, &[kind, flags].map(u32::to_le_bytes).concat());
    put_words(file, 64 + 56 * index + 8, &[place as u64, address(place), 0, file_size, memory_size, PAGE]);
}

pub(crate) fn symbol(file: &mut [u8], index: usize, name: &str, kind: u8, place: Option<usize>, size: u64) {
    let entry = SYMBOLS + 24 * index;
    put(file, entry, &(string(name) as u32).to_le_bytes());
    put(file, entry + 4, &[0x10 | kind, 0, u8::from(place.is_some()), 0]);
    put_words(file, entry + 8, &[place.map_or(0, address), size]);
}

pub(crate) fn string(name: &str) -> u64 {
    STRING_TABLE.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() as u64
}

pub(crate) fn address(place: usize) -> u64 {
    BASE + place as u64
}
