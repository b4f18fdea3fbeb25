//! Block: tells a block device's geometry, writes a pattern over all of it and verifies it, or discards or zeroes it. What was on it is lost.
//!
//! `cargo xtask run block --target spt --block disk=disk.img --create 64M`, and again with `-- --do=verify`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec;
use core::fmt;

use fogbow::StartError;
use fogbow::time;
use fogbow_block::{Block, BlockError, BlockInfo, Durability};

/// Bytes that are written or read at a time.
const PART: usize = 256 * 1024;

fogbow::arguments!();

/// Why the device is not what it should be.
#[derive(Debug)]
pub enum Error {
    /// An argument is wrong.
    Argument(StartError),
    /// The device failed.
    Device(BlockError),
    /// A sector does not hold the pattern.
    Differs {
        /// The first such sector.
        sector: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
            Self::Differs { sector } => write!(f, "sector {sector} does not hold the pattern: was it written with the same --pattern?"),
        }
    }
}

impl core::error::Error for Error {}

impl From<BlockError> for Error {
    fn from(error: BlockError) -> Self {
        Self::Device(error)
    }
}

/// Tells the geometry of `disk`; writes, verifies, or both, as `--do` says.
///
/// # Errors
/// [`Error`].
pub async fn start(disk: impl Block) -> Result<(), Error> {
    let arguments = Arguments::read().map_err(|error| Error::Argument(error.into()))?;
    let (writes, verifies) = match arguments.r#do.as_str() {
        "both" => (true, true),
        "write" => (true, false),
        "verify" => (false, true),
        "look" | "discard" | "zero" => (false, false),
        other => {
            let message = alloc::format!("'{other}' is nothing to do: write, verify, both, discard, zero or look");
            return Err(Error::Argument(StartError::new("--do", message)));
        }
    };
    let pattern = arguments.pattern;
    let BlockInfo { sector_size, sectors, read_only, durability } = disk.info();
    let survives = match durability {
        Durability::Volatile => "nothing",
        Durability::Image => "the image's end",
        Durability::Host => "a power cut",
    };
    let access = if read_only { ", read-only" } else { "" };
    fogbow::println!("{}: {sectors} sectors of {sector_size} bytes{access}; what is flushed survives {survives}", disk.name());
    match arguments.r#do.as_str() {
        "discard" => disk.discard(0, sectors).await?,
        "zero" => disk.write_zeroes(0, sectors).await?,
        _ => {}
    }
    if writes {
        let start = time::now();
        write(&disk, pattern).await?;
        report("wrote", sectors, sector_size, start.elapsed());
    }
    if verifies {
        let start = time::now();
        verify(&disk, pattern).await?;
        report("verified", sectors, sector_size, start.elapsed());
    }
    Ok(())
}

fn report(what: &str, sectors: u64, sector_size: usize, took: time::Duration) {
    let mebibytes = (sectors * sector_size as u64) as f64 / f64::from(1 << 20);
    fogbow::println!("{what} {sectors} sectors, {:.0} MiB/s", mebibytes / took.as_secs_f64().max(1e-9));
}

async fn write(disk: &impl Block, pattern: u64) -> Result<(), Error> {
    let BlockInfo { sector_size, sectors, .. } = disk.info();
    let count = (PART / sector_size).max(1);
    let mut part = vec![0; count * sector_size];
    for first in (0..sectors).step_by(count) {
        let count = count.min((sectors - first) as usize);
        let data = &mut part[..count * sector_size];
        for (sector, data) in (first..).zip(data.chunks_exact_mut(sector_size)) {
            fill(pattern, sector, data);
        }
        disk.write(first, data).await?;
    }
    Ok(disk.flush().await?)
}

async fn verify(disk: &impl Block, pattern: u64) -> Result<(), Error> {
    let BlockInfo { sector_size, sectors, .. } = disk.info();
    let count = (PART / sector_size).max(1);
    let mut part = vec![0; count * sector_size];
    let mut expected = vec![0; sector_size];
    for first in (0..sectors).step_by(count) {
        let count = count.min((sectors - first) as usize);
        let data = &mut part[..count * sector_size];
        disk.read(first, data).await?;
        for (sector, data) in (first..).zip(data.chunks_exact(sector_size)) {
            fill(pattern, sector, &mut expected);
            if *data != *expected {
                return Err(Error::Differs { sector });
            }
        }
    }
    Ok(())
}

/// What a sector is to hold: words that follow from the pattern, the sector and their place, so that no two sectors are alike.
fn fill(pattern: u64, sector: u64, data: &mut [u8]) {
    // SplitMix64's increment and finaliser (Steele, Lea and Flood, 2014): one step for each word.
    let mut state = pattern.wrapping_mul(0xd134_2543_de82_ef95) ^ sector.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    for word in data.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogbow::simulation::Simulation;
    use fogbow_block::fault::{Fault, FaultDisk, Survivors};
    use fogbow_block::{Operation, Ram};

    fn run(disk: &FaultDisk, words: [&str; 2]) -> Result<(), Error> {
        let disk = disk.clone();
        Simulation::new(1).with_arguments(&[Arguments::GROUP], words).block_on(start(disk))
    }

    #[test]
    fn what_is_written_is_verified_and_survives_a_power_cut() {
        let disk = FaultDisk::new(Ram::new("disk", 512, 1100).unwrap(), 1);
        run(&disk, ["--do=both", "--pattern=7"]).unwrap();
        let left = FaultDisk::new(disk.power_cut(Survivors::None), 1);
        run(&left, ["--do=verify", "--pattern=7"]).unwrap();
        assert!(matches!(run(&left, ["--do=verify", "--pattern=8"]), Err(Error::Differs { sector: 0 })));
        left.damage(1099, 511, &[0]);
        left.damage(1098, 3, &[1, 2, 3]);
        assert!(matches!(run(&left, ["--do=verify", "--pattern=7"]), Err(Error::Differs { sector: 1098 })));
    }

    #[test]
    fn a_misdirected_write_and_a_wrong_argument_are_found() {
        let disk = FaultDisk::new(Ram::new("disk", 512, 1100).unwrap(), 1);
        disk.fail(Operation::Write, 2, Fault::Misdirected);
        assert!(matches!(run(&disk, ["--do=both", "--pattern=7"]), Err(Error::Differs { .. })));
        disk.fail(Operation::Read, 1, Fault::Error);
        assert!(matches!(run(&disk, ["--do=verify", "--pattern=7"]), Err(Error::Device(_))));
        assert!(matches!(run(&disk, ["--do=something", "--pattern=7"]), Err(Error::Argument(_))));
    }
}
