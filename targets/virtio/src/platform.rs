//! The runtime's platform: clocks, console, waiting and the end.

use alloc::rc::Rc;
use core::cell::OnceCell;

use fogbow::entropy::{Collect, Occasion, Processor, Source};
use fogbow::heap::Heap;
use fogbow::platform::{Memory, Wait};
use fogbow::time::{Instant, WallTime};
use fogbow::{Platform, log};

use crate::button::Button;
use crate::clock::Clock;
use crate::guest::Guest;
use crate::{power, serial};

/// A virtual machine with one processor.
pub(crate) struct Machine {
    guest: &'static Guest,
    heap: &'static Heap,
    memory: usize,
    pub(crate) clock: Rc<Clock>,
    button: Option<Button>,
    /// What the wall clock said, in nanoseconds since 1970, when the monotonic clock stood at zero.
    epoch: OnceCell<u64>,
    processor: Processor,
}

impl Machine {
    pub(crate) fn new(guest: &'static Guest, heap: &'static Heap, memory: usize, clock: Clock) -> Self {
        Self { guest, heap, memory, clock: Rc::new(clock), button: Button::find(), epoch: OnceCell::new(), processor: Processor::new() }
    }

    fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Halts until a device has something for a task, or until `deadline`, in nanoseconds of the monotonic clock.
    fn wait_until(&self, deadline: u64) {
        while !self.guest.wake_ready() {
            let left = deadline.saturating_sub(self.now());
            if left == 0 {
                return;
            }
            if self.guest.halt(left) || self.is_to_end(None) {
                return;
            }
        }
    }

    /// Ends the image when its power button was pressed; says whether it was.
    fn is_to_end(&self, busy_at: Option<u64>) -> bool {
        let was_pressed = self.button.as_ref().is_some_and(|button| button.was_pressed(busy_at));
        if was_pressed {
            log::info!("the power button was pressed");
            fogbow::shut_down();
        }
        was_pressed
    }
}

// SAFETY: the image has one processor; interrupts are on within the halting service alone, and their handlers call nothing of the runtime, and neither
// does the fault handler, which never returns.
unsafe impl Platform for Machine {
    fn monotonic(&self) -> Instant {
        Instant::from_nanos(self.now())
    }

    /// Read once: the monotonic clock goes on from there.
    fn wall(&self) -> WallTime {
        let epoch = self.epoch.get_or_init(|| self.clock.epoch());
        WallTime::from_unix_nanos(epoch.saturating_add(self.now()))
    }

    fn write_console(&self, bytes: &[u8]) {
        serial::puts(bytes);
        self.guest.write_console(bytes);
    }

    fn offer_console(&self, bytes: &[u8]) -> usize {
        let taken = serial::offer(bytes);
        self.guest.write_console(&bytes[..taken]);
        taken
    }

    fn wait(&self, wait: Wait) {
        match wait {
            Wait::Poll => {
                self.guest.wake_ready();
                self.is_to_end(Some(self.now()));
            }
            Wait::Until(deadline) => self.wait_until(deadline.as_nanos()),
            Wait::Forever => self.wait_until(u64::MAX),
        }
    }

    fn entropy(&self, occasion: Occasion, collect: &mut Collect<'_>) {
        self.processor.gather(occasion, collect);
        self.guest.random(occasion == Occasion::Start, |bytes| collect(Source::Device, bytes));
    }

    fn memory(&self) -> Memory {
        self.heap.memory(self.memory, self.guest.heap_size)
    }

    fn restart(&self) {
        power::restart();
    }

    fn exit(&self, status: u8) -> ! {
        power::end(status)
    }
}
