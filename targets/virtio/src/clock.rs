//! Clocks: which there are, which is used, and how fast the interrupt controller's timer runs by it.
//!
//! In this order: KVM's clock; the time stamp counter where the processor says that it is invariant, and its frequency; the high precision event timer, with
//! the time stamp counter for the time between two looks at it, whether that is invariant or not; the time stamp counter, measured against the interval timer.
//! Limit: the last is as good as the counter, which is not said to be invariant there; the image says so in its log.

use core::cell::Cell;
use core::fmt;
use core::num::NonZeroU64;

use fogbow::counter::{CounterClock, FollowedClock, Reading};

use crate::apic;
use hpet::Hpet;
use interval_timer::IntervalTimer;
use kvm::KvmClock;

mod hpet;
mod interval_timer;
pub(crate) mod kvm;
mod real_time;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How long the interrupt controller's timer is measured, in nanoseconds: a halt that ends late or early by some parts in a thousand does no harm.
const TIMER_MEASURED: u64 = 1_000_000;

/// How long the time stamp counter is measured where it is all there is.
const COUNTER_MEASURED: u64 = 10_000_000;

/// How often counters are read together, to take the fastest reading: others may have been interrupted by the host.
const READINGS: u32 = 5;

/// How often something is measured again because the clock went round meanwhile: the host did something else for longer than it goes.
const MEASUREMENTS: u32 = 20;

/// How often a clock is looked at while something is measured, before it counts as standing still.
const LOOKS: u32 = 10_000_000;

/// A clock to measure others with.
trait Reference {
    /// Nanoseconds since any time.
    fn nanos(&self) -> u64;
    /// Begins anew, where the clock goes for a short time only.
    fn restart(&self) {}
    /// Whether it has gone round since then, so that it shows less than has passed.
    fn has_gone_round(&self) -> bool {
        false
    }
}

/// The monotonic clock.
#[derive(Debug)]
pub(crate) struct Clock {
    source: Source,
    /// What the source showed at first.
    start: u64,
    latest: Cell<u64>,
}

#[derive(Debug)]
enum Source {
    Kvm(KvmClock),
    /// The counter, invariant at a stated frequency.
    Invariant(CounterClock),
    Followed(FollowedClock, Hpet),
    /// The counter, measured; the flag is whether it is invariant.
    Measured(CounterClock, bool),
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Kvm(_) => "KVM's clock",
            Source::Invariant(_) => "the invariant time stamp counter",
            Source::Followed(..) => "the high precision event timer",
            Source::Measured(_, true) => "the invariant time stamp counter, measured",
            Source::Measured(_, false) => "the time stamp counter, which is not said to be invariant",
        })
    }
}

impl Clock {
    /// The machine's best clock, and how often the interrupt controller's timer counts in a second; `None` when the machine has no clock.
    pub(crate) fn find() -> Option<(Self, NonZeroU64)> {
        if let Some(clock) = KvmClock::find() {
            let (_, timer) = measure(&clock, TIMER_MEASURED)?;
            return Some((Self::new(Source::Kvm(clock)), timer));
        }
        let hpet = Hpet::find();
        if let Some(frequency) = stated_frequency() {
            let clock = CounterClock::new(frequency, counter());
            let (_, timer) = match &hpet {
                Some(hpet) => measure(hpet, TIMER_MEASURED)?,
                None => measure(&IntervalTimer::find()?, TIMER_MEASURED)?,
            };
            return Some((Self::new(Source::Invariant(clock)), timer));
        }
        if let Some(hpet) = hpet {
            let (_, timer) = measure(&hpet, TIMER_MEASURED)?;
            return Some((Self::new(Source::Followed(FollowedClock::new(), hpet)), timer));
        }
        let (frequency, timer) = measure(&IntervalTimer::find()?, COUNTER_MEASURED)?;
        Some((Self::new(Source::Measured(CounterClock::new(frequency, counter()), is_invariant())), timer))
    }

    fn new(source: Source) -> Self {
        let clock = Self { source, start: 0, latest: Cell::new(0) };
        Self { start: clock.raw(), ..clock }
    }

    /// Nanoseconds since the image has started. They never go back.
    pub(crate) fn now(&self) -> u64 {
        self.latest.set(self.latest.get().max(self.raw().saturating_sub(self.start)));
        self.latest.get()
    }

    /// Whether the clock may be off by more than a clock should, for the processor does not promise its counter's rate.
    pub(crate) fn is_doubtful(&self) -> bool {
        matches!(self.source, Source::Measured(_, false))
    }

    /// When the clock was zero, in nanoseconds since 1970: by KVM, or by the real-time clock, which has whole seconds and is taken to show UTC. Where that shows no
    /// date, 1970 began at start.
    pub(crate) fn epoch(&self) -> u64 {
        if let Source::Kvm(clock) = &self.source
            && let Some(epoch) = clock.epoch()
        {
            return epoch.saturating_add(self.start);
        }
        real_time::seconds_since_1970().unwrap_or(0).saturating_mul(NANOS_PER_SECOND).saturating_sub(self.now())
    }

