//! Which pages are in use: a bit for each, in memory and, as of each checkpoint, on the device.
//!
//! Pages that a checkpoint frees stay in use until it is on the device. Pages that were taken for values whose commit is not in the log yet are free
//! in what is written: should the power fail, nothing leads to them.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

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

    fn touch_all(&mut self, extent: Extent) {
        for page in self.data_pages(extent) {
            self.touch(page);
        }
    }

    /// The pages of an extent, which may be anything, that lie where nodes and values do.
    fn data_pages(&self, extent: Extent) -> Range<u64> {
        let end = extent.page.saturating_add(extent.count.into());
        extent.page.max(self.geometry.data_start())..end.min(self.geometry.pages)
    }

    /// Marks a page of the device as in use; false when it was already.
    fn set(&mut self, page: u64) -> bool {
        if self.is_used(page) {
            return false;
        }
        self.bits[(page / 64) as usize] |= 1 << (page % 64);
        let group = self.touch(page);
        self.groups[group] -= 1;
        self.free -= 1;
        true
    }

    /// Marks all pages of an extent; false when one was in use already or is not where nodes and values are.
    pub(crate) fn set_all(&mut self, extent: Extent) -> bool {
        let mut count = 0;
        for page in self.data_pages(extent) {
            count += u32::from(self.set(page));
        }
        count == extent.count
    }

    pub(crate) fn release(&mut self, extents: &[Extent]) {
        for extent in extents {
            self.unlogged.remove(&extent.page);
            for page in self.data_pages(*extent) {
                if self.is_used(page) {
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
            self.touch_all(*extent);
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
        freed.iter().for_each(|extent| self.touch_all(*extent));
        let unlogged = self.unlogged.iter().map(|(&page, &count)| Extent { page, count });
        let cleared: Vec<Range<u64>> = freed.iter().copied().chain(unlogged).map(|extent| self.data_pages(extent)).collect();
        let mut pages = Vec::new();
        for group in 0..self.groups.len() {
            if core::mem::take(&mut self.stale[copy][group]) {
                let page = self.emit_group(group, id, &cleared);
                self.sums[copy][group] = u64_at(&page, 0).unwrap_or_default();
                pages.push((self.geometry.map_start(copy) + group as u64, page));
            }
        }
        (pages, self.sum(copy, id))
    }

    fn emit_group(&self, group: usize, id: u64, cleared: &[Range<u64>]) -> Vec<u8> {
        let (start, end) = (self.group_start(group), self.group_end(group));
        let mut bytes = vec![0; self.geometry.page];
        bytes[8..MAP_HEADER].copy_from_slice(&(group as u64).to_le_bytes());
        let words = &self.bits[(start / 64) as usize..end.div_ceil(64) as usize];
        for (word, into) in words.iter().zip(bytes[MAP_HEADER..].chunks_exact_mut(8)) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        for pages in cleared {
            for page in pages.start.max(start)..pages.end.min(end) {
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

    /// Takes over a page of a copy of the map; [`is_whole`](Self::is_whole) says whether it is the one that the checkpoint wrote.
    pub(crate) fn read_group(&mut self, copy: usize, id: u64, group: usize, bytes: &[u8]) {
        let (start, end) = (self.group_start(group), self.group_end(group));
        let words = &mut self.bits[(start / 64) as usize..end.div_ceil(64) as usize];
        for (word, from) in words.iter_mut().zip(bytes[MAP_HEADER..].chunks_exact(8)) {
            *word = u64_at(from, 0).unwrap_or_default();
        }
        let used: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
        let free = (end - start).saturating_sub(used);
        self.free = self.free - u64::from(self.groups[group]) + free;
        self.groups[group] = free as u32;
        self.sums[copy][group] = checksum(id, &bytes[8..]);
        self.stale[copy][group] = false;
    }

    /// Whether the pages that were taken over are those that the checkpoint wrote, and spare what the format itself needs.
    pub(crate) fn is_whole(&self, copy: usize, id: u64, expected: u64) -> bool {
        let tail = self.geometry.pages % 64;
        let tail_is_clear = tail == 0 || self.bits.last().is_none_or(|word| word >> tail == 0);
        self.sum(copy, id) == expected && tail_is_clear && (0..self.geometry.data_start()).all(|page| self.is_used(page))
    }
}

#[cfg(test)]
mod tests;
