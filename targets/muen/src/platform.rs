//! The runtime's platform: clocks, console, waiting and the end through the subject's shared memory.

use alloc::vec::Vec;
use core::cell::RefCell;
use core::num::NonZeroU64;

use fogbow::Platform;
use fogbow::counter::CounterClock;
use fogbow::entropy::{Collect, Occasion, Processor};
use fogbow::heap::Heap;
use fogbow::platform::{Memory, Wait};
use fogbow::time::{Instant, WallTime};
use fogbow_muen_interface::boot::SCHEDULING_INFO;
use fogbow_muen_interface::sinfo::Sinfo;
use fogbow_muen_interface::time::{NAME, SharedSchedulingInfo, SharedTimeInfo, SteppedCounter, TimeInfo, Turn};
use fogbow_solo5::device::Devices;
use fogbow_solo5::ready::Readiness;
use spin::Once;

use crate::net::Channels;
use crate::{console, power};

/// How far the frequency that the time subject publishes may be from the kernel's, in parts of it: the kernel's is in whole kilohertz.
const FREQUENCY_TOLERANCE: u64 = 1000;

/// What the image has once: its devices and who waits for them.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) devices: Devices,
    pub(crate) readiness: Readiness,
    /// In the order of the manifest: the device with handle `h` at `h - 1`.
    channels: Vec<Option<Channels>>,
}

impl Guest {
    pub(crate) const fn new(devices: Devices, channels: Vec<Option<Channels>>) -> Self {
        Self { devices, readiness: Readiness::new(), channels }
    }

    /// The channels of a network device.
    pub(crate) fn channels(&self, handle: u8) -> Option<&Channels> {
        self.channels.get(usize::from(handle).checked_sub(1)?)?.as_ref()
    }

    /// Looks at the channels of the devices that are in use, and wakes the tasks that wait for those that have got something. True when one has.
    fn look(&self) -> bool {
        let (mut rest, mut ready) = (self.devices.taken(), 0);
        while rest != 0 {
            let handle = rest.trailing_zeros() as u8;
            rest &= rest - 1;
            if self.channels(handle).is_some_and(Channels::is_pending) {
                ready |= 1 << handle;
            }
        }
        self.readiness.notify(ready);
        ready != 0
    }
}

static GUEST: Once<Guest> = Once::new();

/// Makes `guest` the image's.
pub(crate) fn register(guest: Guest) -> &'static Guest {
    GUEST.call_once(|| guest)
}

/// The image's guest, once it has started.
pub(crate) fn guest() -> Option<&'static Guest> {
    GUEST.get()
}

/// The present turn of the subject.
pub(crate) fn turn() -> Turn {
    // SAFETY: Muen maps the scheduling information there in every subject; it is atomic, as the kernel may write it at any time.
    unsafe { &*core::ptr::with_exposed_provenance::<SharedSchedulingInfo>(SCHEDULING_INFO as usize) }.read()
}

/// The clocks.
pub(crate) struct Clock {
    counter: RefCell<SteppedCounter>,
    frequency: NonZeroU64,
    /// The monotonic clock: it stood at zero when the time stamp counter did.
    monotonic: CounterClock,
    /// What the time subject publishes, if there is one.
    time_info: Option<&'static SharedTimeInfo>,
}

impl Clock {
    /// The clocks of a subject; `None` when nothing says how fast they run.
    pub(crate) fn new(sinfo: &Sinfo<'_>) -> Option<Self> {
        let region = sinfo.memory(NAME);
        let region = region.filter(|region| region.address.is_multiple_of(8) && region.size as usize >= size_of::<SharedTimeInfo>());
        // SAFETY: Muen maps this memory, for reading; it is atomic, as the time subject may write it at any time.
        let time_info = region.map(|region| unsafe { &*core::ptr::with_exposed_provenance::<SharedTimeInfo>(region.address as usize) });
        let published = time_info.map(SharedTimeInfo::read).unwrap_or_default();
        let frequency = frequency(u64::from(sinfo.tsc_khz()) * 1000, published)?;
        Some(Self { counter: RefCell::default(), frequency, monotonic: CounterClock::new(frequency, 0), time_info })
    }

    fn monotonic(&self) -> u64 {
        let counter = self.counter.borrow_mut().look(turn(), self.frequency);
        self.monotonic.read(counter)
    }

    /// Nanoseconds since 1970; since the counter's start while the time of day has not been published.
    pub(crate) fn wall(&self) -> u64 {
        let base = self.time_info.map_or(0, |info| info.read().base);
        base.saturating_mul(1000).saturating_add(self.monotonic())
    }
}

/// The counter's frequency: as the time subject has measured it, if that is about what the kernel says, or what the kernel says.
fn frequency(kernel: u64, published: TimeInfo) -> Option<NonZeroU64> {
    let is_plausible = published.base != 0 && published.frequency.abs_diff(kernel) <= kernel / FREQUENCY_TOLERANCE;
    NonZeroU64::new(if is_plausible { published.frequency } else { kernel })
}

/// The platform.
pub(crate) struct Muen {
    guest: &'static Guest,
    heap: &'static Heap,
    heap_size: usize,
    memory: usize,
    clock: Clock,
    processor: Processor,
}

impl Muen {
    pub(crate) fn new(guest: &'static Guest, heap: &'static Heap, heap_size: usize, memory: usize, clock: Clock) -> Self {
        Self { guest, heap, heap_size, memory, clock, processor: Processor::new() }
    }

    fn wait_until(&self, deadline: u64) {
        while !self.guest.look() && self.clock.monotonic() < deadline {
            core::hint::spin_loop();
        }
    }
}

// SAFETY: a subject has one processor; interrupts are off, and the fault handler calls nothing of the runtime, and never returns.
unsafe impl Platform for Muen {
    fn monotonic(&self) -> Instant {
        Instant::from_nanos(self.clock.monotonic())
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_nanos(self.clock.wall())
    }

    fn write_console(&self, bytes: &[u8]) {
        console::write(bytes);
    }

    fn wait(&self, wait: Wait) {
        match wait {
            Wait::Poll => {
                self.guest.look();
            }
            Wait::Until(deadline) => self.wait_until(deadline.as_nanos()),
            Wait::Forever => self.wait_until(u64::MAX),
        }
    }

    fn entropy(&self, occasion: Occasion, collect: &mut Collect<'_>) {
        self.processor.gather(occasion, collect);
    }

    fn memory(&self) -> Memory {
        self.heap.memory(self.memory, self.heap_size)
    }

    fn exit(&self, status: u8) -> ! {
        power::end(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequency_is_believed_where_the_kernel_agrees() {
        let published = |base, frequency| TimeInfo { base, frequency };
        let kernel = 2_112_000_000;
        for (info, expected) in [
            (published(0, 0), kernel),
            (published(0, kernel + 5), kernel),
            (published(1, kernel + 499), kernel + 499),
            (published(1, 1), kernel),
            (published(1, u64::MAX), kernel),
        ] {
            assert_eq!(frequency(kernel, info), NonZeroU64::new(expected), "{info:?}");
        }
        assert_eq!(frequency(0, published(1, 5)), None);
        // Exactly 1 GHz, where a multiplier of 32 bits would overflow.
        assert_eq!(frequency(1_000_000_000, published(1, 1_000_000_000)), NonZeroU64::new(1_000_000_000));
    }
}
