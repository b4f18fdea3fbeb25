//! The end: how a machine is left with a status, turned off, or started anew; and how it asks the image to end.
//!
//! A status other than 0 goes through QEMU's `isa-debug-exit` where that is: QEMU then ends with `status * 2 + 1`, modulo 256. Everything else turns the
//! machine off by ACPI, with which QEMU ends with 0, so that QEMU's own failures (1) are told from both. Where neither is there the processor halts, and the console says so.

use crate::acpi::power::{self, Write};
use crate::{apic, entry, firmware, ports, serial};

/// The command of a PC's keyboard controller (Intel 8042) that restarts the machine.
const PULSE_RESET: u8 = 0xfe;

/// Ends the machine.
pub(crate) fn end(status: u8) -> ! {
    if status != 0 {
        // SAFETY: the port is the device's, which ends the machine, or nothing.
        unsafe { ports::write(ports::DEBUG_EXIT, status) };
    }
    match firmware::tables().and_then(power::power_off) {
        // A moment passes until it is off.
        Some(power_off) => write(power_off),
        None => serial::puts(b"the image has ended, but the machine has no ACPI that turns it off: halted\n"),
    }
    if entry::boot().is_some() {
        apic::set_timer(None);
    }
    loop {
        apic::halt();
    }
}

/// Starts the machine anew: as ACPI says, or as every PC does. Returns where that does nothing.
pub(crate) fn restart() {
    if let Some(restart) = firmware::tables().and_then(power::restart) {
        write(restart);
    }
    // SAFETY: the port is the keyboard controller's, which restarts the machine, or nothing.
    unsafe { ports::write(ports::KEYBOARD, PULSE_RESET) };
}

/// Writes to a register that ACPI names; nothing where it can be none.
pub(crate) fn write(write: Write) {
    match write {
        Write::Port16 { port, value } if ports::ALLOWED.contains(&port) => {
            // SAFETY: ACPI says what this does, and it changes no memory.
            unsafe { ports::write16(port, value) };
        }
        Write::Port { port, value } if ports::ALLOWED.contains(&port) => {
            // SAFETY: as before.
            unsafe { ports::write(port, value) };
        }
        Write::Memory { address, value } if is_devices(address) => {
            // SAFETY: as before; the address is a device's, beyond all memory of the image, and mapped.
            unsafe { core::ptr::with_exposed_provenance_mut::<u8>(address as usize).write_volatile(value) };
        }
        _ => {}
    }
}

/// Whether the address lies beyond the memory, and is mapped.
fn is_devices(address: u64) -> bool {
    entry::boot().is_some_and(|boot| boot.layout.shared.as_ref().is_some_and(|shared| shared.contains(&address)))
}
