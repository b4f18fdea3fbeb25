//! Start of day: from the tender's boot information to `fogbow::run`, and the end after a panic.

use alloc::rc::Rc;
use core::fmt;
use core::future::Future;
use core::panic::PanicInfo;

use fogbow::console;
use fogbow::heap::Heap;
use fogbow::{Image, StartError, arguments, status};
use fogbow_solo5::device::Devices;
use fogbow_solo5::layout::{self, LayoutError};
use fogbow_solo5::manifest::{MAX_SIZE, Manifest, ManifestError};

use crate::platform::{self, Guest, Spt};
use crate::system::{self, Descriptor};

/// `SPT_HOST_MEM_BASE` of `spt_abi.h`: the lowest address of the image's memory.
const MEMORY_BASE: u64 = 0x1_0000;

/// `struct spt_boot_info` of `spt_abi.h`: what the tender passes to the entry code.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootInfo {
    /// Where memory ends, in bytes from address zero.
    memory_end: u64,
    /// Where the image itself ends.
    kernel_end: u64,
    /// The address of the command line.
    command_line: u64,
    /// The address of the manifest.
    manifest: u64,
    /// The epoll set of the net devices and the timer.
    wait_set: i32,
    /// The timer in that set.
    timer: i32,
}

/// Why an image could not start.
enum BootError {
    Layout(LayoutError),
    Manifest(ManifestError),
    CommandLine,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(error) => error.fmt(f),
            Self::Manifest(error) => error.fmt(f),
            Self::CommandLine => f.write_str("the tender's command line does not lie within the image's memory"),
        }
    }
}

/// Runs the image to its end.
///
/// # Safety
/// Called once, by the entry code, with the address that the tender passed. `heap` has no memory yet, and is the allocator.
pub unsafe fn run<S, F>(boot: *const BootInfo, heap: &'static Heap, image: &Image, start: S) -> !
where
    S: FnOnce() -> F,
    F: Future<Output = Result<(), StartError>> + 'static,
{
    // SAFETY: the tender passes the address of a boot information in memory that it alone has written; see `spt_abi.h`.
    let boot = unsafe { boot.read() };
    // SAFETY: passed on to the caller.
    match unsafe { prepare(&boot, heap) } {
        Ok((platform, line)) => system::exit(fogbow::run(Rc::new(platform), image, arguments::split(&line), start)),
        Err(error) => {
            console::write_to(&mut platform::write_console, format_args!("{}: error: {error}\n", image.name));
            system::exit(status::ABORT)
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn prepare(boot: &BootInfo, heap: &'static Heap) -> Result<(Spt, alloc::string::String), BootError> {
    let range = layout::heap(boot.kernel_end, boot.memory_end).map_err(BootError::Layout)?;
    // SAFETY: the tender maps memory up to `memory_end` for the image alone, and what lies behind the image's own end is free.
    unsafe { heap.claim(core::ptr::with_exposed_provenance_mut(range.start), range.len()) };
    // Below the image the tender keeps what it hands over.
    let memory = MEMORY_BASE..boot.kernel_end;
    // SAFETY: the tender has mapped and filled this memory before the image started, and nobody writes there.
    let (manifest, line) = unsafe {
        (layout::bytes(boot.manifest, MAX_SIZE, memory.clone()), layout::bytes(boot.command_line, layout::COMMAND_LINE_SIZE, memory))
    };
    let manifest = Manifest::read(manifest.unwrap_or_default()).map_err(BootError::Manifest)?;
    let line = layout::command_line(line.ok_or(BootError::CommandLine)?);
    let guest = Guest::new(Devices::new(manifest), Descriptor(boot.wait_set), Descriptor(boot.timer));
    Ok((Spt::new(platform::register(guest), heap, boot.memory_end as usize, range.len()), line))
}

/// Ends the image after a panic: a message on the console, and [`status::ABORT`].
pub fn end_after_panic(panic: &PanicInfo<'_>) -> ! {
    fogbow_solo5::panic::report(panic, &mut platform::write_console);
    system::exit(status::ABORT)
}
