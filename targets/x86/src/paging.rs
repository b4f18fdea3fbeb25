//! The image's page tables, as a pure function over a slice of tables.
//!
//! Every address is mapped to itself (x86-64 four-level paging, Intel SDM volume 3A, chapter 4.5). A mapping takes 2 MiB pages where a whole one
//! lies inside it and 4 KiB pages elsewhere. The accessed and dirty bits are set from the start, so that the processor never writes to the
//! tables; ring 3 can neither read nor write them.
//! Limits: the first 512 GiB, but for [`devices`]; a mapping once made is never changed.

use core::fmt;

pub mod devices;

/// Bytes in the smallest page.
pub const PAGE: u64 = 4 << 10;

/// Bytes in a large page, and bytes that one table of small pages covers.
pub const LARGE_PAGE: u64 = 2 << 20;

/// Bytes that one page directory covers.
const DIRECTORY_SPAN: u64 = 1 << 30;

/// Bytes that the one page directory pointer table covers: the highest address that can be mapped.
pub const SPAN: u64 = 512 << 30;

const ENTRIES: usize = 512;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// The bits of an entry that hold an address (12 to 51).
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// An entry that points to a table: it forbids nothing, the pages below it decide. A software hypervisor wants accessed and dirty set here too.
pub const TABLE_ENTRY: u64 = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;

/// What a large page is in the tables that the entry code makes: everything is allowed until the final tables are in place.
pub const FIRST_LARGE_PAGE: u64 = TABLE_ENTRY | LARGE;

/// One table of any level.
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct Table([u64; ENTRIES]);

impl Table {
    /// A table without entries.
    pub const EMPTY: Self = Self([0; ENTRIES]);

    /// Takes all entries out, in place.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// What may be done with a range of memory. Nothing is both writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Code.
    ReadExecute,
    /// Constants, and what the host hands over.
    Read,
    /// Data, heap, stacks and memory shared with devices.
    ReadWrite,
    /// Read and written by ring 0 alone: page tables and descriptors.
    Ring0,
}

impl Access {
    const fn bits(self) -> u64 {
        let always = PRESENT | ACCESSED | DIRTY;
        match self {
            Self::ReadExecute => always | USER,
            Self::Read => always | USER | NO_EXECUTE,
            Self::ReadWrite => always | USER | WRITABLE | NO_EXECUTE,
            Self::Ring0 => always | WRITABLE | NO_EXECUTE,
        }
    }
}

/// Why a range could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagingError {
    /// The range's ends are not multiples of [`PAGE`], lie the wrong way round, or lie beyond [`SPAN`].
    BadRange {
        /// Where the range begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// This address is mapped already.
    Mapped {
        /// The address.
        address: u64,
    },
    /// The slice of tables is too short.
    OutOfTables,
}

impl fmt::Display for PagingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRange { start, end } => write!(f, "{start:#x}..{end:#x} is no range of whole pages"),
            Self::Mapped { address } => write!(f, "{address:#x} belongs to two parts of the image"),
            Self::OutOfTables => f.write_str("too few page tables were set aside"),
        }
    }
}

impl core::error::Error for PagingError {}

/// How many tables suffice for mappings of which all below `fine_end` begin and end anywhere, and whose others, at most `others`, lie below `end`.
#[must_use]
pub const fn tables_needed(fine_end: u64, end: u64, others: u64) -> u64 {
    let roots = 2;
    roots + end.div_ceil(DIRECTORY_SPAN) + fine_end.div_ceil(LARGE_PAGE) + 2 * others
}

/// Page tables under construction.
pub struct PageTables<'a> {
    tables: &'a mut [Table],
    used: usize,
    physical: u64,
}

impl<'a> PageTables<'a> {
    /// Begins tables in `tables`, whose contents do not matter and which lie at the physical address `physical`.
    ///
    /// # Errors
    /// [`PagingError::OutOfTables`] when not even the root fits, [`PagingError::BadRange`] when `physical` is not the address of a page.
    pub fn new(tables: &'a mut [Table], physical: u64) -> Result<Self, PagingError> {
        if !physical.is_multiple_of(PAGE) {
            return Err(PagingError::BadRange { start: physical, end: physical });
        }
        let mut new = Self { tables, used: 0, physical };
        new.allocate()?;
        Ok(new)
    }

    /// The physical address of the root, for CR3.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.physical
    }

    /// Maps the addresses from `start` to `end` to themselves. An empty range maps nothing.
    ///
    /// # Errors
    /// [`PagingError`]; the tables are then of no use.
    pub fn map(&mut self, start: u64, end: u64, access: Access) -> Result<(), PagingError> {
        if start > end || end > SPAN || !start.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) {
            return Err(PagingError::BadRange { start, end });
        }
        let mut address = start;
        while address < end {
            let pointers = self.descend(0, index(address, 39))?;
            let directory = self.descend(pointers, index(address, 30))?;
            if address.is_multiple_of(LARGE_PAGE) && end - address >= LARGE_PAGE {
                self.set(directory, index(address, 21), address, access.bits() | LARGE)?;
                address += LARGE_PAGE;
            } else {
                let pages = self.descend(directory, index(address, 21))?;
                let stop = end.min((address / LARGE_PAGE + 1) * LARGE_PAGE);
                while address < stop {
                    self.set(pages, index(address, 12), address, access.bits())?;
                    address += PAGE;
                }
            }
        }
        Ok(())
    }

    /// The table below entry `index` of table `from`, made when there is none.
    fn descend(&mut self, from: usize, index: usize) -> Result<usize, PagingError> {
        let entry = self.tables[from].0[index];
        if entry == 0 {
            let new = self.allocate()?;
            self.tables[from].0[index] = (self.physical + new as u64 * PAGE) | TABLE_ENTRY;
            return Ok(new);
        }
        if entry & LARGE != 0 {
            return Err(PagingError::Mapped { address: entry & ADDRESS });
        }
        Ok((((entry & ADDRESS) - self.physical) / PAGE) as usize)
    }

    fn set(&mut self, table: usize, index: usize, address: u64, bits: u64) -> Result<(), PagingError> {
        let entry = &mut self.tables[table].0[index];
        if *entry != 0 {
            return Err(PagingError::Mapped { address });
        }
        *entry = address | bits;
        Ok(())
    }

    fn allocate(&mut self) -> Result<usize, PagingError> {
        let new = self.used;
        let table = self.tables.get_mut(new).ok_or(PagingError::OutOfTables)?;
        *table = Table::EMPTY;
        self.used += 1;
        Ok(new)
    }
}

