//! Many connections: made anew for each request, idle beside busy ones, in little memory; and what a packet costs among them.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use fogbow_tests::Skip;
use fogbow_tests::builder::{self, Place, Run, require_kvm};
use fogbow_tests::client::Http;
use fogbow_tests::measure::{Promise, Row, cpu_time, median, resident};
use fogbow_tests::network::{GUEST, Namespace};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Options;
use crate::http::{PAGE, load, require_wrk};

/// Connections made and ended in all.
const MANY: u64 = 1_000_000;
/// The same on hvt, where each costs more than the tender takes.
const MANY_ON_HVT: u64 = 100_000;
/// How long wrk runs at a time.
const SECONDS: u32 = 10;
/// Idle connections beside busy ones.
const BESIDE: usize = 5_000;
/// Idle connections in [`LITTLE`] MiB.
const IDLE: usize = 10_000;
const LITTLE: u32 = 64;
const ROUNDS: usize = 3;

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    require_wrk()?;
    allow_descriptors(2 * IDLE as u64)?;
    let mut rows = one_request_each(Place::Spt, MANY)?;
    rows.push(beside_idle(Place::Spt)?);
    rows.push(in_little_memory(Place::Spt)?);
    rows.push(instructions()?);
    crate::add_hvt(&mut rows, on_hvt())?;
    Ok(rows)
}

/// The same through hvt's ring, without a promise of speed, as what an exit costs is the hypervisor's.
fn on_hvt() -> Result<Vec<Row>> {
    require_kvm()?;
    let mut rows = one_request_each(Place::Hvt, MANY_ON_HVT)?;
    rows.push(beside_idle(Place::Hvt)?);
    rows.iter_mut().for_each(|row| row.promise = row.promise.filter(|promise| matches!(promise, Promise::AtMost(_))));
    rows.push(in_little_memory(Place::Hvt)?);
    Ok(rows)
}

fn allow_descriptors(wanted: u64) -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: Some(wanted), maximum: maximum.map(|maximum| maximum.max(wanted)) };
    setrlimit(Resource::Nofile, limit).with_context(|| format!("raising the limit of open files to {wanted}"))
}

/// A connection for each request, so many times.
fn one_request_each(place: Place, many: u64) -> Result<Vec<Row>> {
    let namespace = Namespace::new()?;
    let guest = place.start("http", &Run { namespace: Some(&namespace), ..Run::default() })?;
    namespace.run(|| Http::connect((GUEST, 80).into())?.request("GET", PAGE))?;
    let url = format!("http://{GUEST}{PAGE}");
    let round = || -> Result<u64> {
        let output = namespace.command("wrk").args(["-t1", "-c50", "-H", "Connection: close", &format!("-d{SECONDS}s"), &url]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "connections failed: {text}");
        let line = text.lines().find_map(|line| line.trim().split_once(" requests in ")).with_context(|| format!("no count: {text}"))?;
        Ok(line.0.parse()?)
    };
    // Fills pools and the table of closed connections.
    let mut connections = round()?;
    let (memory, begin, cpu, before) = (resident(guest.id())?, Instant::now(), cpu_time(guest.id())?, connections);
    while connections < many || connections == before {
        connections += round()?;
    }
    let measured = (connections - before) as f64;
    let (elapsed, used) = (begin.elapsed().as_secs_f64(), (cpu_time(guest.id())? - cpu).as_secs_f64());
    let gained = resident(guest.id())? as f64 - memory as f64;
    let place = place.name();
    let row =
        |what: &str, ours, promise| Row { what: format!("{place}: a connection per request, {what}"), ours, reference: None, promise };
    Ok(vec![
        row("connections per second", measured / elapsed, Some(Promise::AtLeast(20_000.0))),
        row("us of processor time each", used * 1e6 / measured, None),
        row(&format!("memory gained over {connections}, KiB"), gained, Some(Promise::AtMost(0.0))),
    ])
}

/// Opens connections, each used once.
fn open_idle(namespace: &Namespace, count: usize) -> Result<Vec<Http>> {
    namespace.run(|| {
        (0..count)
            .map(|number| {
                let mut http = Http::connect((GUEST, 80).into())?;
                ensure!(http.request("GET", PAGE)?.status == 200, "connection {number}");
                Ok(http)
            })
            .collect()
    })
}

fn beside_idle(place: Place) -> Result<Row> {
    let namespace = Namespace::new()?;
    let run = Run { namespace: Some(&namespace), memory: 512, ..Run::default() };
    let guest = place.start("http", &run)?;
    let url = format!("http://{GUEST}{PAGE}");
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(load(&namespace, &url, guest.id())?.requests_per_second);
        let idle = open_idle(&namespace, BESIDE)?;
        beside.push(load(&namespace, &url, guest.id())?.requests_per_second);
        drop(idle);
    }
    Ok(Row {
        what: format!("{}: http, requests per second beside {BESIDE} idle connections", place.name()),
        ours: median(beside),
        reference: Some((median(alone), "without them".into())),
        promise: Some(Promise::RatioAtLeast(0.85)),
    })
}

/// How many connections are open at once in little memory, each served once before and once after all are open.
fn in_little_memory(place: Place) -> Result<Row> {
    let namespace = Namespace::new()?;
    let most = format!("--max-connections={}", IDLE + 100);
    let arguments = [most.as_str(), "--tcp-buffer=2048", "--tcp-memory=64000000"];
    let guest = place.start("http", &Run { namespace: Some(&namespace), memory: LITTLE, arguments: &arguments, ..Run::default() })?;
    let served = open_idle(&namespace, IDLE).and_then(|mut idle| {
        namespace.run(|| {
            idle.iter_mut().try_for_each(|http| http.request("GET", PAGE).map(drop))?;
            Ok(idle.len())
        })
    });
    let served = served.with_context(|| format!("the console:\n{}", guest.console()))?;
    Ok(Row {
        what: format!("{}: http, connections open and served in {LITTLE} MiB", place.name()),
        ours: served as f64,
        reference: None,
        promise: Some(Promise::AtLeast(IDLE as f64)),
    })
}

/// Instructions for a request and its answer, both ends and the network in memory between them counted, each time on another of so many connections.
fn instructions() -> Result<Row> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        bail!(Skip("valgrind is not installed (apt-get install valgrind)".into()));
    }
    let program = builder::example("fogbow-net", "flows")?;
    let count = |flows: u32, requests: u32| -> Result<f64> {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(&program);
        let output = command.args([flows.to_string(), requests.to_string()]).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find_map(|line| line.split_once("Collected : "));
        Ok(line.with_context(|| format!("no count from callgrind: {text}"))?.1.trim().parse()?)
    };
    // The difference is that of the requests, as the rest is the same.
    let per_request = |flows| -> Result<f64> { Ok((count(flows, 30_000)? - count(flows, 10_000)?) / 20_000.0) };
    Ok(Row {
        what: "instructions per request among 10,000 connections".into(),
        ours: per_request(10_000)?,
        reference: Some((per_request(10)?, "among 10".into())),
        promise: Some(Promise::RatioAtMost(1.2)),
    })
}
