//! A volume's sectors as embedded-sdmmc wants them, and what it takes for granted of them.
//!
//! It insists on a partition table, which is put before them. It believes the first sector, which is checked. It looks for free clusters to the end of
//! a table's sector, beyond the last cluster that the volume has: there it finds none that are free. And it counts free clusters wrongly, and writes
//! their number whenever a volume is closed: the right one is written, if it is another.

use core::cell::Cell;
use core::ops::Range;

use embedded_sdmmc::{BlockCount, BlockDevice, BlockIdx};
use fogbow_block::blocking::{Attempt, Interruption};

use super::volume::Failure;

pub(super) const SECTOR: usize = 512;

/// The type of a FAT16 and of a FAT32 partition, which embedded-sdmmc takes for the same.
const FAT: u8 = 0x0c;

/// A volume with so many clusters is a FAT32 (Microsoft, "FAT32 File System Specification", section 3.5).
const FAT32_CLUSTERS: u64 = 65_525;

/// Entries of a table that are no cluster's: the first cluster is number 2 (the same, section 4).
const RESERVED_ENTRIES: u64 = 2;

/// Where a FAT32's first sector has its flags, and where its information sector's number (the same, section 3.3); the flag of a volume that keeps one
/// table alone.
const EXTENDED_FLAGS: usize = 40;
const INFORMATION: usize = 48;
const ONE_ACTIVE: u64 = 0x80;

/// Where a FAT32's information sector has the number of free clusters (the same, section 5).
const FREE_COUNT: usize = 488;

/// That number, where it is not known (the same).
const UNKNOWN: u32 = u32::MAX;

/// The bits of an entry that are the next cluster's number: a FAT32 keeps the others.
pub(super) const NUMBER: u32 = 0x0fff_ffff;

/// What a table says of a cluster that must not be used (the same, section 4), in a FAT16 and a FAT32.
const BAD: [&[u8]; 2] = [&0xfff7_u16.to_le_bytes(), &0x0fff_fff7_u32.to_le_bytes()];

/// The sectors that an attempt reads and writes.
pub(super) struct Disk<'a> {
    pub(super) attempt: &'a Attempt<'a>,
    pub(super) tables: Tables,
    /// Clusters that have become free, less those that have been taken, since their number was written.
    pub(super) freed: Cell<i64>,
}

/// Where the tables of clusters lie, one behind the other, and what they speak of.
pub(super) struct Tables {
    first: u64,
    /// The sectors of each.
    pub(super) sectors: u64,
    pub(super) count: u64,
    /// An entry that marks a cluster as bad: it is as long as all of them.
    bad: &'static [u8],
    /// The entries that are in use, of each.
    entries: u64,
    per_cluster: u64,
    /// Where the clusters begin.
    data: u64,
    root: Root,
}

/// Where the root directory is.
enum Root {
    /// Of a FAT16: before the clusters, in so many sectors.
    Sectors(u64),
    /// Of a FAT32: in this cluster and those that follow. It has a sector, too, that says how many clusters are free.
    Cluster { first: u32, information: u64 },
}

impl Tables {
    /// Reads where they are from a volume's first sector, and checks that clusters have sectors and that everything lies on a device of so many sectors.
    fn new(sector: &[u8; SECTOR], capacity: u64) -> Result<Self, &'static str> {
        let half = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
        let word = |at: usize| half(at) | half(at + 2) << 16;
        let (bytes, per_cluster, first, count) = (half(11), u64::from(sector[13]), half(14), u64::from(sector[16]));
        let all = if half(19) != 0 { half(19) } else { word(32) };
        let sectors = if half(22) != 0 { half(22) } else { word(36) };
        if sector[510..] != [0x55, 0xaa] || bytes != SECTOR as u64 {
            return Err("the first sector is not that of a FAT volume with sectors of 512 bytes");
        }
        if !per_cluster.is_power_of_two() || first == 0 || !(1..=2).contains(&count) || sectors == 0 {
            return Err("the first sector's numbers make no sense");
        }
        let root = half(17).div_ceil(16);
        let data = first + count * sectors + root;
        if all > capacity || data >= all {
            return Err("the volume is larger than the device: it was cut short");
        }
        let clusters = (all - data) / per_cluster;
        let is_fat32 = clusters >= FAT32_CLUSTERS;
        // A FAT32 has no root directory of a fixed size, and keeps the size of its tables elsewhere.
        if is_fat32 != (half(17) == 0) || is_fat32 != (half(22) == 0) {
            return Err("the volume has too few clusters for a FAT32, or too many for a FAT16 (mkfs.fat makes the other kind with -F)");
        }
        if is_fat32 && half(EXTENDED_FLAGS) & ONE_ACTIVE != 0 {
            return Err("only one of its tables is kept: embedded-sdmmc would read the other");
        }
        if is_fat32 && matches!(half(INFORMATION), 0 | 0xffff) {
            return Err("it has no information sector, without which embedded-sdmmc does not open a FAT32");
        }
        let bad = BAD[usize::from(is_fat32)];
        let entries = clusters + RESERVED_ENTRIES;
        if entries * bad.len() as u64 > sectors * SECTOR as u64 {
            return Err("the volume has more clusters than its table has room for");
        }
        if is_fat32 && !(RESERVED_ENTRIES..entries).contains(&word(44)) {
            return Err("the root directory begins at a cluster that there is not");
        }
        let root = match is_fat32 {
            true => Root::Cluster { first: word(44) as u32, information: half(INFORMATION) },
            false => Root::Sectors(root),
        };
        Ok(Self { first, sectors, count, bad, entries, per_cluster, data, root })
    }

    /// How many bytes of a table's sector speak of clusters that there are; `None` for a sector of no table.
    fn used(&self, sector: u64) -> Option<usize> {
        let place = sector.checked_sub(self.first).filter(|place| *place < self.count * self.sectors)?;
        let start = place % self.sectors * SECTOR as u64;
        Some((self.entries * self.bad.len() as u64).saturating_sub(start).min(SECTOR as u64) as usize)
    }

    /// Where the first table speaks of a cluster: the sector, and the entry in it; `None` for a cluster that there is not.
    pub(super) fn place(&self, cluster: u32) -> Option<(u64, Range<usize>)> {
        let (cluster, length) = (u64::from(cluster), self.bad.len());
        let at = cluster * length as u64;
        let offset = (at % SECTOR as u64) as usize;
        (RESERVED_ENTRIES..self.entries).contains(&cluster).then_some((self.first + at / SECTOR as u64, offset..offset + length))
    }

    /// The sectors of a cluster that there is.
    pub(super) fn sectors_of(&self, cluster: u32) -> Range<u64> {
        let first = self.data + (u64::from(cluster) - RESERVED_ENTRIES) * self.per_cluster;
        first..first + self.per_cluster
    }

    /// The sectors of a FAT16's root directory, or the first cluster of a FAT32's.
    pub(super) const fn root(&self) -> Result<Range<u64>, u32> {
        match self.root {
            Root::Sectors(count) => Ok(self.data - count..self.data),
            Root::Cluster { first, .. } => Err(first),
        }
    }

    pub(super) const fn is_fat32(&self) -> bool {
        matches!(self.root, Root::Cluster { .. })
    }

    fn is_information(&self, sector: u64) -> bool {
        matches!(self.root, Root::Cluster { information, .. } if information == sector)
    }

    fn free_in(&self, entries: &[u8]) -> i64 {
        entries.chunks_exact(self.bad.len()).filter(|entry| number(entry) == 0).count() as i64
    }
}

