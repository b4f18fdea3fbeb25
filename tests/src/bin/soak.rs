//! `cargo xtask soak`: images under load for a long time: connections kept and connections made anew, until the time is over.
//!
//! `soak MINUTES`: each of spt, hvt, virtio and genode serves for so long. It passes when every response is whole and the image's memory has not grown. Before that,
//! an image on muen answers a hundred thousand echoes without losing one, and 100 MB go each way between Linux and an image over each kind of bad wire
//! (`soak transfers`: the latter alone); after it, one on virtio serves for as long through a wire that loses frames (`soak MINUTES loss`: that alone).
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fogbow_tests::Skip;
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::client::{self, Http};
use fogbow_tests::measure::resident;
use fogbow_tests::network::{GUEST, Namespace};
use fogbow_tests::relay::{IMPAIRMENTS, LITTLE_LOSS};
use fogbow_tests::steady;
use fogbow_tests::transfer::{Direction, Outcome, transfer};

/// Connections that are kept open.
const KEPT: usize = 50;

/// Requests on each of them before one of the others is made anew.
const REQUESTS: usize = 20;

/// Echoes that the image on muen is asked for.
const ECHOES: u32 = 100_000;

/// Bytes that go each way over each bad wire.
const TRANSFER: u64 = 100_000_000;

/// How long nothing may arrive where one frame of a thousand is lost.
const STALL: Duration = Duration::from_millis(300);

fn main() -> Result<()> {
    let what = std::env::args().nth(1).context("usage: soak MINUTES [loss], or soak transfers")?;
    if what == "transfers" {
        return transfers();
    }
    let minutes: u64 = what.parse().context("MINUTES")?;
    let through_a_bad_wire = || steady::run(Duration::from_secs(60 * minutes)).context("through a wire that loses frames, on virtio");
    if std::env::args().nth(2).as_deref() == Some("loss") {
        return through_a_bad_wire();
    }
    echoes()?;
    transfers()?;
    for place in Place::IMAGES {
        soak(place, Duration::from_secs(60 * minutes)).with_context(|| format!("on {}", place.name()))?;
    }
    through_a_bad_wire()
}

fn echoes() -> Result<()> {
    let namespace = Namespace::new()?;
    let guest = Place::Muen.start("http", &Run { namespace: Some(&namespace), ..Run::default() })?;
    namespace.run(|| Http::connect((GUEST, 80).into()).map(drop))?;
    let start = Instant::now();
    client::flood(&namespace, ECHOES).with_context(|| format!("the guest's console:\n{}", guest.console()))?;
    println!("muen: {ECHOES} echoes without loss in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Every kind of bad wire, both ways, on spt and hvt.
fn transfers() -> Result<()> {
    let mut stalled = Vec::new();
    for (name, impairment) in IMPAIRMENTS {
        for (place, direction) in [Place::Spt, Place::Hvt].into_iter().flat_map(|place| [(place, Direction::In), (place, Direction::Out)]) {
            let case = format!("{}: {TRANSFER} bytes {direction:?} with {name}", place.name());
            let Outcome { time, stall, frames, lost } = match transfer(place, direction, impairment, TRANSFER) {
                Err(error) if error.is::<Skip>() => {
                    println!("{case}: skipped: {error}");
                    continue;
                }
                outcome => outcome.context(case.clone())?,
            };
            let (seconds, stall_millis) = (time.as_secs_f64(), stall.as_millis());
            println!("{case}: the same digest after {seconds:.1} s; longest stall {stall_millis} ms; {lost} of {frames} frames lost");
            if name == LITTLE_LOSS && stall > STALL {
                stalled.push(case);
            }
        }
    }
    ensure!(stalled.is_empty(), "stalls of more than {STALL:?}: {}", stalled.join("; "));
    Ok(())
}

fn soak(place: Place, time: Duration) -> Result<()> {
    let namespace = Namespace::new()?;
    let guest = place.start("http", &Run { namespace: Some(&namespace), ..Run::default() })?;
    let served = namespace.run(|| {
        let page = Http::connect((GUEST, 80).into())?.request("GET", "/")?.body;
        let mut kept = (0..KEPT).map(|_| Http::connect((GUEST, 80).into())).collect::<Result<Vec<_>>>()?;
        let (start, mut requests, mut anew, mut memory) = (Instant::now(), 0_u64, 0_u64, None);
        while start.elapsed() < time {
            for http in &mut kept {
                for _ in 0..REQUESTS {
                    ensure!(http.request("GET", "/")?.body == page, "a response differs after {requests} requests");
                    requests += 1;
                }
                ensure!(Http::connect((GUEST, 80).into())?.request("GET", "/")?.body == page, "a response differs");
                anew += 1;
            }
            // The first tenth fills pools and caches.
            if memory.is_none() && start.elapsed() > time / 10 {
                memory = Some(resident(guest.id())?);
            }
        }
        let (before, after) = (memory.context("the time is too short")?, resident(guest.id())?);
        println!("{}: {requests} requests on kept connections, {anew} connections more; memory {before} -> {after} KiB", place.name());
        ensure!(after <= before + before / 100, "the image's memory grew from {before} to {after} KiB");
        Ok(())
    });
    served.with_context(|| format!("the guest's console:\n{}", guest.console()))
}
