//! What the image has once: the machine's devices, and who waits for them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::x86_64::__cpuid;
use core::num::NonZeroU64;
use core::ops::Range;
use core::task::{Context, Poll, Waker};

use fogbow::console::write_to;
use fogbow_solo5::manifest::{DeclaredDevice, DeviceKind};
use fogbow_x86::entry as x86;
use fogbow_x86::paging::LARGE_PAGE;
use spin::{Mutex, Once};

use crate::acpi::devices::{self, Bridge, ConfigurationSpace};
use crate::bind::{self, DeviceError, Found, Place, Words};
use crate::console::Console;
use crate::interrupts::{Controller, Lines};
use crate::pci::{self, Access, Configuration};
use crate::queue::Ring;
use crate::random::Random;
use crate::transport::{Running, SetupError, Transport};
use crate::window::Window;
use crate::{apic, entry, firmware, mmio, serial};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Where the interrupt controller for lines is on a PC that does not say otherwise (Intel 82093AA, section 3.0).
const LINES: u64 = 0xfec0_0000;

/// The devices of the image and of its machine. Its locks are never contended, as an image has one thread; none is held while code of others runs.
pub(crate) struct Guest {
    declared: &'static [DeclaredDevice],
    words: Words,
    /// Counts of the interrupt controller's timer per second.
    timer_frequency: u64,
    /// Bytes of the heap.
    pub(crate) heap_size: usize,
    found: Once<Vec<Found>>,
    taken: Mutex<Vec<Place>>,
    watches: Mutex<Vec<Watch>>,
    running: Mutex<Vec<Running>>,
    lines: Mutex<Lines>,
    /// Addresses for functions of PCI that no firmware set up; none before the first is wanted.
    free: Mutex<Option<Range<u64>>>,
    /// The random device and the console, looked for when they are first wanted; `None` then says that there is none.
    random: Mutex<Option<Option<Random>>>,
    console: Mutex<Option<Option<Console>>>,
}

/// A queue, and who waits for the device to use a buffer of it.
struct Watch {
    ring: &'static Ring,
    wakers: Vec<Waker>,
}

static GUEST: Once<Guest> = Once::new();

/// Makes the guest the image's.
pub(crate) fn register(declared: &'static [DeclaredDevice], words: Words, timer_frequency: NonZeroU64, heap_size: usize) -> &'static Guest {
    GUEST.call_once(|| Guest::new(declared, words, timer_frequency, heap_size))
}

/// The image's guest, once it has started.
pub(crate) fn guest() -> Option<&'static Guest> {
    GUEST.get()
}

/// The registers at an address, if devices may lie there: beyond the memory up to 4 GiB, or beyond 4 GiB, where they are mapped now.
pub(crate) fn window(address: u64, length: u64) -> Option<Window> {
    let shared = entry::boot()?.layout.shared.clone()?;
    let end = address.checked_add(length)?;
    let is_mapped = address >= shared.start && end <= shared.end;
    if !(is_mapped || address >= shared.end && map(address..end)) {
        return None;
    }
    // SAFETY: the page tables map this range, readable and writable, for devices alone.
    Some(unsafe { Window::new(usize::try_from(address).ok()?, usize::try_from(length).ok()?) })
}

/// Maps registers beyond 4 GiB, as far as the processor's addresses go (CPUID leaf 0x80000008: Intel SDM volume 2A).
fn map(Range { start, end }: Range<u64>) -> bool {
    const WIDTHS: u32 = 0x8000_0008;
    // Every processor of 64 bits has the leaf.
    let width = __cpuid(WIDTHS).eax & 0xff;
    let pages = start / LARGE_PAGE..end.div_ceil(LARGE_PAGE);
    // SAFETY: the gate is set, and the image has started, as its layout is known.
    end.checked_shr(width).unwrap_or(0) == 0 && pages.map(|page| page * LARGE_PAGE).all(|page| unsafe { x86::devices::map(page) })
}

/// PCI's configuration space in memory, with the addresses for functions where no firmware has given them any: where a table tells of it, firmware has.
fn bridge() -> Option<Bridge> {
    let tables = firmware::tables()?;
    let set_up = devices::configuration_space(tables).map(|space| Bridge { space, free: 0..0 });
    set_up.or_else(|| devices::bridge(tables))
}

/// The interrupt controllers for lines.
pub(crate) fn controllers() -> Vec<Controller> {
    let mut controllers = firmware::tables().map(devices::controllers).unwrap_or_default();
    if controllers.is_empty() {
        controllers.push((LINES, 0));
    }
    let usable = |(address, first)| Some(Controller { registers: window(address, 0x20)?, first });
    controllers.into_iter().filter_map(usable).collect()
}