    fn raw(&self) -> u64 {
        match &self.source {
            Source::Kvm(clock) => clock.nanos(),
            Source::Invariant(clock) | Source::Measured(clock, _) => clock.read(counter()),
            Source::Followed(clock, hpet) => clock.read(counter(), || {
                let nanos = hpet.nanos();
                Reading { counter: counter(), nanos }
            }),
        }
    }
}

/// Reads the time stamp counter.
pub(crate) fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it, and nothing sets CR4.TSD, which would keep it from ring 3.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Whether the counter ticks at one rate in all states of the processor (Intel SDM volume 3B, section 18.17.1).
fn is_invariant() -> bool {
    use core::arch::x86_64::__cpuid;
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0
}

/// The invariant counter's frequency where the processor states it (Intel SDM volume 2A, CPUID leaf 15H).
fn stated_frequency() -> Option<NonZeroU64> {
    use core::arch::x86_64::__cpuid;
    if !is_invariant() || __cpuid(0).eax < 0x15 {
        return None;
    }
    let leaf = __cpuid(0x15);
    let ticks = u64::from(leaf.ecx) * u64::from(leaf.ebx);
    ticks.checked_div(leaf.eax.into()).and_then(NonZeroU64::new)
}

/// Counters and the clock that they are measured with, at the same moment as nearly as can be.
#[derive(Clone, Copy, Debug)]
struct Moment {
    nanos: u64,
    counter: u64,
    timer: u32,
}

impl Moment {
    fn now(reference: &impl Reference) -> Self {
        let read = |_| {
            let before = counter();
            let (nanos, timer, after) = (reference.nanos(), apic::counted(), counter());
            (after.wrapping_sub(before), Self { nanos, counter: before, timer })
        };
        let first = read(0);
        (1..READINGS).map(read).fold(first, |best, next| if next.0 < best.0 { next } else { best }).1
    }
}

/// What the time stamp counter and the interrupt controller's timer count in a second, measured for `nanos`. `None` when the reference stands still.
fn measure(reference: &impl Reference, nanos: u64) -> Option<Rates> {
    settle(reference, || measure_once(reference, nanos))
}

/// The time stamp counter's rate, and the timer's.
type Rates = (NonZeroU64, NonZeroU64);

/// The first measurement during which the reference did not go round; else the lowest, as that makes rates too high.
fn settle(reference: &impl Reference, mut measure: impl FnMut() -> Option<Rates>) -> Option<Rates> {
    let mut lowest: Option<Rates> = None;
    for _ in 0..MEASUREMENTS {
        reference.restart();
        let rates = measure()?;
        if !reference.has_gone_round() {
            return Some(rates);
        }
        lowest = Some(lowest.map_or(rates, |lowest| lowest.min(rates)));
    }
    lowest
}

fn measure_once(reference: &impl Reference, nanos: u64) -> Option<Rates> {
    apic::start_count();
    let start = Moment::now(reference);
    (0..LOOKS).find(|_| reference.nanos().saturating_sub(start.nanos) >= nanos)?;
    let end = Moment::now(reference);
    apic::set_timer(None);
    let per_second = |count: u64| {
        let passed = u128::from(end.nanos.checked_sub(start.nanos)?);
        let rate = (u128::from(count) * u128::from(NANOS_PER_SECOND)).checked_div(passed)?;
        NonZeroU64::new(u64::try_from(rate).ok()?)
    };
    Some((per_second(end.counter.wrapping_sub(start.counter))?, per_second(end.timer.wrapping_sub(start.timer).into())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A clock that goes round in its first measurements.
    struct Short {
        rounds: Cell<u32>,
        starts: Cell<u32>,
    }

    impl Reference for Short {
        fn nanos(&self) -> u64 {
            0
        }

        fn restart(&self) {
            self.starts.set(self.starts.get() + 1);
        }

        fn has_gone_round(&self) -> bool {
            self.starts.get() <= self.rounds.get()
        }
    }

    #[test]
    fn a_measurement_during_which_the_clock_went_round_is_repeated() {
        let rate = |rate| NonZeroU64::new(rate).unwrap();
        let settle = |rounds, rates: &[u64]| {
            let clock = Short { rounds: Cell::new(rounds), starts: Cell::new(0) };
            let settled = settle(&clock, || rates.get(clock.starts.get() as usize - 1).map(|of_counter| (rate(*of_counter), rate(7))));
            (settled.map(|rates| rates.0.get()), clock.starts.get())
        };
        assert_eq!(settle(0, &[1000]), (Some(1000), 1));
        assert_eq!(settle(2, &[6000, 9000, 1000]), (Some(1000), 3));
        assert_eq!(settle(1, &[6000]), (None, 2), "the clock stands still");
        let all: Vec<u64> = (0..MEASUREMENTS).map(|number| 5000 - 100 * u64::from(number == 7)).collect();
        assert_eq!(settle(u32::MAX, &all), (Some(4900), MEASUREMENTS), "all that there is");
    }
}
