//! The runtime's platform: clocks, console, waiting and the end.

use core::cell::OnceCell;

use fogbow::Platform;
use fogbow::counter::CounterClock;
use fogbow::entropy::{Collect, Occasion, Processor};
use fogbow::heap::Heap;
use fogbow::platform::{Memory, Wait};
use fogbow::time::{Instant, WallTime};

use crate::clock::{self, Frequencies};
use crate::{apic, power, serial};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A virtual machine with one processor.
pub(crate) struct Machine {
    heap: &'static Heap,
    heap_size: usize,
    memory: usize,
    clock: CounterClock,
    /// Counts of the interrupt controller's timer per second.
    timer_frequency: u64,
    /// What the wall clock said, in nanoseconds since 1970, when the monotonic clock stood at zero.
    epoch: OnceCell<u64>,
    processor: Processor,
}

impl Machine {
    pub(crate) fn new(heap: &'static Heap, heap_size: usize, memory: usize, frequencies: Frequencies) -> Self {
        let clock = CounterClock::new(frequencies.counter, clock::counter());
        let timer_frequency = frequencies.timer.get();
        Self { heap, heap_size, memory, clock, timer_frequency, epoch: OnceCell::new(), processor: Processor::new() }
    }

    fn now(&self) -> u64 {
        self.clock.read(clock::counter())
    }

    /// Halts until `deadline`, in nanoseconds of the monotonic clock.
    fn wait_until(&self, deadline: u64) {
        loop {
            let left = deadline.saturating_sub(self.now());
            if left == 0 {
                return;
            }
            // A count more than fits before the deadline, so that one halt suffices; the timer holds 32 bits of them.
            let counts = u128::from(left) * u128::from(self.timer_frequency) / u128::from(NANOS_PER_SECOND) + 1;
            apic::set_timer(Some(u32::try_from(counts).unwrap_or(u32::MAX)));
            apic::halt();
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
            Wait::Poll => {}
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
