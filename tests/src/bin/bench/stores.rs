//! The log store beside SQLite (write-ahead log, `synchronous = FULL`: one transaction and one fsync for each put) and redb (`Durability::Immediate`), on
//! files of the same file system. Each round lets each of them put so many values, and the figures are medians of rounds.
//!
//! Nearly all the time of a put is its flush. Where other programs keep the processors busy, a flush ends with the scheduler's next tick, whoever makes
//! it, and all three look alike: run this on a quiet machine, or with the scheduler's favour (`chrt --fifo 1`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use fogbow_kv::log::Config;
use fogbow_kv::{Change, Key, LogStore, ReadOnly as _, ReadWrite as _};
use fogbow_tests::builder::root;
use fogbow_tests::measure::{Promise, Row, median};
use fogbow_unix::BlockDevice;
use redb::{Database, TableDefinition};

use crate::Options;

/// What makes this program fill a store, or open one, and print figures.
pub(crate) const FILL: &str = "--fill-store";
pub(crate) const OPEN: &str = "--open-store";

const ROUNDS: usize = 9;
const PUTS: u64 = 600;
const GETS: u32 = 1_000_000;

/// The large store: keys, bytes in a value, values in a batch, bytes of the device.
const KEYS: u64 = 1_000_000;
const VALUE: usize = 700;
const BATCH: u64 = 2000;
const DEVICE: u64 = 1 << 30;

const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    let directory = root().join("target/bench-stores");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    let mut rows = Vec::new();
    for size in [100, 4096] {
        rows.extend(puts(&directory, size)?);
    }
    rows.extend(large(&directory)?);
    std::fs::remove_dir_all(&directory)?;
    Ok(rows)
}

fn device(path: &Path, size: u64) -> Result<BlockDevice> {
    std::fs::File::create(path)?.set_len(size)?;
    Ok(BlockDevice::open("disk", path, 512)?)
}

/// Keys in no order.
fn key(number: u64) -> String {
    format!("key-{:08}", number.wrapping_mul(2_654_435_761) % 100_000_000)
}

/// Bytes that this process has handed to writing system calls: `wchar` of `/proc/self/io` (proc(5)).
fn written() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let count = io.lines().find_map(|line| line.strip_prefix("wchar:")).context("no wchar in /proc/self/io")?;
    Ok(count.trim().parse()?)
}

/// Puts in a second, and what was written for them, in the same rounds.
fn puts(directory: &Path, size: usize) -> Result<Vec<Row>> {
    let path = |name: &str| directory.join(format!("{name}-{size}"));
    let sqlite = rusqlite::Connection::open(path("sqlite"))?;
    sqlite
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE v (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")?;
    let redb = Database::create(path("redb"))?;
    let device = device(&path("log"), 256 << 20)?;
    let ([ours, sqlite, redb], written) = fogbow_unix::block_on(async move {
        let store = LogStore::format(device, Config::default()).await?;
        let value = vec![0x5a; size];
        let mut rates: [Vec<f64>; 3] = Default::default();
        let mut written = [0; 3];
        for round in 0..ROUNDS as u64 {
            let keys: Vec<String> = (round * PUTS..(round + 1) * PUTS).map(key).collect();
            let mut note = |which: usize, (start, before): (Instant, u64)| {
                rates[which].push(PUTS as f64 / start.elapsed().as_secs_f64());
                written[which] += self::written()? - before;
                anyhow::Ok(())
            };
            let start = || anyhow::Ok((Instant::now(), self::written()?));
            let begun = start()?;
            for key in &keys {
                store.set(Key::new(key)?, &value).await?;
            }
            note(0, begun)?;
            let begun = start()?;
            let mut insert = sqlite.prepare_cached("INSERT OR REPLACE INTO v VALUES (?1, ?2)")?;
            for key in &keys {
                insert.execute(rusqlite::params![key, value])?;
            }
            note(1, begun)?;
            let begun = start()?;
            for key in &keys {
                let transaction = redb.begin_write()?;
                transaction.open_table(TABLE)?.insert(key.as_str(), value.as_slice())?;
                transaction.commit()?;
            }
            note(2, begun)?;
        }
        anyhow::Ok((rates.map(median), written))
    })??;
    let row = |reference, name: &str| Row {
        what: format!("log store: puts of {size} bytes a second"),
        ours,
        reference: Some((reference, name.to_owned())),
        promise: Some(Promise::RatioAtLeast(1.0)),
    };
    let [amplification, of_sqlite, of_redb] = written.map(|bytes| bytes as f64 / (ROUNDS as u64 * PUTS * size as u64) as f64);
    let amplification = |reference, name: &str| Row {
        what: format!("log store: bytes written for each of {size}-byte values put"),
        ours: amplification,
        reference: Some((reference, name.to_owned())),
        promise: None,
    };
    Ok(vec![row(sqlite, "SQLite"), row(redb, "redb"), amplification(of_sqlite, "SQLite"), amplification(of_redb, "redb")])
}

/// A store of a gibibyte and a million keys, which one process makes and others open.
fn large(directory: &Path) -> Result<Vec<Row>> {
    let path = directory.join("large");
    let [nanoseconds, filling] = child(FILL, &path)?;
    let (mut milliseconds, mut opening) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let [time, memory] = child(OPEN, &path)?;
        milliseconds.push(time);
        opening.push(memory);
    }
    let row = |what: &str, ours, promise| Row { what: what.to_owned(), ours, reference: None, promise: Some(Promise::AtMost(promise)) };
    Ok(vec![
        row("log store: get of a cached key, ns", nanoseconds, 1000.0),
        row("log store: memory of the process that filled 1 GiB, MiB", filling, 64.0),
        row("log store: open, 1 GiB and 1,000,000 keys, ms", median(milliseconds), 1000.0),
        row("log store: memory of the process that opened it, MiB", median(opening), 64.0),
    ])
}

