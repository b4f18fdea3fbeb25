//! Sequential reads and writes of a block device, beside a Linux process that makes the same transfers on the same file by pread and pwrite.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::measure::{Promise, Row, median};

use crate::Options;

const ROUNDS: usize = 7;

/// Large enough to take a while, small enough for the host to keep it in memory: what is measured is the way there, not the disk.
const LENGTH: u64 = 256 << 20;

const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    let file = tempfile::NamedTempFile::new()?;
    // The host has the file's pages before the first round, so that no round pays for them.
    process(file.as_file(), 1 << 20)?;
    let mut rows = Vec::new();
    for size in SIZES {
        let (mut ours, mut theirs) = ([vec![], vec![]], [vec![], vec![]]);
        for _ in 0..ROUNDS {
            for (rates, sample) in [(&mut theirs, process(file.as_file(), size)?), (&mut ours, image(file.path(), size)?)] {
                rates.iter_mut().zip(sample).for_each(|(rates, rate)| rates.push(rate));
            }
        }
        for (at, what) in ["read", "write"].into_iter().enumerate() {
            rows.push(Row {
                what: format!("spt: sequential {what} of {} KiB at a time, MiB/s", size / 1024),
                ours: median(ours[at].clone()),
                reference: Some((median(theirs[at].clone()), format!("p{what} in a Linux process"))),
                promise: Some(Promise::RatioAtLeast(0.8)),
            });
        }
    }
    Ok(rows)
}

/// MiB per second of an image: reading, writing.
fn image(file: &std::path::Path, size: usize) -> Result<[f64; 2]> {
    let option = format!("--block:disk={}", file.display());
    let argument = format!("--size={size}");
    let run = Run { tender: &[&option], arguments: &[&argument], ..Run::default() };
    let ended = Place::Spt.start("tests/images/transfers", &run)?.ended()?;
    ensure!(ended.status == Some(0), "{ended:?}");
    let rate = |what: &str| -> Result<f64> {
        let found = ended.console.lines().find_map(|line| line.strip_prefix(what)?.trim().parse::<f64>().ok());
        Ok(mebibytes() / (found.with_context(|| format!("no {what} in {:?}", ended.console))? / 1e9))
    };
    Ok([rate("read ")?, rate("write ")?])
}

/// MiB per second of this process: reading, writing.
fn process(file: &File, size: usize) -> Result<[f64; 2]> {
    let mut buffer = vec![0x5a; size];
    if file.metadata()?.len() < LENGTH {
        (0..LENGTH).step_by(size).try_for_each(|offset| file.write_all_at(&buffer, offset))?;
    }
    let start = Instant::now();
    for offset in (0..LENGTH).step_by(size) {
        file.read_exact_at(&mut buffer, offset)?;
    }
    let read = start.elapsed();
    let start = Instant::now();
    for offset in (0..LENGTH).step_by(size) {
        file.write_all_at(&buffer, offset)?;
    }
    Ok([mebibytes() / read.as_secs_f64(), mebibytes() / start.elapsed().as_secs_f64()])
}

fn mebibytes() -> f64 {
    LENGTH as f64 / f64::from(1 << 20)
}
