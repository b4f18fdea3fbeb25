//! The machine's memory: a file without a name that QEMU and this process both map, and the page tables in it.
//!
//! Each region of the subject's policy gets pages of its own, and page tables of four levels map it with its rights and nothing else.

use core::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use fogbow_muen_interface::channel::Region as Channel;
use fogbow_tender::elf::PAGE_SIZE;
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// Where the machine's memory is memory on every kind of machine: above the holes of the first mebibyte.
const FIRST: u64 = 1 << 20;

/// The most memory that lies in one piece below the devices.
const MOST: u64 = 2 << 30;

/// Bits of a page table entry (Intel SDM volume 3A, chapter 4.5).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A part of the subject's address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Its name among the subject's resources.
    pub(crate) name: String,
    /// Where the subject sees it.
    pub(crate) address: u64,
    /// Bytes, in whole pages.
    pub(crate) size: u64,
    /// What the subject may do with it.
    pub(crate) is_writable: bool,
    pub(crate) is_executable: bool,
    /// Its kind in the subject information.
    pub(crate) kind: u8,
}

/// Why there is no such memory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("the machine would need {0:#x} bytes of memory, and can have {MOST:#x}: give the image less with --mem")]
    TooMuch(u64),
    #[error("cannot make the machine's memory: {0}")]
    Host(#[from] io::Error),
}

/// The machine's memory.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    start: *mut c_void,
    size: u64,
    /// What the subject sees, and where it lies in the machine's memory.
    regions: Vec<(Region, u64)>,
    /// The root of the page tables.
    root: u64,
    /// Where the next page goes.
    free: u64,
}

impl Memory {
    /// Memory for a machine whose subject has these regions, all of it zero, and page tables for them.
    pub(crate) fn new(regions: &[Region]) -> Result<Self, MemoryError> {
        let all: u64 = regions.iter().map(|region| region.size).sum();
        // Page tables: one for each 2 MiB, and as many more at the ends of each region.
        let tables = (all / (512 * PAGE_SIZE) + 4 * regions.len() as u64 + 8) * PAGE_SIZE;
        let size = (FIRST + all + tables).next_multiple_of(FIRST);
        if size > MOST {
            return Err(MemoryError::TooMuch(size));
        }
        // Passed on to QEMU, which opens it by its number.
        let file = File::from(rustix::fs::memfd_create("muen", MemfdFlags::empty()).map_err(io::Error::from)?);
        file.set_len(size)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without MAP_FIXED the mapping replaces nothing.
        let start = unsafe { rustix::mm::mmap(core::ptr::null_mut(), size as usize, rights, MapFlags::SHARED, &file, 0) };
        let start = start.map_err(io::Error::from)?;
        let mut memory = Self { file, start, size, regions: Vec::new(), root: FIRST, free: FIRST + PAGE_SIZE };
        for region in regions {
            let place = memory.take(region.size);
            memory.map(region, place);
            memory.regions.push((region.clone(), place));
        }
        // The machine's first instructions go on from their own page until they jump to the subject.
        let reset = crate::reset::ADDRESS;
        memory.map_page(reset, reset, PRESENT);
        Ok(memory)
    }

    /// Bytes of it.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// The root of the page tables.
    pub(crate) const fn root(&self) -> u64 {
        self.root
    }

    /// The file, by the name under which a child of this process can open it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    /// The bytes that the subject sees at `address`; `None` where no region has all of them.
    pub(crate) fn bytes(&mut self, address: u64, size: u64) -> Option<&mut [u8]> {
        let place = self.place(address, size)?;
        // SAFETY: the range lies within the mapping, which is this process's alone until QEMU starts, and borrowed with `self`.
        Some(unsafe { core::slice::from_raw_parts_mut(self.start.byte_add(place as usize).cast(), size as usize) })
    }

