//! A disk in memory.
//!
//! Memory is taken for what has been written alone, in pages, and given back for what is discarded. A [snapshot](Ram::snapshot) shares the pages with
//! the disk until one of the two is written.

use alloc::borrow::ToOwned;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use crate::{Block, BlockError, BlockInfo, Cause, Durability, Operation, check};

/// Bytes in a page, unless sectors are larger: a page of the processor's, so that little is taken for a single sector.
const PAGE: usize = 4096;

/// A disk in memory, which reads as zeros where nothing has been written.
#[derive(Debug)]
pub struct Ram {
    name: String,
    info: BlockInfo,
    page_size: usize,
    pages: RefCell<Vec<Option<Rc<Vec<u8>>>>>,
}

/// Why a disk in memory cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RamError {
    /// The sector size is no power of two, or less than 512.
    SectorSize(usize),
    /// There is no memory for the table of a disk of so many sectors.
    TooLarge(u64),
}

impl fmt::Display for RamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SectorSize(size) => write!(f, "sectors of {size} bytes: the size must be a power of two, 512 or more"),
            Self::TooLarge(sectors) => {
                write!(f, "there is no memory for a disk of {sectors} sectors: give the image more, or the disk less")
            }
        }
    }
}

impl core::error::Error for RamError {}

impl Ram {
    /// A disk of `sectors` sectors of `sector_size` bytes, all zeros.
    ///
    /// # Errors
    /// [`RamError`].
    pub fn new(name: &str, sector_size: usize, sectors: u64) -> Result<Self, RamError> {
        if sector_size < 512 || !sector_size.is_power_of_two() {
            return Err(RamError::SectorSize(sector_size));
        }
        let page_size = PAGE.max(sector_size);
        let count = usize::try_from(sectors.div_ceil((page_size / sector_size) as u64)).map_err(|_| RamError::TooLarge(sectors))?;
        let mut pages = Vec::new();
        pages.try_reserve_exact(count).map_err(|_| RamError::TooLarge(sectors))?;
        pages.resize(count, None);
        let info = BlockInfo { sector_size, sectors, read_only: false, durability: Durability::Volatile };
        Ok(Self { name: name.to_owned(), info, page_size, pages: RefCell::new(pages) })
    }

    /// A disk with the present contents of this one, whose later changes it does not see.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { name: self.name.clone(), info: self.info, page_size: self.page_size, pages: self.pages.clone() }
    }

    /// The pieces of pages in which `length` bytes from `sector` on lie: each page's index, the offset in it, and the length there.
    fn pieces(&self, sector: u64, length: usize) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        // The device has as many bytes as its pages, whose number fits into usize; so do those of a checked request.
        let (page_size, mut at) = (self.page_size as u64, sector * self.info.sector_size as u64);
        let end = at + length as u64;
        core::iter::from_fn(move || {
            let offset = at % page_size;
            let length = (page_size - offset).min(end - at);
            let piece = ((at / page_size) as usize, offset as usize, length as usize);
            at += length;
            (length > 0).then_some(piece)
        })
    }

    pub(crate) fn read_now(&self, sector: u64, into: &mut [u8]) {
        let pages = self.pages.borrow();
        let mut rest = into;
        for (page, offset, length) in self.pieces(sector, rest.len()) {
            let (piece, behind) = rest.split_at_mut(length);
            match &pages[page] {
                Some(page) => piece.copy_from_slice(&page[offset..offset + length]),
                None => piece.fill(0),
            }
            rest = behind;
        }
    }

    /// False when there is no memory for it.
    pub(crate) fn write_now(&self, sector: u64, data: &[u8]) -> bool {
        let mut pages = self.pages.borrow_mut();
        let mut rest = data;
        for (index, offset, length) in self.pieces(sector, rest.len()) {
            let (piece, behind) = rest.split_at(length);
            let slot = &mut pages[index];
            let is_own = slot.as_mut().is_some_and(|page| Rc::get_mut(page).is_some());
            if !is_own {
                let mut page = Vec::new();
                if page.try_reserve_exact(self.page_size).is_err() {
                    return false;
                }
                match slot {
                    Some(shared) => page.extend_from_slice(shared),
                    None => page.resize(self.page_size, 0),
                }
                *slot = Some(Rc::new(page));
            }
            if let Some(page) = slot.as_mut().and_then(Rc::get_mut) {
                page[offset..offset + length].copy_from_slice(piece);
            }
            rest = behind;
        }
        true
    }

    fn discard_now(&self, sector: u64, length: u64) {
        let mut pages = self.pages.borrow_mut();
        // Parts of pages keep their contents: a discarded sector reads as anything.
        let start = (sector * self.info.sector_size as u64).div_ceil(self.page_size as u64) as usize;
        let end = ((sector * self.info.sector_size as u64 + length) / self.page_size as u64) as usize;
        pages.iter_mut().take(end).skip(start).for_each(|page| *page = None);
    }
}

