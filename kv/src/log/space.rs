//! Which pages are in use: a bit for each, in memory and, as of each checkpoint, on the device.
//!
//! Pages that a checkpoint frees stay in use until it is on the device. Pages that were taken for values whose commit is not in the log yet are free
//! in what is written: should the power fail, nothing leads to them.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::layout::{Extent, Geometry, MAP_HEADER, checksum, u64_at};

pub(crate) struct Space {
    geometry: Geometry,
    /// One for each page; set: in use.
    bits: Vec<u64>,
    free: u64,
    /// Free pages in each page of the map.
    groups: Vec<u32>,
    /// Where the next search begins.
    hint: u64,
    /// For each page of the map, whether it must be written to either copy.
    stale: [Vec<bool>; 2],
    /// The checksum of each page of either copy.
    sums: [Vec<u64>; 2],
    /// Taken for commits that are not in the log yet.
    unlogged: BTreeMap<u64, u32>,
}

impl Space {
    /// A device on which only what the format itself needs is in use.
    pub(crate) fn new(geometry: Geometry) -> Self {
        let groups = geometry.map_pages() as usize;
        let mut space = Self {
            geometry,
            bits: vec![0; geometry.pages.div_ceil(64) as usize],
            free: geometry.pages,
            groups: vec![0; groups],
            hint: geometry.data_start(),
            stale: [vec![true; groups], vec![true; groups]],
            sums: [vec![0; groups], vec![0; groups]],
            unlogged: BTreeMap::new(),
        };
        for group in 0..groups {
            space.groups[group] = (space.group_end(group) - space.group_start(group)) as u32;
        }
        for page in 0..geometry.data_start() {
            space.set(page);
        }
        space
    }

    fn group_start(&self, group: usize) -> u64 {
        group as u64 * self.geometry.map_bits()
    }

    fn group_end(&self, group: usize) -> u64 {
        ((group as u64 + 1) * self.geometry.map_bits()).min(self.geometry.pages)
    }

    pub(crate) const fn free(&self) -> u64 {
        self.free
    }

    pub(crate) fn is_used(&self, page: u64) -> bool {
        self.bits.get((page / 64) as usize).is_none_or(|word| word >> (page % 64) & 1 == 1)
    }

    fn touch(&mut self, page: u64) -> usize {
        let group = (page / self.geometry.map_bits()) as usize;
        self.stale[0][group] = true;
        self.stale[1][group] = true;
        group
    }

    /// Marks a page as in use; false when it was already, or is not on the device.
    pub(crate) fn set(&mut self, page: u64) -> bool {
        if page >= self.geometry.pages || self.is_used(page) {
            return false;
        }
        self.bits[(page / 64) as usize] |= 1 << (page % 64);
        let group = self.touch(page);
        self.groups[group] -= 1;
        self.free -= 1;
        true
    }

    /// Marks all pages of an extent; false when one was in use already or is not on the device.
    pub(crate) fn set_all(&mut self, extent: Extent) -> bool {
        let end = extent.page.saturating_add(extent.count.into());
        let mut all = extent.page >= self.geometry.data_start() && end <= self.geometry.pages;
        for page in extent.page..end.min(self.geometry.pages) {
            all &= self.set(page);
        }
        all
    }

    pub(crate) fn release(&mut self, extents: &[Extent]) {
        for extent in extents {
            self.unlogged.remove(&extent.page);
            for page in extent.page..extent.page.saturating_add(extent.count.into()).min(self.geometry.pages) {
                if page >= self.geometry.data_start() && self.is_used(page) {
                    self.bits[(page / 64) as usize] &= !(1 << (page % 64));
                    let group = self.touch(page);
                    self.groups[group] += 1;
                    self.free += 1;
                }
            }
        }
    }

    /// Nothing is known of what either copy of the map holds.
    pub(crate) fn forget(&mut self) {
        self.stale.iter_mut().for_each(|stale| stale.fill(true));
    }

