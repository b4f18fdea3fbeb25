//! The log store beside SQLite (write-ahead log, `synchronous = FULL`: one transaction and one fsync for each put) and redb (`Durability::Immediate`), on
//! files of the same file system. Each round lets each of them put so many values, and the figures are medians of rounds.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use fogbow_block::{Block, BlockError, BlockInfo};
use fogbow_kv::log::Config;
use fogbow_kv::{Change, Key, LogStore, ReadOnly as _, ReadWrite as _};
use fogbow_tests::builder::root;
use fogbow_tests::measure::{Promise, Row};
use fogbow_unix::BlockDevice;
use redb::{Database, TableDefinition};

use crate::Options;

/// What makes this program open a store, and say how long it took and how much memory.
pub(crate) const OPEN: &str = "--open-store";

const ROUNDS: usize = 9;
const PUTS: u64 = 200;
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

/// A device that counts what is written to it.
struct Counting {
    device: BlockDevice,
    written: Rc<Cell<u64>>,
}

impl Block for Counting {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn info(&self) -> BlockInfo {
        self.device.info()
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        self.device.read_vectored(sector, into).await
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        self.written.set(self.written.get() + data.iter().map(|part| part.len() as u64).sum::<u64>());
        self.device.write_vectored(sector, data).await
    }

    async fn flush(&self) -> Result<(), BlockError> {
        self.device.flush().await
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        self.device.discard(sector, sectors).await
    }
}

fn device(path: &Path, size: u64) -> Result<Counting> {
    std::fs::File::create(path)?.set_len(size)?;
    Ok(Counting { device: BlockDevice::open("disk", path, 512)?, written: Rc::default() })
}

/// Keys in no order.
fn key(number: u64) -> String {
    format!("key-{:08}", number.wrapping_mul(2_654_435_761) % 100_000_000)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Puts in a second, in the same rounds.
fn puts(directory: &Path, size: usize) -> Result<Vec<Row>> {
    let path = |name: &str| directory.join(format!("{name}-{size}"));
    let sqlite = rusqlite::Connection::open(path("sqlite"))?;
    sqlite
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE v (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")?;
    let redb = Database::create(path("redb"))?;
    let device = device(&path("log"), 256 << 20)?;
    let written = Rc::clone(&device.written);
    let [ours, sqlite, redb] = fogbow_unix::block_on(async move {
        let store = LogStore::format(device, Config::default()).await?;
        let value = vec![0x5a; size];
        let mut rates: [Vec<f64>; 3] = Default::default();
        for round in 0..ROUNDS as u64 {
            let keys: Vec<String> = (round * PUTS..(round + 1) * PUTS).map(key).collect();
            let rate = |start: Instant| PUTS as f64 / start.elapsed().as_secs_f64();
            let start = Instant::now();
            for key in &keys {
                store.set(Key::new(key)?, &value).await?;
            }
            rates[0].push(rate(start));
            let start = Instant::now();
            let mut insert = sqlite.prepare_cached("INSERT OR REPLACE INTO v VALUES (?1, ?2)")?;
            for key in &keys {
                insert.execute(rusqlite::params![key, value])?;
            }
            rates[1].push(rate(start));
            let start = Instant::now();
            for key in &keys {
                let transaction = redb.begin_write()?;
                transaction.open_table(TABLE)?.insert(key.as_str(), value.as_slice())?;
                transaction.commit()?;
            }
            rates[2].push(rate(start));
        }
        anyhow::Ok(rates.map(median))
    })??;
    let amplification = written.get() as f64 / (ROUNDS as u64 * PUTS * size as u64) as f64;
    let row = |reference, name: &str| Row {
        what: format!("log store: puts of {size} bytes a second"),
        ours,
        reference: Some((reference, name.to_owned())),
        promise: Some(Promise::RatioAtLeast(1.0)),
    };
    let amplification = Row {
        what: format!("log store: bytes written for each of {size}-byte values put"),
        ours: amplification,
        reference: None,
        promise: None,
    };
    Ok(vec![row(sqlite, "SQLite"), row(redb, "redb"), amplification])
}

/// A store of a gibibyte and a million keys.
fn large(directory: &Path) -> Result<Vec<Row>> {
    let path = directory.join("large");
    let device = device(&path, DEVICE)?;
    let nanoseconds = fogbow_unix::block_on(async move {
        let store = LogStore::format(device, Config::default()).await?;
        let value = vec![0x5a; VALUE];
        for first in (0..KEYS).step_by(BATCH as usize) {
            let names: Vec<String> =
                (first..first + BATCH).map(|number| format!("dictionary-{}/key-{number:07}", number / 10_000)).collect();
            let changes: Vec<Change<'_>> = names.iter().map(|name| Ok(Change::Set(Key::new(name)?, &value))).collect::<Result<_>>()?;
            store.batch(&changes).await?;
        }
        store.set(Key::new("hot")?, &value[..100]).await?;
        store.checkpoint().await?;
        let hot = Key::new("hot")?;
        store.get(hot).await?;
        let start = Instant::now();
        for _ in 0..GETS {
            std::hint::black_box(store.get(hot).await?);
        }
        anyhow::Ok(start.elapsed().as_nanos() as f64 / f64::from(GETS))
    })??;
    let mut milliseconds = Vec::new();
    let mut mebibytes = Vec::new();
    for _ in 0..5 {
        let output = Command::new(std::env::current_exe()?).arg(OPEN).arg(&path).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let (time, memory) = text.trim().split_once(' ').context("no figures")?;
        milliseconds.push(time.parse()?);
        mebibytes.push(memory.parse()?);
    }
    let row = |what: &str, ours, promise| Row { what: what.to_owned(), ours, reference: None, promise: Some(Promise::AtMost(promise)) };
    Ok(vec![
        row("log store: get of a cached key, ns", nanoseconds, 1000.0),
        row("log store: open, 1 GiB and 1,000,000 keys, ms", median(milliseconds), 1000.0),
        row("log store: memory of the process that opened it, MiB", median(mebibytes), 64.0),
    ])
}

/// Opens a store and reads a value, then prints milliseconds until it was open and the most memory in MiB.
pub(crate) fn open(path: PathBuf) -> Result<()> {
    let milliseconds = fogbow_unix::block_on(async move {
        let start = Instant::now();
        let store = LogStore::open(BlockDevice::open("disk", &path, 512)?, Config::default()).await?;
        let elapsed = start.elapsed().as_secs_f64() * 1000.0;
        anyhow::ensure!(store.get(Key::new("dictionary-50/key-0500000")?).await?.as_ref().len() == VALUE);
        Ok(elapsed)
    })??;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kibibytes: f64 = peak.trim().trim_end_matches(" kB").trim().parse()?;
    println!("{milliseconds} {}", kibibytes / 1024.0);
    Ok(())
}
