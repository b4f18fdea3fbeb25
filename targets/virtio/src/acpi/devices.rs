//! Where devices are: PCI's configuration space, interrupt controllers, and virtio devices whose registers are in memory.

use alloc::vec::Vec;
use core::ops::Range;

use super::{HEADER, MAX_PROGRAM, Tables, has, length, number, program};

/// Configuration space in memory, of some buses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfigurationSpace {
    /// The address of bus 0, were it there.
    pub(crate) address: u64,
    pub(crate) first: u8,
    pub(crate) last: u8,
}

/// PCI Express's configuration space of the first segment (`MCFG`: PCI Firmware Specification 3.0, section 4.1.2).
pub(crate) fn configuration_space(tables: Tables<'_>) -> Option<ConfigurationSpace> {
    let table = tables.table(b"MCFG")?;
    // The header and 8 reserved bytes; then an address, a segment, and two buses.
    let entry = HEADER + 8;
    let byte = |offset| table.number(entry + offset, 1).map(|byte| byte as u8);
    let space = ConfigurationSpace { address: table.number(entry, 8)?, first: byte(10)?, last: byte(11)? };
    Some(space).filter(|space| table.number(entry + 8, 2) == Some(0) && space.first <= space.last)
}

/// PCI Express as the machine's own program describes it, where no table does and no firmware has set it up: QEMU's microvm with `pcie=on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) space: ConfigurationSpace,
    /// Addresses for functions, all of them free.
    pub(crate) free: Range<u64>,
}

/// Bytes after [`CONFIGURATION_BASE`] in which the bridge's resources are looked for.
const BRIDGE_RESOURCES: u64 = 64;

/// A method that returns a number at once (sections 20.2.5.2 and 20.2.5.3): the address of configuration space (PCI Firmware Specification 3.0, section 4.1.3).
const CONFIGURATION_BASE: &[u8] = b"_CBA\0\xa4";

/// The bridge that a method [`CONFIGURATION_BASE`] tells of, with the resources that are written down after it: buses and 32-bit addresses (section 6.4.3.5).
pub(crate) fn bridge(tables: Tables<'_>) -> Option<Bridge> {
    const ADDRESSES: &[u8] = &[0x87, 23, 0, 0];
    const BUSES: &[u8] = &[0x88, 13, 0, 2];
    let memory = tables.memory;
    let (program, end) = program_range(tables)?;
    let method = (program..end).find(|at| has(memory, *at, CONFIGURATION_BASE))?;
    // A number of 32 or 64 bits (section 20.2.3).
    let constant = method + CONFIGURATION_BASE.len() as u64;
    let address = match memory(constant)? {
        0x0c => number(memory, constant + 1, 4)?,
        0x0e => number(memory, constant + 1, 8)?,
        _ => return None,
    };
    let places = constant..end.min(constant + BRIDGE_RESOURCES);
    let find = |descriptor| places.clone().find(|at| has(memory, *at, descriptor));
    let buses = find(BUSES)?;
    let bus = |offset| u8::try_from(number(memory, buses + offset, 2)?).ok();
    let addresses = find(ADDRESSES)?;
    let free = number(memory, addresses + 10, 4)?..number(memory, addresses + 14, 4)?.saturating_add(1);
    let space = ConfigurationSpace { address, first: bus(8)?, last: bus(10)? };
    Some(Bridge { space, free }).filter(|bridge| bridge.space.first <= bridge.space.last)
}

/// The interrupt controllers for lines, each with its address and its first line (`MADT`, section 5.2.12.3).
pub(crate) fn controllers(tables: Tables<'_>) -> Vec<(u64, u32)> {
    const IO_APIC: u64 = 1;
    let mut found = Vec::new();
    let Some(table) = tables.table(b"APIC") else { return found };
    let mut at = HEADER + 8;
    while let (Some(kind), Some(size @ 2..)) = (table.number(at, 1), table.number(at + 1, 1)) {
        if kind == IO_APIC
            && let (Some(address), Some(first)) = (table.number(at + 4, 4), table.number(at + 8, 4))
        {
            found.push((address, first as u32));
        }
        at += size as u32;
    }
    found
}

/// Where the machine's own program lies.
fn program_range(tables: Tables<'_>) -> Option<(u64, u64)> {
    let program = program(&tables.fixed()?)?;
    Some((program, program.checked_add(length(tables.memory, program)?.min(MAX_PROGRAM).into())?))
}

/// Devices that are looked for at most.
const MOST_DEVICES: usize = 64;

/// Bytes after a device's name in which its resources are looked for.
const RESOURCES: u64 = 128;