impl Guest {
    fn new(declared: &'static [DeclaredDevice], words: Words, timer_frequency: NonZeroU64, heap_size: usize) -> Self {
        Self {
            declared,
            words,
            timer_frequency: timer_frequency.get(),
            heap_size,
            found: Once::new(),
            taken: Mutex::new(Vec::new()),
            watches: Mutex::new(Vec::new()),
            running: Mutex::new(Vec::new()),
            lines: Mutex::new(Lines::default()),
            free: Mutex::new(None),
            random: Mutex::new(None),
            console: Mutex::new(None),
        }
    }

    /// The machine's virtio devices, looked for at the first call.
    pub(crate) fn found(&self) -> &[Found] {
        self.found.call_once(|| {
            let (configuration, first) = self.configuration();
            let of_function = |function| {
                let access = Access { configuration: &*configuration, function, window: &window, place: &|size| self.place(size) };
                pci::transport::kind(&access).map(|kind| Found { place: Place::Pci(function), kind, line: 0 })
            };
            let functions = pci::functions(&*configuration, first).into_iter().filter_map(of_function);
            let mut registers = self.words.registers.clone();
            registers.extend(firmware::tables().map(devices::registers).into_iter().flatten());
            registers.sort_unstable();
            registers.dedup_by_key(|(address, _)| *address);
            let in_memory = registers.into_iter().filter_map(|(address, line)| {
                let (kind, _) = mmio::find(window(address, mmio::SIZE)?, line)?;
                Some(Found { place: Place::Memory(address), kind, line })
            });
            functions.chain(in_memory).collect()
        })
    }

    /// PCI's configuration space, and the first bus in it: in memory if ACPI says where, else by ports.
    fn configuration(&self) -> (Box<dyn Configuration>, u8) {
        let in_memory = || {
            let ConfigurationSpace { address, first, last } = bridge()?.space;
            let start = address.checked_add(u64::from(first) << 20)?;
            Some((pci::Ecam { window: window(start, (u64::from(last - first) + 1) << 20)?, first }, first))
        };
        match in_memory() {
            Some((space, first)) => (Box::new(space), first),
            None => (Box::new(pci::Ports), 0),
        }
    }

    /// A place for registers of `size` bytes, where the image gives functions theirs.
    fn place(&self, size: u64) -> Option<u64> {
        let mut free = self.free.lock();
        let free = free.get_or_insert_with(|| bridge().map_or(0..0, |bridge| bridge.free));
        let start = free.start.checked_next_multiple_of(size)?;
        let end = start.checked_add(size).filter(|end| *end <= free.end)?;
        free.start = end;
        Some(start)
    }

    /// The device of the machine that is the image's device `name`.
    pub(crate) fn take(&self, kind: DeviceKind, name: &str) -> Result<(&'static dyn Transport, Found), DeviceError> {
        let found = bind::find(self.declared, &self.words.choices, self.found(), kind, name)?;
        let transport = self.open(found).map_err(|error| match error {
            Some(error) => DeviceError::unusable(kind, name, found.place, error),
            None => DeviceError::Taken { kind, name: name.into() },
        })?;
        Ok((transport, found))
    }