    /// The channel that is the region `name`.
    pub(crate) fn channel(&self, name: &str) -> Option<Channel<'static>> {
        let (region, place) = self.regions.iter().find(|(region, _)| region.name == name)?;
        // SAFETY: the range lies within the mapping, which stays for ever; from here on it is changed by atomic accesses or by the subject.
        unsafe { Channel::new(self.start.byte_add(*place as usize).expose_provenance() as u64, region.size) }
    }

    /// What the subject sees at `address` as something that is all atomics, and may change at any time.
    ///
    /// # Safety
    /// `T` is made of atomic integers alone.
    pub(crate) unsafe fn shared<T>(&self, address: u64) -> Option<&'static T> {
        let place = self.place(address, size_of::<T>() as u64)?;
        // SAFETY: the range lies within the mapping, which stays for ever, and is aligned as regions begin with pages; the caller promises the rest.
        (place as usize).is_multiple_of(align_of::<T>()).then(|| unsafe { &*self.start.byte_add(place as usize).cast() })
    }

    /// Where the bytes that the subject sees at `address` are in the machine's memory.
    fn place(&self, address: u64, size: u64) -> Option<u64> {
        let mut places = self.regions.iter().filter_map(|(region, place)| {
            let offset = address.checked_sub(region.address)?;
            (offset.checked_add(size)? <= region.size).then_some(place + offset)
        });
        places.next()
    }

    /// Takes pages that nothing else has.
    fn take(&mut self, size: u64) -> u64 {
        let place = self.free;
        self.free += size;
        place
    }

    fn map(&mut self, region: &Region, place: u64) {
        let mut rights = PRESENT;
        if region.is_writable {
            rights |= WRITABLE;
        }
        if !region.is_executable {
            rights |= NO_EXECUTE;
        }
        for offset in (0..region.size).step_by(PAGE_SIZE as usize) {
            self.map_page(region.address + offset, place + offset, rights);
        }
    }

    fn map_page(&mut self, address: u64, place: u64, rights: u64) {
        let mut table = self.root;
        for level in (1..4).rev() {
            let slot = table + (address >> (12 + 9 * level) & 511) * 8;
            let entry = self.entry(slot);
            table = if entry & PRESENT != 0 {
                entry & ADDRESS
            } else {
                let new = self.take(PAGE_SIZE);
                self.set_entry(slot, new | PRESENT | WRITABLE);
                new
            };
        }
        self.set_entry(table + (address >> 12 & 511) * 8, place | rights);
    }

    fn entry(&self, place: u64) -> u64 {
        assert!(place + 8 <= self.size, "a page table beyond the memory");
        // SAFETY: the place lies within the mapping and is aligned; QEMU does not run yet.
        unsafe { self.start.byte_add(place as usize).cast::<u64>().read() }
    }

    fn set_entry(&mut self, place: u64, entry: u64) {
        assert!(place + 8 <= self.size, "a page table beyond the memory");
        // SAFETY: as above.
        unsafe { self.start.byte_add(place as usize).cast::<u64>().write(entry) };
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(address: u64, size: u64, is_writable: bool, is_executable: bool) -> Region {
        Region { name: format!("{address:x}"), address, size, is_writable, is_executable, kind: 0 }
    }

    /// What the page tables say of an address.
    fn walk(memory: &Memory, address: u64) -> Option<u64> {
        let mut entry = memory.root | PRESENT;
        for level in (0..4).rev() {
            if entry & PRESENT == 0 {
                return None;
            }
            entry = memory.entry((entry & ADDRESS) + (address >> (12 + 9 * level) & 511) * 8);
        }
        (entry & PRESENT != 0).then_some(entry)
    }

    #[test]
    fn each_region_is_mapped_with_its_rights_and_nothing_else_is() {
        let regions =
            [region(0x1000, 0x1000, false, false), region(0x20_0000, 0x40_0000, false, true), region(0xe_0000_0000, 0x8000, true, false)];
        let mut memory = Memory::new(&regions).unwrap();
        for (address, rights) in [
            (0x1000, Some(NO_EXECUTE)),
            (0x20_0000, Some(0)),
            (0x5f_f000, Some(0)),
            (0xe_0000_7000, Some(WRITABLE | NO_EXECUTE)),
            (0xffff_f000, Some(0)),
            (0, None),
            (0x2000, None),
            (0x60_0000, None),
            (0xe_0000_8000, None),
        ] {
            assert_eq!(walk(&memory, address).map(|entry| entry & (WRITABLE | NO_EXECUTE)), rights, "{address:#x}");
        }
        // No two pages of the subject are the same page of memory.
        let pages: Vec<u64> = regions.iter().flat_map(|region| (region.address..region.address + region.size).step_by(4096)).collect();
        let places: std::collections::BTreeSet<u64> = pages.iter().map(|page| walk(&memory, *page).unwrap() & ADDRESS).collect();
        assert_eq!(places.len(), pages.len());
        assert!(places.iter().all(|place| (FIRST..memory.size()).contains(place)));
        memory.bytes(0x20_0ff8, 16).unwrap().fill(7);
        assert!(memory.bytes(0x5f_fff8, 16).is_none() && memory.bytes(0x3000, 1).is_none());
        assert!(memory.free <= memory.size(), "tables beyond the memory");
    }

    #[test]
    fn too_much_memory_is_refused() {
        assert!(matches!(Memory::new(&[region(0, 3 << 30, true, false)]), Err(MemoryError::TooMuch(_))));
    }
}
