//! Clocks and waiting.
//!
//! Two clocks, as two types that do not mix: [`Instant`] is monotonic time, for measuring and waiting; [`WallTime`] is the time of day, which the
//! host may set back. Both count nanoseconds in 64 bits: 584 years. What mixes them does not compile:
//!
//! ```compile_fail,E0308
//! # use fogbow::time;
//! let _ = time::now() - time::wall();
//! ```
//!
//! With the feature `jiff` a [`WallTime`] becomes a [`jiff::Timestamp`], for dates and time zones.

use core::fmt;
use core::future::Future;
use core::ops::{Add, AddAssign, Sub};
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::current;
use crate::task::{Either, select};
use crate::timers::TimerId;

pub use core::time::Duration;

/// A moment of the monotonic clock: nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time that has passed since this moment.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        now().duration_since(self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// The moment `duration` later; the end of time (2^64 ns) if that is beyond it.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// The time of day: nanoseconds since 1970-01-01T00:00:00 UTC, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

impl WallTime {
    /// The time `nanos` nanoseconds after 1970-01-01T00:00:00 UTC.
    #[must_use]
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970-01-01T00:00:00 UTC.
    #[must_use]
    pub const fn as_unix_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00 UTC.
    #[must_use]
    pub const fn as_unix_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }
}

#[cfg(feature = "jiff")]
impl From<WallTime> for jiff::Timestamp {
    /// The same moment; every one that 64 bits can count is within jiff's years.
    fn from(time: WallTime) -> Self {
        Self::from_nanosecond(time.as_unix_nanos().into()).unwrap_or(Self::MAX)
    }
}

/// Reads the monotonic clock.
///
/// # Panics
/// When no runtime is running.
#[must_use]
pub fn now() -> Instant {
    current::with(|runtime| runtime.platform.monotonic())
}

/// Reads the wall clock.
///
/// # Panics
/// When no runtime is running.
#[must_use]
pub fn wall() -> WallTime {
    current::with(|runtime| runtime.platform.wall())
}

/// Waits for `duration`.
#[must_use = "a sleep waits only when awaited"]
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration)
}

/// Waits until `deadline`; not at all if it has passed.
#[must_use = "a sleep waits only when awaited"]
pub const fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None }
}

/// The future of [`sleep`] and [`sleep_until`]. Dropping it cancels its timer.
#[derive(Debug)]
pub struct Sleep {
    deadline: Instant,
    timer: Option<TimerId>,
}

impl Sleep {
    /// Moves the deadline, without making a new future.
    pub fn reset(&mut self, deadline: Instant) {
        self.cancel();
        self.deadline = deadline;
    }

