//! The runtime's platform: clocks, console, waiting and the end by hypercalls.

use core::cell::Cell;
use core::num::NonZeroU64;

use fogbow::Platform;
use fogbow::counter::{CounterClock, WallClock};
use fogbow::entropy::{Collect, Occasion, Processor};
use fogbow::heap::Heap;
use fogbow::platform::{Memory, Wait};
use fogbow::time::{Instant, WallTime};
use fogbow_solo5::device::Devices;
use fogbow_solo5::manifest::DeviceKind;
use fogbow_solo5::ready::Readiness;
use spin::{Mutex, MutexGuard, Once};

use crate::frames::Frames;
use crate::hypercall;

/// How often the ring is looked at before its tender is given time to run: some tens of microseconds.
const LOOKS: u32 = 1000;

/// The time that it is given then, at each look, in nanoseconds.
const NAP: u64 = 50_000;

/// Waits in a row that may do without a look at the devices that only the tender's poll speaks for, as frames come through the ring.
const WAITS_WITHOUT_POLL: u32 = 16;

/// What the image has once: its devices and who waits for them.
pub(crate) struct Guest {
    pub(crate) devices: Devices,
    pub(crate) readiness: Readiness,
    /// Bytes of the heap.
    pub(crate) heap_size: usize,
    /// The lock is never contended: an image has one thread.
    frames: Option<Mutex<Frames>>,
}

impl Guest {
    pub(crate) fn new(devices: Devices, heap_size: usize, frames: Option<Frames>) -> Self {
        Self { devices, readiness: Readiness::new(), heap_size, frames: frames.map(Mutex::new) }
    }

    /// The frames on the ring, if the tender offered one. The caller keeps them only while it runs no code of others.
    pub(crate) fn frames(&self) -> Option<MutexGuard<'_, Frames>> {
        self.frames.as_ref().map(Mutex::lock)
    }

    /// Asks the tender which devices are ready, waiting `timeout` nanoseconds at most for one, and wakes the tasks that wait for them. True when one was.
    pub(crate) fn poll(&self, timeout: u64) -> bool {
        let ready = hypercall::poll(timeout);
        let unused = ready & !self.devices.taken();
        if unused != 0 {
            self.discard_frames(unused);
        }
        let ready = ready & !unused;
        if let Some(mut frames) = self.frames() {
            frames.notify(ready);
        }
        self.readiness.notify(ready);
        ready != 0
    }

    /// Lets the tender run for a moment.
    pub(crate) fn nap(&self) {
        self.poll(NAP);
    }

    /// Takes the frames that came through the ring and wakes the tasks that wait for them. True when some came.
    pub(crate) fn collect(&self) -> bool {
        let Some(mut frames) = self.frames() else { return false };
        let ready = frames.collect();
        let error = frames.take_error();
        drop(frames);
        if let Some(error) = error {
            fogbow::log::error!("{error}: its network devices are lost");
        }
        self.readiness.notify(ready);
        ready != 0
    }

    /// Takes frames off a device that nobody has taken and drops them, or its readiness would end every wait.
    fn discard_frames(&self, handles: u64) {
        let mut byte = [0];
        let devices = self.devices.manifest().devices().iter();
        for device in devices.filter(|device| device.kind == DeviceKind::Net && handles >> device.handle & 1 != 0) {
            // The tender drops the rest of a frame that does not fit.
            while matches!(hypercall::net_read(device.handle.into(), &mut byte), Ok(Some(_))) {}
        }
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

/// The platform.
pub(crate) struct Hvt {
    guest: &'static Guest,
    heap: &'static Heap,
    memory: usize,
    clock: CounterClock,
    wall: WallClock,
    waits_without_poll: Cell<u32>,
    processor: Processor,
}

impl Hvt {
    pub(crate) fn new(guest: &'static Guest, heap: &'static Heap, memory: usize, counter_frequency: NonZeroU64) -> Self {
        let clock = CounterClock::new(counter_frequency, counter());
        Self { guest, heap, memory, clock, wall: WallClock::new(), waits_without_poll: Cell::new(0), processor: Processor::new() }
    }

    fn now(&self) -> u64 {
        self.clock.read(counter())
    }

    /// Looks at the devices without waiting. Frames on the ring need no hypercall; the poll is for devices that are not on it or are dry.
    fn look(&self) {
        let came = self.guest.collect();
        let needs_poll = self.guest.frames().is_none_or(|frames| frames.is_any_dry());
        if needs_poll && !(came && self.goes_without_poll()) {
            self.guest.poll(0);
        }
    }

    /// True a limited number of times in a row.
    fn goes_without_poll(&self) -> bool {
        let waits = self.waits_without_poll.get();
        let goes = waits < WAITS_WITHOUT_POLL;
        self.waits_without_poll.set(if goes { waits + 1 } else { 0 });
        goes
    }

    /// Waits for a device until `deadline`, in nanoseconds of the monotonic clock.
    fn wait_until(&self, deadline: u64) {
        let mut looks = 0;
        loop {
            if self.guest.collect() {
                if !self.goes_without_poll() {
                    self.guest.poll(0);
                }
                return;
            }
            let left = deadline.saturating_sub(self.now());
            let under_way = left > 0 && self.guest.frames().is_some_and(|frames| frames.are_under_way());
            if under_way && looks < LOOKS {
                looks += 1;
                core::hint::spin_loop();
                continue;
            }
            // Answers that take longer than that wait for a processor: this one, perhaps.
            let timeout = if under_way { left.min(NAP) } else { left };
            if self.guest.poll(timeout) || left == 0 {
                return;
            }
        }
    }
}

// SAFETY: a virtual machine of this target has one processor, no interrupts, and a fault handler that never returns and calls nothing of the runtime.
unsafe impl Platform for Hvt {
    fn monotonic(&self) -> Instant {
        Instant::from_nanos(self.now())
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_nanos(self.wall.read(self.now(), hypercall::wall_time))
    }

    fn write_console(&self, bytes: &[u8]) {
        hypercall::puts(bytes);
    }

    fn console_is_terminal(&self) -> bool {
        self.guest.devices.manifest().on_terminal()
    }

    fn offer_console(&self, bytes: &[u8]) -> usize {
        if self.guest.devices.manifest().offers_console() {
            return hypercall::console_offer(bytes).min(bytes.len());
        }
        hypercall::puts(bytes);
        bytes.len()
    }

    fn wait(&self, wait: Wait) {
        match wait {
            Wait::Poll => self.look(),
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
        hypercall::halt(status)
    }
}

/// Reads the time stamp counter.
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it, and the tender leaves CR4.TSD off, which would keep it from ring 3.
    unsafe { core::arch::x86_64::_rdtsc() }
}
