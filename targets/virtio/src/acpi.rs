//! What ACPI says about the machine: in `power` how it is turned off, restarted and asks to end, and in `devices` where devices are (ACPI 6.5; sections are
//! named where they are used).
//!
//! Tables are input: every address is read through a function that gives nothing where nothing may be read, and lengths are bounded. Nothing here
//! allocates, as it runs at the end of an image that may have faulted. Limit: a machine's own programs (AML) are not run, only searched
//! for the package `_S5_` and for the resources of devices that are written down in them.
//!
//! The crate `acpi` was considered: its release of today needs a nightly compiler.

use core::ops::Range;

pub(crate) mod devices;
pub(crate) mod power;

/// A byte of memory, or nothing where none may be read.
pub(crate) type Memory<'a> = &'a (dyn Fn(u64) -> Option<u8> + 'a);

/// Tables that a root table may list, and bytes of a program that are looked at.
const MAX_TABLES: u32 = 256;
const MAX_PROGRAM: u32 = 1 << 20;

/// Bytes of the root pointer that add up to nothing, in every revision.
const POINTER: u64 = 20;

/// The tables of a machine.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    memory: Memory<'a>,
    /// The root table, with the bytes of an address in it, and how many of them there are.
    root: u64,
    size: u32,
    entries: u32,
}

impl<'a> Tables<'a> {
    /// Finds the tables by the root pointer at `root_pointer`, or wherever in `firmware` one is (section 5.2.5).
    pub(crate) fn find(root_pointer: u64, firmware: Range<u64>, memory: Memory<'a>) -> Option<Self> {
        // The text stands in firmware's code as well: the pointer is what adds up (section 5.2.5.3).
        let is_pointer = |at: &u64| has(memory, *at, b"RSD PTR ") && sum(memory, *at, POINTER) == Some(0);
        let root_pointer = Some(root_pointer).filter(is_pointer).or_else(|| firmware.step_by(16).find(is_pointer))?;
        let revision = memory(root_pointer.checked_add(15)?)?;
        let extended = if revision >= 2 { number(memory, root_pointer.checked_add(24)?, 8)? } else { 0 };
        let (root, size) = if extended != 0 { (extended, 8) } else { (number(memory, root_pointer.checked_add(16)?, 4)?, 4) };
        let entries = (length(memory, root)?.checked_sub(HEADER)? / size).min(MAX_TABLES);
        Some(Self { memory, root, size, entries })
    }

    /// The first table with this signature.
    pub(crate) fn table(&self, signature: &[u8; 4]) -> Option<Table<'a>> {
        let Self { memory, root, size, entries } = *self;
        let mut tables = (0..entries).filter_map(|index| number(memory, root.checked_add((HEADER + index * size).into())?, size));
        Table::at(tables.find(|table| has(memory, *table, signature))?, memory)
    }

    /// The fixed description table (section 5.2.9).
    pub(crate) fn fixed(&self) -> Option<Table<'a>> {
        self.table(b"FACP")
    }
}

/// Bytes in a table's header (section 5.2.6).
const HEADER: u32 = 36;

/// A table.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    memory: Memory<'a>,
    address: u64,
    length: u32,
}

impl<'a> Table<'a> {
    fn at(address: u64, memory: Memory<'a>) -> Option<Self> {
        Some(Self { memory, address, length: length(memory, address)? })
    }

    /// The number of `bytes` bytes at `offset`, if the table has it.
    pub(crate) fn number(&self, offset: u32, bytes: u32) -> Option<u64> {
        let within = offset.checked_add(bytes).is_some_and(|end| end <= self.length);
        if within { number(self.memory, self.address.checked_add(offset.into())?, bytes) } else { None }
    }
}

/// Where the machine's own program is (`X_DSDT` or `DSDT` in the fixed table).
fn program(fixed: &Table<'_>) -> Option<u64> {
    fixed.number(140, 8).filter(|program| *program != 0).or_else(|| fixed.number(40, 4))
}

fn has(memory: Memory<'_>, at: u64, text: &[u8]) -> bool {
    (0_u64..).zip(text).all(|(offset, byte)| at.checked_add(offset).and_then(memory) == Some(*byte))
}

/// The sum of bytes, of which the lowest byte counts.
fn sum(memory: Memory<'_>, at: u64, bytes: u64) -> Option<u8> {
    (0..bytes).try_fold(0_u8, |sum, offset| Some(sum.wrapping_add(memory(at.checked_add(offset)?)?)))
}

/// The length in a table's header (section 5.2.6).
fn length(memory: Memory<'_>, table: u64) -> Option<u32> {
    u32::try_from(number(memory, table.checked_add(4)?, 4)?).ok()
}

fn number(memory: Memory<'_>, at: u64, bytes: u32) -> Option<u64> {
    (0..u64::from(bytes)).rev().try_fold(0, |number, offset| Some(number << 8 | u64::from(memory(at.checked_add(offset)?)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Makes the root pointer at `at` add up.
    pub(super) fn balance(bytes: &mut [u8], at: usize) {
        bytes[at + 8] = 0;
        let sum = bytes[at..at + POINTER as usize].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[at + 8] = sum.wrapping_neg();
    }

    /// Firmware that compares with the text has it in its code too.
    #[test]
    fn what_does_not_add_up_is_no_root_pointer() {
        const AT: u64 = 0xe_0000;
        let mut bytes: Vec<u8> = std::vec![0; 0x200];
        for (at, root) in [(0x20, 0xbad_u32), (0x40, 0xe_0100)] {
            bytes[at..at + 8].copy_from_slice(b"RSD PTR ");
            bytes[at + 16..at + 20].copy_from_slice(&root.to_le_bytes());
        }
        bytes[0x104] = 36;
        let find = |bytes: &[u8], pointer| {
            let memory = |at: u64| bytes.get(usize::try_from(at.checked_sub(AT)?).ok()?).copied();
            Tables::find(pointer, AT..AT + 0x200, &memory).map(|tables| tables.root)
        };
        assert_eq!(find(&bytes, 0), None);
        balance(&mut bytes, 0x40);
        assert_eq!([0, AT + 0x20, AT + 0x40, u64::MAX].map(|pointer| find(&bytes, pointer)), [Some(0xe_0100); 4]);
    }
}
