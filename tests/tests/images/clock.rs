//! Time as an image sees it, against the host's.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{Place, Run};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let places = [Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Muen, Place::Genode];
    let mut trials = super::on(&places, "clock_sleeps_and_tells_the_time", sleeps_and_tells_the_time);
    trials.extend(super::on(&places, "clock_refuses_what_is_no_number_with_64", refuses_what_is_no_number));
    trials.extend(super::on(&[Place::Unix, Place::Spt, Place::Hvt, Place::Virtio], "clock_never_goes_back", never_goes_back));
    trials
}

/// Five million readings, where each is not emulated, awake and after five hundred sleeps, while the host's clock is asked anew many times.
fn never_goes_back(place: Place) -> Result<()> {
    let started = Instant::now();
    let readings = if place == Place::Virtio { "--clocks=500000" } else { "--clocks=5000000" };
    let ended = place.start("tests/images/draws", &Run { arguments: &[readings], ..Run::default() })?.ended()?;
    let host = started.elapsed();
    let number = |name: &str| {
        let line = ended.console.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.trim().parse::<u64>().ok()).with_context(|| format!("{ended:?}"))
    };
    ensure!(number("went back")? == 0 && number("slept short")? == 0, "{ended:?}");
    // Each sleep is 300 us at least; no clock is faster than the host's.
    let passed = number("passed")?;
    ensure!((500 * 300..=host.as_micros() as u64).contains(&passed), "{ended:?}");
    Ok(())
}

/// Five lines 40 ms apart: no earlier than that by the host's clock, and the date is the host's.
fn sleeps_and_tells_the_time(place: Place) -> Result<()> {
    let start = Instant::now();
    let ended = place.start("clock", &Run { arguments: &["--count=5", "--interval=40ms"], ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(0), "{ended:?}");
    ensure!(start.elapsed().as_millis() >= 160, "the image did not sleep: {:?}", start.elapsed());
    let today = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86400;
    let year = 1970 + (today as f64 / 365.2425) as u64;
    let lines: Vec<_> = ended.console.lines().filter(|line| line.contains(&format!("{year}-"))).collect();
    ensure!(lines.len() == 5, "not five lines with this year's date: {ended:?}");
    let monotonic = lines.iter().map(|line| first_number(line)).collect::<Result<Vec<_>>>()?;
    ensure!(monotonic.is_sorted(), "the monotonic clock runs back: {monotonic:?}");
    Ok(())
}

fn refuses_what_is_no_number(place: Place) -> Result<()> {
    let ended = place.start("clock", &Run { arguments: &["--count=many"], ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(64) && ended.console.contains("argument --count=many"), "{ended:?}");
    Ok(())
}

/// The first number in a line.
pub(crate) fn first_number(line: &str) -> Result<f64> {
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let start = line.find(|c: char| c.is_ascii_digit()).with_context(|| format!("no number in {line:?}"))?;
    let rest = &line[start..];
    Ok(rest[..rest.find(|c| !digits(c)).unwrap_or(rest.len())].trim_end_matches('.').parse()?)
}

/// The time of day in a line with a date such as `2026-11-25T09:54:38.326Z`, in seconds.
pub(crate) fn seconds_of_day(line: &str) -> Result<f64> {
    let (_, time) = line.trim_end_matches('Z').split_once('T').with_context(|| format!("no date in {line:?}"))?;
    time.split(':').try_fold(0.0, |seconds, part| Ok(seconds * 60.0 + part.parse::<f64>()?))
}
