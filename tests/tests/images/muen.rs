//! What the muen target alone has: versions of the subject information, memory without a limit to its place, channels.

use anyhow::{Result, ensure};
use fogbow_tests::builder::{self, Place, Run};
use fogbow_tests::client::{self, Http};
use fogbow_tests::network::{GUEST, Namespace};
use libtest_mimic::Trial;

use crate::echo::with_console;

/// Echoes that are asked for in a row; `cargo xtask soak` asks for a hundred thousand.
const ECHOES: u32 = 3000;

pub(crate) fn trials() -> Vec<Trial> {
    let place = Place::Muen;
    vec![
        super::trial("reads_subject_information_of_version_04", place, reads_version_04),
        super::trial("runs_in_a_gibibyte", place, runs_in_a_gibibyte),
        super::trial("answers_echoes_without_loss", place, answers_echoes),
        super::trial("refuses_a_block_device_when_it_is_built", place, refuses_a_block_device),
        super::trial("writes_lines_of_every_length_to_the_debug_log", place, writes_long_lines),
    ]
}

fn reads_version_04() -> Result<()> {
    for version in [&["--sinfo=04"][..], &[]] {
        let run = Run { tender: version, arguments: &["--count=2", "--interval=10ms"], ..Run::default() };
        let guest = Place::Muen.start("clock", &run)?;
        guest.wait_for("Solo5: solo5_exit(0) called\nSolo5: Halted\n")?;
        let ended = guest.ended()?;
        ensure!(ended.status == Some(0) && ended.console.lines().count() == 2, "{version:?}: {ended:?}");
    }
    Ok(())
}

fn runs_in_a_gibibyte() -> Result<()> {
    let ended = Place::Muen.start("hello", &Run { memory: 1024, ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(0), "{ended:?}");
    Ok(())
}

fn answers_echoes() -> Result<()> {
    let namespace = Namespace::new()?;
    let guest = Place::Muen.start("http", &Run { namespace: Some(&namespace), ..Run::default() })?;
    let asked = namespace.run(|| Http::connect((GUEST, 80).into()).map(drop)).and_then(|()| client::flood(&namespace, ECHOES));
    asked.map_err(|error| with_console(error, &guest))
}

fn refuses_a_block_device() -> Result<()> {
    let error = builder::xtask(&["build", "block", "--target", "muen"]).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(error.contains("device 'disk'") && error.contains("the target muen cannot offer it"), "{error}");
    Ok(())
}

/// A message of the debug log has 56 characters: help has lines on both sides of that.
fn writes_long_lines() -> Result<()> {
    let help = |place: Place| anyhow::Ok(place.start("hello", &Run { arguments: &["--help"], ..Run::default() })?.ended()?.console);
    let (muen, spt) = (help(Place::Muen)?, help(Place::Spt)?);
    ensure!(muen == spt && spt.lines().any(|line| line.len() > 56), "{muen:?} and {spt:?}");
    Ok(())
}
