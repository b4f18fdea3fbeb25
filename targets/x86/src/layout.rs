//! Where everything lies in memory, as a pure function of the image and of what its host says.
//!
//! From low to high: nothing; what the host handed over (boot information, manifest, command line, tables); nothing; the image's code and constants;
//! a guard page; the stack, growing down towards it; the image's data; page tables; the heap up to the end of memory; and, beyond what the host calls
//! memory, what it shares with the image: a ring, or devices; then more heap, where memory goes on above 4 GiB. The image's own part is as the target's
//! `image.ld` lays it out.

use core::fmt;
use core::ops::Range;

use crate::paging::devices::Spare;
use crate::paging::{Access, LARGE_PAGE, PAGE, PageTables, PagingError, SPAN, Table, tables_needed};
use crate::program::Program;

/// The least heap that an image starts with, in bytes.
pub const MIN_HEAP: u64 = 64 << 10;

/// Where the memory ends that the image lies in: hypercalls of hvt carry addresses of 32 bits (`hvt_do_hypercall` in `hvt_abi.h`), and a PC has its devices
/// below. Memory that goes on beyond is [`Given::high`].
pub const HIGHEST: u64 = 1 << 32;

/// What the linker and the image's own statics say. All are addresses of pages, and all but the last ascend.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Where the image's code begins.
    pub start: u64,
    /// Where its code ends and its constants begin.
    pub code_end: u64,
    /// Where its constants end and the guard page under the stack begins.
    pub guard: u64,
    /// Where the guard page ends and the stack begins.
    pub stack: u64,
    /// Where the stack ends and the data begins.
    pub stack_end: u64,
    /// Where the data ends, the zeroed part included.
    pub end: u64,
    /// The page within the data that only ring 0 may touch.
    pub ring0: u64,
}

/// What the host says.
#[derive(Clone, Debug)]
pub struct Given {
    /// Bytes of memory.
    pub memory: u64,
    /// What the host handed over, in bytes from any address to any other.
    pub handed_over: Range<u64>,
    /// What is shared with the host, such as a ring or devices, beyond the memory.
    pub shared: Option<Range<u64>>,
    /// Memory from [`HIGHEST`] on; what of it lies beyond [`SPAN`] is not used.
    pub high: Option<Range<u64>>,
    /// Tables that are kept for devices from [`HIGHEST`] on.
    pub spare_tables: u64,
}

/// Where everything lies: ranges of whole pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the host handed over.
    pub handed_over: Range<u64>,
    /// Code.
    pub code: Range<u64>,
    /// Constants.
    pub constants: Range<u64>,
    /// The page that nothing may touch.
    pub guard: Range<u64>,
    /// The stack.
    pub stack: Range<u64>,
    /// Data, which [`ring0`](Self::ring0) is a part of.
    pub data: Range<u64>,
    /// The descriptors and the stack of ring 0.
    pub ring0: Range<u64>,
    /// Page tables, the last [`spare_tables`](Self::spare_tables) of which are not used yet.
    pub tables: Range<u64>,
    /// How many tables are kept for devices.
    pub spare_tables: u64,
    /// The heap, and the last page: see [`heap_end`](Self::heap_end).
    pub heap: Range<u64>,
    /// What is shared with the host.
    pub shared: Option<Range<u64>>,
    /// More heap, from [`HIGHEST`] on.
    pub high: Option<Range<u64>>,
}

