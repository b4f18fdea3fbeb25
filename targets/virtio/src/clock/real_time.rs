//! The real-time clock (Motorola MC146818): the date, in whole seconds.

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::ports::{REAL_TIME_CLOCK, read, write};

/// Registers of the real-time clock (MC146818, table 2): seconds, minutes, hours, day, month, year; the century's is QEMU's and most firmware's.
const REGISTERS: [u8; 7] = [0, 2, 4, 7, 8, 9, 0x32];

/// Its two status registers.
const STATUS: [u8; 2] = [0xa, 0xb];

/// The clock is about to change (in the first).
const CHANGING: u8 = 1 << 7;

/// Hours count to 24, and numbers are binary (in the second).
const HOURS_24: u8 = 1 << 1;
const BINARY: u8 = 1 << 2;

/// Seconds since 1970 by the real-time clock, which is taken to show UTC; `None` when it shows no date.
pub(super) fn seconds_since_1970() -> Option<u64> {
    let mut former = None;
    // Twice the same, and not about to change: a clock that is not there does neither.
    for _ in 0..10_000 {
        if register(STATUS[0]) & CHANGING != 0 {
            continue;
        }
        let shown = REGISTERS.map(register);
        if former == Some(shown) {
            return seconds(shown, register(STATUS[1]));
        }
        former = Some(shown);
    }
    None
}

fn register(index: u8) -> u8 {
    // SAFETY: the ports are the clock's or nothing; neither changes memory.
    unsafe {
        write(REAL_TIME_CLOCK, index);
        read(REAL_TIME_CLOCK + 1)
    }
}

/// Seconds since 1970 for what the clock's [`REGISTERS`] show in the mode that `status` says.
fn seconds(shown: [u8; 7], status: u8) -> Option<u64> {
    let afternoon = status & HOURS_24 == 0 && shown[2] & 0x80 != 0;
    let number = |byte: u8| if status & BINARY != 0 { byte } else { (byte >> 4) * 10 + (byte & 0xf) };
    let [second, minute, _, day, month, year, century] = shown.map(|byte| number(byte) as i8);
    let hour = number(shown[2] & if status & HOURS_24 == 0 { 0x7f } else { 0xff }) as i8;
    let hour = if status & HOURS_24 == 0 { hour % 12 + if afternoon { 12 } else { 0 } } else { hour };
    // A clock without a century shows nonsense there.
    let century = if (19..=21).contains(&century) { century } else { 20 };
    let date = DateTime::new(i16::from(century) * 100 + i16::from(year), month, day, hour, minute, second, 0).ok()?;
    u64::try_from(Offset::UTC.to_timestamp(date).ok()?.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_every_mode() {
        // 2026-11-23T21:05:09Z.
        let expected = Some(1_795_467_909);
        assert_eq!(seconds([0x09, 0x05, 0x21, 0x23, 0x11, 0x26, 0x20], HOURS_24), expected);
        assert_eq!(seconds([9, 5, 21, 23, 11, 26, 20], HOURS_24 | BINARY), expected);
        assert_eq!(seconds([0x09, 0x05, 0x89, 0x23, 0x11, 0x26, 0xff], 0), expected);
        // Midnight and noon of a clock with twelve hours.
        assert_eq!(seconds([0, 0, 0x12, 1, 1, 0x70, 0x19], 0), Some(0));
        assert_eq!(seconds([0, 0, 0x92, 1, 1, 0x70, 0x19], 0), Some(43_200));
    }

    #[test]
    fn nonsense_is_no_date() {
        assert_eq!(seconds([0xff; 7], 0xff), None);
        assert_eq!(seconds([0; 7], HOURS_24), None);
        for byte in 0..=255 {
            for status in [0, HOURS_24, BINARY, 0xff] {
                let _ = seconds([byte; 7], status);
            }
        }
    }
}
