//! The on-disk format's fixed part: where everything lies on the device, and the superblock. See `docs/log-store.md`.

use fogbow_block::BlockInfo;
use twox_hash::XxHash3_64;

use super::FormatError;

/// The first bytes of a superblock.
pub(crate) const MAGIC: [u8; 8] = *b"FogbowKV";

/// The version of the format that this code reads and writes.
pub const VERSION: u32 = 1;

/// Bytes in a page, unless the device's sectors are larger.
pub(crate) const PAGE: usize = 4096;

/// The largest page: offsets in a node have 16 bits.
pub(crate) const MAX_PAGE: usize = 32768;

/// The fewest pages of a store.
pub(crate) const MIN_PAGES: u64 = 64;

/// Superblocks: two for each of the two generations that are kept.
pub(crate) const SUPERBLOCKS: u64 = 4;

/// The largest half of the log, in bytes, and the smallest, in pages.
const MAX_HALF: u64 = 2 << 20;
const MIN_HALF_PAGES: u64 = 4;

/// A half of the log has at most this part of the device.
const HALF_PART: u64 = 256;

/// Bytes before the bits in a page of the free-space map.
pub(crate) const MAP_HEADER: usize = 16;

/// Bytes of a superblock, its checksum last.
const SUPERBLOCK: usize = 128;

/// What a store counts never gets so far: there is always a next number.
const MOST_COUNTED: u64 = 1 << 63;

/// XXH3 with 64 bits: detects damage, not forgery.
pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A node of the tree: where it is and the checksum of what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeRef {
    pub(crate) page: u64,
    pub(crate) checksum: u64,
}

/// Consecutive pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) page: u64,
    pub(crate) count: u32,
}

/// Where everything lies: superblocks, two halves of the log, two copies of the free-space map, and then nodes and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) page: usize,
    /// The unit of the log, which a device writes as a whole.
    pub(crate) sector: usize,
    pub(crate) pages: u64,
    pub(crate) half_pages: u64,
}

impl Geometry {
    /// The layout of a new store on a device.
    pub(crate) fn of(info: BlockInfo) -> Result<Self, FormatError> {
        let page = PAGE.max(info.sector_size);
        if page > MAX_PAGE || !info.sector_size.is_power_of_two() {
            return Err(FormatError::SectorSize(info.sector_size));
        }
        let pages = info.sectors / (page / info.sector_size) as u64;
        if pages < MIN_PAGES {
            return Err(FormatError::TooSmall {
                least: MIN_PAGES * page as u64,
                bytes: info.sectors.saturating_mul(info.sector_size as u64),
            });
        }
        let half_pages = (pages / HALF_PART).clamp(MIN_HALF_PAGES, MAX_HALF / page as u64);
        Ok(Self { page, sector: info.sector_size, pages, half_pages })
    }

    /// True when a device with `info` can hold this layout.
    fn fits(&self, info: BlockInfo) -> bool {
        let Ok(device) = Self::of(info) else { return false };
        self.page == device.page
            && self.sector.is_power_of_two()
            && (device.sector..=self.page).contains(&self.sector)
            && (MIN_PAGES..=device.pages).contains(&self.pages)
            && (MIN_HALF_PAGES..=MAX_HALF / self.page as u64).contains(&self.half_pages)
            && self.data_start() < self.pages
    }

    pub(crate) const fn half_bytes(&self) -> usize {
        self.half_pages as usize * self.page
    }

    /// The first page of a half of the log.
    pub(crate) const fn half_start(&self, half: usize) -> u64 {
        SUPERBLOCKS + half as u64 * self.half_pages
    }

    /// Bits in a page of the free-space map.
    pub(crate) const fn map_bits(&self) -> u64 {
        ((self.page - MAP_HEADER) * 8) as u64
    }

    /// Pages of one copy of the free-space map.
    pub(crate) const fn map_pages(&self) -> u64 {
        self.pages.div_ceil(self.map_bits())
    }

    /// The first page of a copy of the free-space map.
    pub(crate) const fn map_start(&self, copy: usize) -> u64 {
        SUPERBLOCKS + 2 * self.half_pages + copy as u64 * self.map_pages()
    }

