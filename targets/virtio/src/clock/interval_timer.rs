//! The interval timer (Intel 8254): what counters are measured against where there is nothing better.

use super::Reference;
use crate::ports::{TIMER, read, write};

/// Ticks per second (in a PC: 105/88 MHz).
const FREQUENCY: u64 = 1_193_182;

/// How often it is looked at before it counts as absent. A look takes half a microsecond or more.
const LOOKS: u32 = 1_000;

/// The timer, counting down from 65,535 once: for 54 ms.
pub(super) struct IntervalTimer;

impl IntervalTimer {
    /// Starts it; `None` when there is none.
    pub(super) fn find() -> Option<Self> {
        start();
        let first = count();
        (0..LOOKS).any(|_| count() != first).then_some(Self)
    }
}

impl Reference for IntervalTimer {
    fn nanos(&self) -> u64 {
        u64::from(u16::MAX - count()) * 1_000_000_000 / FREQUENCY
    }

    fn restart(&self) {
        start();
    }

    fn has_gone_round(&self) -> bool {
        // SAFETY: as in `start`.
        unsafe {
            // Latches the first counter's status, whose top bit is its output: up when it has counted down.
            write(TIMER + 3, 0xe2);
            read(TIMER) & 0x80 != 0
        }
    }
}

fn start() {
    // SAFETY: these ports are the interval timer's or nothing; neither changes memory. Its interrupt is masked.
    unsafe {
        // The first counter, both bytes, mode 0: it counts down once. The speaker's counter would do as well, but a microvm has no gate for it.
        write(TIMER + 3, 0x30);
        write(TIMER, 0xff);
        write(TIMER, 0xff);
    }
}

/// What the first counter stands at: all ones where there is none.
fn count() -> u16 {
    // SAFETY: as in `start`.
    unsafe {
        // Latches the first counter.
        write(TIMER + 3, 0);
        u16::from_le_bytes([read(TIMER), read(TIMER)])
    }
}
