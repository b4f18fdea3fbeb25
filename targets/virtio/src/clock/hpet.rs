//! The high precision event timer (IA-PC HPET specification 1.0a), of which only the main counter is used.

use super::Reference;
use crate::{entry, firmware};

/// Registers (section 2.3): capabilities, whose upper half is the period in femtoseconds; configuration; the main counter.
const CAPABILITIES: usize = 0x000;
const PERIOD: usize = 0x004;
const CONFIGURATION: usize = 0x010;
const COUNTER: usize = 0x0f0;

/// The main counter has 64 bits (in the capabilities), and counts (in the configuration).
const LONG: u32 = 1 << 13;
const ENABLED: u32 = 1 << 0;

/// The longest period that the specification allows: 100 ns.
const MAX_PERIOD: u32 = 100_000_000;

/// Bytes of registers up to the counter's end.
const SIZE: u64 = 0xf8;

/// Where the address stands in ACPI's table (section 3.2.4).
const ADDRESS: u32 = 44;

/// A timer whose main counter has 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hpet {
    registers: usize,
    /// Femtoseconds from tick to tick.
    period: u32,
}

impl Hpet {
    /// The machine's, with its counter running; `None` when ACPI tells of none, or of one that cannot be used.
    pub(super) fn find() -> Option<Self> {
        let address = firmware::tables()?.table(b"HPET")?.number(ADDRESS, 8)?;
        let shared = entry::boot()?.layout.shared.clone()?;
        if address < shared.start || address.checked_add(SIZE)? > shared.end || !address.is_multiple_of(8) {
            return None;
        }
        let mut timer = Self { registers: usize::try_from(address).ok()?, period: 0 };
        timer.period = timer.read(PERIOD);
        if timer.read(CAPABILITIES) & LONG == 0 || !(1..=MAX_PERIOD).contains(&timer.period) {
            return None;
        }
        timer.write(CONFIGURATION, timer.read(CONFIGURATION) | ENABLED);
        Some(timer)
    }

    fn read(&self, register: usize) -> u32 {
        // SAFETY: `find` has made sure that the page tables map the registers; reading one changes nothing in memory.
        unsafe { core::ptr::with_exposed_provenance::<u32>(self.registers + register).read_volatile() }
    }

    fn write(&self, register: usize, value: u32) {
        // SAFETY: as for `read`; of the timers of the device none is set up, so that it does nothing but count.
        unsafe { core::ptr::with_exposed_provenance_mut::<u32>(self.registers + register).write_volatile(value) };
    }

    fn count(&self) -> u64 {
        // In halves, as some machines allow no more: the upper one has to be the same before and after.
        // It changes every few seconds at most: the second try is good.
        let read = || {
            let (high, low) = (self.read(COUNTER + 4), self.read(COUNTER));
            (self.read(COUNTER + 4) == high).then_some(u64::from(high) << 32 | u64::from(low))
        };
        read().or_else(read).unwrap_or(0)
    }
}

impl Reference for Hpet {
    fn nanos(&self) -> u64 {
        u64::try_from(u128::from(self.count()) * u128::from(self.period) / 1_000_000).unwrap_or(u64::MAX)
    }
}
