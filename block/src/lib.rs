//! Fogbow's block devices.
//!
//! A [`Block`] device reads and writes whole sectors. The targets implement it for the host's devices.
//!
//! Limits: the trait alone, without flush and discard; there are no ram disks, partitions, caches or encryption yet.
#![no_std]
#![forbid(unsafe_code)]

use core::fmt;
use core::future::Future;

/// What a device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Bytes in a sector: a power of two, 512 or more.
    pub sector_size: usize,
    /// Sectors on the device.
    pub sectors: u64,
    /// True when every write fails.
    pub read_only: bool,
}

/// A device that stores sectors.
pub trait Block: 'static {
    /// The device's limits, which do not change.
    fn info(&self) -> BlockInfo;

    /// Reads sectors from number `sector` on into `into`, whose length is a multiple of the sector size.
    ///
    /// # Errors
    /// [`BlockError`]; the contents of `into` are then unspecified.
    fn read(&self, sector: u64, into: &mut [u8]) -> impl Future<Output = Result<(), BlockError>>;

    /// Writes `data`, whose length is a multiple of the sector size, to the sectors from number `sector` on.
    ///
    /// # Errors
    /// [`BlockError`]; the contents of those sectors are then unspecified.
    fn write(&self, sector: u64, data: &[u8]) -> impl Future<Output = Result<(), BlockError>>;
}

/// Why sectors could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockError {
    /// The range does not begin and end at sectors of the device.
    OutOfRange {
        /// The first sector asked for.
        sector: u64,
        /// The bytes asked for.
        length: usize,
    },
    /// The host could not do it.
    Failed {
        /// The first sector asked for.
        sector: u64,
        /// The bytes asked for.
        length: usize,
    },
    /// A write to a device that can only be read.
    ReadOnly,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { sector, length } => {
                write!(f, "{length} bytes at sector {sector} are not whole sectors of the device")
            }
            Self::Failed { sector, length } => write!(f, "the host failed on {length} bytes at sector {sector}"),
            Self::ReadOnly => f.write_str("the device is read-only"),
        }
    }
}

impl core::error::Error for BlockError {}
