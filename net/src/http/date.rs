//! The `date` of responses (RFC 9110, section 6.6.1), written anew once a second.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use fogbow::time::{self, Duration, Instant};
use jiff::Timestamp;
use jiff::fmt::StdFmtWrite;
use jiff::fmt::rfc2822::DateTimePrinter;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The date as it was last written.
#[derive(Default)]
pub(super) struct Date {
    text: RefCell<String>,
    /// When the second ends that it was written in.
    valid_until: Cell<Instant>,
}

impl Date {
    /// Adds the field to `output`; nothing while the host's clock shows a time that has no date.
    pub(super) fn append_to(&self, output: &mut Vec<u8>) {
        let now = time::now();
        if now >= self.valid_until.get() {
            let wall = time::wall().as_unix_nanos();
            self.valid_until.set(now + Duration::from_nanos(SECOND - wall % SECOND));
            self.write(wall);
        }
        let text = self.text.borrow();
        if !text.is_empty() {
            output.extend_from_slice(b"date: ");
            output.extend_from_slice(text.as_bytes());
            output.extend_from_slice(b"\r\n");
        }
    }

    fn write(&self, wall: u64) {
        let mut text = self.text.borrow_mut();
        text.clear();
        let written = Timestamp::from_nanosecond(wall.into())
            .and_then(|timestamp| DateTimePrinter::new().print_timestamp_rfc9110(&timestamp, StdFmtWrite(&mut *text)));
        if written.is_err() {
            text.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogbow::simulation::Simulation;

    #[test]
    fn follows_the_wall_clock_by_the_second() {
        Simulation::new(1).block_on(async {
            let date = Date::default();
            let text = || {
                let mut output = Vec::new();
                date.append_to(&mut output);
                String::from_utf8(output).unwrap()
            };
            assert_eq!(text(), "date: Thu, 01 Jan 2026 00:00:00 GMT\r\n");
            time::sleep(Duration::from_millis(999)).await;
            assert_eq!(text(), "date: Thu, 01 Jan 2026 00:00:00 GMT\r\n");
            time::sleep(Duration::from_millis(1)).await;
            assert_eq!(text(), "date: Thu, 01 Jan 2026 00:00:01 GMT\r\n");
        });
    }
}
