//! What every image has: random numbers, clocks and timers, measured inside images.

use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use fogbow_tests::Skip;
use fogbow_tests::builder::{self, Place, Run};
use fogbow_tests::measure::{Promise, Row};

use crate::Options;

const PLACES: [Place; 3] = [Place::Unix, Place::Spt, Place::Hvt];

/// Speed of the generator and of the clock.
pub(crate) fn random(_: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for place in PLACES {
        let console = console(place, "tests/images/draws", &[])?;
        for (name, what, promise) in [
            ("small ", "a draw of 32 bytes, ns", Some(Promise::AtMost(200.0))),
            ("large ", "draws of 1 MiB, GB/s", Some(Promise::AtLeast(1.0))),
            ("clock ", "a reading of the monotonic clock, ns", None),
        ] {
            let what = format!("{}: {what}", place.name());
            rows.push(Row { what, ours: number_after(&console, name)?, reference: None, promise });
        }
    }
    Ok(rows)
}

/// A hundred thousand timers pending, and ten seconds of a ticker of 1 kHz.
pub(crate) fn timers(_: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for place in PLACES {
        let console = console(place, "timers", &["--timers=100000", "--ticks=10000"])?;
        ensure!(console.contains("; 0 did not fire"), "timers were lost: {console}");
        for (name, what, promise) in [
            ("insert ", "100,000 timers, inserting one, ns", None),
            ("cancel ", "100,000 timers, cancelling one, ns", None),
            ("fire ", "100,000 timers, firing one, ns", None),
            ("drift ", "ticker of 1 kHz, drift over 10 s, %", Some(Promise::AtMost(1.0))),
            ("late by ", "ticker of 1 kHz, late on average, us", None),
        ] {
            let what = format!("{}: {what}", place.name());
            rows.push(Row { what, ours: number_after(&console, name)?, reference: None, promise });
        }
    }
    Ok(rows)
}

/// What a log message costs, in storms that the console does not keep up with.
pub(crate) fn logs(_: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for place in PLACES {
        let console = console(place, "tests/images/logs", &[])?;
        for (name, what) in [
            ("filtered ", "a log message that no filter lets pass, ns"),
            ("kept ", "a log message kept for a panic, ns"),
            ("printed ", "a log message on its way to the console, ns"),
            ("round ", "other tasks' turn in a storm of log messages, us"),
        ] {
            rows.push(Row {
                what: format!("{}: {what}", place.name()),
                ours: number_after(&console, &format!("\n{name}"))?,
                reference: None,
                promise: None,
            });
        }
    }
    Ok(rows)
}

/// Tests of dieharder that together take more than 1 GiB: by number and name.
const DIEHARDER: [(u32, &str); 8] = [
    (0, "birthdays"),
    (1, "overlapping permutations"),
    (2, "ranks of 32x32 matrices"),
    (3, "ranks of 6x8 matrices"),
    (8, "ones in a stream"),
    (15, "runs"),
    (101, "runs, of NIST's suite"),
    (102, "serial, of NIST's suite"),
];

/// What an image draws on spt, put to statistical tests.
pub(crate) fn dieharder(_: &Options) -> Result<Vec<Row>> {
    if Command::new("dieharder").arg("-h").output().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Err(Skip("dieharder is not installed (apt-get install dieharder)".into()).into());
    }
    let (tender, image) = (builder::tender("spt")?, Place::Spt.image("tests/images/draws")?);
    let (mut failed, mut bytes) = (0, 0);
    for (number, name) in DIEHARDER {
        // More than any of the tests takes.
        let mut guest = Command::new(&tender).arg("--mem=16").arg(&image).arg("--stream=4096").stdout(Stdio::piped()).spawn()?;
        let mut test = Command::new("dieharder")
            .args(["-g", "200", "-d", &number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (from, to) = (guest.stdout.take().context("no output")?, test.stdin.take().context("no input")?);
        bytes += std::thread::spawn(move || relay(from, to)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        guest.kill()?;
        guest.wait()?;
        let mut report = String::new();
        test.stdout.take().context("no report")?.read_to_string(&mut report)?;
        ensure!(
            test.wait()?.success() && report.contains("PASSED") | report.contains("WEAK") | report.contains("FAILED"),
            "dieharder: {report}"
        );
        if report.contains("FAILED") {
            eprintln!("dieharder, {name}: {report}");
            failed += 1;
        }
    }
    let row = |what: &str, ours, promise| Row { what: what.into(), ours, reference: None, promise: Some(promise) };
    Ok(vec![
        row("spt: random numbers given to dieharder, GiB", bytes as f64 / f64::from(1 << 30), Promise::AtLeast(1.0)),
        row(&format!("spt: tests of dieharder failed, of {}", DIEHARDER.len()), f64::from(failed), Promise::AtMost(0.0)),
    ])
}

/// Passes bytes on until the reader has had enough, and gives their number.
fn relay(mut from: impl Read, mut to: impl Write) -> Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let length = from.read(&mut buffer)?;
        ensure!(length > 0, "the image ended before the test had enough");
        match to.write_all(&buffer[..length]) {
            Ok(()) => bytes += length as u64,
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(bytes),
            Err(error) => return Err(error.into()),
        }
    }
}

fn console(place: Place, image: &str, arguments: &[&str]) -> Result<String> {
    let ended = place.start(image, &Run { arguments, ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(0), "{image} on {}: {ended:?}", place.name());
    Ok(ended.console)
}

fn number_after(text: &str, what: &str) -> Result<f64> {
    let rest = text.split_once(what).with_context(|| format!("no {what:?} in {text:?}"))?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].parse().with_context(|| format!("no number after {what:?} in {text:?}"))
}
