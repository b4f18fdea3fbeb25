//! How a machine is turned off, restarted, and asks the image to end.

use core::ops::Range;

use super::{HEADER, MAX_PROGRAM, Table, Tables, has, length, number, program};

/// A value for a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// 16 bits to a port.
    Port16 {
        /// The port.
        port: u16,
        /// What is written.
        value: u16,
    },
    /// A byte to a port.
    Port {
        /// The port.
        port: u16,
        /// What is written.
        value: u8,
    },
    /// A byte to memory.
    Memory {
        /// The address.
        address: u64,
        /// What is written.
        value: u8,
    },
}

/// How a machine says that its power button was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PowerButton {
    /// The line that it raises: a global system interrupt.
    pub(crate) line: u32,
    /// The registers.
    pub(crate) registers: ButtonRegisters,
}

/// The registers of a power button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ButtonRegisters {
    /// ACPI's own hardware (section 4.8.3.1): ports of 16 bits.
    Fixed {
        /// The status, of which bits are cleared by writing ones.
        status: u16,
        /// Which bits of the status interrupt.
        enable: u16,
        /// The control register, whose bit [`SCI_ENABLE`] is set once the machine is ACPI's.
        control: u16,
        /// What makes it ACPI's, where something does.
        take: Option<Write>,
    },
    /// The generic event device: a register in memory that shows what happened, and forgets it when it is read.
    Events {
        /// Its address.
        address: u64,
    },
}

/// The power button (`PWRBTN_STS` and `PWRBTN_EN` of section 4.8.3.1).
pub(crate) const FIXED_BUTTON: u16 = 1 << 8;

/// Interrupts are ACPI's, not the firmware's (`SCI_EN` of section 4.8.3.2.1).
pub(crate) const SCI_ENABLE: u16 = 1 << 0;

/// The power button among the generic events (`ACPI_GED_PWR_DOWN_EVT` of QEMU's `generic_event_device.h`).
pub(crate) const EVENT_BUTTON: u32 = 1 << 1;

/// The kind of an entry that says what an interrupt of old is, in the table of interrupt controllers (section 5.2.12).
const OVERRIDE: u64 = 2;

/// Flags of the fixed table (table 5.10): the power button is a program's; there is a register that restarts; there is none of ACPI's own hardware.
const PROGRAM_BUTTON: u32 = 1 << 4;
const RESTARTS: u32 = 1 << 10;
const NO_HARDWARE: u32 = 1 << 20;

/// How the machine is turned off.
pub(crate) fn power_off(tables: Tables<'_>) -> Option<Write> {
    let fixed = tables.fixed()?;
    let kind = soft_off(tables, &fixed)?;
    if flags(&fixed)? & NO_HARDWARE == 0 {
        let port = port(&fixed, 64)?;
        // SLP_TYP and SLP_EN (section 4.8.3.2.1).
        return Some(Write::Port16 { port, value: u16::from(kind) << 10 | 1 << 13 });
    }
    // The sleep control register; SLP_TYP and SLP_EN (section 4.8.3.7).
    register(&fixed, 244, kind << 2 | 1 << 5)
}

/// How the machine is restarted (section 4.8.3.6).
pub(crate) fn restart(tables: Tables<'_>) -> Option<Write> {
    let fixed = tables.fixed()?;
    if flags(&fixed)? & RESTARTS == 0 {
        return None;
    }
    register(&fixed, 116, u8::try_from(fixed.number(128, 1)?).ok()?)
}

/// How the machine asks the image to end.
pub(crate) fn power_button(tables: Tables<'_>) -> Option<PowerButton> {
    let fixed = tables.fixed()?;
    let flags = flags(&fixed)?;
    if flags & NO_HARDWARE != 0 {
        return generic_events(tables, &fixed);
    }
    if flags & PROGRAM_BUTTON != 0 {
        return None;
    }
    let status = port(&fixed, 56)?;
    let enable = status.checked_add(u16::try_from(fixed.number(88, 1)? / 2).ok()?)?;
    // SMI_CMD and ACPI_ENABLE.
    let take = match (port(&fixed, 48), u8::try_from(fixed.number(52, 1)?).ok()?) {
        (Some(port), value @ 1..) => Some(Write::Port { port, value }),
        _ => None,
    };
    let registers = ButtonRegisters::Fixed { status, enable, control: port(&fixed, 64)?, take };
    Some(PowerButton { line: u32::try_from(fixed.number(46, 2)?).ok()?, registers })
}