/// Runs this program, and gives the two figures that it prints.
fn child(what: &str, path: &Path) -> Result<[f64; 2]> {
    let output = Command::new(std::env::current_exe()?).arg(what).arg(path).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let (first, second) = text.trim().split_once(' ').context("no figures")?;
    Ok([first.parse()?, second.parse()?])
}

/// Makes a store, and leaves both halves of its log full. Prints nanoseconds for a get of a cached key, and the most memory in MiB.
pub(crate) fn fill(path: PathBuf) -> Result<()> {
    let device = device(&path, DEVICE)?;
    let nanoseconds = fogbow_unix::block_on(async move {
        let store = LogStore::format(device, Config::default()).await?;
        for first in (0..KEYS).step_by(BATCH as usize) {
            set_batch(&store, first, BATCH).await?;
        }
        store.set(Key::new("hot")?, &[0x5a; 100]).await?;
        store.checkpoint().await?;
        let hot = Key::new("hot")?;
        store.get(hot).await?;
        let start = Instant::now();
        for _ in 0..GETS {
            std::hint::black_box(store.get(hot).await?);
        }
        let elapsed = start.elapsed();
        for first in (0..4 * BATCH).step_by(BATCH as usize / 2) {
            set_batch(&store, first, BATCH / 2).await?;
        }
        anyhow::Ok(elapsed.as_nanos() as f64 / f64::from(GETS))
    })??;
    println!("{nanoseconds} {}", peak_memory()?);
    Ok(())
}

async fn set_batch(store: &LogStore<BlockDevice>, first: u64, count: u64) -> Result<()> {
    let value = vec![0x5a; VALUE];
    let names: Vec<String> = (first..first + count).map(|number| format!("dictionary-{}/key-{number:07}", number / 10_000)).collect();
    let changes: Vec<Change<'_>> = names.iter().map(|name| Ok(Change::Set(Key::new(name)?, &value))).collect::<Result<_>>()?;
    Ok(store.batch(&changes).await?)
}

/// Opens a store and reads a value. Prints milliseconds until it was open, and the most memory in MiB.
pub(crate) fn open(path: PathBuf) -> Result<()> {
    let milliseconds = fogbow_unix::block_on(async move {
        let start = Instant::now();
        let store = LogStore::open(BlockDevice::open("disk", &path, 512)?, Config::default()).await?;
        let elapsed = start.elapsed().as_secs_f64() * 1000.0;
        anyhow::ensure!(store.get(Key::new("dictionary-50/key-0500000")?).await?.as_ref().len() == VALUE);
        Ok(elapsed)
    })??;
    println!("{milliseconds} {}", peak_memory()?);
    Ok(())
}

/// The most memory that this process has had, in MiB: `VmHWM` of `/proc/self/status` (proc(5)).
fn peak_memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kibibytes: f64 = peak.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kibibytes / 1024.0)
}