/// The cluster that an entry of a table names.
pub(super) fn number(entry: &[u8]) -> u32 {
    let mut bytes = [0; 4];
    bytes[..entry.len()].copy_from_slice(entry);
    u32::from_le_bytes(bytes) & NUMBER
}

impl<'a> Disk<'a> {
    /// The volume of an attempt.
    pub(super) fn new(attempt: &'a Attempt<'a>) -> Result<Self, Failure> {
        let mut sector = [0; SECTOR];
        attempt.read(0, &mut sector).map_err(|interruption| Failure::Volume(alloc::format!("{interruption}")))?;
        let tables = Tables::new(&sector, attempt.info().sectors).map_err(|reason| Failure::Volume(reason.into()))?;
        Ok(Self { attempt, tables, freed: Cell::new(0) })
    }

    fn sectors(&self) -> u32 {
        u32::try_from(self.attempt.info().sectors).unwrap_or(u32::MAX).min(u32::MAX - 1)
    }

    fn partition_table(&self) -> [u8; SECTOR] {
        let mut table = [0; SECTOR];
        table[450] = FAT;
        table[454] = 1;
        table[458..462].copy_from_slice(&self.sectors().to_le_bytes());
        table[510..].copy_from_slice(&[0x55, 0xaa]);
        table
    }

    fn write_sector(&self, sector: u64, contents: &[u8; SECTOR]) -> Result<(), Interruption> {
        let mut stored = [0; SECTOR];
        let mut written = *contents;
        if let Some(used) = self.tables.used(sector) {
            self.attempt.read(sector, &mut stored)?;
            written[used..].copy_from_slice(&stored[used..]);
            if sector < self.tables.first + self.tables.sectors {
                let freed = self.tables.free_in(&written) - self.tables.free_in(&stored);
                self.freed.set(self.freed.get() + freed);
            }
        } else if self.tables.is_information(sector) {
            self.attempt.read(sector, &mut stored)?;
            let count = &mut written[FREE_COUNT..FREE_COUNT + 4];
            count.copy_from_slice(&self.free_count(&stored).to_le_bytes());
            if written == stored {
                return Ok(());
            }
        }
        self.attempt.write(sector, &written)
    }

    /// The number of free clusters, by what the information sector says of it.
    fn free_count(&self, information: &[u8; SECTOR]) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&information[FREE_COUNT..FREE_COUNT + 4]);
        let former = u32::from_le_bytes(bytes);
        let count = u32::try_from(i64::from(former) + self.freed.take()).ok();
        // What is not known is more than there can be.
        let is_possible = |count: &u32| u64::from(*count) + RESERVED_ENTRIES <= self.tables.entries;
        count.filter(is_possible).unwrap_or(UNKNOWN)
    }
}

impl BlockDevice for Disk<'_> {
    type Error = Interruption;

    fn read(&self, blocks: &mut [embedded_sdmmc::Block], start: BlockIdx) -> Result<(), Interruption> {
        for (at, block) in (start.0..).zip(blocks) {
            let Some(sector) = at.checked_sub(1) else {
                block.contents = self.partition_table();
                continue;
            };
            self.attempt.read(sector.into(), &mut block.contents)?;
            if let Some(used) = self.tables.used(sector.into()) {
                let entries = block.contents[used..].chunks_exact_mut(self.tables.bad.len());
                entries.for_each(|entry| entry.copy_from_slice(self.tables.bad));
            }
        }
        Ok(())
    }

    fn write(&self, blocks: &[embedded_sdmmc::Block], start: BlockIdx) -> Result<(), Interruption> {
        for (at, block) in (start.0..).zip(blocks) {
            let sector = at.checked_sub(1).ok_or(Interruption::OutOfRange)?;
            self.write_sector(sector.into(), &block.contents)?;
        }
        Ok(())
    }

    fn num_blocks(&self) -> Result<BlockCount, Interruption> {
        Ok(BlockCount(self.sectors() + 1))
    }
}
