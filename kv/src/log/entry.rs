//! What the tree maps to what: names to values, chunks of large values to their places, and values that are to be taken apart.
//!
//! Keys of the tree begin with a letter: `k` and a key of the store; `o`, an object's number and a chunk's; `g` and the number of an object that no key
//! leads to, because it is being written or was replaced. Only chunks own pages.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::layout::{Extent, checksum, u32_at, u64_at};

/// Bytes of a large value that are kept, checked and replaced together.
pub(crate) const CHUNK: usize = 64 << 10;

/// A value that is no longer, with its key, than this is kept in the tree itself.
const MAX_INLINE: usize = 1024;

/// The longest entry of a node, with its place in the table of offsets: three fit into the smallest page.
pub(crate) const MAX_ENTRY: usize = 1340;

/// The most pieces that a chunk's pages may be in: as many as it can have.
const MAX_EXTENTS: usize = CHUNK / super::layout::PAGE;

pub(crate) const NAME: u8 = b'k';
pub(crate) const OBJECT: u8 = b'o';
pub(crate) const GARBAGE: u8 = b'g';

/// The tree's key for a name, or for the start of a range of names.
pub(crate) fn name_key(text: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + text.len());
    key.push(NAME);
    key.extend_from_slice(text.as_bytes());
    key
}

/// The name in a key of the tree.
pub(crate) fn name_of(key: &[u8]) -> Option<String> {
    let (&NAME, name) = key.split_first()? else { return None };
    core::str::from_utf8(name).ok().map(str::to_owned)
}

pub(crate) fn chunk_key(object: u64, chunk: u64) -> [u8; 17] {
    let mut key = [OBJECT; 17];
    key[1..9].copy_from_slice(&object.to_be_bytes());
    key[9..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The object and the number of a chunk's key.
pub(crate) fn chunk_of(key: &[u8]) -> Option<(u64, u64)> {
    let (&OBJECT, rest) = key.split_first()? else { return None };
    let rest: &[u8; 16] = rest.try_into().ok()?;
    Some((u64::from_be_bytes(*rest.first_chunk()?), u64::from_be_bytes(*rest.last_chunk()?)))
}

pub(crate) fn garbage_key(object: u64) -> [u8; 9] {
    let mut key = [GARBAGE; 9];
    key[1..].copy_from_slice(&object.to_be_bytes());
    key
}

pub(crate) fn garbage_of(key: &[u8]) -> Option<u64> {
    let (&GARBAGE, rest) = key.split_first()? else { return None };
    Some(u64::from_be_bytes(rest.try_into().ok()?))
}

/// Whether a value goes into the tree with its key.
pub(crate) fn is_inline(key: &str, length: usize) -> bool {
    length <= MAX_INLINE && key.len() + length + META + 8 <= MAX_ENTRY
}

/// Bytes before an inline value: sequence number, time, kind.
pub(crate) const META: usize = 17;

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Differs between any two values that a key had.
    pub(crate) version: u64,
    /// Nanoseconds of Unix time.
    pub(crate) modified: u64,
    pub(crate) place: Place,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind the [`META`] bytes: of this length.
    Inline(usize),
    /// In the chunks of an object. A chunk that is missing, or short of its end, is zeros.
    Object { object: u64, size: u64 },
}

impl Meta {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let place = match *bytes.get(16)? {
            0 => Place::Inline(bytes.len() - META),
            1 if bytes.len() == META + 16 => Place::Object { object: u64_at(bytes, META)?, size: u64_at(bytes, META + 8)? },
            _ => return None,
        };
        Some(Self { version: u64_at(bytes, 0)?, modified: u64_at(bytes, 8)?, place })
    }

    /// The bytes, with `value` when the place is inline.
    pub(crate) fn emit(&self, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(META + 16 + value.len());
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.modified.to_le_bytes());
        match self.place {
            Place::Inline(_) => {
                bytes.push(0);
                bytes.extend_from_slice(value);
            }
            Place::Object { object, size } => {
                bytes.push(1);
                bytes.extend_from_slice(&object.to_le_bytes());
                bytes.extend_from_slice(&size.to_le_bytes());
            }
        }
        bytes
    }

    pub(crate) fn size(&self) -> u64 {
        match self.place {
            Place::Inline(length) => length as u64,
            Place::Object { size, .. } => size,
        }
    }
}