    /// Takes `count` pages, in as few pieces as are found without a search for better ones; `None` when there are not so many.
    pub(crate) fn take(&mut self, count: u32) -> Option<Vec<Extent>> {
        if self.free < u64::from(count) {
            return None;
        }
        let mut extents: Vec<Extent> = Vec::new();
        let mut left = count;
        while left > 0 {
            let page = self.next_free()?;
            self.set(page);
            self.hint = page + 1;
            left -= 1;
            match extents.last_mut() {
                Some(last) if last.page + u64::from(last.count) == page => last.count += 1,
                _ => extents.push(Extent { page, count: 1 }),
            }
        }
        Some(extents)
    }

    /// Takes pages for a commit that is not in the log yet.
    pub(crate) fn take_unlogged(&mut self, count: u32) -> Option<Vec<Extent>> {
        let extents = self.take(count)?;
        self.unlogged.extend(extents.iter().map(|extent| (extent.page, extent.count)));
        Some(extents)
    }

    /// The log holds the commit that those pages were taken for.
    pub(crate) fn logged(&mut self, extents: &[Extent]) {
        for extent in extents {
            self.unlogged.remove(&extent.page);
            for page in [extent.page, extent.page + u64::from(extent.count.saturating_sub(1))] {
                if page < self.geometry.pages {
                    self.touch(page);
                }
            }
        }
    }

    fn next_free(&self) -> Option<u64> {
        let groups = self.groups.len();
        let first = (self.hint.min(self.geometry.pages - 1) / self.geometry.map_bits()) as usize;
        // The first group a second time, for what is before the hint.
        (0..=groups).find_map(|step| {
            let group = (first + step) % groups;
            if self.groups[group] == 0 {
                return None;
            }
            let start = self.group_start(group);
            self.first_clear(if step == 0 { self.hint.max(start) } else { start }, self.group_end(group))
        })
    }

    fn first_clear(&self, from: u64, end: u64) -> Option<u64> {
        let mut page = from;
        while page < end {
            let word = !self.bits[(page / 64) as usize] >> (page % 64);
            if word != 0 {
                let found = page + u64::from(word.trailing_zeros());
                return (found < end).then_some(found);
            }
            page = (page / 64 + 1) * 64;
        }
        None
    }

    /// The pages of a copy of the map that must be written, as they are once `freed` is free, and the checksum of the whole copy.
    pub(crate) fn emit(&mut self, copy: usize, id: u64, freed: &[Extent]) -> (Vec<(u64, Vec<u8>)>, u64) {
        let mut cleared: Vec<Extent> = freed.to_vec();
        cleared.extend(self.unlogged.iter().map(|(&page, &count)| Extent { page, count }));
        for extent in &cleared {
            for page in [extent.page, extent.page + u64::from(extent.count.saturating_sub(1))] {
                if page < self.geometry.pages {
                    self.touch(page);
                }
            }
        }
        let mut pages = Vec::new();
        for group in 0..self.groups.len() {
            if core::mem::take(&mut self.stale[copy][group]) {
                let page = self.emit_group(group, id, &cleared);
                self.sums[copy][group] = u64_at(&page, 0).unwrap_or_default();
                pages.push((self.geometry.map_start(copy) + group as u64, page));
            }
        }
        for extent in &cleared {
            if extent.page < self.geometry.pages {
                self.touch(extent.page);
                self.touch((extent.page + u64::from(extent.count.saturating_sub(1))).min(self.geometry.pages - 1));
            }
        }
        (pages, self.sum(copy, id))
    }

