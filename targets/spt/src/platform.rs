//! The runtime's platform: clocks, console, waiting and the end by system calls.

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use fogbow::counter::{FollowedClock, WallClock};
use fogbow::entropy::{Collect, Occasion, Processor};
use fogbow::heap::Heap;
use fogbow::platform::{Memory, Wait};
use fogbow::time::{Instant, WallTime};
use fogbow::{Platform, status};
use fogbow_solo5::device::Devices;
use fogbow_solo5::manifest::{DeviceKind, MAX_ENTRIES};
use fogbow_solo5::ready::Readiness;
use spin::Once;

use crate::system::{self, Clock, Descriptor, Error, Event};

/// `SPT_INTERNAL_TIMERFD` of `spt_abi.h`: what an event of the timer carries instead of a device's handle.
const TIMER_EVENT: u64 = !1u32 as u64;

/// Events taken from the host in one call. More devices than that become ready one call later.
const EVENTS: usize = 16;

/// What the image has once: its devices and who waits for them.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) devices: Devices,
    pub(crate) readiness: Readiness,
    /// A bit for each handle whose frames somebody takes.
    receiving: AtomicU64,
    wait_set: Descriptor,
    timer: Descriptor,
}

impl Guest {
    pub(crate) const fn new(devices: Devices, wait_set: Descriptor, timer: Descriptor) -> Self {
        Self { devices, readiness: Readiness::new(), receiving: AtomicU64::new(0), wait_set, timer }
    }

