//! The monotonic clock: the processor's time stamp counter at a frequency that the target knows.
//!
//! Limit: the counter must be invariant, which the target vouches for.

use core::cell::Cell;
use core::num::NonZeroU64;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A counter's rate as a fixed-point number: nanoseconds per tick times 2^`shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    multiplier: u64,
    shift: u32,
}

impl Rate {
    /// The rate of a counter with `frequency` ticks per second, with the largest shift whose multiplier fits: 2^63 ticks of a counter of 1 GHz or
    /// more are off by less than a nanosecond.
    #[must_use]
    pub fn new(frequency: NonZeroU64) -> Self {
        let mut shift = 64;
        loop {
            match u64::try_from((NANOS_PER_SECOND << shift) / u128::from(frequency.get())) {
                Ok(multiplier) => return Self { multiplier, shift },
                // Ends: without a shift the multiplier is 10^9 at most.
                Err(_) => shift -= 1,
            }
        }
    }

    /// Nanoseconds that `ticks` take, rounded down; `u64::MAX` if they are more than fit.
    pub fn nanos(self, ticks: u64) -> u64 {
        let nanos = (u128::from(ticks) * u128::from(self.multiplier)) >> self.shift;
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds since the clock was made. It never goes back, not even when the counter does, as it may on a machine that was moved.
#[derive(Debug)]
pub struct MonotonicClock {
    rate: Rate,
    start: u64,
    latest: Cell<u64>,
}

impl MonotonicClock {
    /// A clock at 0 for a counter of `frequency` ticks per second that stands at `counter`.
    pub fn new(frequency: NonZeroU64, counter: u64) -> Self {
        Self { rate: Rate::new(frequency), start: counter, latest: Cell::new(0) }
    }

    /// The time when the counter stands at `counter`.
    pub fn read(&self, counter: u64) -> u64 {
        let nanos = self.rate.nanos(counter.saturating_sub(self.start));
        self.latest.set(self.latest.get().max(nanos));
        self.latest.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(ticks: u64, frequency: u64) -> u64 {
        u64::try_from(u128::from(ticks) * NANOS_PER_SECOND / u128::from(frequency)).unwrap_or(u64::MAX)
    }

    proptest! {
        #[test]
        fn the_rate_is_right_to_a_nanosecond_up_to_2_to_the_63(ticks in 0..1_u64 << 63, frequency in 1_000_000_000..1_u64 << 34) {
            let nanos = Rate::new(NonZeroU64::new(frequency).unwrap()).nanos(ticks);
            prop_assert!(nanos <= exact(ticks, frequency) && nanos + 1 >= exact(ticks, frequency));
        }

        #[test]
        fn slow_counters_drift_less_than_a_nanosecond_in_a_year(seconds in 0..31_536_000_u64, frequency in 1..1_000_000_000_u64) {
            let ticks = seconds * frequency;
            let nanos = Rate::new(NonZeroU64::new(frequency).unwrap()).nanos(ticks);
            prop_assert!(nanos <= seconds * 1_000_000_000 && nanos + 1 >= seconds * 1_000_000_000);
        }

        #[test]
        fn the_clock_never_goes_back(frequency in 1_u64..u64::MAX, start in any::<u64>(), counters in prop::collection::vec(any::<u64>(), 1..50)) {
            let clock = MonotonicClock::new(NonZeroU64::new(frequency).unwrap(), start);
            let mut before = 0;
            for counter in counters {
                let now = clock.read(counter);
                prop_assert!(now >= before);
                before = now;
            }
        }
    }

    #[test]
    fn nothing_happens_where_halves_of_the_counter_fill_up() {
        let frequency = NonZeroU64::new(2_400_000_000).unwrap();
        let rate = Rate::new(frequency);
        for edge in [1 << 32, 1 << 63] {
            for offset in 0..10_000 {
                let ticks = edge - 5_000 + offset;
                let nanos = rate.nanos(ticks);
                assert!(exact(ticks, frequency.get()) - nanos <= 1, "at {ticks:#x}");
                assert!(rate.nanos(ticks + 1) - nanos <= 1, "at {ticks:#x}");
            }
            let clock = MonotonicClock::new(frequency, edge - 2_400);
            assert_eq!((clock.read(edge - 2_400), clock.read(edge), clock.read(edge + 2_400)), (0, 999, 1_999));
        }
    }

    #[test]
    fn the_end_of_time_is_reached_and_kept() {
        let clock = MonotonicClock::new(NonZeroU64::MIN, 0);
        assert_eq!(clock.read(1 << 62), u64::MAX);
        assert_eq!(clock.read(3), u64::MAX);
    }
}
