//! Start of day in ring 3: from what the entry code found to `fogbow::run`, and the end after a panic.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::panic::PanicInfo;

use fogbow::arguments::ArgumentError;
use fogbow::console;
use fogbow::heap::Heap;
use fogbow::{Image, StartError, arguments, log, status};
use fogbow_solo5::layout::command_line;
use fogbow_solo5::manifest::DeclaredDevice;

use crate::bind::{ChoiceError, Words};
use crate::clock::Clock;
use crate::platform::Machine;
use crate::{apic, entry, guest, power, serial};

/// Why an image could not start.
enum BootError {
    Entry,
    Clock,
    Choice(ChoiceError),
}

impl BootError {
    fn status(&self) -> u8 {
        if matches!(self, Self::Choice(_)) { status::USAGE } else { status::ABORT }
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry => f.write_str("it was entered in another place than its entry point"),
            Self::Clock => f.write_str("the machine has no clock: leave pit=off or hpet=off out"),
            Self::Choice(error) => error.fmt(f),
        }
    }
}

/// Runs the image to its end.
///
/// # Safety
/// Called once, as the main function of a [`Program`](fogbow_x86::program::Program). `heap` has no memory yet, and is the allocator.
pub unsafe fn run<S, F>(heap: &'static Heap, image: &Image, devices: &'static [DeclaredDevice], start: S) -> !
where
    S: FnOnce() -> F,
    F: Future<Output = Result<(), StartError>> + 'static,
{
    // SAFETY: passed on to the caller.
    match unsafe { prepare(heap, devices) } {
        Ok((machine, words)) => {
            let clock = Rc::clone(&machine.clock);
            let start = || {
                let start = start();
                async move {
                    if let Some(boot) = entry::boot() {
                        log::debug!("started by {}, {} MiB of memory, time by {clock}", boot.protocol, boot.layout.memory() >> 20);
                    }
                    if clock.is_doubtful() {
                        log::info!("the clock may be off: give the machine an invariant time stamp counter, hpet=on, or KVM's clock");
                    }
                    start.await
                }
            };
            power::end(fogbow::run(Rc::new(machine), image, words, start))
        }
        Err(error) => {
            console::write_to(&mut serial::puts, format_args!("{}: error: {error}\n", image.name));
            power::end(error.status())
        }
    }
}

/// The platform, and the image's own words of the command line.
type Start = (Machine, Result<Vec<String>, ArgumentError>);

/// # Safety
/// As [`run`].
unsafe fn prepare(heap: &'static Heap, devices: &'static [DeclaredDevice]) -> Result<Start, BootError> {
    let boot = entry::boot().ok_or(BootError::Entry)?;
    let mut size = 0;
    for range in boot.layout.heaps() {
        let length = (range.end - range.start) as usize;
        // SAFETY: the page tables map this range, readable and writable, and nothing else lies there.
        unsafe { heap.claim(core::ptr::with_exposed_provenance_mut(range.start as usize), length) };
        size += length;
    }
    apic::set_up();
    let (clock, timer) = Clock::find().ok_or(BootError::Clock)?;
    let (words, others) = match arguments::split(&command_line(boot.command_line)) {
        Ok(words) => {
            let mut words = Words::sort(words, devices).map_err(BootError::Choice)?;
            let others = core::mem::take(&mut words.others);
            (words, Ok(others))
        }
        Err(error) => (Words::default(), Err(error)),
    };
    let guest = guest::register(devices, words, timer, size);
    Ok((Machine::new(guest, heap, boot.layout.memory() as usize, clock), others))
}

/// Ends the image after a panic: a message on the console, and [`status::ABORT`].
pub fn end_after_panic(panic: &PanicInfo<'_>) -> ! {
    fogbow_solo5::panic::report(panic, &mut |bytes| {
        serial::puts(bytes);
        guest::guest().into_iter().for_each(|guest| guest.write_console(bytes));
    });
    power::end(status::ABORT)
}