/// The index into a table that translates the nine bits of `address` from `shift` on.
const fn index(address: u64, shift: u32) -> usize {
    (address >> shift) as usize % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const AT: u64 = 0x7_0000;

    /// What the processor finds for `address`: the physical address and the rights, or `None` for a page fault.
    fn walk(tables: &[Table], address: u64) -> Option<(u64, Access)> {
        let mut table = 0;
        for shift in [39, 30, 21, 12] {
            let entry = tables[table].0[index(address, shift)];
            if entry & PRESENT == 0 {
                assert_eq!(entry, 0);
                return None;
            }
            if shift == 12 || entry & LARGE != 0 {
                let size = 1 << shift;
                assert_eq!(entry & (ACCESSED | DIRTY), ACCESSED | DIRTY);
                assert_eq!(entry & ADDRESS & (size - 1) & !(PAGE - 1), 0, "a misaligned large page");
                let access = match (entry & USER != 0, entry & WRITABLE != 0, entry & NO_EXECUTE != 0) {
                    (true, false, false) => Access::ReadExecute,
                    (true, false, true) => Access::Read,
                    (true, true, true) => Access::ReadWrite,
                    (false, true, true) => Access::Ring0,
                    other => panic!("{address:#x} has the rights {other:?}"),
                };
                return Some(((entry & ADDRESS) + (address & (size - 1)), access));
            }
            assert_eq!(entry & 0xfff, 0x67);
            table = usize::try_from(((entry & ADDRESS) - AT) / PAGE).unwrap();
        }
        unreachable!()
    }

    fn accesses() -> impl Strategy<Value = Access> {
        prop_oneof![Just(Access::ReadExecute), Just(Access::Read), Just(Access::ReadWrite), Just(Access::Ring0)]
    }

    proptest! {
        #[test]
        fn every_page_is_mapped_to_itself_with_the_rights_asked_for_and_no_other(
            parts in prop::collection::vec((0_u64..1300, accesses(), any::<bool>()), 1..6),
            unused in any::<u64>(),
        ) {
            let mut tables = vec![Table([unused; ENTRIES]); 40];
            let mut page_tables = PageTables::new(&mut tables, AT).unwrap();
            let mut expected = Vec::new();
            let mut at = 0;
            for (pages, access, mapped) in parts {
                let end = at + pages * PAGE;
                if mapped {
                    page_tables.map(at, end, access).unwrap();
                }
                expected.push((at, end, mapped.then_some(access)));
                at = end;
            }
            let used = page_tables.used as u64;
            prop_assert!(used <= tables_needed(at, at, 0));
            for (start, end, access) in expected {
                for address in (start..end).step_by(PAGE as usize) {
                    prop_assert_eq!(walk(&tables, address + 5), access.map(|access| (address + 5, access)));
                }
            }
            prop_assert_eq!(walk(&tables, at), None);
        }
    }

    #[test]
    fn four_gibibytes_take_large_pages() {
        let mut tables = vec![Table::EMPTY; 8];
        let mut page_tables = PageTables::new(&mut tables, AT).unwrap();
        page_tables.map(0x1000, 4 << 30, Access::ReadWrite).unwrap();
        assert_eq!(page_tables.used, 2 + 4 + 1);
        assert_eq!(walk(&tables, 0), None);
        for address in [0x1000, 0x1f_ffff, 0x20_0000, 0xffff_ffff] {
            assert_eq!(walk(&tables, address), Some((address, Access::ReadWrite)));
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let mut tables = vec![Table::EMPTY; 4];
        let mut page_tables = PageTables::new(&mut tables, AT).unwrap();
        assert_eq!(page_tables.map(1, PAGE, Access::Read), Err(PagingError::BadRange { start: 1, end: PAGE }));
        assert_eq!(page_tables.map(PAGE, 0, Access::Read), Err(PagingError::BadRange { start: PAGE, end: 0 }));
        assert!(page_tables.map(0, SPAN + PAGE, Access::Read).is_err());
        page_tables.map(0, 2 * PAGE, Access::Read).unwrap();
        assert_eq!(page_tables.map(PAGE, 3 * PAGE, Access::Read), Err(PagingError::Mapped { address: PAGE }));
        page_tables.map(LARGE_PAGE, 2 * LARGE_PAGE, Access::Read).unwrap();
        let inside = page_tables.map(LARGE_PAGE + PAGE, LARGE_PAGE + 2 * PAGE, Access::Read);
        assert_eq!(inside, Err(PagingError::Mapped { address: LARGE_PAGE }));
        assert_eq!(page_tables.map(DIRECTORY_SPAN, DIRECTORY_SPAN + PAGE, Access::Read), Err(PagingError::OutOfTables));
    }
}
