//! What the virtio target alone has: several machines, memory maps, clocks that may be missing.

use std::time::Instant;

use anyhow::{Result, ensure};
use fogbow_tests::builder::{Place, Run};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for machine in ["pc", "microvm", "q35,smm=off"] {
        let place = Place::Virtio;
        trials.push(super::trial(&format!("boots_on_{machine}"), place, move || boots_and_turns_off(machine)));
        trials.push(super::trial(&format!("tells_the_time_on_{machine}"), place, move || tells_the_time(machine)));
    }
    trials.push(super::trial("uses_a_gibibyte_and_runs_with_eight", Place::Virtio, uses_much_memory));
    trials.push(super::trial("says_what_it_lacks_without_an_interval_timer", Place::Virtio, without_interval_timer));
    trials
}

fn boots_and_turns_off(machine: &str) -> Result<()> {
    let ended = Place::Virtio.start("hello", &Run { tender: &["-machine", machine], ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(0) && ended.console == "Hello from Fogbow!\n", "{ended:?}");
    Ok(())
}

/// The date is the machine's, and no more time passes in the image than outside: each machine has other timers to measure the counters with.
fn tells_the_time(machine: &str) -> Result<()> {
    let start = Instant::now();
    let run = Run { tender: &["-machine", machine, "-rtc", "base=2031-02-03T04:05:06"], ..Run::default() };
    let ended = Place::Virtio.start("clock", &Run { arguments: &["--count=2", "--interval-ms=10"], ..run })?.ended()?;
    ensure!(ended.status == Some(0) && ended.console.contains("2031-02-03T04:0"), "{ended:?}");
    let latest = super::clock::first_number(ended.console.lines().last().unwrap_or_default())?;
    ensure!(latest <= start.elapsed().as_secs_f64(), "{latest} s passed in the image, and {:?} outside", start.elapsed());
    Ok(())
}

fn uses_much_memory() -> Result<()> {
    for memory in [1024, 8192] {
        let ended = Place::Virtio.start("hello", &Run { memory, ..Run::default() })?.ended()?;
        ensure!(ended.status == Some(0), "{ended:?}");
    }
    Ok(())
}

fn without_interval_timer() -> Result<()> {
    let ended = Place::Virtio.start("hello", &Run { tender: &["-machine", "pc,pit=off"], ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(255) && ended.console.contains("no interval timer"), "{ended:?}");
    Ok(())
}
