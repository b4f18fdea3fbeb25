//! What leaves hvt's virtual machine for the tender, as KVM counts it: a kick of the ring ends in the kernel and is not among it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fogbow_tests::Skip;
use fogbow_tests::builder::{Place, Run, require_kvm};
use fogbow_tests::client::{self, Http};
use fogbow_tests::measure::Row;
use fogbow_tests::network::{GUEST, Namespace};

use crate::Options;
use crate::http::{PAGE, require_wrk};
use crate::streams::{PLAIN, SINK, SOURCE};

/// For how long is counted.
const SECONDS: u32 = 3;
const TIME: Duration = Duration::from_secs(SECONDS as u64);

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    require_kvm()?;
    let mut rows = Vec::new();
    for (port, direction) in [(SINK, "in"), (SOURCE, "out")] {
        for (tender, frames) in [(PLAIN, "plain frames"), (&[][..], "frames, offload")] {
            rows.push(row(&format!("{frames}, one TCP stream {direction}"), of_stream(port, tender)?));
        }
    }
    require_wrk()?;
    rows.push(row("frames, http, wrk -t1 -c50, keep-alive", of_requests(&[])?));
    rows.push(row("frames, http, wrk -t1 -c50, a connection per request", of_requests(&["-H", "Connection: close"])?));
    Ok(rows)
}

fn row(what: &str, ours: f64) -> Row {
    Row { what: format!("hvt: exits per thousand {what}"), ours, reference: None, promise: None }
}

/// Of a stream and its acknowledgements.
fn of_stream(port: u16, tender: &[&str]) -> Result<f64> {
    let namespace = Namespace::new()?;
    let run = Run { namespace: Some(&namespace), memory: 128, tender, ..Run::default() };
    let guest = Place::Hvt.start("tests/images/throughput", &run)?;
    let exits = namespace.run(|| {
        let mut stream = client::connect((GUEST, port).into())?;
        transfer(&mut stream, port, Duration::from_secs(1))?;
        count(&namespace, guest.id(), || transfer(&mut stream, port, TIME))
    });
    exits.with_context(|| format!("the console:\n{}", guest.console()))
}

fn transfer(stream: &mut TcpStream, port: u16, time: Duration) -> Result<()> {
    let (mut chunk, begin) = (vec![0; 256 * 1024], Instant::now());
    while begin.elapsed() < time {
        if port == SINK { stream.write_all(&chunk)? } else { stream.read_exact(&mut chunk)? }
    }
    Ok(())
}

/// Of requests, `wrk` told so besides.
fn of_requests(options: &[&str]) -> Result<f64> {
    let namespace = Namespace::new()?;
    let guest = Place::Hvt.start("http", &Run { namespace: Some(&namespace), ..Run::default() })?;
    let exits = namespace.run(|| {
        Http::connect((GUEST, 80).into())?.request("GET", PAGE)?;
        count(&namespace, guest.id(), || {
            let url = format!("http://{GUEST}{PAGE}");
            namespace.command("wrk").args(["-t1", "-c50"]).args(options).args([&format!("-d{SECONDS}s"), &url]).output()?;
            Ok(())
        })
    });
    exits.with_context(|| format!("the console:\n{}", guest.console()))
}

/// Exits of `process` for each thousand frames, both ways together, while `work` goes on for [`TIME`]. To be called on a thread of the namespace's.
fn count(namespace: &Namespace, process: u32, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let mut command = Command::new("perf");
    command.args(["stat", "-x,", "-e", "kvm:kvm_userspace_exit", "-p", &process.to_string(), "--", "sleep", &SECONDS.to_string()]);
    let (output, frames) = std::thread::scope(|scope| {
        let counting = scope.spawn(move || command.output());
        let before = namespace.frames()?;
        work()?;
        let frames = namespace.frames()? - before;
        let output = counting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, anyhow::Error>((output.map_err(|error| Skip(format!("perf: {error} (apt-get install linux-perf)")))?, frames))
    })?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let exits = text.lines().find_map(|line| line.split_once(",,kvm:kvm_userspace_exit")?.0.parse::<f64>().ok());
    Ok(exits.ok_or_else(|| Skip(format!("perf counts no exits: {}", text.trim())))? * 1000.0 / frames as f64)
}
