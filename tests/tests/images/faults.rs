//! What an image must not be able to do: each violation ends with a message that says what it was, and status 255.

use std::process::Command;

use anyhow::{Result, ensure};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::faults::FAULTS;
use fogbow_tests::guest::Guest;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let cases = FAULTS.into_iter().flat_map(|fault| {
        let places = [
            (Place::Spt, fault.spt),
            (Place::Genode, fault.spt),
            (Place::Hvt, fault.machine),
            (Place::Virtio, fault.machine),
            (Place::Muen, fault.machine),
        ];
        // A subject runs in ring 0, where it may halt its processor.
        let is_fault = move |place| place != Place::Muen || fault.name != "privileged-instruction";
        places.into_iter().filter(move |(place, _)| is_fault(*place)).map(move |(place, message)| (place, fault.name, message))
    });
    let process = PROCESS.map(|(fault, message, status)| {
        super::trial(&format!("fault_{fault}_is_explained"), Place::Unix, move || is_explained(fault, message, status))
    });
    cases
        .map(|(place, fault, message)| super::trial(&format!("fault_{fault}_is_stopped"), place, move || is_stopped(place, fault, message)))
        .chain(process)
        .collect()
}

/// What a process says of its end, and its status; `None` is a signal.
const PROCESS: [(&str, &str, Option<i32>); 3] = [
    ("overflow-stack", "has overflowed its stack", None),
    ("exhaust-memory", "memory allocation of 65536 bytes failed", None),
    ("panic", "a deliberate panic", Some(255)),
];

/// On the host memory has no end but one that is set: 1 GB of addresses.
fn is_explained(fault: &str, message: &str, status: Option<i32>) -> Result<()> {
    let mut command = Command::new("prlimit");
    command.args(["--as=1000000000", "--core=0"]).arg(Place::Unix.image("faults")?).arg(format!("--fault={fault}"));
    let ended = Guest::start(command)?.ended()?;
    ensure!(ended.status == status && ended.console.contains(message), "{ended:?}");
    Ok(())
}

fn is_stopped(place: Place, fault: &str, message: &str) -> Result<()> {
    let ended = place.start("faults", &Run { arguments: &[&format!("--fault={fault}")], ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(255) && ended.console.contains(message), "{ended:?}");
    if matches!(place, Place::Hvt | Place::Virtio) && ended.console.contains("fault: ") {
        ensure!(["rax", "r15", "flags"].iter().all(|register| ended.console.contains(&format!(" {register} "))), "no registers: {ended:?}");
    }
    Ok(())
}
