//! Images of the smallest log store, as docs/log-store.md describes them: changed, and with their checksums put right again.
//!
//! A file is a list of sectors that are not empty: the number (4 bytes, little-endian), then 512 bytes.

use std::mem;

use twox_hash::XxHash3_64;

pub(crate) const SECTOR: usize = 512;
pub(crate) const PAGE: usize = 4096;
pub(crate) const PAGES: usize = 64;

/// The halves of the log, and the bytes of each.
pub(crate) const HALVES: [usize; 2] = [4 * PAGE, 8 * PAGE];
const HALF: usize = 4 * PAGE;

/// The copies of the free-space map.
pub(crate) const MAPS: [usize; 2] = [12 * PAGE, 13 * PAGE];

/// Nodes and chunks.
pub(crate) const DATA: usize = 14 * PAGE;

/// Bytes before the contents of a sector of the log.
const HEADER: usize = 32;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Image(pub(crate) Vec<u8>);

pub(crate) fn random(below: u64) -> u64 {
    fogbow::random::next_u64().expect("a simulated node has randomness") % below.max(1)
}

fn sum(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

impl Image {
    pub(crate) fn parse(file: &[u8]) -> Self {
        let mut bytes = vec![0; PAGES * PAGE];
        for sector in file.chunks_exact(4 + SECTOR) {
            let number = u32::from_le_bytes(*sector.first_chunk().unwrap()) as usize;
            bytes[number * SECTOR..][..SECTOR].copy_from_slice(&sector[4..]);
        }
        Self(bytes)
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let sectors = self.0.chunks_exact(SECTOR).enumerate().filter(|(_, sector)| sector.iter().any(|byte| *byte != 0));
        sectors.flat_map(|(number, sector)| [&(number as u32).to_le_bytes()[..], sector].concat()).collect()
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.0[at..].first_chunk().unwrap())
    }

    fn put(&mut self, at: usize, number: u64) {
        self.0[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }

    /// The place of the superblock that counts.
    pub(crate) fn superblock(&self) -> usize {
        let candidates = (0..4).map(|page| page * PAGE).filter(|at| self.0[*at..].starts_with(b"FogbowKV"));
        candidates.max_by_key(|at| self.number(at + 40)).unwrap_or_default()
    }

    /// The place of the free-space map that counts.
    pub(crate) fn map(&self) -> usize {
        MAPS[(self.number(self.superblock() + 40) % 2) as usize]
    }

    fn id(&self) -> u64 {
        self.number(self.superblock() + 32)
    }

    pub(crate) fn page_sums(&self) -> Vec<u64> {
        self.0.chunks_exact(PAGE).map(|page| sum(self.id(), page)).collect()
    }

    /// Makes it one of a version that is to come.
    pub(crate) fn make_newer(&mut self) {
        let former = self.page_sums();
        let at = self.superblock();
        self.0[at + 8] += 1;
        self.seal(&former);
    }

    /// A sector that has something, mostly: of the superblocks, the log, the map or the tree, each as often.
    fn sector(&self) -> usize {
        let areas = [0..HALVES[0], HALVES[0]..MAPS[0], MAPS[0]..DATA, DATA..PAGES * PAGE];
        let all: Vec<usize> = areas[random(4) as usize].clone().step_by(SECTOR).collect();
        let used = |at: &usize| self.0[*at..at + SECTOR].iter().any(|byte| *byte != 0);
        let candidates: Vec<usize> = all.iter().copied().filter(used).collect();
        let from = if candidates.is_empty() || random(20) == 0 { &all } else { &candidates };
        from[random(from.len() as u64) as usize]
    }

    /// Changes something.
    pub(crate) fn mutate(&mut self) {
        let at = self.sector();
        // What decides lies at the beginning, mostly.
        let inside = at + random(if random(2) == 0 { 140 } else { SECTOR as u64 - 8 }) as usize;
        match random(8) {
            0 | 1 => self.0[inside] ^= 1 << random(8),
            2 => self.0[inside] = random(256) as u8,
            3 => self.put(inside, [0, 1, u64::MAX, 1 << 63, random(80), random(1 << 32)][random(6) as usize]),
            4 => {
                let number = [0, 1, 0xffff, random(5000)][random(4) as usize] as u16;
                self.0[inside..inside + 2].copy_from_slice(&number.to_le_bytes());
            }
            5 => {
                let from = self.sector();
                self.0.copy_within(from..from + SECTOR, at);
            }
            6 => self.0[at..at + SECTOR].fill(0),
            _ => {
                let (from, length) = (self.sector() + random(400) as usize, 1 + random(100) as usize);
                self.0.copy_within(from..from + length, inside.min(at + SECTOR - length));
            }
        }
    }

    /// Puts all checksums right, as far as they can be found; `former` are those of the pages before.
    pub(crate) fn seal(&mut self, former: &[u64]) {
        let id = self.id();
        HALVES.iter().for_each(|half| self.seal_records(*half, id));
        let mut known = former.to_vec();
        // Each round reaches one level higher in the tree.
        for _ in 0..4 {
            for (page, known) in known.iter_mut().enumerate().skip(DATA / PAGE) {
                let now = sum(id, &self.0[page * PAGE..][..PAGE]);
                let before = mem::replace(known, now);
                if before != now {
                    self.replace(before, now);
                }
            }
        }
        for map in MAPS {
            self.put(map, sum(id, &self.0[map + 8..map + PAGE]));
        }
        let superblock = self.superblock();
        let map = self.map();
        self.put(superblock + 80, sum(id, &self.0[map..map + 8]));
        for at in (0..4).map(|page| page * PAGE) {
            self.put(at + 120, sum(0, &self.0[at..at + 120]));
        }
    }

    /// Replaces a checksum wherever a superblock or a node has it.
    fn replace(&mut self, from: u64, to: u64) {
        for page in (0..4).chain(DATA / PAGE..PAGES) {
            let start = page * PAGE;
            let found = self.0[start..start + PAGE].windows(8).position(|window| window == from.to_le_bytes());
            if let Some(found) = found {
                self.put(start + found, to);
            }
        }
    }

    /// Puts checksums and parity of a half's records right.
    fn seal_records(&mut self, half: usize, id: u64) {
        let mut at = half;
        while at + SECTOR <= half + HALF {
            let count = usize::from(u16::from_le_bytes([self.0[at + 26], self.0[at + 27]]));
            let length = u32::from_le_bytes(*self.0[at + 28..].first_chunk().unwrap()) as usize;
            if count < 2 || at + count * SECTOR > half + HALF || length > (count - 1) * (SECTOR - HEADER) {
                return;
            }
            let contents: Vec<u8> = (0..count - 1).flat_map(|index| self.0[at + index * SECTOR..][HEADER..SECTOR].to_vec()).collect();
            let identity = sum(id, &contents[..length]);
            let last = at + (count - 1) * SECTOR;
            for index in 0..SECTOR - HEADER {
                self.0[last + HEADER + index] = contents.chunks_exact(SECTOR - HEADER).fold(0, |parity, part| parity ^ part[index]);
            }
            for sector in (0..count).map(|index| at + index * SECTOR) {
                self.put(sector + 16, identity);
                self.put(sector, sum(id, &self.0[sector + 8..sector + SECTOR]));
            }
            at += count * SECTOR;
        }
    }
}