/// Why an image cannot run with what the host gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// There is too little memory.
    TooLittleMemory {
        /// Bytes that there are.
        given: u64,
        /// Bytes that there must be at least.
        needed: u64,
    },
    /// The boot information, manifest or command line does not lie below the image.
    BadHandover(Range<u64>),
    /// What is shared does not lie beyond the memory, or not on whole pages.
    BadShare(Range<u64>),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLittleMemory { given, needed } => {
                let mebibytes = needed.div_ceil(LARGE_PAGE) * 2;
                write!(f, "{given} bytes of memory are too few, it needs {needed}: give it {mebibytes} MiB")
            }
            Self::BadHandover(Range { start, end }) => {
                write!(f, "the host put its boot information at {start:#x}..{end:#x}, where the image lies")
            }
            Self::BadShare(Range { start, end }) => {
                write!(f, "the host shares {start:#x}..{end:#x}, which is not beyond the memory")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

impl Layout {
    /// Lays out an image.
    ///
    /// # Errors
    /// [`LayoutError`] when it cannot be done with what the host gave.
    pub fn new(parts: &Parts, given: &Given) -> Result<Self, LayoutError> {
        let handed_over = page_down(given.handed_over.start)..page_up(given.handed_over.end);
        if handed_over.start < PAGE || handed_over.is_empty() || handed_over.end > parts.start {
            return Err(LayoutError::BadHandover(given.handed_over.clone()));
        }
        let memory = page_down(given.memory.min(HIGHEST));
        let shared = given.shared.clone().map(|shared| shared.start..page_up(shared.end));
        if let Some(shared) = &shared
            && (shared.start < memory || !shared.start.is_multiple_of(PAGE) || shared.is_empty() || shared.end > HIGHEST)
        {
            return Err(LayoutError::BadShare(shared.clone()));
        }
        let high = given.high.clone().map(|high| page_up(high.start.max(HIGHEST))..page_down(high.end.min(SPAN)));
        let high = high.filter(|high| !high.is_empty());
        let end = [&high, &shared].into_iter().flatten().next().map_or(memory, |last| last.end);
        // Three mappings reach beyond the place of the tables: the heap, what is shared, and more heap.
        let spare_tables = given.spare_tables;
        let tables = parts.end..parts.end + PAGE * (tables_needed(parts.end + LARGE_PAGE, end, 3) + spare_tables);
        let needed = tables.end + MIN_HEAP + PAGE;
        if memory < needed {
            return Err(LayoutError::TooLittleMemory { given: given.memory, needed });
        }
        Ok(Self {
            handed_over,
            code: parts.start..parts.code_end,
            constants: parts.code_end..parts.guard,
            guard: parts.guard..parts.stack,
            stack: parts.stack..parts.stack_end,
            data: parts.stack_end..parts.end,
            ring0: parts.ring0..parts.ring0 + PAGE,
            heap: tables.end..memory,
            tables,
            spare_tables,
            shared,
            high,
        })
    }

    /// Where everything lies for an image that stays in ring 0, under page tables that another made and keeps to itself: its descriptors are data like any.
    #[must_use]
    pub fn under_other_tables(program: &Program, handed_over: Range<u64>, heap: Range<u64>) -> Self {
        let address = |pointer: *const u8| pointer.addr() as u64;
        Self {
            handed_over,
            code: address(program.start)..address(program.code_end),
            constants: address(program.code_end)..address(program.guard),
            guard: address(program.guard)..address(program.stack),
            stack: address(program.stack)..address(program.stack_end),
            data: address(program.stack_end)..address(program.end),
            ring0: 0..0,
            tables: 0..0,
            spare_tables: 0,
            heap,
            shared: None,
            high: None,
        }
    }

    /// Where the heap ends for the allocator: a page early, since some hosts take a buffer that ends where memory ends for one that ends outside.
    #[must_use]
    pub const fn heap_end(&self) -> u64 {
        self.heap.end - PAGE
    }

    /// The ranges that the allocator gets.
    pub fn heaps(&self) -> impl Iterator<Item = Range<u64>> {
        [Some(self.heap.start..self.heap_end()), self.high.clone()].into_iter().flatten()
    }

    /// Bytes of memory, what lies below the image included.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.heap.end + self.high.as_ref().map_or(0, |high| high.end - high.start)
    }

    /// The tables that are kept for devices.
    #[must_use]
    pub const fn spare(&self) -> Spare {
        Spare { next: self.tables.end - PAGE * self.spare_tables, end: self.tables.end }
    }

    /// Builds the page tables in `tables`, which are those that lie at [`tables`](Self::tables), and gives the root's address. Those that are kept for
    /// devices are empty then.
    ///
    /// # Errors
    /// [`PagingError`] when parts overlap.
    pub fn build_tables(&self, tables: &mut [Table]) -> Result<u64, PagingError> {
        let used = tables.len().saturating_sub(self.spare_tables as usize);
        let (tables, spare) = tables.split_at_mut(used);
        // In place: the stack of the start has no room for tables.
        spare.iter_mut().for_each(Table::clear);
        let mut page_tables = PageTables::new(tables, self.tables.start)?;
        let shared = self.shared.clone().unwrap_or(0..0);
        let parts = [
            (self.handed_over.clone(), Access::Read),
            (self.code.clone(), Access::ReadExecute),
            (self.constants.clone(), Access::Read),
            (self.stack.clone(), Access::ReadWrite),
            (self.data.start..self.ring0.start, Access::ReadWrite),
            (self.ring0.clone(), Access::Ring0),
            (self.ring0.end..self.data.end, Access::ReadWrite),
            (self.tables.clone(), Access::Ring0),
            (self.heap.clone(), Access::ReadWrite),
            (shared, Access::ReadWrite),
            (self.high.clone().unwrap_or(0..0), Access::ReadWrite),
        ];
        for (range, access) in parts {
            page_tables.map(range.start, range.end, access)?;
        }
        Ok(page_tables.root())
    }
}

