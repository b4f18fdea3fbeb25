//! KVM's clock (Linux's `Documentation/virt/kvm/x86/msr.rst`): the host says what the time stamp counter means, and says it anew whenever that changes.

use core::sync::atomic::{AtomicU32, Ordering, fence};

use fogbow_x86::entry::ModelSpecific;
use fogbow_x86::shared::Shared;

use super::Reference;
use crate::clock::counter;

/// The leaf of CPUID with a hypervisor's name, KVM's name in EBX, ECX and EDX, and the bit of the next leaf's EAX by which it offers the clock
/// (`Documentation/virt/kvm/x86/cpuid.rst`: `KVM_FEATURE_CLOCKSOURCE2`).
const HYPERVISOR: u32 = 0x4000_0000;
const NAME: [u32; 3] = [u32::from_le_bytes(*b"KVMK"), u32::from_le_bytes(*b"VMKV"), u32::from_le_bytes(*b"M\0\0\0")];
const OFFERED: u32 = 1 << 3;

/// The registers that take an address each (`MSR_KVM_WALL_CLOCK_NEW`, `MSR_KVM_SYSTEM_TIME_NEW`), and the bit by which the latter is used.
const WALL_CLOCK: u32 = 0x4b56_4d00;
const SYSTEM_TIME: u32 = 0x4b56_4d01;
const ENABLED: u64 = 1;

/// How often a reading is tried: the host writes for some nanoseconds, and one that is never done does not stop the image.
const LOOKS: u32 = 1_000;

/// What the host keeps (`struct pvclock_vcpu_time_info`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct SystemTime {
    version: u32,
    padding: u32,
    /// The counter, when the time was this.
    counter: u64,
    nanos: u64,
    multiplier: u32,
    shift: i8,
    flags: u8,
    more_padding: [u8; 2],
}

/// What the host has written once (`struct pvclock_wall_clock`): when the system time was zero.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
struct WallClock {
    version: u32,
    seconds: u32,
    nanos: u32,
}

// The host writes them while the image does not run, as far as the image can tell.
static TIME: Shared<SystemTime> =
    Shared::new(SystemTime { version: 0, padding: 0, counter: 0, nanos: 0, multiplier: 0, shift: 0, flags: 0, more_padding: [0; 2] });
static WALL: Shared<WallClock> = Shared::new(WallClock { version: 0, seconds: 0, nanos: 0 });

/// What tells the host where to keep the clock: nothing where there is no KVM.
pub(crate) fn registers() -> &'static [ModelSpecific] {
    static REGISTERS: Shared<[ModelSpecific; 2]> = Shared::new([ModelSpecific { register: 0, value: 0 }; 2]);
    if !is_offered() {
        return &[];
    }
    // SAFETY: this runs once, before anything else refers to the registers.
    let registers = unsafe { &mut *REGISTERS.get() };
    *registers = [
        ModelSpecific { register: WALL_CLOCK, value: WALL.get().expose_provenance() as u64 },
        ModelSpecific { register: SYSTEM_TIME, value: TIME.get().expose_provenance() as u64 | ENABLED },
    ];
    registers
}

fn is_offered() -> bool {
    use core::arch::x86_64::__cpuid;
    // The bit that says that there is a hypervisor: without it the leaf is another's.
    if __cpuid(1).ecx & 1 << 31 == 0 {
        return false;
    }
    let name = __cpuid(HYPERVISOR);
    [name.ebx, name.ecx, name.edx] == NAME && __cpuid(HYPERVISOR + 1).eax & OFFERED != 0
}

/// The clock, when the host keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvmClock;

impl KvmClock {
    pub(super) fn find() -> Option<Self> {
        // Where the host keeps it, it has been written: its version is even, and grows.
        (system_time().version != 0).then_some(Self)
    }

    /// When the clock was zero, in nanoseconds since 1970; `None` when the host does not say.
    pub(super) fn epoch(self) -> Option<u64> {
        // SAFETY: the static lives for ever; the host writes it no more.
        let wall = unsafe { WALL.get().read_volatile() };
        (wall.seconds != 0).then(|| u64::from(wall.seconds) * 1_000_000_000 + u64::from(wall.nanos))
    }
}

impl Reference for KvmClock {
    fn nanos(&self) -> u64 {
        let read = |is_last| {
            let time = system_time();
            let now = nanos(&time, counter());
            // The host may have said something else in between.
            fence(Ordering::Acquire);
            let is_whole = time.version.is_multiple_of(2) && version() == time.version;
            core::hint::spin_loop();
            (is_whole || is_last).then_some(now)
        };
        (1..=LOOKS).find_map(|look| read(look == LOOKS)).unwrap_or(0)
    }
}

fn version() -> u32 {
    // SAFETY: the static lives for ever; its first field is an aligned integer.
    unsafe { (*TIME.get().cast::<AtomicU32>()).load(Ordering::Acquire) }
}

fn system_time() -> SystemTime {
    version();
    // SAFETY: the static lives for ever; a value that is torn is told by its version.
    unsafe { TIME.get().read_volatile() }
}

/// The time when the counter stands at `counter`.
fn nanos(time: &SystemTime, counter: u64) -> u64 {
    let ticks = counter.saturating_sub(time.counter);
    let (left, right) = (time.shift.max(0) as u32, (-i32::from(time.shift)).max(0) as u32);
    let shifted = if right < 64 { (u128::from(ticks) << left.min(63)) >> right } else { 0 };
    let nanos = shifted.saturating_mul(u128::from(time.multiplier)) >> 32;
    time.nanos.saturating_add(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_structures_lie_in_memory_as_linux_has_them() {
        assert_eq!(core::mem::offset_of!(SystemTime, counter), 8);
        assert_eq!(core::mem::offset_of!(SystemTime, multiplier), 24);
        assert_eq!(core::mem::offset_of!(SystemTime, shift), 28);
        assert_eq!(core::mem::offset_of!(WallClock, nanos), 8);
    }

    #[test]
    fn ticks_are_scaled_as_the_host_says() {
        // 2 GHz: half a nanosecond for a tick.
        let time = SystemTime { counter: 1000, nanos: 5, multiplier: 1 << 31, ..SystemTime::default() };
        assert_eq!(nanos(&time, 3000), 1005);
        assert_eq!(nanos(&SystemTime { shift: 1, ..time }, 3000), 2005);
        assert_eq!(nanos(&SystemTime { shift: -1, ..time }, 3000), 505);
        assert_eq!(nanos(&time, 999), 5);
    }

    proptest! {
        #[test]
        fn whatever_the_host_says_is_a_number(counter: u64, nanos: u64, multiplier: u32, shift: i8, now: u64) {
            let time = SystemTime { counter, nanos, multiplier, shift, ..SystemTime::default() };
            prop_assert!(super::nanos(&time, now) >= nanos);
        }
    }
}
