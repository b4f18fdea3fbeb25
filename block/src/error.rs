//! Why a request failed.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use crate::Block;

/// Why a device did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockError {
    /// The device's name.
    pub device: String,
    /// What was asked for.
    pub operation: Operation,
    /// The first sector asked for; zero for a flush.
    pub sector: u64,
    /// The bytes asked for; zero for a flush.
    pub length: u64,
    /// What is wrong.
    pub cause: Cause,
}

/// What a device is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reading sectors.
    Read,
    /// Writing sectors.
    Write,
    /// Making writes durable.
    Flush,
    /// Giving up contents.
    Discard,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
        })
    }
}

/// What is wrong with a request, or with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The range does not lie on the device.
    OutOfRange {
        /// The sectors that the device has.
        sectors: u64,
    },
    /// A buffer is not of whole sectors.
    NotWholeSectors {
        /// Bytes in a sector of the device.
        sector_size: usize,
    },
    /// A write to a device that can only be read.
    ReadOnly,
    /// The host, or the device itself, failed.
    Failed,
    /// There is no memory for it.
    NoMemory,
    /// An operation has read far more than there is: what is stored leads in circles.
    Endless,
    /// What is stored is not what was written through this device: it was damaged, moved, or tampered with.
    NotAuthentic,
    /// No randomness could be had, without which nothing can be encrypted.
    NoEntropy,
}

impl Cause {
    /// The error that a request to `device` ends with for this cause.
    #[must_use]
    pub fn of<B: Block + ?Sized>(self, device: &B, operation: Operation, sector: u64, length: u64) -> BlockError {
        BlockError { device: device.name().to_owned(), operation, sector, length, cause: self }
    }
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, operation, sector, length, cause } = self;
        write!(f, "block device '{device}': {operation}")?;
        if *operation != Operation::Flush {
            write!(f, " of {length} bytes at sector {sector}")?;
        }
        match cause {
            Cause::OutOfRange { sectors } => write!(f, ": the device ends at sector {sectors}"),
            Cause::NotWholeSectors { sector_size } => write!(f, ": each buffer must be whole sectors of {sector_size} bytes"),
            Cause::ReadOnly => f.write_str(": the device is read-only"),
            Cause::Failed => f.write_str(": the host or the device failed"),
            Cause::NoMemory => f.write_str(": there is not enough memory"),
            Cause::Endless => f.write_str(": far more was read than there is: what is stored leads in circles"),
            Cause::NotAuthentic => {
                f.write_str(": what is stored is not what was written: it was damaged or tampered with, or the key is another")
            }
            Cause::NoEntropy => f.write_str(": the host gives no randomness to encrypt with"),
        }
    }
}

impl core::error::Error for BlockError {}
