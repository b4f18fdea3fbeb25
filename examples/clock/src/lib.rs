//! Clock: tells the monotonic and the wall time again and again, and sleeps in between.
//!
//! `cargo xtask run clock --target spt -- --count=3 --interval=200ms`
#![no_std]
#![forbid(unsafe_code)]

use fogbow::StartError;
use fogbow::time;
use jiff::Timestamp;

fogbow::arguments!();

/// Prints `--count` lines, `--interval` apart: seconds since it started, and the date in UTC as RFC 3339 writes it.
///
/// # Errors
/// When the wall clock is out of the calendar's range.
pub async fn start() -> Result<(), StartError> {
    let Arguments { count, interval } = Arguments::read()?;
    let started = time::now();
    let mut next = started;
    for _ in 0..count {
        // Waiting until a moment, not for a while, keeps the time that a line takes out of the beat.
        time::sleep_until(next).await;
        let date = Timestamp::from(time::wall());
        fogbow::println!("{:9.3} s  {date:.3}", started.elapsed().as_secs_f64());
        next += interval;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use fogbow::simulation::Simulation;

    #[test]
    fn tells_both_times() {
        let simulation = Simulation::new(1).with_arguments(&[Arguments::GROUP], ["--count=2", "--interval=1500ms"]);
        assert_eq!(simulation.block_on(super::start()), Ok(()));
        assert_eq!(simulation.console(), "    0.000 s  2026-01-01T00:00:00.000Z\n    1.500 s  2026-01-01T00:00:01.500Z\n");
    }
}