const fn page_down(address: u64) -> u64 {
    address / PAGE * PAGE
}

const fn page_up(address: u64) -> u64 {
    page_down(address.saturating_add(PAGE - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec;

    const RING: u64 = 49_280;

    fn parts(code: u64, constants: u64, data: u64) -> Parts {
        let code_end = 0x10_0000 + code * PAGE;
        let guard = code_end + constants * PAGE;
        let stack_end = guard + 65 * PAGE;
        let ring0 = stack_end + data / 2 * PAGE;
        Parts { start: 0x10_0000, code_end, guard, stack: guard + PAGE, stack_end, end: stack_end + data * PAGE, ring0 }
    }

    fn given(memory: u64, ring: bool) -> Given {
        Given { memory, handed_over: 0x1_0000..0x1_3a50, shared: ring.then(|| memory..memory + RING), high: None, spare_tables: 4 }
    }

    proptest! {
        #[test]
        fn whatever_fits_is_laid_out_without_overlap_and_the_tables_suffice(
            code in 1_u64..3000, constants in 0_u64..3000, data in 2_u64..3000, memory in 512_u64..(4 << 18) - 13, ring in any::<bool>(),
            high in prop::option::of((0_u64..SPAN + LARGE_PAGE, 0_u64..SPAN + LARGE_PAGE)),
        ) {
            let parts = parts(code, constants, data);
            let memory = memory * PAGE;
            let high = high.map(|(one, other)| one.min(other)..one.max(other));
            match Layout::new(&parts, &Given { high, ..given(memory, ring) }) {
                Ok(layout) => {
                    let order = [
                        &layout.handed_over,
                        &layout.code,
                        &layout.constants,
                        &layout.guard,
                        &layout.stack,
                        &layout.data,
                        &layout.tables,
                        &layout.heap,
                    ];
                    for pair in order.windows(2) {
                        prop_assert!(pair[0].end <= pair[1].start);
                    }
                    prop_assert_eq!(layout.heap.end, memory);
                    if let Some(high) = &layout.high {
                        prop_assert!(high.start >= HIGHEST && high.end <= SPAN && high.start < high.end);
                        prop_assert_eq!(layout.memory(), memory + high.end - high.start);
                    }
                    prop_assert!(layout.heap_end() - layout.heap.start >= MIN_HEAP);
                    let count = (layout.tables.end - layout.tables.start) / PAGE;
                    let mut tables = vec![Table::EMPTY; count as usize];
                    prop_assert_eq!(layout.build_tables(&mut tables), Ok(layout.tables.start));
                }
                Err(LayoutError::TooLittleMemory { needed, .. }) => {
                    prop_assert!(needed > memory);
                    let largest = given(needed + 16 * PAGE, false);
                    prop_assert!(Layout::new(&parts, &largest).is_ok());
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }

    #[test]
    fn a_small_image_runs_in_two_mebibytes_and_four_gibibytes_are_used_whole() {
        let parts = parts(15, 4, 10);
        let layout = Layout::new(&parts, &given(2 << 20, true)).unwrap();
        assert!(layout.heap_end() - layout.heap.start > 512 << 10);
        let layout = Layout::new(&parts, &given(4 << 30, false)).unwrap();
        assert_eq!(layout.heap.end, 4 << 30);
        assert_eq!(Layout::new(&parts, &given(5 << 30, false)).unwrap().heap.end, 4 << 30);
        let layout = Layout::new(&parts, &Given { high: Some(4 << 30..100 << 30), ..given(2 << 30, false) }).unwrap();
        assert_eq!((layout.memory(), layout.heaps().map(|heap| heap.end).max()), (98 << 30, Some(100 << 30)));
    }

    #[test]
    fn impossible_gifts_are_refused_with_the_reason() {
        let parts = parts(15, 4, 10);
        let error = Layout::new(&parts, &given(1 << 20, false)).unwrap_err();
        assert!(error.to_string().ends_with("give it 2 MiB"), "{error}");
        for handed_over in [0..0x5000, 0x1000..0x10_0001, 0x2000..0x2000] {
            let given = Given { handed_over, ..given(4 << 20, false) };
            assert!(matches!(Layout::new(&parts, &given), Err(LayoutError::BadHandover(_))));
        }
        for ring in [0x10_0000..0x11_0000, 4 << 20..u64::MAX, (4 << 20) + 1..(4 << 20) + RING] {
            let given = Given { shared: Some(ring), ..given(4 << 20, false) };
            assert!(matches!(Layout::new(&parts, &given), Err(LayoutError::BadShare(_))));
        }
    }
}
