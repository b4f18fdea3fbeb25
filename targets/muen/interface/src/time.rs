//! Time on Muen: the time stamp counter at the start of the subject's present turn, and the time of day that the counter began with.
//!
//! Reading the counter itself may cost an exit to the kernel, which then gives the turn's end. So time stands still within a turn, but for a step of a
//! nanosecond for each look, which keeps moments apart. Source: `bindings/muen/muschedinfo.h`, `mutimeinfo.h` and `muen-clock.c` of Solo5 0.12.1.

use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// The name of the time of day among a subject's resources.
pub const NAME: &str = "time_info";

/// Bytes of the memory around a [`SharedTimeInfo`].
pub const TIME_INFO_SIZE: u64 = 0x1000;

/// Bytes of the memory around a [`SharedSchedulingInfo`].
pub const SCHEDULING_INFO_SIZE: u64 = 0x1000;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// `struct scheduling_info_type`, which the kernel writes.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SharedSchedulingInfo {
    start: AtomicU64,
    end: AtomicU64,
}

/// The subject's present turn, in ticks of the time stamp counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// When it began.
    pub start: u64,
    /// When it will end.
    pub end: u64,
}

impl SharedSchedulingInfo {
    /// The present turn.
    #[must_use]
    pub fn read(&self) -> Turn {
        Turn { start: self.start.load(Ordering::Relaxed), end: self.end.load(Ordering::Relaxed) }
    }

    /// Begins another turn.
    pub fn write(&self, turn: Turn) {
        self.end.store(turn.end, Ordering::Relaxed);
        self.start.store(turn.start, Ordering::Relaxed);
    }
}

/// `struct time_info_type`, which another subject writes.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SharedTimeInfo {
    base: AtomicU64,
    frequency: AtomicU64,
    zone: AtomicU64,
}

/// The time of day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeInfo {
    /// Microseconds from 1970 to the moment when the time stamp counter stood at 0; 0 while that has not been published.
    pub base: u64,
    /// Ticks of the counter in a second.
    pub frequency: u64,
}

impl SharedTimeInfo {
    /// What has been published.
    #[must_use]
    pub fn read(&self) -> TimeInfo {
        let base = self.base.load(Ordering::Relaxed);
        // A fence and no acquiring load, which is not allowed in memory that can only be read.
        fence(Ordering::Acquire);
        TimeInfo { base, frequency: self.frequency.load(Ordering::Relaxed) }
    }

    /// Publishes the time of day. The time zone is left at UTC.
    pub fn write(&self, info: TimeInfo) {
        self.frequency.store(info.frequency, Ordering::Relaxed);
        self.zone.store(0, Ordering::Relaxed);
        // Last: it says that the rest is there.
        self.base.store(info.base, Ordering::Release);
    }
}

/// The counter as a subject sees it without reading it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SteppedCounter {
    turn: Turn,
    steps: u64,
}

impl SteppedCounter {
    /// A counter that nobody has looked at.
    #[must_use]
    pub const fn new() -> Self {
        Self { turn: Turn { start: 0, end: 0 }, steps: 0 }
    }

    /// Where it stands in this turn: a step further at each look, but not beyond the turn's end.
    pub fn look(&mut self, turn: Turn, frequency: NonZeroU64) -> u64 {
        if turn.start == self.turn.start {
            self.steps = self.steps.saturating_add(1);
        } else {
            *self = Self { turn, steps: 0 };
        }
        let step = frequency.get().div_ceil(NANOS_PER_SECOND);
        let ahead = self.steps.saturating_mul(step).min(turn.end.saturating_sub(turn.start));
        turn.start.saturating_add(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layouts_are_the_headers() {
        assert_eq!((size_of::<SharedSchedulingInfo>(), size_of::<SharedTimeInfo>()), (16, 24));
        let info = SharedTimeInfo::default();
        info.write(TimeInfo { base: 5, frequency: 7 });
        assert_eq!((info.read(), core::mem::offset_of!(SharedTimeInfo, frequency)), (TimeInfo { base: 5, frequency: 7 }, 8));
    }

    proptest! {
        #[test]
        fn the_counter_steps_within_a_turn_and_never_leaves_it(
            start in any::<u64>(), length in 0_u64..1000, looks in 1_usize..50, frequency in 1_u64..6_000_000_000,
        ) {
            let turn = Turn { start, end: start.saturating_add(length) };
            let (mut counter, mut before) = (SteppedCounter::new(), 0);
            for look in 0..looks {
                let now = counter.look(turn, NonZeroU64::new(frequency).unwrap());
                prop_assert!(now >= before && (turn.start..=turn.end).contains(&now), "look {look}: {now}");
                prop_assert!(look == 0 || now > before || now == turn.end);
                before = now;
            }
        }
    }
}