impl Block for Ram {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> BlockInfo {
        self.info
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        check::read(self, sector, into)?;
        let mut at = sector;
        for buffer in into {
            self.read_now(at, buffer);
            at += (buffer.len() / self.info.sector_size) as u64;
        }
        Ok(())
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        let length = check::write(self, sector, data)?;
        let mut at = sector;
        for buffer in data {
            if !self.write_now(at, buffer) {
                return Err(Cause::NoMemory.of(self, Operation::Write, sector, length));
            }
            at += (buffer.len() / self.info.sector_size) as u64;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        let length = check::discard(self, sector, sectors)?;
        self.discard_now(sector, length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogbow::simulation::Simulation;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn requests_are_checked_and_errors_name_device_and_range() {
        Simulation::new(1).block_on(async {
            assert_eq!(Ram::new("x", 500, 1).unwrap_err(), RamError::SectorSize(500));
            assert!(matches!(Ram::new("x", 512, u64::MAX), Err(RamError::TooLarge(_))));
            let disk = Ram::new("scratch", 512, 9).unwrap();
            let error = disk.read(8, &mut [0; 1024]).await.unwrap_err();
            assert_eq!(std::format!("{error}"), "block device 'scratch': read of 1024 bytes at sector 8: the device ends at sector 9");
            assert_eq!(disk.read(9, &mut []).await, Ok(()));
            assert_eq!(disk.write(u64::MAX, &[0; 512]).await.unwrap_err().cause, Cause::OutOfRange { sectors: 9 });
            assert_eq!(disk.discard(0, u64::MAX).await.unwrap_err().cause, Cause::OutOfRange { sectors: 9 });
            let odd = disk.write_vectored(0, &[&[0; 256], &[0; 256]]).await.unwrap_err();
            assert_eq!(odd.cause, Cause::NotWholeSectors { sector_size: 512 });
        });
    }

    #[test]
    fn memory_is_taken_for_what_is_written_and_given_back() {
        Simulation::new(1).block_on(async {
            let disk = Ram::new("scratch", 512, 1 << 20).unwrap();
            let taken = |disk: &Ram| disk.pages.borrow().iter().flatten().count();
            disk.write(7, &[1; 2 * 512]).await.unwrap();
            assert_eq!(taken(&disk), 2);
            disk.discard(1, 15).await.unwrap();
            assert_eq!(taken(&disk), 1, "the first page was discarded in part");
        });
    }

    proptest! {
        /// A disk keeps what was written and not discarded, a snapshot what had been written when it was taken.
        #[test]
        fn keeps_what_is_written(
            requests in proptest::collection::vec((0_u64..40, 0_usize..20, proptest::option::weighted(0.8, any::<u8>())), 0..30),
            snapshot_at in 0_usize..30,
        ) {
            Simulation::new(1).block_on(async move {
                let disk = Ram::new("scratch", 512, 60).unwrap();
                // What each sector holds; a discarded one anything.
                let mut model = vec![Some(0); 60];
                let mut kept = None;
                for (index, &(sector, count, value)) in requests.iter().enumerate() {
                    if index == snapshot_at {
                        kept = Some((disk.snapshot(), model.clone()));
                    }
                    model[sector as usize..][..count].fill(value);
                    let Some(value) = value else {
                        disk.discard(sector, count as u64).await.unwrap();
                        continue;
                    };
                    let data = vec![value; count * 512];
                    let (first, second) = data.split_at(count / 2 * 512);
                    disk.write_vectored(sector, &[first, second]).await.unwrap();
                }
                for (disk, model) in [(disk, model)].into_iter().chain(kept) {
                    let (mut first, mut second) = (vec![9; 7 * 512], vec![9; 53 * 512]);
                    disk.read_vectored(0, &mut [&mut first, &mut second]).await.unwrap();
                    for (sector, (data, value)) in [first, second].concat().chunks(512).zip(model).enumerate() {
                        assert!(value.is_none_or(|value| data == [value; 512]), "sector {sector}");
                    }
                }
            });
        }
    }
}