/// A chunk on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) length: usize,
    pub(crate) checksum: u64,
    pub(crate) extents: Vec<Extent>,
}

impl Chunk {
    /// A chunk with `data` at `extents`. The object and the number are part of the checksum, so that no chunk passes for another.
    pub(crate) fn new(key: &[u8], data: &[u8], extents: Vec<Extent>) -> Self {
        Self { length: data.len(), checksum: checksum(checksum(0, key), data), extents }
    }

    /// Whether `data` is what was written.
    pub(crate) fn matches(&self, key: &[u8], data: &[u8]) -> bool {
        data.len() == self.length && checksum(checksum(0, key), data) == self.checksum
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let length = u32_at(bytes, 0)? as usize;
        let extents = bytes.get(12..)?;
        if length > CHUNK || !extents.len().is_multiple_of(12) || extents.len() / 12 > MAX_EXTENTS {
            return None;
        }
        let extents = extents.chunks_exact(12).map(|extent| Some(Extent { page: u64_at(extent, 0)?, count: u32_at(extent, 8)? }));
        let extents = extents.collect::<Option<Vec<_>>>()?;
        let pages: u64 = extents.iter().map(|extent| u64::from(extent.count)).sum();
        (pages <= MAX_EXTENTS as u64).then_some(Self { length, checksum: u64_at(bytes, 4)?, extents })
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12 + 12 * self.extents.len());
        bytes.extend_from_slice(&(self.length as u32).to_le_bytes());
        bytes.extend_from_slice(&self.checksum.to_le_bytes());
        for extent in &self.extents {
            bytes.extend_from_slice(&extent.page.to_le_bytes());
            bytes.extend_from_slice(&extent.count.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn pages(&self) -> usize {
        self.extents.iter().map(|extent| extent.count as usize).sum()
    }
}

/// The pages that an entry of the tree owns.
pub(crate) fn owned(key: &[u8], value: &[u8]) -> Vec<Extent> {
    match chunk_of(key) {
        Some(_) => Chunk::parse(value).map(|chunk| chunk.extents).unwrap_or_default(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extents of a chunk: pages of each, from page 100 on.
    fn chunk(length: usize, counts: &[u32]) -> Vec<u8> {
        let extents = counts.iter().map(|&count| Extent { page: 100, count }).collect();
        Chunk { length, checksum: 1, extents }.emit()
    }

    #[test]
    fn what_no_chunk_can_be_is_none() {
        for (length, counts, is_chunk) in [
            (0, &[1][..], true),
            (CHUNK, &[16], true),
            (CHUNK, &[1; 16], true),
            (CHUNK + 1, &[16], false),
            (CHUNK, &[17], false),
            (CHUNK, &[u32::MAX; 2], false),
            // Pieces that have no pages take memory.
            (CHUNK, &[0; 17], false),
        ] {
            let bytes = chunk(length, counts);
            assert_eq!(Chunk::parse(&bytes).is_some(), is_chunk, "{length} bytes in {counts:?}");
            for odd in 1..12 {
                assert_eq!(Chunk::parse(&bytes[..bytes.len() - odd]), None, "{odd} bytes less");
            }
        }
    }

    #[test]
    fn what_cannot_be_known_of_a_value_is_none() {
        let object = Meta { version: 1, modified: 2, place: Place::Object { object: 3, size: 4 } };
        let inline = Meta { version: 1, modified: 2, place: Place::Inline(1) };
        let (bytes, inline_bytes) = (object.emit(&[]), inline.emit(&[9]));
        assert_eq!((Meta::parse(&bytes), Meta::parse(&inline_bytes)), (Some(object), Some(inline)));
        let longer = [&bytes[..], &[0]].concat();
        let mut unknown = bytes.clone();
        unknown[META - 1] = 2;
        for wrong in [&bytes[..bytes.len() - 1], &longer, &unknown, &inline_bytes[..META - 1], &[]] {
            assert_eq!(Meta::parse(wrong), None, "{wrong:?}");
        }
    }
}
