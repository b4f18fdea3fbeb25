//! What embedded-sdmmc leaves undone when something is removed or emptied: its clusters stay in use, and its long name stays where it was.

use alloc::vec::Vec;

use embedded_sdmmc::{DirEntry, Error};
use fogbow_block::blocking::Interruption;

use super::disk::{Disk, NUMBER, SECTOR, number};
use super::volume::Failure;

/// The bytes of a directory's entry (Microsoft, "FAT32 File System Specification", section 6).
const ENTRY: usize = 32;

/// Where an entry has its attributes, and the two halves of its first cluster's number (the same).
const ATTRIBUTES: usize = 11;
const CLUSTER_HIGH: usize = 20;
const CLUSTER_LOW: usize = 26;

/// The attributes of an entry that is a part of a long name (the same, section 7).
const LONG_NAME: u8 = 0x0f;

/// The attribute of the volume's label (the same, section 6).
const LABEL: u8 = 0x08;

/// The first byte of an entry that is free, and that of one behind which all are (the same, section 6.1).
const FREE: u8 = 0xe5;
const LAST: u8 = 0;

/// The most sectors of a directory: 2 MiB (the same, section 6).
const MOST_SECTORS: usize = 4096;

/// Where an entry of a directory is: its sector, and the offset in it.
type Place = (u64, usize);

/// Where an entry is.
fn place(entry: &DirEntry) -> Result<Place, Interruption> {
    // The volume begins behind the partition table.
    let sector = entry.entry_block.0.checked_sub(1).ok_or(Interruption::OutOfRange)?;
    let offset = entry.entry_offset as usize;
    if offset + ENTRY <= SECTOR { Ok((sector.into(), offset)) } else { Err(Interruption::OutOfRange) }
}

fn half(entry: &[u8], at: usize) -> u32 {
    u16::from_le_bytes([entry[at], entry[at + 1]]).into()
}

impl From<Interruption> for Failure {
    fn from(interruption: Interruption) -> Self {
        Error::DeviceError(interruption).into()
    }
}

impl Disk<'_> {
    fn read_sector(&self, sector: u64) -> Result<[u8; SECTOR], Interruption> {
        let mut contents = [0; SECTOR];
        self.attempt.read(sector, &mut contents)?;
        Ok(contents)
    }

    /// Whether the volume has such a cluster.
    pub(super) fn has(&self, cluster: u32) -> bool {
        self.tables.place(cluster).is_some()
    }

    /// The first cluster of what an entry names; zero for an empty file and the root.
    pub(super) fn first_cluster(&self, entry: &DirEntry) -> Result<u32, Interruption> {
        let (sector, offset) = place(entry)?;
        let contents = self.read_sector(sector)?;
        Ok(self.cluster_of(&contents[offset..offset + ENTRY]))
    }

    fn cluster_of(&self, entry: &[u8]) -> u32 {
        // A FAT16 has something else in the place of the higher half.
        let high = if self.tables.is_fat32() { half(entry, CLUSTER_HIGH) } else { 0 };
        high << 16 | half(entry, CLUSTER_LOW)
    }

    /// Takes its clusters from a file of no bytes.
    pub(super) fn empty(&self, entry: &DirEntry) -> Result<(), Interruption> {
        let cluster = self.first_cluster(entry)?;
        let (sector, offset) = place(entry)?;
        let mut contents = self.read_sector(sector)?;
        let entry = &mut contents[offset..offset + ENTRY];
        entry[CLUSTER_LOW..CLUSTER_LOW + 2].fill(0);
        if self.tables.is_fat32() {
            entry[CLUSTER_HIGH..CLUSTER_HIGH + 2].fill(0);
        }
        self.attempt.write(sector, &contents)?;
        self.free(cluster)
    }

    /// Frees a cluster and those that follow it.
    pub(super) fn free(&self, first: u32) -> Result<(), Interruption> {
        let mut next = self.tables.place(first);
        while let Some((sector, _)) = next {
            let mut contents = self.read_sector(sector)?;
            let mut freed = 0;
            while let Some((_, range)) = next.clone().filter(|(at, _)| *at == sector) {
                let entry = &mut contents[range];
                let number = number(entry);
                // What is free already has nothing behind it. So a chain that leads in a circle ends too.
                next = self.tables.place(number);
                freed += i64::from(number != 0);
                entry.iter_mut().zip(NUMBER.to_le_bytes()).for_each(|(byte, mask)| *byte &= !mask);
            }
            self.freed.set(self.freed.get() + freed);
            (0..self.tables.count).try_for_each(|copy| self.attempt.write(sector + copy * self.tables.sectors, &contents))?;
        }
        Ok(())
    }

    /// Removes all that is in the directory that begins at a cluster, but for what lies in directories in it; zero is the root.
    pub(super) fn clear(&self, directory: u32) -> Result<(), Interruption> {
        for sector in self.directory(directory)? {
            let mut contents = self.read_sector(sector)?;
            let mut clusters = Vec::new();
            let mut is_last = false;
            for entry in contents.chunks_exact_mut(ENTRY) {
                is_last |= entry[0] == LAST;
                let is_label = entry[ATTRIBUTES] & LONG_NAME == LABEL;
                // A directory's own entries are `.` and `..`.
                if is_last || entry[0] == FREE || entry[0] == b'.' || is_label {
                    continue;
                }
                if entry[ATTRIBUTES] & LONG_NAME != LONG_NAME {
                    clusters.push(self.cluster_of(entry));
                }
                entry[0] = FREE;
            }
            self.attempt.write(sector, &contents)?;
            clusters.into_iter().try_for_each(|cluster| self.free(cluster))?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Removes the long name of an entry in the directory that begins at a cluster; zero is the root.
    pub(super) fn remove_long_name(&self, directory: u32, entry: &DirEntry) -> Result<(), Interruption> {
        let target = place(entry)?;
        let mut parts: Vec<Place> = Vec::new();
        let mut is_found = false;
        'search: for sector in self.directory(directory)? {
            let contents = self.read_sector(sector)?;
            for (offset, entry) in (0..SECTOR).step_by(ENTRY).zip(contents.chunks_exact(ENTRY)) {
                match entry[0] {
                    _ if (sector, offset) == target => {
                        is_found = true;
                        break 'search;
                    }
                    LAST => return Ok(()),
                    _ if entry[ATTRIBUTES] & LONG_NAME == LONG_NAME => parts.push((sector, offset)),
                    _ => parts.clear(),
                }
            }
        }
        // Of a directory that is cut short, what came last is something else's.
        for (sector, offset) in parts.into_iter().filter(|_| is_found) {
            let mut contents = self.read_sector(sector)?;
            contents[offset] = FREE;
            self.attempt.write(sector, &contents)?;
        }
        Ok(())
    }

    /// The sectors of a directory that begins at a cluster; zero is the root.
    fn directory(&self, first: u32) -> Result<Vec<u64>, Interruption> {
        let mut cluster = match self.tables.root() {
            Ok(sectors) if first == 0 => return Ok(sectors.collect()),
            Err(root) if first == 0 => root,
            _ => first,
        };
        let mut sectors = Vec::new();
        while let Some((sector, range)) = self.tables.place(cluster)
            && sectors.len() < MOST_SECTORS
        {
            sectors.extend(self.tables.sectors_of(cluster));
            cluster = number(&self.read_sector(sector)?[range]);
        }
        Ok(sectors)
    }
}
