//! How an image spends its time: awake or waiting, and what ended its waits.
//!
//! Kept by the executor at two readings of the clock for each wait; memory is in [`platform::memory`](crate::platform::memory).

use core::cell::Cell;

use crate::current;
use crate::time::{Duration, Instant};

/// What the executor has counted since the image started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Time that the image has run tasks or looked at its devices.
    pub awake: Duration,
    /// Time that it has waited.
    pub asleep: Duration,
    /// Waits that have ended: the sum of the four causes.
    pub waits: u64,
    /// Of them, ended by a timer.
    pub woken_by_timer: u64,
    /// Ended by a device.
    pub woken_by_device: u64,
    /// Ended by both at the same time.
    pub woken_by_both: u64,
    /// Ended by neither: a host that woke the image for nothing, or early.
    pub woken_for_nothing: u64,
    /// Looks at the devices without waiting, made while tasks were ready.
    pub polls: u64,
}

/// What the executor has counted until now.
///
/// # Panics
/// When no runtime is running.
///
/// ```
/// # use fogbow::time::{self, Duration};
/// # fogbow::simulation::Simulation::new(1).block_on(async {
/// time::sleep(Duration::from_secs(1)).await;
/// let statistics = fogbow::statistics();
/// assert_eq!((statistics.asleep, statistics.woken_by_timer), (Duration::from_secs(1), 1));
/// # });
/// ```
#[must_use]
pub fn statistics() -> Statistics {
    current::with(|runtime| runtime.counters.read(runtime.platform.monotonic()))
}

/// The executor's counters.
#[derive(Debug)]
pub(crate) struct Counters {
    start: Instant,
    counted: Cell<Statistics>,
}

impl Counters {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, counted: Cell::default() }
    }

    pub(crate) fn polled(&self) {
        self.change(|counted| counted.polls += 1);
    }

    /// A wait of `duration` has ended.
    pub(crate) fn woke(&self, duration: Duration, by_timer: bool, by_device: bool) {
        self.change(|counted| {
            counted.asleep += duration;
            counted.waits += 1;
            *match (by_timer, by_device) {
                (true, false) => &mut counted.woken_by_timer,
                (false, true) => &mut counted.woken_by_device,
                (true, true) => &mut counted.woken_by_both,
                (false, false) => &mut counted.woken_for_nothing,
            } += 1;
        });
    }

    fn read(&self, now: Instant) -> Statistics {
        let counted = self.counted.get();
        Statistics { awake: (now - self.start).saturating_sub(counted.asleep), ..counted }
    }

    fn change(&self, change: impl FnOnce(&mut Statistics)) {
        let mut counted = self.counted.get();
        change(&mut counted);
        self.counted.set(counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_has_one_cause() {
        let counters = Counters::new(Instant::from_nanos(100));
        let causes = [(true, false), (true, false), (false, true), (true, true), (false, false)];
        causes.into_iter().for_each(|(by_timer, by_device)| counters.woke(Duration::from_nanos(10), by_timer, by_device));
        counters.polled();
        let expected = Statistics {
            awake: Duration::from_nanos(950),
            asleep: Duration::from_nanos(50),
            waits: 5,
            woken_by_timer: 2,
            woken_by_device: 1,
            woken_by_both: 1,
            woken_for_nothing: 1,
            polls: 1,
        };
        assert_eq!(counters.read(Instant::from_nanos(1100)), expected);
    }
}
