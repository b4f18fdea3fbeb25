//! The smallest image: its message, its arguments, its statuses, its memory.

use anyhow::{Result, ensure};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::guest::Ended;
use libtest_mimic::Trial;

const PLACES: [Place; 6] = [Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Muen, Place::Genode];

pub(crate) fn trials() -> Vec<Trial> {
    [
        super::on(&PLACES, "hello_prints_its_line_and_ends_with_0", prints_its_line),
        super::on(&PLACES, "hello_answers_help_and_version", answers_help),
        super::on(&PLACES, "hello_refuses_an_unknown_argument_with_64", refuses_unknown_arguments),
        super::on(&PLACES[1..], "hello_runs_in_2_mib", runs_in_little_memory),
        super::on(&[Place::Spt, Place::Hvt], "hello_is_at_most_64_kib", is_small),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn run(place: Place, run: &Run<'_>) -> Result<Ended> {
    place.start("hello", run)?.ended()
}

fn prints_its_line(place: Place) -> Result<()> {
    let ended = run(place, &Run::default())?;
    ensure!(ended.status == Some(0) && ended.console.to_lowercase().contains("hello"), "{ended:?}");
    Ok(())
}

fn answers_help(place: Place) -> Result<()> {
    let ended = run(place, &Run { arguments: &["--help"], ..Run::default() })?;
    ensure!(ended.status == Some(0) && ended.console.contains("--logs=FILTER"), "{ended:?}");
    let ended = run(place, &Run { arguments: &["--version"], ..Run::default() })?;
    ensure!(ended.status == Some(0) && ended.console.starts_with("hello 0."), "{ended:?}");
    Ok(())
}

fn refuses_unknown_arguments(place: Place) -> Result<()> {
    let ended = run(place, &Run { arguments: &["--nonsense=1"], ..Run::default() })?;
    ensure!(ended.status == Some(64) && ended.console.contains("unknown argument --nonsense"), "{ended:?}");
    Ok(())
}

fn runs_in_little_memory(place: Place) -> Result<()> {
    let ended = run(place, &Run { memory: 2, ..Run::default() })?;
    ensure!(ended.status == Some(0), "{ended:?}");
    Ok(())
}

fn is_small(place: Place) -> Result<()> {
    let size = std::fs::metadata(place.image("hello")?)?.len();
    ensure!(size <= 64 << 10, "{size} bytes");
    Ok(())
}
