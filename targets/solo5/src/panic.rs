//! The last message of an image that panics.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use fogbow::console::ChunkWriter;

/// Writes `panic at FILE:LINE:COLUMN: MESSAGE` and a line feed through `write`; exhausted memory comes here as well, with the size asked
/// for.
///
/// Allocates nothing. A panic within the message itself ends it early.
pub fn report(panic: &PanicInfo<'_>, write: impl FnMut(&[u8])) {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    let mut writer = ChunkWriter::new(write);
    // The writer itself never fails.
    let _ = if REPORTING.swap(true, Ordering::Relaxed) {
        fmt::write(&mut writer, format_args!("\npanic within a panic's message\n"))
    } else {
        match panic.location() {
            Some(location) => fmt::write(&mut writer, format_args!("panic at {location}: {}\n", panic.message())),
            None => fmt::write(&mut writer, format_args!("panic: {}\n", panic.message())),
        }
    };
}
