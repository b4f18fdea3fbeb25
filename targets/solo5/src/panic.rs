//! The last message of an image that panics.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use fogbow::console::{format_into, write_to};
use fogbow::{logs, platform};

/// Writes `panic at FILE:LINE:COLUMN: MESSAGE` and a line feed through `write`. When memory is exhausted, which comes here as a panic too, another line says
/// so, with the size that was asked for and the state of the heap.
///
/// Then the [last log messages](fogbow::logs::dump). Allocates nothing. A panic within the message itself ends it early.
pub fn report(panic: &PanicInfo<'_>, write: &mut dyn FnMut(&[u8])) {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    if REPORTING.swap(true, Ordering::Relaxed) {
        return write(b"\npanic within a panic's message\n");
    }
    match panic.location() {
        Some(location) => write_to(write, format_args!("panic at {location}: {}\n", panic.message())),
        None => write_to(write, format_args!("panic: {}\n", panic.message())),
    }
    match platform::memory_if_running() {
        Some(memory) if memory.refused > 0 && is_of_exhausted_memory(panic) => write_to(
            write,
            format_args!("out of memory: {} bytes did not fit beside {memory}: give the image more memory\n", memory.refused),
        ),
        _ => {}
    }
    logs::dump(write);
}

/// Whether a panic is that of `alloc`'s handler of allocation errors, which a stable toolchain tells by its message alone.
fn is_of_exhausted_memory(panic: &PanicInfo<'_>) -> bool {
    begins_so(format_args!("{}", panic.message()))
}

fn begins_so(text: fmt::Arguments<'_>) -> bool {
    const EXPECTED: &[u8] = b"memory allocation of ";
    format_into(&mut [0; EXPECTED.len()], text) == EXPECTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_by_its_beginning() {
        assert!(begins_so(format_args!("memory allocation of {} bytes failed", 5)));
        assert!(begins_so(format_args!("{} allocation of {} bytes failed", "memory", 5)));
        assert!(!begins_so(format_args!("memory allocation")));
        assert!(!begins_so(format_args!("index {} out of bounds: memory allocation of ", 5)));
        assert!(!begins_so(format_args!("")));
    }
}