    fn emit_group(&self, group: usize, id: u64, cleared: &[Extent]) -> Vec<u8> {
        let (start, end) = (self.group_start(group), self.group_end(group));
        let mut bytes = vec![0; self.geometry.page];
        bytes[8..MAP_HEADER].copy_from_slice(&(group as u64).to_le_bytes());
        let words = &self.bits[(start / 64) as usize..end.div_ceil(64) as usize];
        for (word, into) in words.iter().zip(bytes[MAP_HEADER..].chunks_exact_mut(8)) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        for extent in cleared {
            for page in extent.page.max(start)..(extent.page + u64::from(extent.count)).min(end) {
                bytes[MAP_HEADER + ((page - start) / 8) as usize] &= !(1 << (page % 8));
            }
        }
        let sum = checksum(id, &bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn sum(&self, copy: usize, id: u64) -> u64 {
        let sums: Vec<u8> = self.sums[copy].iter().flat_map(|sum| sum.to_le_bytes()).collect();
        checksum(id, &sums)
    }

    /// Takes over a page of the copy of the map that a checkpoint wrote; false when it is damaged.
    pub(crate) fn read_group(&mut self, copy: usize, id: u64, group: usize, bytes: &[u8]) -> bool {
        let sum = checksum(id, &bytes[8..]);
        if u64_at(bytes, 0) != Some(sum) || u64_at(bytes, 8) != Some(group as u64) {
            return false;
        }
        let (start, end) = (self.group_start(group), self.group_end(group));
        let words = &mut self.bits[(start / 64) as usize..end.div_ceil(64) as usize];
        for (word, from) in words.iter_mut().zip(bytes[MAP_HEADER..].chunks_exact(8)) {
            *word = u64_at(from, 0).unwrap_or_default();
        }
        let used: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
        let free = (end - start).saturating_sub(used);
        self.free = self.free - u64::from(self.groups[group]) + free;
        self.groups[group] = free as u32;
        self.sums[copy][group] = sum;
        self.stale[copy][group] = false;
        true
    }

    /// Whether the pages that were taken over belong together, and spare what the format itself needs.
    pub(crate) fn is_whole(&self, copy: usize, id: u64, expected: u64) -> bool {
        let tail = self.geometry.pages % 64;
        let tail_is_clear = tail == 0 || self.bits.last().is_none_or(|word| word >> tail == 0);
        self.sum(copy, id) == expected && tail_is_clear && (0..self.geometry.data_start()).all(|page| self.is_used(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogbow_block::{BlockInfo, Durability};
    use proptest::prelude::*;

    proptest! {
        /// No page is given out twice, all are given out, and the map on the device says the same.
        #[test]
        fn pages_are_taken_once(steps in prop::collection::vec((1_u32..20, any::<bool>()), 0..60)) {
            let geometry = Geometry::of(BlockInfo { sector_size: 512, sectors: 1200 * 8, read_only: false, durability: Durability::Host }).unwrap();
            let mut space = Space::new(geometry);
            let mut taken: Vec<Vec<Extent>> = Vec::new();
            for (count, release) in steps {
                let free = space.free();
                if release && !taken.is_empty() {
                    space.release(&taken.swap_remove(count as usize % taken.len()));
                } else if let Some(extents) = space.take(count) {
                    prop_assert_eq!(extents.iter().map(|e| e.count).sum::<u32>(), count);
                    for extent in extents.iter() {
                        prop_assert!(!taken.iter().flatten().any(|t| t.page < extent.page + u64::from(extent.count) && extent.page < t.page + u64::from(t.count)));
                        prop_assert!(extent.page >= geometry.data_start() && extent.page + u64::from(extent.count) <= geometry.pages);
                    }
                    taken.push(extents);
                } else {
                    prop_assert!(free < u64::from(count));
                }
            }
            let freed = taken.pop().unwrap_or_default();
            let (pages, sum) = space.emit(1, 5, &freed);
            let mut other = Space::new(geometry);
            for (at, page) in &pages {
                prop_assert!(other.read_group(1, 5, (at - geometry.map_start(1)) as usize, page));
            }
            prop_assert!(other.is_whole(1, 5, sum));
            space.release(&freed);
            prop_assert_eq!(&space.bits, &other.bits);
            prop_assert_eq!((space.free(), space.groups), (other.free(), other.groups));
        }
    }
}
