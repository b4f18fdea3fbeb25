//! Clocks made of a counter, for targets: the processor's time stamp counter costs some twenty cycles to read, where a clock of the host costs a call.
//!
//! - [`CounterClock`]: the monotonic clock where somebody states the counter's frequency.
//! - [`FollowedClock`]: the host's monotonic clock where nobody does. The counter bridges the time between two calls, at the rate that they showed.
//! - [`WallClock`]: the host's time of day, asked once a second; the monotonic clock bridges the time between.
//!
//! Limit: the counter has to be invariant: it ticks at one rate, whatever the processor does. Whoever uses it here has made sure of that.

use core::cell::Cell;
use core::num::NonZeroU64;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A counter's rate as a fixed-point number: nanoseconds per tick times 2^`shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    multiplier: u64,
    shift: u32,
}

impl Rate {
    /// The rate of a counter with `frequency` ticks per second, with the largest shift whose multiplier fits: 2^63 ticks of a counter of 1 GHz or
    /// more are off by less than a nanosecond.
    fn new(frequency: NonZeroU64) -> Self {
        Self::of(NANOS_PER_SECOND as u64, frequency)
    }

    /// The rate of a counter that ticks `ticks` times in `nanos`.
    fn of(nanos: u64, ticks: NonZeroU64) -> Self {
        let mut shift = 64;
        loop {
            match u64::try_from((u128::from(nanos) << shift) / u128::from(ticks.get())) {
                Ok(multiplier) => return Self { multiplier, shift },
                // Ends: without a shift the multiplier is `nanos` at most.
                Err(_) => shift -= 1,
            }
        }
    }

    /// Nanoseconds that `ticks` take, rounded down; `u64::MAX` if they are more than fit.
    fn nanos(self, ticks: u64) -> u64 {
        let nanos = (u128::from(ticks) * u128::from(self.multiplier)) >> self.shift;
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds since the clock was made. It never goes back, not even when the counter does, as it may on a machine that was moved.
#[derive(Debug)]
pub struct CounterClock {
    rate: Rate,
    start: u64,
    latest: Cell<u64>,
}

impl CounterClock {
    /// A clock at 0 for a counter of `frequency` ticks per second that stands at `counter`.
    #[must_use]
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

/// A counter and a clock of the host, read at the same moment as nearly as can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The counter.
    pub counter: u64,
    /// The clock, in nanoseconds.
    pub nanos: u64,
}

/// The least time between two readings that a rate is made of, in nanoseconds: a reading is off by some hundred, so the rate by a ten thousandth at first.
const LEAST_BASELINE: u64 = 1_000_000;

/// The time between two readings after which the rate is made of later ones, in nanoseconds: so it follows a host that steers its clock.
const GREATEST_BASELINE: u64 = 2_000_000_000;

/// How long the counter is trusted after a reading at most, in nanoseconds. It bounds what a counter that is not what it promised can do.
const TRUST: u64 = 10_000_000;

/// The host's monotonic clock, asked at most every 10 ms however often it is read, but for the first millisecond of an image.
///
/// It is as exact as the readings: the counter is trusted for no longer than the time that its rate was measured over, so that an error of a reading does
/// not grow. It never goes back: when the host's clock turns out to be slower than it was, this one stands still until the host's has caught up.
#[derive(Debug, Default)]
pub struct FollowedClock {
    /// Two readings, to make rates of: the later takes the place of the earlier when that has grown too old.
    anchors: Cell<[Reading; 2]>,
    latest_reading: Cell<Reading>,
    /// The rate, and the ticks for which it is trusted after the latest reading.
    rate: Cell<Option<(Rate, u64)>>,
    latest: Cell<u64>,
}

impl FollowedClock {
    /// A clock that has not been read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has been read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.latest.get() > 0
    }

    /// The time when the counter stands at `counter`. `ask` reads the counter and the host's clock; it is called when the counter is not to be trusted.
    pub fn read(&self, counter: u64, ask: impl FnOnce() -> Reading) -> u64 {
        let latest = self.latest_reading.get();
        let nanos = match (self.rate.get(), counter.checked_sub(latest.counter)) {
            (Some((rate, trusted)), Some(ticks)) if ticks < trusted => latest.nanos.saturating_add(rate.nanos(ticks)),
            _ => self.follow(ask()),
        };
        self.at_least(nanos)
    }

    /// The time, when the host has shown that its clock has come to `nanos`, as it does by a timer.
    pub fn at_least(&self, nanos: u64) -> u64 {
        self.latest.set(self.latest.get().max(nanos));
        self.latest.get()
    }

    fn follow(&self, reading: Reading) -> u64 {
        let former = self.latest_reading.replace(reading);
        let [first, second] = self.anchors.get();
        if former == Reading::default() || reading.counter < former.counter || reading.nanos < former.nanos {
            // The first reading, or the first on another machine.
            self.anchors.set([reading; 2]);
            self.rate.set(None);
            return reading.nanos;
        }
        let (ticks, nanos) = (reading.counter - first.counter, reading.nanos - first.nanos);
        if nanos >= LEAST_BASELINE {
            // What the counter does in the time that it is trusted for; the rate is sure for no longer than it was measured.
            let trusted = u128::from(ticks) * u128::from(TRUST.min(nanos)) / u128::from(nanos);
            let rate = NonZeroU64::new(ticks).map(|ticks| (Rate::of(nanos, ticks), u64::try_from(trusted).unwrap_or(u64::MAX)));
            self.rate.set(rate);
        }
        if nanos >= GREATEST_BASELINE {
            self.anchors.set([second, reading]);
        } else if second == first && nanos >= GREATEST_BASELINE / 2 {
            self.anchors.set([first, reading]);
        }
        reading.nanos
    }
}

/// How long a wall clock goes by the monotonic one before the host is asked again, in nanoseconds: a step of the host's clock is seen that much later.
const WALL_CLOCK_AGE: u64 = 1_000_000_000;

/// The host's time of day, asked at most once a second.
#[derive(Debug, Default)]
pub struct WallClock {
    /// What it and the monotonic clock said when it was asked last.
    asked: Cell<Option<(u64, u64)>>,
}

impl WallClock {
    /// A clock that has not been asked yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { asked: Cell::new(None) }
    }

