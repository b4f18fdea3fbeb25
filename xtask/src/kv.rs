//! Log stores in disk images: the same code that images run.
//!
//! What an image has attached is refused (see `fogbow_tender::block`). Limits: values that are files and directories alone are imported.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use embedded_io_async::{ErrorKind, ErrorType, Read};
use fogbow_kv::log::{Config, LogStore};
use fogbow_kv::{Key, Kind, Name, ReadOnly as _, ReadWrite as _};
use fogbow_unix::BlockDevice;

use crate::progress::{self, Progress};

/// What nodes and values may take in memory.
const CACHE: usize = 64 << 20;

/// How much is copied at a time.
const PART: usize = 64 << 10;

/// How often long work says how far it is.
const EVERY: std::time::Duration = std::time::Duration::from_millis(500);

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Make an empty store
    Format {
        #[command(flatten)]
        disk: Disk,
        /// Make the image file first, of this size, such as 64M or 2G; one that is there is kept and not resized
        #[arg(long, value_parser = size)]
        create: Option<u64>,
        /// Do it even if there is a store: what it holds is lost
        #[arg(long)]
        force: bool,
    },
    /// List a dictionary
    Ls {
        #[command(flatten)]
        disk: Disk,
        /// The dictionary; everything when left out
        #[arg(default_value = "")]
        key: String,
        /// List all that is below it
        #[arg(long, short)]
        recursive: bool,
    },
    /// Write a value to standard output
    Get {
        #[command(flatten)]
        disk: Disk,
        key: String,
    },
    /// Set a value
    Put {
        #[command(flatten)]
        disk: Disk,
        key: String,
        /// The file with the value; standard input when left out
        file: Option<PathBuf>,
    },
    /// Remove a value, or all values below a dictionary
    Rm {
        #[command(flatten)]
        disk: Disk,
        key: String,
    },
    /// Verify every checksum and that all belongs together, and explain what is wrong
    Check {
        #[command(flatten)]
        disk: Disk,
    },
    /// Set a value for each file below a directory of the host
    Import {
        #[command(flatten)]
        disk: Disk,
        directory: PathBuf,
        /// The dictionary that they go to; the top when left out
        #[arg(default_value = "")]
        key: String,
    },
    /// Write a file for each value below a dictionary
    Export {
        #[command(flatten)]
        disk: Disk,
        /// The directory, which is made
        directory: PathBuf,
        /// The dictionary; everything when left out
        #[arg(default_value = "")]
        key: String,
    },
}

/// The disk image.
#[derive(Args, Clone, Debug)]
pub(crate) struct Disk {
    /// The image file, or a raw device
    image: PathBuf,
    /// Bytes in a sector, as images see it
    #[arg(long, default_value_t = 512)]
    sector_size: u16,
}

impl Disk {
    fn device(&self) -> anyhow::Result<BlockDevice> {
        self.must_exist()?;
        Ok(BlockDevice::open("disk", &self.image, self.sector_size)?)
    }

    fn must_exist(&self) -> anyhow::Result<()> {
        let image = self.image.display();
        ensure!(self.image.exists(), "{image} does not exist: make it, with a store on it, by cargo xtask kv format {image} --create 64M");
        Ok(())
    }

    async fn open(&self) -> anyhow::Result<LogStore<BlockDevice>> {
        self.open_on(self.device()?).await
    }

    /// Opens it for reading alone, as others may, too.
    async fn open_to_read(&self) -> anyhow::Result<LogStore<BlockDevice>> {
        self.must_exist()?;
        self.open_on(BlockDevice::open_read_only("disk", &self.image, self.sector_size)?).await
    }

    async fn open_on(&self, device: BlockDevice) -> anyhow::Result<LogStore<BlockDevice>> {
        let store = LogStore::open(device, Config { cache: CACHE }).await;
        store.with_context(|| self.image.display().to_string())
    }
}

/// Runs a command.
pub(crate) fn run(command: &KvCommand, progress: &Progress) -> anyhow::Result<ExitCode> {
    let command = command.clone();
    let progress = *progress;
    fogbow_unix::block_on(async move { command.run(&progress).await })?
}