    /// The first page of nodes and values.
    pub(crate) const fn data_start(&self) -> u64 {
        self.map_start(2)
    }

    /// Operations that the log may hold before they go into the tree: bounds the space that must be kept for it.
    pub(crate) fn max_entries(&self) -> usize {
        (self.pages / 64).clamp(64, 16384) as usize
    }
}

/// The state of a store at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) geometry: Geometry,
    /// Distinguishes this store from others that the device held.
    pub(crate) id: u64,
    /// Counts checkpoints.
    pub(crate) generation: u64,
    /// `None` for the empty tree.
    pub(crate) root: Option<NodeRef>,
    pub(crate) level: u16,
    /// The first log record that is not in the tree.
    pub(crate) sequence: u64,
    /// The half of the log where that record is, or will be.
    pub(crate) half: usize,
    /// The checksum of the checksums of the pages of the map's copy `generation % 2`.
    pub(crate) map_checksum: u64,
    pub(crate) next_object: u64,
    pub(crate) leaves: u64,
    pub(crate) branches: u64,
}

impl Superblock {
    /// The pages of this generation's superblocks.
    pub(crate) const fn places(generation: u64) -> [u64; 2] {
        let first = generation % 2 * 2;
        [first, first + 1]
    }

    pub(crate) fn emit(&self, into: &mut [u8]) {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            into[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        let root = self.root.unwrap_or(NodeRef { page: 0, checksum: 0 });
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&(self.geometry.page as u32).to_le_bytes());
        put(&(self.geometry.sector as u32).to_le_bytes());
        put(&(self.geometry.half_pages as u32).to_le_bytes());
        for number in [self.geometry.pages, self.id, self.generation, root.page, root.checksum] {
            put(&number.to_le_bytes());
        }
        put(&u32::from(self.level).to_le_bytes());
        put(&(self.half as u32).to_le_bytes());
        for number in [self.sequence, self.map_checksum, self.next_object, self.leaves, self.branches, 0] {
            put(&number.to_le_bytes());
        }
        let sum = checksum(0, &into[..SUPERBLOCK - 8]);
        into[SUPERBLOCK - 8..SUPERBLOCK].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads a superblock that was found at page `place`.
    pub(crate) fn parse(bytes: &[u8], place: u64, info: BlockInfo) -> Result<Self, FormatError> {
        let intact = (|| {
            let bytes = bytes.get(..SUPERBLOCK)?;
            (bytes.starts_with(&MAGIC) && u64_at(bytes, SUPERBLOCK - 8)? == checksum(0, &bytes[..SUPERBLOCK - 8])).then_some(bytes)
        })();
        let bytes = intact.ok_or(FormatError::NotAStore)?;
        match u32_at(bytes, 8) {
            Some(VERSION) => {}
            version => return Err(FormatError::Version(version.unwrap_or_default())),
        }
        Self::fields(bytes, info).filter(|found| Self::places(found.generation).contains(&place)).ok_or(FormatError::Inconsistent)
    }

    fn fields(bytes: &[u8], info: BlockInfo) -> Option<Self> {
        let number = |at| u64_at(bytes, at);
        let geometry = Geometry {
            page: u32_at(bytes, 12)? as usize,
            sector: u32_at(bytes, 16)? as usize,
            half_pages: u32_at(bytes, 20)?.into(),
            pages: number(24)?,
        };
        let (page, root_checksum) = (number(48)?, number(56)?);
        let found = Self {
            geometry,
            id: number(32)?,
            generation: number(40)?,
            root: (page != 0).then_some(NodeRef { page, checksum: root_checksum }),
            level: u16::try_from(u32_at(bytes, 64)?).ok()?,
            half: u32_at(bytes, 68)? as usize,
            sequence: number(72)?,
            map_checksum: number(80)?,
            next_object: number(88)?,
            leaves: number(96)?,
            branches: number(104)?,
        };
        let counts = [found.generation, found.sequence, found.next_object];
        let is_possible = found.half < 2 && found.level < super::MAX_LEVELS && counts.iter().all(|count| *count < MOST_COUNTED);
        (geometry.fits(info) && is_possible).then_some(found)
    }
}

#[cfg(test)]
mod tests;