    /// The way to a device's registers, its interrupts allowed. `None` when something has it already.
    pub(crate) fn open(&self, found: Found) -> Result<&'static dyn Transport, Option<SetupError>> {
        let mut taken = self.taken.lock();
        if taken.contains(&found.place) {
            return Err(None);
        }
        taken.push(found.place);
        // A device is the image's to its end.
        let (transport, interrupt): (&'static dyn Transport, _) = match found.place {
            Place::Pci(function) => {
                let (configuration, _) = self.configuration();
                let access = Access { configuration: &*configuration, function, window: &window, place: &|size| self.place(size) };
                let device = pci::transport::Device::new(&access, apic::messages()).map_err(Some)?;
                (Box::leak(Box::new(device)), device.interrupt())
            }
            Place::Memory(address) => {
                let found = window(address, 2 * mmio::SIZE).and_then(|window| mmio::find(window, found.line));
                let (_, device) = found.ok_or(Some(SetupError::OutOfReach))?;
                let device = device.map_err(Some)?;
                (Box::leak(Box::new(device)), device.interrupt())
            }
        };
        if !self.lines.lock().add(interrupt, &controllers()) {
            return Err(Some(SetupError::Nonsense("its interrupt line leads nowhere")));
        }
        Ok(transport)
    }

    /// Gives bytes of the random device to `collect`, if there is one: at once, or with `patience` when it has some.
    pub(crate) fn random(&self, patience: bool, collect: impl FnMut(&[u8])) {
        let mut random = self.random.lock();
        if let Some(random) = random.get_or_insert_with(|| Random::find(self)) {
            random.gather(self, patience, collect);
        }
    }

    /// Writes to the virtio console, if there is one. What it writes itself, looking for the console or in a panic then, does not come here again.
    pub(crate) fn write_console(&self, bytes: &[u8]) {
        let Some(mut console) = self.console.try_lock() else { return };
        if let Some(console) = console.get_or_insert_with(|| Console::find(self))
            && let Err(error) = console.write(self, bytes)
        {
            write_to(&mut serial::puts, format_args!("console device: {error}: it is given no more\n"));
        }
    }

    /// Adds a device that has begun, to be looked at when something about one changes.
    pub(crate) fn add(&self, device: Running) {
        self.running.lock().push(device);
    }

    /// Adds a queue that may be waited for: its number for [`poll`](Self::poll).
    pub(crate) fn watch(&self, ring: &'static Ring) -> usize {
        let mut watches = self.watches.lock();
        watches.push(Watch { ring, wakers: Vec::new() });
        watches.len() - 1
    }

    /// Ready when the device has used a buffer of the queue `index`; otherwise the task is woken when it has.
    pub(crate) fn poll(&self, index: usize, context: &mut Context<'_>) -> Poll<()> {
        let mut watches = self.watches.lock();
        let Some(watch) = watches.get_mut(index) else { return Poll::Pending };
        if watch.ring.has_used() {
            return Poll::Ready(());
        }
        if !watch.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            watch.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Wakes the tasks whose queues have something for them. True when one has.
    pub(crate) fn wake_ready(&self) -> bool {
        self.wake(Ring::has_used)
    }

    /// The same, and lets the devices of the other queues that somebody waits for interrupt.
    fn arm(&self) -> bool {
        self.wake(Ring::arm)
    }

    fn wake(&self, is_ready: impl Fn(&Ring) -> bool) -> bool {
        let mut any = false;
        let mut index = 0;
        loop {
            let mut watches = self.watches.lock();
            let Some(watch) = watches.get_mut(index) else { return any };
            if watch.wakers.is_empty() || !is_ready(watch.ring) {
                index += 1;
                continue;
            }
            // The lock is released before the waker runs, which may end a task that drops a device.
            let waker = watch.wakers.pop();
            drop(watches);
            any = true;
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Halts until an interrupt, for `nanos` at most; not at all when a device was quicker and a task was woken, which this says: nobody waits for that
    /// device any more, so that looking again would not tell.
    #[must_use]
    pub(crate) fn halt(&self, nanos: u64) -> bool {
        let woken = self.arm();
        if !woken {
            self.halt_until_interrupt(nanos);
        }
        self.watches.lock().iter().for_each(|watch| watch.ring.disarm());
        woken
    }

    /// Waits until the device has used a buffer of `ring`, for `nanos` at most: for when nothing else can be done meanwhile.
    pub(crate) fn wait_for(&self, ring: &Ring, nanos: u64) {
        if !ring.arm() {
            self.halt_until_interrupt(nanos);
        }
        ring.disarm();
    }

    fn halt_until_interrupt(&self, nanos: u64) {
        // A count more than fits before the end, so that one halt suffices; the timer holds 32 bits of them.
        let counts = u128::from(nanos) * u128::from(self.timer_frequency) / NANOS_PER_SECOND + 1;
        apic::set_timer(Some(u32::try_from(counts).unwrap_or(u32::MAX)));
        apic::halt();
        let changed = self.lines.lock().acknowledge();
        if apic::has_changed() || changed {
            self.running.lock().iter().for_each(Running::look);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    use crate::queue::tests::{Device, queue};
    use core::sync::atomic::{AtomicU32, Ordering};
    use std::sync::Arc;
    use std::task::Wake;

    /// A guest without a machine.
    pub(crate) fn guest() -> Guest {
        Guest::new(&[], Words::default(), NonZeroU64::MIN, 1 << 20)
    }

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A device that is done after the last look and before the halt: its task has to run, and the machine must not halt, which it could not here.
    #[test]
    fn a_device_that_is_quicker_than_the_halt_is_told_of() {
        for has_events in [true, false] {
            let (mut queue, _) = queue(4, has_events);
            let mut device = Device::new(queue.ring());
            let guest = guest();
            let watch = guest.watch(queue.ring());
            let woken = Arc::new(Count::default());
            let waker = Arc::clone(&woken).into();
            queue.offer(0, Some(10));
            queue.publish();
            assert!(guest.poll(watch, &mut Context::from_waker(&waker)).is_pending());
            assert!(!guest.wake_ready());
            let head = device.next().unwrap();
            device.use_buffer(head.into(), 10);
            device.publish();
            assert!(guest.halt(1));
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
            assert!(!guest.wake_ready(), "nobody waits any more");
        }
    }
}
