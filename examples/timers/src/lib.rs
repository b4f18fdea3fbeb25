//! Timers: what many pending ones cost, how exactly a ticker ticks, and how an image spends its time.
//!
//! `cargo xtask run timers --target spt -- --timers=100000 --ticks=10000`
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Waker};

use fogbow::time::{self, Duration, Instant, Sleep, Ticker};
use fogbow::{StartError, platform, println};

fogbow::arguments!();

/// Measures `--timers` pending timers, then `--ticks` ticks.
///
/// # Errors
/// None in an image, which checks its arguments before it starts.
pub async fn start() -> Result<(), StartError> {
    fogbow::at_exit(async { println!("timers: done") });
    let Arguments { timers, ticks, period } = Arguments::read()?;
    many(timers).await;
    tick(ticks, period).await;
    let statistics = fogbow::statistics();
    println!("awake {:.3} s, asleep {:.3} s", statistics.awake.as_secs_f64(), statistics.asleep.as_secs_f64());
    println!(
        "waits {}: by timer {}, by device {}, by both {}, for nothing {}",
        statistics.waits, statistics.woken_by_timer, statistics.woken_by_device, statistics.woken_by_both, statistics.woken_for_nothing
    );
    println!("memory: {}", platform::memory());
    Ok(())
}

/// Sets `count` timers, cancels every other one, and lets the rest fire.
async fn many(count: u32) {
    let mut context = Context::from_waker(Waker::noop());
    let start = time::now();
    // All later than it takes to set them, in an order that is none, within a millisecond.
    let first = start + Duration::from_micros(200 + u64::from(count));
    let moment = |number: u32| first + Duration::from_nanos(u64::from(number.wrapping_mul(0x9e37_79b9) % 1_000_000));
    let mut timers: Vec<Sleep> = (0..count).map(|number| time::sleep_until(moment(number))).collect();
    let insert = measure(count, || {
        for timer in &mut timers {
            let _ = Pin::new(timer).poll(&mut context);
        }
    });
    let mut cancelled = Vec::with_capacity(timers.len().div_ceil(2));
    let mut number = 0;
    timers = timers
        .into_iter()
        .filter_map(|timer| {
            number += 1;
            if number % 2 == 0 {
                Some(timer)
            } else {
                cancelled.push(timer);
                None
            }
        })
        .collect();
    let cancel = measure(cancelled.len() as u32, || cancelled.clear());
    // Awake until all are due, so that they fire at once.
    while time::now() < first + Duration::from_millis(1) {}
    let awake = fogbow::statistics().awake;
    time::sleep(Duration::from_millis(1)).await;
    let fire = (fogbow::statistics().awake - awake).as_nanos() as u64 / timers.len().max(1) as u64;
    let late = timers.iter_mut().filter_map(|timer| Pin::new(timer).poll(&mut context).is_pending().then_some(())).count();
    println!("{count} timers: insert {insert} ns, cancel {cancel} ns, fire {fire} ns each; {late} did not fire");
}

/// The time that `work` takes, for each of `count`, in nanoseconds.
fn measure(count: u32, work: impl FnOnce()) -> u64 {
    let start = time::now();
    work();
    start.elapsed().as_nanos() as u64 / u64::from(count.max(1))
}

/// Takes `ticks` ticks and tells how far the last one is from where it should be.
async fn tick(ticks: u32, period: Duration) {
    let start = time::now();
    let mut ticker = Ticker::new(period);
    let (mut late, mut latest, mut last): (Duration, Duration, Instant) = (Duration::ZERO, Duration::ZERO, start);
    for number in 1..=ticks {
        ticker.tick().await;
        last = time::now();
        let lateness = last.duration_since(start + period * number);
        late += lateness;
        latest = latest.max(lateness);
    }
    let expected = period * ticks;
    let drift = (last - start).abs_diff(expected).as_secs_f64() / expected.as_secs_f64().max(f64::MIN_POSITIVE);
    println!(
        "{ticks} ticks of {} us: drift {:.4} %, late by {:.1} us on average, {:.1} us at most",
        period.as_micros(),
        drift * 100.0,
        late.as_secs_f64() * 1e6 / f64::from(ticks.max(1)),
        latest.as_secs_f64() * 1e6
    );
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use fogbow::simulation::Simulation;
    use fogbow::time::Duration;

    #[test]
    fn a_ticker_in_virtual_time_is_exact() {
        let simulation = Simulation::new(1).with_arguments(&[Arguments::GROUP], ["--timers=0", "--ticks=10000"]);
        // Nobody is awake in virtual time until all timers are due, unless looking at the clock takes time.
        simulation.set_cost_of_reading(Duration::from_nanos(1));
        assert_eq!(simulation.block_on(super::start()), Ok(()));
        let console = simulation.console();
        assert!(console.contains("10000 ticks of 1000 us: drift 0.0000 %"), "{console}");
        assert!(console.ends_with("timers: done\n"), "{console}");
    }
}