    /// The time of day, in nanoseconds since 1970, when the monotonic clock stands at `monotonic`, in nanoseconds. `ask` asks the host.
    pub fn read(&self, monotonic: u64, ask: impl FnOnce() -> u64) -> u64 {
        let (wall, then) = match self.asked.get() {
            Some((wall, then)) if monotonic.saturating_sub(then) < WALL_CLOCK_AGE => (wall, then),
            _ => (ask(), monotonic),
        };
        self.asked.set(Some((wall, then)));
        wall.saturating_add(monotonic.saturating_sub(then))
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

        /// Against a host whose clock is steered by up to 500 parts in a million, from any place of the counter, across its halves and its end.
        #[test]
        fn a_followed_clock_never_goes_back_and_is_right(
            frequency in 1_000_000_000..5_000_000_000_u64,
            start in prop_oneof![any::<u64>(), Just((1 << 32) - 1_000_000), Just((1 << 63) - 1_000_000), Just(u64::MAX - 1_000_000)],
            steps in prop::collection::vec((1_u64..20_000_000, 0_u64..2), 1..300),
            steering in -500_i64..500,
        ) {
            let clock = FollowedClock::new();
            let (mut ticks, mut host, mut before, mut asked, mut steered) = (0_u64, 1_000_000_000_u64, 0, 0, false);
            // When the clock began, or began anew at the counter's end, and its readings in the millisecond after.
            let (mut begun, mut counter, mut early, mut beginnings) = (0, 0, 0, 0);
            for (index, (step, short)) in steps.iter().enumerate() {
                // Half of the steps are short, as between two readings in a loop.
                let step = if *short == 1 { step / 1000 } else { *step };
                steered |= index > 100;
                ticks += u64::try_from(u128::from(step) * u128::from(frequency) / NANOS_PER_SECOND).unwrap();
                let parts = if steered { steering } else { 0 };
                host += step.saturating_add_signed(step as i64 * parts / 1_000_000);
                let reading = Reading { counter: start.wrapping_add(ticks), nanos: host };
                if index == 0 || reading.counter < counter {
                    (begun, beginnings) = (host, beginnings + 1);
                }
                counter = reading.counter;
                early += u64::from(host - begun < LEAST_BASELINE);
                let now = clock.read(reading.counter, || { asked += 1; reading });
                prop_assert!(now >= before, "{now} after {before}");
                // Steering shows once the clock is asked: 10 ms at 500 parts in a million later.
                let allowed = if steered { 5_200 } else { 30 };
                prop_assert!(now.abs_diff(host) <= allowed, "{now} when the host has {host}");
                before = now;
            }
            let passed = host - 1_000_000_000;
            // After the first millisecond, after 1, 2, 4 and 8 more, then every 10, which the steered host may take for a little less.
            let seldom = 6 * beginnings + passed / (TRUST - TRUST / 500);
            prop_assert!(asked <= early + seldom, "asked {asked} times in {passed} ns, {early} of them early");
        }

        #[test]
        fn a_followed_clock_never_goes_back_whatever_the_counter_and_the_host_do(
            readings in prop::collection::vec((any::<u64>(), any::<u64>()), 1..50),
        ) {
            let clock = FollowedClock::new();
            let mut before = 0;
            for (counter, nanos) in readings {
                let now = clock.read(counter, || Reading { counter, nanos });
                prop_assert!(now >= before);
                before = now;
            }
        }

        #[test]
        fn the_clock_never_goes_back(frequency in 1_u64..u64::MAX, start in any::<u64>(), counters in prop::collection::vec(any::<u64>(), 1..50)) {
            let clock = CounterClock::new(NonZeroU64::new(frequency).unwrap(), start);
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
            let clock = CounterClock::new(frequency, edge - 2_400);
            assert_eq!((clock.read(edge - 2_400), clock.read(edge), clock.read(edge + 2_400)), (0, 999, 1_999));
        }
    }

    #[test]
    fn a_followed_clock_asks_seldom() {
        let clock = FollowedClock::new();
        let mut asked = 0;
        // Ten million readings, 100 ns apart: a second.
        for moment in (1_000..1_000_001_000_u64).step_by(100) {
            let counter = moment * 3;
            clock.read(counter, || {
                asked += 1;
                Reading { counter, nanos: moment }
            });
        }
        // A millisecond of readings, then ever longer times up to 10 ms.
        assert!((10_000 + 100..10_000 + 120).contains(&asked), "{asked}");
    }

    #[test]
    fn a_wall_clock_is_asked_once_a_second() {
        let clock = WallClock::new();
        assert_eq!(clock.read(10, || 1_000), 1_000);
        assert_eq!(clock.read(500, || panic!("asked too early")), 1_490);
        assert_eq!(clock.read(1_000_000_010, || 77), 77);
    }

    #[test]
    fn the_end_of_time_is_reached_and_kept() {
        let clock = CounterClock::new(NonZeroU64::MIN, 0);
        assert_eq!(clock.read(1 << 62), u64::MAX);
        assert_eq!(clock.read(3), u64::MAX);
    }
}
