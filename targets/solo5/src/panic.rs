//! The last message of an image that panics.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use fogbow::console::ChunkWriter;
use fogbow::platform;

/// Writes `panic at FILE:LINE:COLUMN: MESSAGE` and a line feed through `write`. When memory is exhausted, which comes here as a panic too, another line says
/// so, with the size that was asked for and the state of the heap.
///
/// Then the [last log messages](fogbow::logs::dump). Allocates nothing. A panic within the message itself ends it early.
pub fn report(panic: &PanicInfo<'_>, mut write: impl FnMut(&[u8])) {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    let is_second = REPORTING.swap(true, Ordering::Relaxed);
    let mut writer = ChunkWriter::new(&mut write);
    // The writer itself never fails.
    let _ = match panic.location() {
        _ if is_second => fmt::write(&mut writer, format_args!("\npanic within a panic's message\n")),
        Some(location) => fmt::write(&mut writer, format_args!("panic at {location}: {}\n", panic.message())),
        None => fmt::write(&mut writer, format_args!("panic: {}\n", panic.message())),
    };
    let _ = match platform::memory_if_running() {
        Some(memory) if !is_second && memory.refused > 0 && is_of_exhausted_memory(panic) => fmt::write(
            &mut writer,
            format_args!("out of memory: {} bytes did not fit beside {memory}: give the image more memory\n", memory.refused),
        ),
        _ => Ok(()),
    };
    drop(writer);
    if !is_second {
        fogbow::logs::dump(write);
    }
}

/// Whether a panic is that of `alloc`'s handler of allocation errors, which a stable toolchain tells by its message alone.
fn is_of_exhausted_memory(panic: &PanicInfo<'_>) -> bool {
    begins_so(format_args!("{}", panic.message()))
}

fn begins_so(text: fmt::Arguments<'_>) -> bool {
    let mut expected = Expected(b"memory allocation of ");
    fmt::write(&mut expected, text).is_err() && expected.0.is_empty()
}

/// Takes text as long as it is what is expected, and ends with an error. Bytes, since to slice a `str` brings Unicode's tables into every image.
struct Expected(&'static [u8]);

impl fmt::Write for Expected {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match self.0.split_first() {
                Some((expected, rest)) if *expected == byte => self.0 = rest,
                _ => return Err(fmt::Error),
            }
        }
        if self.0.is_empty() { Err(fmt::Error) } else { Ok(()) }
    }
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
