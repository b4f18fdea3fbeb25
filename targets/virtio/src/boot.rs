//! Start of day in ring 3: from what the entry code found to `fogbow::run`, and the end after a panic.

use alloc::rc::Rc;
use core::fmt;
use core::future::Future;
use core::panic::PanicInfo;

use fogbow::console::ChunkWriter;
use fogbow::heap::Heap;
use fogbow::{Image, StartError, arguments, log, status};
use fogbow_solo5::layout::command_line;

use crate::platform::Machine;
use crate::{apic, clock, entry, power, serial};

/// Why an image could not start.
enum BootError {
    Entry,
    Clock,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry => f.write_str("it was entered in another place than its entry point"),
            Self::Clock => f.write_str("the machine has no interval timer to measure its clocks with: leave pit=off out"),
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
        Ok((machine, boot)) => {
            let line = command_line(boot.command_line());
            let start = || {
                let start = start();
                async {
                    log::debug!("started by {}, {} MiB of memory", boot.protocol, boot.layout.memory() >> 20);
                    start.await
                }
            };
            power::end(fogbow::run(Rc::new(machine), image, arguments::split(&line), start))
        }
        Err(error) => {
            // The writer itself never fails.
            let _ = fmt::write(&mut ChunkWriter::new(serial::puts), format_args!("{}: error: {error}\n", image.name));
            power::end(status::ABORT)
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn prepare(heap: &'static Heap) -> Result<(Machine, &'static entry::Boot), BootError> {
    let boot = entry::boot().ok_or(BootError::Entry)?;
    let mut size = 0;
    for range in boot.layout.heaps() {
        let length = (range.end - range.start) as usize;
        // SAFETY: the page tables map this range, readable and writable, and nothing else lies there.
        unsafe { heap.claim(core::ptr::with_exposed_provenance_mut(range.start as usize), length) };
        size += length;
    }
    apic::set_up();
    let frequencies = clock::measure().ok_or(BootError::Clock)?;
    Ok((Machine::new(heap, size, boot.layout.memory() as usize, frequencies), boot))
}

/// Ends the image after a panic: a message on the console, and [`status::ABORT`].
pub fn end_after_panic(panic: &PanicInfo<'_>) -> ! {
    fogbow_solo5::panic::report(panic, serial::puts);
    power::end(status::ABORT)
}
