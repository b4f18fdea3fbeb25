//! Where the firmware left its tables.

use crate::acpi::Tables;
use crate::entry;

/// Where memory ends and devices begin on every machine: the interrupt controllers.
const DEVICES: u64 = 0xfec0_0000;

/// ACPI's tables, if there are any.
pub(crate) fn tables() -> Option<Tables<'static>> {
    Tables::find(entry::boot()?.root_pointer, entry::POINTERS, &byte)
}

/// A byte where tables may be: below the first MiB, and between the end of the memory and the devices.
fn byte(address: u64) -> Option<u8> {
    let mapped = entry::boot()?.layout.shared.clone()?;
    let is_mapped = entry::FIRMWARE.contains(&address) || (mapped.start..DEVICES).contains(&address);
    // SAFETY: the page tables map it; nothing of the image lies there; a device's register at most is read, which changes no memory.
    is_mapped.then(|| unsafe { core::ptr::with_exposed_provenance::<u8>(address as usize).read_volatile() })
}
