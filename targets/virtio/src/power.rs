//! The end: how a machine is left with a status, or turned off.
//!
//! A status other than 0 goes through QEMU's `isa-debug-exit` where that is: QEMU then ends with `status * 2 + 1`, modulo 256. Everything else turns the
//! machine off by ACPI, with which QEMU ends with 0, so that QEMU's own failures (1) are told from both. Where neither works the processor halts.

use core::ops::Range;

use crate::acpi::{self, PowerOff};
use crate::{apic, entry, firmware, ports};

/// Ends the machine.
pub(crate) fn end(status: u8) -> ! {
    if status != 0 {
        // SAFETY: the port is the device's, which ends the machine, or nothing.
        unsafe { ports::write(ports::DEBUG_EXIT, status) };
    }
    match how_to_power_off() {
        Some(PowerOff::Port { port, value }) if ports::ALLOWED.contains(&port) => {
            // SAFETY: ACPI says that this turns the machine off.
            unsafe { ports::write16(port, value) };
        }
        Some(PowerOff::Memory { address, value }) if shared().is_some_and(|shared| shared.contains(&address)) => {
            // SAFETY: ACPI says that this turns the machine off; the address is a device's, beyond all memory of the image, and mapped.
            unsafe { core::ptr::with_exposed_provenance_mut::<u8>(address as usize).write_volatile(value) };
        }
        _ => {}
    }
    if shared().is_some() {
        apic::set_timer(None);
    }
    loop {
        apic::halt();
    }
}

/// The addresses beyond the memory, once they are mapped.
fn shared() -> Option<Range<u64>> {
    entry::boot()?.layout.shared.clone()
}

fn how_to_power_off() -> Option<PowerOff> {
    acpi::power_off(firmware::tables()?)
}