impl KvCommand {
    async fn run(&self, progress: &Progress) -> anyhow::Result<ExitCode> {
        match self {
            Self::Format { disk, create, force } => format(disk, *create, *force, progress).await?,
            Self::Ls { disk, key, recursive } => list(disk, key, *recursive).await?,
            Self::Get { disk, key } => {
                let mut out = std::io::stdout().lock();
                copy_out(&disk.open_to_read().await?, read_key(key)?, &mut out, progress).await?;
            }
            Self::Put { disk, key, file } => {
                let store = disk.open().await?;
                match file {
                    Some(path) => set(&store, key, open_file(path)?, progress).await?,
                    None => set(&store, key, std::io::stdin().lock(), progress).await?,
                }
            }
            Self::Rm { disk, key } => {
                let store = disk.open().await?;
                ensure!(store.exists(read_key(key)?).await?.is_some(), "there is nothing at '{key}'");
                let mut next = Instant::now() + EVERY;
                let said = |count| {
                    if Instant::now() >= next {
                        next = Instant::now() + EVERY;
                        progress.say("Removing", format_args!("{count} values so far"));
                    }
                };
                store.remove_with(read_key(key)?, said).await?;
            }
            Self::Check { disk } => return check(disk, progress).await,
            Self::Import { disk, directory, key } => import(disk, directory, key, progress).await?,
            Self::Export { disk, directory, key } => export(disk, directory, key, progress).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn format(disk: &Disk, create: Option<u64>, force: bool, progress: &Progress) -> anyhow::Result<()> {
    let is_there = disk.image.exists();
    if create.is_none() {
        disk.must_exist()?;
    }
    if let Some(size) = create.filter(|_| !is_there) {
        let file = OpenOptions::new().write(true).create_new(true).open(&disk.image);
        let file = file.with_context(|| format!("cannot make {}", disk.image.display()))?;
        file.set_len(size).with_context(|| format!("cannot make {} {size} bytes long", disk.image.display()))?;
    }
    if is_there && !force && LogStore::open(disk.device()?, Config::default()).await.is_ok() {
        bail!("{} holds a log store already: --force formats it, and all that it holds is lost", disk.image.display());
    }
    let formatted = match disk.device() {
        Ok(device) => LogStore::format(device, Config::default()).await.map(drop).with_context(|| disk.image.display().to_string()),
        Err(error) => Err(error),
    };
    if formatted.is_err() && !is_there {
        crate::files::remove(&disk.image)?;
    }
    formatted?;
    progress.say("Formatted", disk.image.display());
    Ok(())
}

async fn list(disk: &Disk, key: &str, recursive: bool) -> anyhow::Result<()> {
    let store = disk.open_to_read().await?;
    let mut pending = vec![read_key(key)?.as_str().to_owned()];
    while let Some(at) = pending.pop() {
        let names = store.list(read_key(&at)?).await?;
        let mut dictionaries = Vec::new();
        for Name { name, kind } in names {
            let below = join(&at, &name);
            match kind {
                Kind::Value => println!("{:>12} {below}", store.size(read_key(&below)?).await?),
                Kind::Dictionary if recursive => dictionaries.push(below),
                Kind::Dictionary => println!("{:>12} {below}/", ""),
            }
        }
        pending.extend(dictionaries.into_iter().rev());
    }
    Ok(())
}

async fn check(disk: &Disk, progress: &Progress) -> anyhow::Result<ExitCode> {
    let store = disk.open().await?;
    let mut next = Instant::now() + EVERY;
    let report = store.check(|done, total| {
        if Instant::now() >= next {
            next += EVERY;
            progress.say("Checking", format_args!("{}, {} %", disk.image.display(), 100 * done / total.max(1)));
        }
    });
    let report = report.await;
    for mended in &report.mended {
        println!("damaged when it was opened, and mended: {mended}");
    }
    for problem in &report.problems {
        println!("{problem}");
    }
    if report.problem_count > report.problems.len() as u64 {
        println!("and {} more", report.problem_count - report.problems.len() as u64);
    }
    if let Some(reason) = &report.read_only {
        println!("the store can only be read: {reason}");
    }
    let page = report.page_size as u64;
    println!(
        "in the tree {} values of {}, {} nodes on {} levels, {} chunks; in the log {} changes that are not in it yet; {} of {} free; checkpoint {}",
        report.values,
        progress::size(report.value_bytes),
        report.nodes,
        report.levels,
        report.chunks,
        report.in_log,
        progress::size(report.free_pages * page),
        progress::size(report.pages * page),
        report.generation,
    );
    if report.problem_count == 0 && report.read_only.is_none() {
        println!("no problems");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} problems: export what can be read, and format the image", report.problem_count);
    Ok(ExitCode::FAILURE)
}

async fn import(disk: &Disk, directory: &Path, key: &str, progress: &Progress) -> anyhow::Result<()> {
    let store = disk.open().await?;
    let (mut count, mut next) = (0, Instant::now() + EVERY);
    let mut pending = vec![(directory.to_owned(), read_key(key)?.as_str().to_owned())];
    while let Some((path, at)) = pending.pop() {
        let entries = fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", path.display()))?;
            let name = entry.file_name();
            let name = name.to_str().with_context(|| format!("{} is not UTF-8, as keys are", entry.path().display()))?;
            let below = join(&at, name);
            let kind = entry.file_type().with_context(|| format!("cannot read {}", entry.path().display()))?;
            if kind.is_dir() {
                pending.push((entry.path(), below));
            } else if kind.is_file() {
                set(&store, &below, open_file(&entry.path())?, progress).await?;
                count += 1;
            }
            if Instant::now() >= next {
                next += EVERY;
                progress.say("Importing", format_args!("{count} values so far"));
            }
        }
    }
    store.checkpoint().await?;
    progress.say("Imported", format_args!("{count} values"));
    Ok(())
}

async fn export(disk: &Disk, directory: &Path, key: &str, progress: &Progress) -> anyhow::Result<()> {
    let store = disk.open_to_read().await?;
    let (mut count, mut failed, mut next) = (0, 0, Instant::now() + EVERY);
    let mut pending = vec![(directory.to_owned(), read_key(key)?.as_str().to_owned())];
    while let Some((path, at)) = pending.pop() {
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        for Name { name, kind } in store.list(read_key(&at)?).await? {
            let (path, below) = (path.join(&name), join(&at, &name));
            match kind {
                Kind::Dictionary => pending.push((path, below)),
                Kind::Value => {
                    let mut file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
                    match copy_out(&store, read_key(&below)?, &mut file, progress).await {
                        Ok(()) => count += 1,
                        // A damaged store is exported as far as it goes.
                        Err(error) => {
                            failed += 1;
                            drop(file);
                            crate::files::remove(&path)?;
                            println!("{error:#}");
                        }
                    }
                }
            }
            if Instant::now() >= next {
                next += EVERY;
                progress.say("Exporting", format_args!("{count} values so far"));
            }
        }
    }
    progress.say("Exported", format_args!("{count} values"));
    ensure!(failed == 0, "{failed} values could not be read");
    Ok(())
}

async fn copy_out(store: &LogStore<BlockDevice>, key: Key<'_>, out: &mut impl std::io::Write, progress: &Progress) -> anyhow::Result<()> {
    let mut reader = store.read(key).await?;
    let mut buffer = vec![0; PART];
    let (mut written, mut next) = (0, Instant::now() + EVERY);
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            return out.flush().context("cannot write the value");
        }
        out.write_all(&buffer[..length]).context("cannot write the value")?;
        written += length as u64;
        if Instant::now() >= next {
            next += EVERY;
            progress.say("Reading", format_args!("{key}, {} so far", progress::size(written)));
        }
    }
}

