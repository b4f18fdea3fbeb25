//! The runtime's platform: clocks, console, waiting and the end.

use core::cell::OnceCell;

use fogbow::Platform;
use fogbow::counter::CounterClock;
use fogbow::entropy::{Collect, Occasion, Processor};
use fogbow::heap::Heap;
use fogbow::platform::{Memory, Wait};
use fogbow::time::{Instant, WallTime};

use crate::clock::{self, Frequencies};
use crate::guest::Guest;
use crate::{power, serial};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A virtual machine with one processor.
pub(crate) struct Machine {
    guest: &'static Guest,
    heap: &'static Heap,
    memory: usize,
    clock: CounterClock,
    /// What the wall clock said, in nanoseconds since 1970, when the monotonic clock stood at zero.
    epoch: OnceCell<u64>,
    processor: Processor,
}

impl Machine {
    pub(crate) fn new(guest: &'static Guest, heap: &'static Heap, memory: usize, frequencies: Frequencies) -> Self {
        let clock = CounterClock::new(frequencies.counter, clock::counter());
        Self { guest, heap, memory, clock, epoch: OnceCell::new(), processor: Processor::new() }
    }

    fn now(&self) -> u64 {
        self.clock.read(clock::counter())
    }

    /// Halts until a device has something for a task, or until `deadline`, in nanoseconds of the monotonic clock.
    fn wait_until(&self, deadline: u64) {
        while !self.guest.wake_ready() {
            let left = deadline.saturating_sub(self.now());
            if left == 0 {
                return;
            }
            self.guest.halt(left);
        }
    }
}

// SAFETY: the image has one processor; interrupts are on within the halting service alone, and their handlers call nothing of the runtime, and neither
// does the fault handler, which never returns.
unsafe impl Platform for Machine {
    fn monotonic(&self) -> Instant {
        Instant::from_nanos(self.now())
    }

    /// The real-time clock is read once: it has whole seconds, and the monotonic clock goes on from there. Where it shows no date, 1970 began at start.
    fn wall(&self) -> WallTime {
        let epoch = self.epoch.get_or_init(|| {
            let seconds = clock::real_time().unwrap_or(0);
            seconds.saturating_mul(NANOS_PER_SECOND).saturating_sub(self.now())
        });
        WallTime::from_unix_nanos(epoch.saturating_add(self.now()))
    }

    fn write_console(&self, bytes: &[u8]) {
        serial::puts(bytes);
    }

    fn wait(&self, wait: Wait) {
        match wait {
            Wait::Poll => {
                self.guest.wake_ready();
            }
            Wait::Until(deadline) => self.wait_until(deadline.as_nanos()),
            Wait::Forever => self.wait_until(u64::MAX),
        }
    }

    fn entropy(&self, occasion: Occasion, collect: &mut Collect<'_>) {
        self.processor.gather(occasion, collect);
    }

    fn memory(&self) -> Memory {
        self.heap.memory(self.memory, self.guest.heap_size)
    }

    fn exit(&self, status: u8) -> ! {
        power::end(status)
    }
}