    /// When this sleep ends.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    fn cancel(&mut self) {
        if let Some(id) = self.timer.take() {
            // Without a runtime its timers are gone already.
            drop(current::get().and_then(|runtime| runtime.timers.borrow_mut().cancel(id)));
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        current::with(|runtime| {
            let pending = match self.timer {
                Some(id) => {
                    let former = runtime.timers.borrow_mut().refresh(id, context.waker());
                    former.is_some()
                }
                None if self.deadline <= runtime.platform.monotonic() => false,
                None => {
                    let id = runtime.timers.borrow_mut().insert(self.deadline, context.waker().clone());
                    self.timer = Some(id);
                    true
                }
            };
            if pending { Poll::Pending } else { Poll::Ready(()) }
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// A beat: moments one period apart, counted from the first, so that what a tick takes or comes late by does not add up.
///
/// ```
/// # use fogbow::time::{self, Duration, Ticker};
/// # fogbow::simulation::Simulation::new(1).block_on(async {
/// let start = time::now();
/// let mut ticker = Ticker::new(Duration::from_millis(10));
/// for _ in 0..3 {
///     ticker.tick().await;
///     time::sleep(Duration::from_millis(7)).await;
/// }
/// assert_eq!(start.elapsed(), Duration::from_millis(37));
/// # });
/// ```
#[derive(Debug)]
pub struct Ticker {
    next: Instant,
    period: Duration,
}

impl Ticker {
    /// A beat whose first tick is one `period` from now.
    ///
    /// # Panics
    /// When no runtime is running.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Self { next: now() + period, period }
    }

    /// Waits for the next tick. One that has passed already comes at once, and none is left out: skip them with [`skip_missed`](Self::skip_missed).
    pub async fn tick(&mut self) {
        sleep_until(self.next).await;
        self.next += self.period;
    }

    /// Leaves out the ticks that have passed, and says how many: the next one is the first on the beat that is still to come.
    pub fn skip_missed(&mut self) -> u64 {
        let late = now() - self.next;
        let missed = if now() < self.next { 0 } else { late.as_nanos() / self.period.as_nanos().max(1) + 1 };
        let missed = u64::try_from(missed).unwrap_or(u64::MAX);
        self.next += Duration::from_nanos(u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX).saturating_mul(missed));
        missed
    }
}

/// The time allowed by [`timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

impl core::error::Error for TimedOut {}

/// Runs `future` for at most `duration`.
///
/// # Errors
/// [`TimedOut`] when `future` has not ended by then; it is dropped.
///
/// ```
/// # use fogbow::time::{self, Duration, TimedOut};
/// # fogbow::simulation::Simulation::new(1).block_on(async {
/// let never = core::future::pending::<()>();
/// assert_eq!(time::timeout(Duration::from_secs(1), never).await, Err(TimedOut));
/// # });
/// ```
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, TimedOut> {
    match select(future, sleep(duration)).await {
        Either::First(output) => Ok(output),
        Either::Second(()) => Err(TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::Simulation;
    #[cfg(feature = "jiff")]
    use std::string::ToString;

    #[test]
    fn sleeps_take_the_time_they_say() {
        let waited = Simulation::new(1).block_on(async {
            let start = now();
            sleep(Duration::from_millis(7)).await;
            let mut second = sleep(Duration::from_secs(100));
            second.reset(now() + Duration::from_millis(3));
            second.await;
            start.elapsed()
        });
        assert_eq!(waited, Duration::from_millis(10));
    }

    #[test]
    fn a_future_that_is_in_time_gives_its_output_and_leaves_no_timer() {
        Simulation::new(1).block_on(async {
            let output = timeout(Duration::from_secs(5), async {
                sleep(Duration::from_millis(1)).await;
                7
            });
            assert_eq!(output.await, Ok(7));
            assert!(current::with(|runtime| runtime.timers.borrow().is_empty()));
        });
    }

    #[test]
    fn missed_ticks_come_at_once_or_are_left_out() {
        Simulation::new(1).block_on(async {
            let period = Duration::from_millis(10);
            let (start, mut ticker) = (now(), Ticker::new(period));
            sleep(Duration::from_millis(35)).await;
            ticker.tick().await;
            assert_eq!(start.elapsed(), Duration::from_millis(35));
            assert_eq!(ticker.skip_missed(), 2);
            assert_eq!(ticker.skip_missed(), 0);
            ticker.tick().await;
            assert_eq!(start.elapsed(), Duration::from_millis(40));
        });
    }

    #[cfg(feature = "jiff")]
    #[test]
    fn every_wall_time_has_a_date() {
        let date = |nanos| jiff::Timestamp::from(WallTime::from_unix_nanos(nanos));
        assert_eq!(date(1_767_225_600_123_456_789).to_string(), "2026-01-01T00:00:00.123456789Z");
        assert_eq!(date(0).as_nanosecond(), 0);
        assert_eq!(date(u64::MAX).as_nanosecond(), u64::MAX.into());
    }

    #[test]
    fn adding_beyond_the_end_of_time_stays_there() {
        assert_eq!((Instant::from_nanos(u64::MAX - 1) + Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!(Instant::from_nanos(1) - Instant::from_nanos(2), Duration::ZERO);
    }
}
