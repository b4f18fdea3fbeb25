//! How an image on virtio ends before its `start` has: by its machine's power button, by itself, and to start anew.

use anyhow::{Result, ensure};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::monitor::Monitor;
use libtest_mimic::Trial;

const IMAGE: &str = "tests/images/endings";

const MACHINES: [&str; 3] = ["pc", "q35", "microvm"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![];
    for machine in MACHINES {
        for end in ["never", "busy"] {
            let test = move || ends_by_its_power_button(machine, end);
            trials.push(super::trial(&format!("power_button_ends_{end}_on_{machine}"), Place::Virtio, test));
        }
        trials.push(super::trial(&format!("restarts_on_{machine}"), Place::Virtio, move || restarts(machine)));
    }
    trials.extend(super::on(
        &[Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Muen, Place::Genode],
        "shuts_down_with_hooks",
        shuts_down,
    ));
    trials.extend(super::on(
        &[Place::Unix, Place::Spt, Place::Hvt, Place::Muen, Place::Genode],
        "says_that_it_cannot_restart",
        cannot_restart,
    ));
    trials
}

fn ends_by_its_power_button(machine: &str, end: &str) -> Result<()> {
    let monitor = Monitor::new()?;
    let options = ["-machine", machine, "-qmp", &monitor.option()];
    let guest =
        Place::Virtio.start(IMAGE, &Run { tender: &options, arguments: &[&format!("--end={end}"), "--logs=info"], ..Run::default() })?;
    guest.wait_for("started")?;
    monitor.execute("system_powerdown")?;
    let ended = guest.ended()?;
    let (console, expected) = (&ended.console, ["the power button was pressed", "the hook ran"]);
    ensure!(ended.status == Some(0) && expected.iter().all(|text| console.contains(text)), "{ended:?}");
    Ok(())
}

/// QEMU ends at the second start, by the later of two options that say what to do at one.
fn restarts(machine: &str) -> Result<()> {
    let run = Run { tender: &["-machine", machine, "-action", "reboot=reset"], arguments: &["--end=restart"], ..Run::default() };
    let guest = Place::Virtio.start(IMAGE, &run)?;
    guest.wait_for("started\nthe hook ran\nstarted\nthe hook ran\n")
}

fn shuts_down(place: Place) -> Result<()> {
    let ended = place.start(IMAGE, &Run { arguments: &["--end=shut-down"], ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(0) && ended.console == "started\nthe hook ran\n", "{ended:?}");
    Ok(())
}

fn cannot_restart(place: Place) -> Result<()> {
    let ended = place.start(IMAGE, &Run { arguments: &["--end=restart"], ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(1) && ended.console.contains("it cannot start anew on this target"), "{ended:?}");
    Ok(())
}
