//! The runtime's platform: clocks, console, waiting and the end by calls into the library.

use fogbow::Platform;
use fogbow::entropy::{Collect, Occasion, Processor};
use fogbow::heap::Heap;
use fogbow::platform::{Memory, Wait};
use fogbow::time::{Instant, WallTime};
use fogbow_solo5::device::Devices;
use fogbow_solo5::ready::Readiness;
use spin::{Mutex, Once};

use crate::console::LineBuffer;
use crate::library;

/// The clock's step, in nanoseconds: a deadline less than this ahead is not in the future for the library.
const STEP: u64 = 1_000;
/// How long one wait lasts at most, in nanoseconds: an hour, after which it begins anew. The library's own limits lie far beyond.
const LONGEST_WAIT: u64 = 3_600_000_000_000;

/// What the image has once: its devices and who waits for them.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) devices: Devices,
    pub(crate) readiness: Readiness,
}

impl Guest {
    pub(crate) const fn new(devices: Devices) -> Self {
        Self { devices, readiness: Readiness::new() }
    }
}

static GUEST: Once<Guest> = Once::new();
/// Never contended: an image has one thread.
static CONSOLE: Mutex<LineBuffer> = Mutex::new(LineBuffer::new());

/// Makes `guest` the image's.
pub(crate) fn register(guest: Guest) -> &'static Guest {
    GUEST.call_once(|| guest)
}

/// The image's guest, once it has started.
pub(crate) fn guest() -> Option<&'static Guest> {
    GUEST.get()
}

/// Writes `bytes` to the console; a line goes out when it ends. Nothing happens in the middle of another write, which only a panic within it can be.
pub(crate) fn write_console(bytes: &[u8]) {
    if let Some(mut console) = CONSOLE.try_lock() {
        console.write(bytes, library::log);
    }
}

/// Writes what there is of a line that has not ended.
pub(crate) fn flush_console() {
    if let Some(mut console) = CONSOLE.try_lock() {
        console.flush(library::log);
    }
}

/// The platform.
pub(crate) struct Genode {
    guest: &'static Guest,
    heap: &'static Heap,
    heap_size: usize,
    processor: Processor,
}

impl Genode {
    pub(crate) const fn new(guest: &'static Guest, heap: &'static Heap, heap_size: usize) -> Self {
        Self { guest, heap, heap_size, processor: Processor::new() }
    }

    /// Waits until `deadline` or until a frame has arrived.
    fn wait_until(&self, deadline: Option<Instant>) {
        loop {
            let now = library::monotonic();
            let rest = deadline.map_or(u64::MAX, |deadline| deadline.as_nanos().saturating_sub(now));
            // The library counts whole microseconds: one is added, or it would return before the deadline.
            let ready = library::wait(now.saturating_add(rest.min(LONGEST_WAIT)).saturating_add(STEP));
            self.guest.readiness.notify(ready);
            if ready != 0 || rest <= LONGEST_WAIT {
                return;
            }
        }
    }
}

// SAFETY: the component has one thread that enters the image, and no handler of a signal calls into it.
unsafe impl Platform for Genode {
    fn monotonic(&self) -> Instant {
        Instant::from_nanos(library::monotonic())
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_nanos(library::wall())
    }

    fn write_console(&self, bytes: &[u8]) {
        write_console(bytes);
    }

    fn wait(&self, wait: Wait) {
        match wait {
            // The library's shortest wait: signals are dispatched in none that has no time left.
            Wait::Poll => self.guest.readiness.notify(library::wait(library::monotonic().saturating_add(2 * STEP))),
            Wait::Until(deadline) => self.wait_until(Some(deadline)),
            Wait::Forever => self.wait_until(None),
        }
    }

    fn entropy(&self, occasion: Occasion, collect: &mut Collect<'_>) {
        self.processor.gather(occasion, collect);
    }

    fn memory(&self) -> Memory {
        self.heap.memory(self.heap_size, self.heap_size)
    }

    fn exit(&self, status: u8) -> ! {
        flush_console();
        library::exit(status)
    }
}

#[cfg(test)]
pub(crate) mod tests;
