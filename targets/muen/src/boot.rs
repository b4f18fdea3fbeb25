//! Start of day: from what the entry code found to `fogbow::run`, and the end after a panic.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::panic::PanicInfo;

use fogbow::console::write_to;
use fogbow::heap::Heap;
use fogbow::{Image, StartError, arguments, status};
use fogbow_solo5::device::Devices;
use fogbow_solo5::layout::{self, LayoutError};
use fogbow_solo5::manifest::{DeclaredDevice, Device, DeviceKind, Manifest, Unusable};

use crate::net::Channels;
use crate::platform::{self, Guest, Muen};
use crate::{console, entry, power};

/// Why an image could not start.
enum BootError {
    Entry,
    Layout(LayoutError),
    Clock,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry => f.write_str("it was entered in another place than its entry point"),
            Self::Layout(error) => error.fmt(f),
            Self::Clock => f.write_str("the subject information does not say how fast the time stamp counter runs"),
        }
    }
}

/// Runs the image to its end.
///
/// # Safety
/// Called once, as the main function of a [`Program`](fogbow_x86::program::Program). `heap` has no memory yet, and is the allocator; `devices` are those of
/// the image's manifest.
pub unsafe fn run<S, F>(heap: &'static Heap, devices: &[DeclaredDevice], image: &Image, start: S) -> !
where
    S: FnOnce() -> F,
    F: Future<Output = Result<(), StartError>> + 'static,
{
    // SAFETY: passed on to the caller.
    match unsafe { prepare(heap, devices) } {
        Ok((platform, boot)) => {
            let line = layout::command_line(boot.command_line);
            power::end(fogbow::run(Rc::new(platform), image, arguments::split(&line), start))
        }
        Err(error) => {
            say(format_args!("{}: error: {error}\n", image.name));
            power::end(status::ABORT)
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn prepare(heap: &'static Heap, devices: &[DeclaredDevice]) -> Result<(Muen, &'static entry::Boot), BootError> {
    let boot = entry::boot().ok_or(BootError::Entry)?;
    let memory = layout::heap(boot.layout.heap.start, boot.layout.heap.end).map_err(BootError::Layout)?;
    // SAFETY: Muen has mapped the subject's memory there, readable and writable, beyond the image, and it is used for nothing else.
    unsafe { heap.claim(core::ptr::with_exposed_provenance_mut(memory.start), memory.len()) };
    let clock = platform::Clock::new(&boot.sinfo).ok_or(BootError::Clock)?;
    let (manifest, channels) = open_all(devices, boot, &clock);
    let guest = platform::register(Guest::new(Devices::new(manifest), channels));
    Ok((Muen::new(guest, heap, memory.len(), boot.memory_end as usize, clock), boot))
}

/// The manifest's devices, and the channels of each. A device that the subject has no channels for is told of, and unusable.
fn open_all(devices: &[DeclaredDevice], boot: &entry::Boot, clock: &platform::Clock) -> (Manifest, Vec<Option<Channels>>) {
    let opened = (1u8..).zip(devices).map(|(handle, declared)| {
        let channels = match declared.kind() {
            DeviceKind::Net => Channels::open(&boot.sinfo, declared.name()),
            // The builder lets no block device through.
            DeviceKind::Block => return (declared, handle, Err(Unusable::NotAttached), None),
        };
        match channels {
            Ok(channels) => (declared, handle, channels.properties(&boot.sinfo, declared.name(), clock), Some(channels)),
            Err(error) => {
                say(format_args!("net device '{}': {error}\n", declared.name()));
                (declared, handle, Err(Unusable::NotAttached), None)
            }
        }
    });
    let (manifest, channels): (Vec<_>, Vec<_>) = opened
        .map(|(declared, handle, properties, channels)| {
            (Device { name: declared.name().into(), handle, kind: declared.kind(), properties, host_descriptor: -1 }, channels)
        })
        .unzip();
    (Manifest::from_devices(manifest), channels)
}

fn say(text: fmt::Arguments<'_>) {
    write_to(&mut console::write, text);
}

/// Ends the image after a panic: a message on the console, and [`status::ABORT`].
pub fn end_after_panic(panic: &PanicInfo<'_>) -> ! {
    console::end_line();
    fogbow_solo5::panic::report(panic, &mut console::write);
    power::end(status::ABORT)
}