async fn set(store: &LogStore<BlockDevice>, key: &str, source: impl std::io::Read, progress: &Progress) -> anyhow::Result<()> {
    let mut source = Source { source, key, read: 0, next: Instant::now() + EVERY, progress };
    store.set_stream(read_key(key)?, &mut source).await?;
    Ok(())
}

fn read_key(text: &str) -> anyhow::Result<Key<'_>> {
    Key::new(text).with_context(|| format!("'{text}' is no key"))
}

fn join(dictionary: &str, name: &str) -> String {
    if dictionary.is_empty() { name.to_owned() } else { format!("{dictionary}/{name}") }
}

fn open_file(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a size such as `64M`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("write bytes, or a number with K, M or G".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "write bytes, or a number with K, M or G".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too much".to_owned())
}

/// What a value is read from, which says now and then how much that was.
struct Source<'a, R> {
    source: R,
    key: &'a str,
    read: u64,
    next: Instant,
    progress: &'a Progress,
}

/// Why that failed.
#[derive(Debug)]
struct SourceError(std::io::Error);

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SourceError {}

impl embedded_io_async::Error for SourceError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl<R> ErrorType for Source<'_, R> {
    type Error = SourceError;
}

impl<R: std::io::Read> Read for Source<'_, R> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, SourceError> {
        let length = loop {
            match self.source.read(into) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => break result.map_err(SourceError)?,
            }
        };
        self.read += length as u64;
        if Instant::now() >= self.next {
            self.next += EVERY;
            self.progress.say("Storing", format_args!("{}, {} so far", self.key, progress::size(self.read)));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
