//! `cargo xtask soak`: images under load for a long time: connections kept and connections made anew, until the time is over.
//!
//! `soak MINUTES`: each of spt, hvt and genode serves for so long. It passes when every response is whole and the image's memory has not grown. Before that,
//! an image on muen answers a hundred thousand echoes without losing one; after it, one on virtio serves for as long through a wire that loses frames
//! (`soak MINUTES loss`: that alone).
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::client::{self, Http};
use fogbow_tests::measure::resident;
use fogbow_tests::network::{GUEST, Namespace};
use fogbow_tests::steady;

/// Connections that are kept open.
const KEPT: usize = 50;

/// Requests on each of them before one of the others is made anew.
const REQUESTS: usize = 20;

/// Echoes that the image on muen is asked for.
const ECHOES: u32 = 100_000;

fn main() -> Result<()> {
    let minutes: u64 = std::env::args().nth(1).context("usage: soak MINUTES")?.parse().context("MINUTES")?;
    let through_a_bad_wire = || steady::run(Duration::from_secs(60 * minutes)).context("through a wire that loses frames, on virtio");
    if std::env::args().nth(2).as_deref() == Some("loss") {
        return through_a_bad_wire();
    }
    echoes()?;
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
