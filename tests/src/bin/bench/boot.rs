//! From exec to the application's first line, and to the first HTTP response.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{self, Place};
use fogbow_tests::client::Http;
use fogbow_tests::guest::Guest;
use fogbow_tests::measure::{Promise, Row, median};
use fogbow_tests::network::{GUEST, Namespace, TAP};

use crate::Options;

const ROUNDS: usize = 100;
const HTTP_ROUNDS: usize = 30;

/// An image, and what tells its application's first line from the lines of its bindings (Solo5's print a banner before).
struct Hello {
    image: PathBuf,
    arguments: &'static [&'static str],
    first_line: &'static str,
}

impl Hello {
    fn ours(place: Place) -> Result<Self> {
        Ok(Self { image: place.image("hello")?, arguments: &[], first_line: "Hello from Fogbow!" })
    }

    /// Solo5's `test_hello`, which without its argument ends in failure.
    fn of_solo5(solo5: &Path, place: Place) -> Self {
        let image = solo5.join(format!("tests/test_hello/test_hello.{}", place.name()));
        Self { image, arguments: &["Hello_Solo5"], first_line: "Solo5 standalone test_hello" }
    }
}

pub(crate) fn rows(options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    // Virtual machines have a section of their own.
    for place in Place::IMAGES.into_iter().filter(|place| *place != Place::Virtio) {
        let name = place.name();
        let (tender, hello) = (builder::tender(place.target())?, Hello::ours(place)?);
        // Solo5 has a tender for some of the targets alone.
        let solo5 = options.solo5.as_ref().filter(|solo5| solo5.join(format!("tenders/{name}/solo5-{name}")).exists());
        let Some(solo5) = solo5 else {
            let alone = median((0..ROUNDS).map(|_| first_line(&tender, &hello)).collect::<Result<_>>()?);
            rows.push(Row { what: format!("{name}: hello, exec to first line, ms"), ours: alone, reference: None, promise: None });
            continue;
        };
        let (solo5_tender, test_hello) = (solo5.join(format!("tenders/{name}/solo5-{name}")), Hello::of_solo5(solo5, place));
        let reference = || first_line(&solo5_tender, &test_hello);
        let what = |image: &str, tender: &str| format!("{name}: {image} under {tender}, exec to first line, ms");
        rows.push(pair(what("hello", "Solo5's tender"), || first_line(&solo5_tender, &hello), reference, "C test_hello")?);
        rows.push(pair(what("test_hello", "our tender"), || first_line(&tender, &test_hello), reference, "Solo5's tender")?);
        rows.push(pair(what("hello", "our tender"), || first_line(&tender, &hello), reference, "all Solo5")?);
    }
    rows.push(first_response()?);
    Ok(rows)
}

/// Ours and the reference in turn.
fn pair(what: String, ours: impl Fn() -> Result<f64>, reference: impl Fn() -> Result<f64>, name: &str) -> Result<Row> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(ours()?);
        b.push(reference()?);
    }
    Ok(Row { what, ours: median(a), reference: Some((median(b), name.into())), promise: Some(Promise::RatioAtMost(1.0)) })
}

/// Runs an image to its end and gives the milliseconds from exec to its application's first line on standard output.
fn first_line(tender: &Path, hello: &Hello) -> Result<f64> {
    let mut command = Command::new(tender);
    command.arg("--mem=16").arg(&hello.image).args(hello.arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut output = child.stdout.take().context("no standard output")?;
    let (mut printed, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&printed).contains(hello.first_line) {
        let length = output.read(&mut buffer)?;
        ensure!(length > 0, "{} did not print {:?}", hello.image.display(), hello.first_line);
        printed.extend_from_slice(&buffer[..length]);
    }
    let time = start.elapsed().as_secs_f64() * 1e3;
    output.read_to_end(&mut printed)?;
    ensure!(child.wait()?.success(), "{} failed", hello.image.display());
    Ok(time)
}

/// From exec to the first HTTP response, on spt.
fn first_response() -> Result<Row> {
    let namespace = Namespace::new()?;
    let (tender, image) = (builder::tender("spt")?, Place::Spt.image("http")?);
    let mut times = Vec::new();
    for _ in 0..HTTP_ROUNDS {
        // The guest is started from within the namespace: entering one by `ip` takes longer than the guest does.
        times.push(namespace.run(|| {
            let mut command = Command::new(&tender);
            command.arg(format!("--net:service={TAP}")).arg(&image).arg(format!("--ipv4={GUEST}/24"));
            let start = Instant::now();
            let guest = Guest::start(command)?;
            // A segment sent before the guest has its tap would be lost, and sent again a second later.
            guest.wait_for("listening")?;
            ensure!(Http::connect((GUEST, 80).into())?.request("GET", "/")?.status == 200);
            Ok(start.elapsed().as_secs_f64() * 1e3)
        })?);
    }
    Ok(Row {
        what: "spt: http, exec to first response, ms".into(),
        ours: median(times),
        reference: Some((7.8, "MirageOS, stated".into())),
        promise: Some(Promise::AtMost(3.0)),
    })
}
