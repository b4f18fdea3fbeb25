//! Timers, exit hooks and statistics, as an image has them.

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{Place, Run};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let places = [Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Muen, Place::Genode];
    super::on(&places, "timers_fire_tick_and_are_counted", fire_tick_and_are_counted)
}

/// Ten thousand pending timers all fire; a ticker keeps its beat; each wait has a cause; the exit hook runs last.
fn fire_tick_and_are_counted(place: Place) -> Result<()> {
    let arguments = ["--timers=10000", "--ticks=200"];
    let ended = place.start("timers", &Run { arguments: &arguments, ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(0), "{ended:?}");
    let console = &ended.console;
    ensure!(console.contains("10000 timers: ") && console.contains("; 0 did not fire"), "{ended:?}");
    ensure!(console.contains("200 ticks of 1000 us: "), "{ended:?}");
    // The first tick that was waited for, and those that were not missed on a busy machine.
    let waits = number_after(console, "waits ")?;
    ensure!((2..10_000).contains(&waits), "{ended:?}");
    let causes = ["by timer ", "by device ", "by both ", "for nothing "].map(|cause| number_after(console, cause));
    let causes: Vec<u64> = causes.into_iter().collect::<Result<_>>()?;
    ensure!(causes[0] > 0 && causes.iter().sum::<u64>() == waits, "{ended:?}");
    ensure!(place == Place::Unix || number_after(console, "KiB of heap in ")? > 0, "{ended:?}");
    ensure!(console.ends_with("timers: done\n"), "{ended:?}");
    Ok(())
}

fn number_after(text: &str, what: &str) -> Result<u64> {
    let rest = text.split_once(what).with_context(|| format!("no {what:?} in {text:?}"))?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().with_context(|| format!("no number after {what:?} in {text:?}"))
}
