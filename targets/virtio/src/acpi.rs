//! What ACPI says about the machine: how it is turned off, and in `devices` where devices are (ACPI 6.5; sections are named where they are used).
//!
//! Tables are input: every address is read through a function that gives nothing where nothing may be read, and lengths are bounded. Nothing here
//! allocates, as it runs at the end of an image that may have faulted. Limit: a machine's own programs (AML) are not run, only searched
//! for the package `_S5_` and for the resources of devices that are written down in them.
//!
//! The crate `acpi` was considered: its release of today needs a nightly compiler.

use core::ops::Range;

pub(crate) mod devices;

/// A byte of memory, or nothing where none may be read.
pub(crate) type Memory<'a> = &'a (dyn Fn(u64) -> Option<u8> + 'a);

/// How a machine is turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerOff {
    /// By 16 bits to a port.
    Port {
        /// The port.
        port: u16,
        /// What is written.
        value: u16,
    },
    /// By a byte to memory: a machine without ACPI's own hardware.
    Memory {
        /// The address.
        address: u64,
        /// What is written.
        value: u8,
    },
}

/// Tables that a root table may list, and bytes of a program that are looked at.
const MAX_TABLES: u32 = 256;
const MAX_PROGRAM: u32 = 1 << 20;

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
        let is_pointer = |at: &u64| has(memory, *at, b"RSD PTR ");
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

/// Finds out how to turn the machine off (section 5.2.9).
pub(crate) fn power_off(tables: Tables<'_>) -> Option<PowerOff> {
    let fixed = tables.fixed()?;
    let field = |offset, bytes| fixed.number(offset, bytes);
    let memory = tables.memory;
    let kind = soft_off(program(&fixed)?, memory)?;
    let flags = field(112, 4)?;
    if flags & 1 << 20 == 0 {
        let port = u16::try_from(field(64, 4)?).ok().filter(|port| *port != 0)?;
        // SLP_TYP and SLP_EN (section 4.8.3.2.1).
        return Some(PowerOff::Port { port, value: u16::from(kind) << 10 | 1 << 13 });
    }
    // The sleep control register, whose address space 0 is memory; SLP_TYP and SLP_EN (section 4.8.3.7).
    let address = field(244 + 4, 8).filter(|address| field(244, 1) == Some(0) && *address != 0)?;
    Some(PowerOff::Memory { address, value: kind << 2 | 1 << 5 })
}

/// Where the machine's own program is (`X_DSDT` or `DSDT` in the fixed table).
fn program(fixed: &Table<'_>) -> Option<u64> {
    fixed.number(140, 8).filter(|program| *program != 0).or_else(|| fixed.number(40, 4))
}

/// The kind of sleep that is off: the first number of the package `_S5_` (section 7.4.2.6), in the encoding of section 20.2.
fn soft_off(program: u64, memory: Memory<'_>) -> Option<u8> {
    let end = program.checked_add(length(memory, program)?.min(MAX_PROGRAM).into())?;
    let at = (program..end).find(|at| has(memory, *at, b"_S5_\x12"))?;
    // The package's length has one byte, and as many more as its top two bits say; the number of elements follows.
    let first = at + 5;
    let element = first + u64::from(memory(first)? >> 6) + 2;
    let kind = match memory(element)? {
        0x0a => memory(element + 1)?,
        small @ 0..=1 => small,
        _ => return None,
    };
    (kind < 8).then_some(kind)
}

fn has(memory: Memory<'_>, at: u64, text: &[u8]) -> bool {
    (0_u64..).zip(text).all(|(offset, byte)| at.checked_add(offset).and_then(memory) == Some(*byte))
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
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const AT: u64 = 0xe_0000;

    /// A root pointer, a root table, a fixed table and a program.
    fn tables(flags: u32, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 0x800];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let address = |at: u64| (AT + at).to_le_bytes();
        put(0x40, b"RSD PTR ");
        put(0x50, &address(0x100)[..4]);
        put(0x100, b"RSDT");
        put(0x104, &44_u32.to_le_bytes());
        put(0x124, &address(0x600)[..4]);
        put(0x128, &address(0x200)[..4]);
        put(0x200, b"FACP");
        put(0x204, &268_u32.to_le_bytes());
        put(0x200 + 40, &address(0x400)[..4]);
        put(0x200 + 64, &0x604_u32.to_le_bytes());
        put(0x200 + 112, &flags.to_le_bytes());
        put(0x200 + 248, &0xfea0_0200_u64.to_le_bytes());
        put(0x400, b"DSDT");
        put(0x404, &0x100_u32.to_le_bytes());
        put(0x480, b"_S5_\x12\x06\x04\x0a");
        put(0x488, &[kind]);
        bytes
    }

    fn find(bytes: &[u8], root_pointer: u64) -> Option<PowerOff> {
        let memory = |at: u64| bytes.get(usize::try_from(at.checked_sub(AT)?).ok()?).copied();
        power_off(Tables::find(root_pointer, AT..AT + 0x800, &memory)?)
    }

    #[test]
    fn both_ways_are_found_with_and_without_a_hint() {
        assert_eq!(find(&tables(0, 0), 0), Some(PowerOff::Port { port: 0x604, value: 0x2000 }));
        assert_eq!(find(&tables(0, 5), AT + 0x40), Some(PowerOff::Port { port: 0x604, value: 0x3400 }));
        assert_eq!(find(&tables(1 << 20, 5), AT), Some(PowerOff::Memory { address: 0xfea0_0200, value: 0x34 }));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(find(&[0; 0x800], 0), None);
        assert_eq!(find(&tables(0, 9), 0), None);
        for length in 0..0x489 {
            assert_eq!(find(&tables(0, 5)[..length], 0), None, "{length:#x} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_tables_are_read_without_a_panic(changes in prop::collection::vec((0_usize..0x500, any::<u8>()), 0..60)) {
            let mut bytes = tables(0, 5);
            for (at, value) in changes {
                bytes[at] = value;
            }
            let _ = find(&bytes, 0);
        }
    }
}