/// The global system interrupt that an interrupt of old is (section 5.2.12.5), and whether it is active low.
pub(crate) fn global_interrupt(tables: Tables<'_>, interrupt: u32) -> (u32, bool) {
    let Some(table) = tables.table(b"APIC") else { return (interrupt, false) };
    let mut at = HEADER + 8;
    while let (Some(kind), Some(size @ 2..)) = (table.number(at, 1), table.number(at + 1, 1)) {
        if kind == OVERRIDE
            && table.number(at + 3, 1) == Some(interrupt.into())
            && let (Some(global), Some(flags)) = (table.number(at + 4, 4), table.number(at + 8, 2))
        {
            return (global as u32, flags & 3 == 3);
        }
        at += size as u32;
    }
    (interrupt, false)
}

fn flags(fixed: &Table<'_>) -> Option<u32> {
    u32::try_from(fixed.number(112, 4)?).ok()
}

/// The number of a port in four bytes; zero is none.
fn port(fixed: &Table<'_>, offset: u32) -> Option<u16> {
    u16::try_from(fixed.number(offset, 4)?).ok().filter(|port| *port != 0)
}

/// A byte for the register that is described at `offset` (section 5.2.3.2): in memory, or a port.
fn register(fixed: &Table<'_>, offset: u32, value: u8) -> Option<Write> {
    let address = fixed.number(offset + 4, 8).filter(|address| *address != 0)?;
    match fixed.number(offset, 1)? {
        0 => Some(Write::Memory { address, value }),
        1 => Some(Write::Port { port: u16::try_from(address).ok()?, value }),
        _ => None,
    }
}

/// The machine's own program, whose encoding is that of section 20.2.
fn own_program(tables: Tables<'_>, fixed: &Table<'_>) -> Option<Range<u64>> {
    let address = program(fixed)?;
    Some(address..address.checked_add(length(tables.memory, address)?.min(MAX_PROGRAM).into())?)
}

/// The kind of sleep that is off: the first number of the package `_S5_` (section 7.4.2.6).
fn soft_off(tables: Tables<'_>, fixed: &Table<'_>) -> Option<u8> {
    let memory = tables.memory;
    let at = own_program(tables, fixed)?.find(|at| has(memory, *at, b"_S5_\x12"))?;
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

/// Bytes after a device's name in which what it has is looked for.
const REACH: u64 = 256;

/// The generic event device (section 5.6.9): its one interrupt, an extended descriptor (section 6.4.3.6), and the one region of four bytes of memory
/// that its method reads.
fn generic_events(tables: Tables<'_>, fixed: &Table<'_>) -> Option<PowerButton> {
    let memory = tables.memory;
    let mut program = own_program(tables, fixed)?;
    let device = program.find(|at| has(memory, *at, b"ACPI0013\0"))?;
    let after = device..program.end.min(device.saturating_add(REACH));
    // One interrupt: the descriptor has six bytes after its length.
    let interrupt = after.clone().find(|at| has(memory, *at, &[0x89, 6, 0]))?;
    let line = u32::try_from(number(memory, interrupt + 5, 4)?).ok()?;
    // OpRegionOp, a name of four letters, SystemMemory, an address as a DWord.
    let mut regions = after.filter(|at| has(memory, *at, &[0x5b, 0x80]) && has(memory, *at + 6, &[0, 0x0c]));
    let address = number(memory, regions.next()? + 8, 4)?;
    Some(PowerButton { line, registers: ButtonRegisters::Events { address } })
}

#[cfg(test)]
mod tests;
