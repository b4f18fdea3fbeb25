//! Start of day in ring 3: from what the entry code found to `fogbow::run`, and the end after a panic.

use alloc::rc::Rc;
use alloc::string::String;
use core::fmt;
use core::future::Future;
use core::num::NonZeroU64;
use core::panic::PanicInfo;

use fogbow::console;
use fogbow::heap::Heap;
use fogbow::{Image, StartError, arguments, status};
use fogbow_solo5::device::Devices;
use fogbow_solo5::layout;
use fogbow_solo5::manifest::{MAX_SIZE, Manifest, ManifestError};

use crate::entry;
use crate::frames::Frames;
use crate::hypercall;
use crate::platform::{self, Guest, Hvt};
use crate::ring::{Ring, SharedRing};

/// Why an image could not start.
enum BootError {
    Entry,
    Manifest(ManifestError),
    CommandLine,
    CounterFrequency,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry => f.write_str("it was entered in another place than its entry point"),
            Self::Manifest(error) => error.fmt(f),
            Self::CommandLine => f.write_str("the tender's command line does not lie where its boot information does"),
            Self::CounterFrequency => {
                f.write_str("the tender states no frequency for the time stamp counter: use a host whose counter is stable")
            }
        }
    }
}

/// Runs the image to its end.
///
/// # Safety
/// Called once, as the main function of a [`Program`](fogbow_x86::program::Program). `heap` has no memory yet, and is the allocator.
pub unsafe fn run<S, F>(heap: &'static Heap, image: &Image, start: S) -> !
where
    S: FnOnce() -> F,
    F: Future<Output = Result<(), StartError>> + 'static,
{
    // SAFETY: passed on to the caller.
    match unsafe { prepare(heap) } {
        Ok((platform, line)) => hypercall::halt(fogbow::run(Rc::new(platform), image, arguments::split(&line), start)),
        Err(error) => {
            console::write_to(&mut hypercall::puts, format_args!("{}: error: {error}\n", image.name));
            hypercall::halt(status::ABORT)
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn prepare(heap: &'static Heap) -> Result<(Hvt, String), BootError> {
    let entry::Boot { info, layout: places } = entry::boot().ok_or(BootError::Entry)?;
    let (heap_start, heap_size) = (places.heap.start as usize, (places.heap_end() - places.heap.start) as usize);
    // SAFETY: the page tables map this range, readable and writable, and nothing else lies there.
    unsafe { heap.claim(core::ptr::with_exposed_provenance_mut(heap_start), heap_size) };
    // SAFETY: the page tables map what the tender handed over, readable alone; it was filled before the image started.
    let (manifest, line) = unsafe {
        (
            layout::bytes(info.manifest, MAX_SIZE, places.handed_over.clone()),
            layout::bytes(info.command_line, layout::COMMAND_LINE_SIZE, places.handed_over.clone()),
        )
    };
    let manifest = Manifest::read(manifest.unwrap_or_default()).map_err(BootError::Manifest)?;
    let line = layout::command_line(line.ok_or(BootError::CommandLine)?);
    let frequency = NonZeroU64::new(info.counter_frequency).ok_or(BootError::CounterFrequency)?;
    let frames = places.shared.as_ref().map(|ring| {
        let ring = core::ptr::with_exposed_provenance::<SharedRing>(ring.start as usize);
        // SAFETY: the page tables map the ring, which begins on a page and is as long as this, for ever; all of it is atomic integers.
        Frames::new(Ring::new(unsafe { &*ring }))
    });
    let guest = platform::register(Guest::new(Devices::new(manifest), heap_size, frames));
    Ok((Hvt::new(guest, heap, info.memory as usize, frequency), line))
}

/// Ends the image after a panic: a message on the console, and [`status::ABORT`].
pub fn end_after_panic(panic: &PanicInfo<'_>) -> ! {
    fogbow_solo5::panic::report(panic, &mut hypercall::puts);
    hypercall::halt(status::ABORT)
}