/// The virtio devices whose registers are in memory, each with its address and interrupt line: those with the name that QEMU gives them (`LNRO0005`) and
/// with resources that are written down: a fixed range of memory (section 6.4.3.4), and after it an interrupt (section 6.4.3.6).
pub(crate) fn registers(tables: Tables<'_>) -> Vec<(u64, u32)> {
    const MEMORY: &[u8] = &[0x86, 9, 0];
    const INTERRUPT: &[u8] = &[0x89, 6, 0];
    let memory = tables.memory;
    let find = || {
        let (program, end) = program_range(tables)?;
        let devices = (program..end).filter(move |at| has(memory, *at, b"LNRO0005"));
        Some(devices.filter_map(move |name| {
            let mut places = name..end.min(name + RESOURCES);
            let range = places.find(|at| has(memory, *at, MEMORY))?;
            let interrupt = places.find(|at| has(memory, *at, INTERRUPT))?;
            Some((number(memory, range + 4, 4)?, number(memory, interrupt + 5, 4)? as u32))
        }))
    };
    find().into_iter().flatten().take(MOST_DEVICES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acpi::tests::balance;
    use proptest::prelude::*;
    use std::vec;

    const AT: u64 = 0xe_0000;

    /// A root pointer, a root table, and tables as QEMU writes them.
    fn tables() -> Vec<u8> {
        let mut bytes = vec![0; 0x800];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let address = |at: u64| (AT + at).to_le_bytes();
        put(0, b"RSD PTR ");
        put(16, &address(0x40)[..4]);
        put(0x40, b"RSDT");
        put(0x44, &48_u32.to_le_bytes());
        for (index, at) in [0x100, 0x300, 0x400].into_iter().enumerate() {
            put(0x40 + 36 + 4 * index, &address(at)[..4]);
        }
        put(0x100, b"FACP");
        put(0x104, &268_u32.to_le_bytes());
        put(0x100 + 40, &address(0x500)[..4]);
        put(0x300, b"MCFG");
        put(0x304, &60_u32.to_le_bytes());
        put(0x300 + 44, &[0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 0, 0, 0xff]);
        put(0x400, b"APIC");
        put(0x404, &(44 + 8 + 12 + 10 + 12_u32).to_le_bytes());
        put(0x400 + 44, &[0, 8, 0, 0, 1, 0, 0, 0]);
        put(0x400 + 52, &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        put(0x400 + 64, &[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0]);
        put(0x400 + 74, &[1, 12, 0, 0, 0, 0, 0xc1, 0xfe, 24, 0, 0, 0]);
        put(0x500, b"DSDT");
        put(0x504, &0x200_u32.to_le_bytes());
        for (at, low, line) in [(0x540, 0, 24), (0x600, 2, 25)] {
            put(at, b"LNRO0005\0\x08_UID\0");
            put(at + 32, &[0x86, 9, 0, 1, 0, low, 0xb0, 0xfe, 0, 2, 0, 0, 0x89, 6, 0, 3, 1, line, 0, 0, 0, 0x79]);
        }
        put(0x680, b"\x14\x0c_CBA\0\xa4\x0c\0\0\0\xe0\x08_CRS\x11\x4e\x05\x0a\x5a");
        put(0x697, &[0x88, 13, 0, 2, 12, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1]);
        put(0x6a7, &[0x87, 23, 0, 0, 12, 1, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff, 0xff, 0xdf, 0, 0, 0, 0, 0, 0, 0, 0x20]);
        balance(&mut bytes, 0);
        bytes
    }

    fn with<T>(bytes: &[u8], look: impl FnOnce(Tables<'_>) -> T) -> Option<T> {
        let memory = |at: u64| bytes.get(usize::try_from(at.checked_sub(AT)?).ok()?).copied();
        Tables::find(AT, AT..AT + 0x800, &memory).map(look)
    }

    #[test]
    fn what_qemu_writes_down_is_found() {
        let bytes = tables();
        let space = ConfigurationSpace { address: 0xb000_0000, first: 0, last: 255 };
        assert_eq!(with(&bytes, configuration_space), Some(Some(space)));
        assert_eq!(with(&bytes, controllers), Some(vec![(0xfec0_0000, 0), (0xfec1_0000, 24)]));
        assert_eq!(with(&bytes, registers), Some(vec![(0xfeb0_0000, 24), (0xfeb0_0200, 25)]));
        let space = ConfigurationSpace { address: 0xe000_0000, first: 0, last: 255 };
        assert_eq!(with(&bytes, bridge), Some(Some(Bridge { space, free: 0xc000_0000..0xe000_0000 })));
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let bytes = tables();
        let without = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] = 0;
            bytes
        };
        assert_eq!(with(&without(0x300), configuration_space), Some(None));
        assert_eq!(with(&without(0x400), controllers), Some(vec![]));
        assert_eq!(with(&without(0x100), registers), Some(vec![]));
        for at in [0x100, 0x682, 0x688, 0x697, 0x6a7] {
            assert_eq!(with(&without(at), bridge), Some(None), "{at:#x}");
        }
        assert_eq!(with(&without(0x540), registers), Some(vec![(0xfeb0_0200, 25)]));
        assert_eq!(with(&[0; 0x800], |_| ()), None);
    }

    proptest! {
        #[test]
        fn any_tables_are_read_without_a_panic(changes in prop::collection::vec((0_usize..0x800, any::<u8>()), 0..80), length in 0_usize..0x800) {
            let mut bytes = tables();
            for (at, value) in changes {
                bytes[at] = value;
            }
            with(&bytes[..length], |tables| (configuration_space(tables), bridge(tables), controllers(tables), registers(tables)));
        }
    }
}