    /// Somebody takes the frames of the device `handle` from now on, or does no more.
    pub(crate) fn set_receiving(&self, handle: u8, receiving: bool) {
        let bit = 1 << handle;
        if receiving {
            self.receiving.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.receiving.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Takes frames off devices that nobody receives from and drops them, or their readiness would end every wait.
    fn discard_frames(&self, handles: u64) {
        let mut byte = [0];
        let devices = self.devices.manifest().devices().iter();
        for device in devices.filter(|device| device.kind == DeviceKind::Net && handles & 1 << device.handle != 0) {
            // The host drops the rest of a frame that does not fit.
            while let Ok(length) = system::read(Descriptor(device.host_descriptor), &mut byte) {
                if length == 0 {
                    network_is_gone();
                }
            }
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

/// Writes all of `bytes` to the console, or nothing more when the host has closed it.
pub(crate) fn write_console(bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match system::write(system::CONSOLE, rest) {
            Ok(0) => return,
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            // A console that does not block has no place in the wait set: look again in a millisecond.
            Err(Error::AGAIN) => {
                let _ = guest().map(|guest| system::wait(guest.wait_set, &mut [MaybeUninit::uninit()], 1).map(|_| ()));
            }
            Err(_) => return,
        }
    }
}

/// Ends the image: what carried a device's frames has ended, and nothing brings it back.
pub(crate) fn network_is_gone() -> ! {
    write_console(b"error: a network device of this image is gone: what was behind it on the host has ended\n");
    system::exit(status::FAILURE)
}

/// What the host's timer is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// Nothing.
    Off,
    /// This moment, which may be earlier than what is waited for.
    Set(Instant),
    /// It went off, and stays ready until it is set anew.
    Fired,
}

/// The platform.
pub(crate) struct Spt {
    guest: &'static Guest,
    heap: &'static Heap,
    memory: usize,
    heap_size: usize,
    timer: Cell<Timer>,
    clock: FollowedClock,
    wall: WallClock,
    /// Whether the time stamp counter can be relied on; asked for when a clock is first read again.
    has_counter: Cell<Option<bool>>,
    processor: Processor,
}

impl Spt {
    pub(crate) fn new(guest: &'static Guest, heap: &'static Heap, memory: usize, heap_size: usize) -> Self {
        Self {
            guest,
            heap,
            memory,
            heap_size,
            timer: Cell::new(Timer::Off),
            clock: FollowedClock::new(),
            wall: WallClock::new(),
            has_counter: Cell::new(None),
            processor: Processor::new(),
        }
    }

    /// The monotonic clock: the host's, followed by the time stamp counter, so that most readings are no system call.
    fn now(&self) -> u64 {
        if !self.clock.is_read() {
            // A short image reads it once, and need not know what the processor can do, which takes long to ask in a virtual machine.
            return self.clock.at_least(system::clock(Clock::Monotonic));
        }
        let has_counter = self.has_counter.get().unwrap_or_else(|| {
            let has_counter = system::has_invariant_counter();
            self.has_counter.set(Some(has_counter));
            has_counter
        });
        if has_counter {
            self.clock.read(system::counter(), || system::clock_and_counter(Clock::Monotonic))
        } else {
            self.clock.at_least(system::clock(Clock::Monotonic))
        }
    }

    /// Sees to it that the timer ends a wait at `deadline` or before. A timer that is set to an earlier moment is left alone: deadlines are
    /// mostly moved to later ones, and one early waking costs less than a system call for each move.
    fn set_timer(&self, deadline: Option<Instant>) {
        let needed = match (self.timer.get(), deadline) {
            (Timer::Set(set), Some(deadline)) => set > deadline,
            (Timer::Fired, _) => true,
            (Timer::Off, deadline) => deadline.is_some(),
            (Timer::Set(_), None) => false,
        };
        if needed {
            match system::set_timer(self.guest.timer, deadline.map(Instant::as_nanos)) {
                Ok(()) => self.timer.set(deadline.map_or(Timer::Off, Timer::Set)),
                Err(error) => panic!("the tender's timer cannot be set: {error}"),
            }
        }
    }

    /// Waits once and wakes the tasks of the devices that are ready. True when one was.
    fn wait_once(&self, milliseconds: i32) -> bool {
        let mut events = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
        let events = match system::wait(self.guest.wait_set, &mut events, milliseconds) {
            Ok(events) => events,
            Err(error) => panic!("the tender's devices cannot be waited for: {error}"),
        };
        let mut ready = 0u64;
        for &Event { data, .. } in events {
            match data {
                TIMER_EVENT => {
                    if let Timer::Set(deadline) = self.timer.replace(Timer::Fired) {
                        // The host's clock has come to it, whatever the counter says.
                        self.clock.at_least(deadline.as_nanos());
                    }
                }
                handle if handle < MAX_ENTRIES as u64 => ready |= 1 << handle,
                // No device of this image.
                _ => {}
            }
        }
        let unused = ready & !self.guest.receiving.load(Ordering::Relaxed);
        if unused != 0 {
            self.guest.discard_frames(unused);
        }
        self.guest.readiness.notify(ready & !unused);
        ready & !unused != 0
    }

    fn wait_until(&self, deadline: Option<Instant>) {
        loop {
            self.set_timer(deadline);
            let set_to = self.timer.get();
            let ready = self.wait_once(-1);
            let expired = self.timer.get() == Timer::Fired && deadline.is_some_and(|deadline| set_to == Timer::Set(deadline));
            if ready || expired {
                return;
            }
        }
    }
}

// SAFETY: the image is one process with one thread, and has no signal handlers.
unsafe impl Platform for Spt {
    fn monotonic(&self) -> Instant {
        Instant::from_nanos(self.now())
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_nanos(self.wall.read(self.now(), || system::clock(Clock::Wall)))
    }

    fn write_console(&self, bytes: &[u8]) {
        write_console(bytes);
    }

    fn console_is_terminal(&self) -> bool {
        self.guest.devices.manifest().on_terminal()
    }

    fn offer_console(&self, bytes: &[u8]) -> usize {
        match system::write(system::CONSOLE, bytes) {
            Ok(taken) => taken,
            Err(Error::AGAIN) => 0,
            // Nobody takes them any more.
            Err(_) => bytes.len(),
        }
    }

    fn wait(&self, wait: Wait) {
        match wait {
            Wait::Poll => {
                self.wait_once(0);
            }
            Wait::Until(deadline) => self.wait_until(Some(deadline)),
            Wait::Forever => self.wait_until(None),
        }
    }

    fn entropy(&self, occasion: Occasion, collect: &mut Collect<'_>) {
        self.processor.gather(occasion, collect);
    }

    fn memory(&self) -> Memory {
        self.heap.memory(self.memory, self.heap_size)
    }

    fn exit(&self, status: u8) -> ! {
        system::exit(status)
    }
}
