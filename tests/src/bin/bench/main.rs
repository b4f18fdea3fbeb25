//! `cargo xtask bench`: each promise of SPECIFICATION.md that is a measured figure, beside its reference, in one run.
//!
//! `bench [--solo5 DIRECTORY] [SECTION...]`: the sections are `sizes`, `boot`, `machines`, `http`, `streams`, `connections`, `latency`, `exits`, `blocks`, `memory`, `virtio`, `random`, `timers`, `logs`,
//! `dieharder`, `stores`; all of them when none is named. With `--solo5`, a build of Solo5 in DIRECTORY serves as the reference for boot times. References come first and last around
//! ours in each round, as
//! machines drift; figures are medians.
#![forbid(unsafe_code)]

mod blocks;
mod boot;
mod connections;
mod exits;
mod http;
mod latency;
mod machines;
mod memory;
mod services;
mod sizes;
#[cfg(feature = "stores")]
mod stores;
mod streams;
mod virtio;

use std::path::PathBuf;

use anyhow::{Result, bail};
use fogbow_tests::Skip;
use fogbow_tests::measure::Row;

/// What measures a section.
type Section = fn(&Options) -> Result<Vec<Row>>;

const SECTIONS: &[(&str, Section)] = &[
    ("sizes", sizes::rows),
    ("boot", boot::rows),
    ("machines", machines::rows),
    ("http", http::rows),
    ("streams", streams::rows),
    ("connections", connections::rows),
    ("latency", latency::rows),
    ("exits", exits::rows),
    ("blocks", blocks::rows),
    ("memory", memory::rows),
    ("virtio", virtio::rows),
    ("random", services::random),
    ("timers", services::timers),
    ("logs", services::logs),
    ("dieharder", services::dieharder),
    #[cfg(feature = "stores")]
    ("stores", stores::rows),
];

/// Adds what was measured on hvt, or says why nothing was.
fn add_hvt(rows: &mut Vec<Row>, measured: Result<Vec<Row>>) -> Result<()> {
    match measured {
        Ok(more) => rows.extend(more),
        Err(error) => match error.downcast::<Skip>() {
            Ok(Skip(reason)) => println!("on hvt: skipped: {reason}"),
            Err(error) => return Err(error),
        },
    }
    Ok(())
}

/// What the command line says.
#[derive(Debug, Default)]
struct Options {
    solo5: Option<PathBuf>,
    sections: Vec<String>,
}

fn main() -> Result<()> {
    #[cfg(feature = "stores")]
    if let [_, what, path] = std::env::args().collect::<Vec<_>>().as_slice() {
        match what.as_str() {
            stores::FILL => return stores::fill(path.into()),
            stores::OPEN => return stores::open(path.into()),
            _ => {}
        }
    }
    let options = options(std::env::args().skip(1))?;
    let mut broken = 0;
    println!("{:<58} {:>12} {:>12} {:>7}", "", "ours", "reference", "ratio");
    for &(name, section) in SECTIONS {
        if !options.sections.is_empty() && !options.sections.iter().any(|section| section == name) {
            continue;
        }
        match section(&options) {
            Ok(rows) => {
                for row in rows {
                    println!("{row}");
                    broken += usize::from(row.kept() == Some(false));
                }
            }
            Err(error) => match error.downcast::<Skip>() {
                Ok(Skip(reason)) => println!("{name}: skipped: {reason}"),
                Err(error) => return Err(error.context(format!("measuring {name}"))),
            },
        }
    }
    println!("{broken} promises not kept");
    Ok(())
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--solo5" => options.solo5 = words.next().map(PathBuf::from),
            name if SECTIONS.iter().any(|(section, _)| *section == name) => options.sections.push(word),
            other => {
                let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
                bail!("no section {other:?}: the sections are {}", names.join(", "))
            }
        }
    }
    Ok(options)
}
