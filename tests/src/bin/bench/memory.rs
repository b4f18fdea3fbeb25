//! Memory: the least that images run in, and whether a hundred thousand requests leave anything behind.

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{Place, Run, require_kvm};
use fogbow_tests::client::Http;
use fogbow_tests::measure::{Promise, Row, resident};
use fogbow_tests::network::{GUEST, Namespace};

use crate::Options;

const REQUESTS: u32 = 100_000;

/// Requests after which every pool has grown to its size.
const WARM_UP: u32 = 10_000;

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for place in Place::IMAGES {
        rows.push(least(place, "hello", 2.0, 8.0, |memory| {
            Ok(place.start("hello", &Run { memory, ..Run::default() })?.ended()?.status == Some(0))
        })?);
        rows.push(least(place, "http serving a client", 4.0, 10.0, |memory| {
            let namespace = Namespace::new()?;
            let guest = place.start("http", &Run { namespace: Some(&namespace), memory, ..Run::default() })?;
            let served = namespace.run(|| {
                let mut http = Http::connect((GUEST, 80).into())?;
                for _ in 0..100 {
                    ensure!(http.request("GET", "/")?.status == 200);
                }
                Ok(())
            });
            drop(guest);
            Ok(served.is_ok())
        })?);
    }
    rows.push(growth(Place::Spt)?);
    crate::add_hvt(&mut rows, require_kvm().and_then(|()| Ok(vec![growth(Place::Hvt)?])))?;
    Ok(rows)
}

/// The least memory with which `works`, searched downwards from the promise.
fn least(place: Place, what: &str, promise: f64, mirage: f64, works: impl Fn(u32) -> Result<bool>) -> Result<Row> {
    let mut least = promise as u32;
    ensure!(works(least)?, "{what} does not run in {promise} MiB on {}", place.name());
    while least > 1 && works(least - 1).unwrap_or(false) {
        least -= 1;
    }
    Ok(Row {
        what: format!("{}: least memory for {what}, MiB", place.name()),
        ours: f64::from(least),
        reference: Some((mirage, "MirageOS, stated".into())),
        promise: Some(Promise::AtMost(promise)),
    })
}

fn growth(place: Place) -> Result<Row> {
    let namespace = Namespace::new()?;
    let guest = place.start("http", &Run { namespace: Some(&namespace), ..Run::default() })?;
    let (before, after) = namespace.run(|| {
        let mut http = Http::connect((GUEST, 80).into())?;
        let mut ask = |requests| (0..requests).try_for_each(|_| http.request("GET", "/").map(drop)).context("serving");
        ask(WARM_UP)?;
        let before = resident(guest.id())?;
        ask(REQUESTS)?;
        Ok((before, resident(guest.id())?))
    })?;
    Ok(Row {
        what: format!("{}: resident memory gained over {REQUESTS} requests, KiB", place.name()),
        ours: after as f64 - before as f64,
        reference: None,
        promise: Some(Promise::AtMost(0.0)),
    })
}
