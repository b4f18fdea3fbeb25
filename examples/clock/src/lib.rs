//! Clock: tells the monotonic and the wall time again and again, and sleeps in between.
//!
//! `cargo xtask run clock --target spt -- --count=3 --interval-ms=200`
#![no_std]
#![forbid(unsafe_code)]

use fogbow::StartError;
use fogbow::arguments;
use fogbow::time::{self, Duration};
use jiff::Timestamp;

/// Prints `--count` lines, `--interval-ms` apart: seconds since it started, and the date in UTC as RFC 3339 writes it.
///
/// # Errors
/// When an argument is no number.
pub async fn start() -> Result<(), StartError> {
    let count: u64 = arguments::parse("count")?;
    let interval = Duration::from_millis(arguments::parse("interval-ms")?);
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
    use fogbow::arguments::{Argument, Group};
    use fogbow::simulation::Simulation;

    const ARGUMENTS: Group = Group {
        prefix: "",
        arguments: &[
            Argument { name: "count", default: Some("2"), doc: "" },
            Argument { name: "interval-ms", default: Some("1500"), doc: "" },
        ],
    };

    #[test]
    fn tells_both_times() {
        let simulation = Simulation::new(1).with_arguments(&[ARGUMENTS], []);
        assert_eq!(simulation.block_on(super::start()), Ok(()));
        assert_eq!(simulation.console(), "    0.000 s  2026-01-01T00:00:00.000Z\n    1.500 s  2026-01-01T00:00:01.500Z\n");
    }

    #[test]
    fn refuses_what_is_no_number() {
        let simulation = Simulation::new(1).with_arguments(&[ARGUMENTS], ["--count=many"]);
        assert!(simulation.block_on(super::start()).is_err());
    }
}
