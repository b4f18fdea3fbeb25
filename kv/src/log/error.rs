//! What goes wrong.

use alloc::string::{String, ToString};
use core::fmt;

use fogbow_block::BlockError;

use super::layout::VERSION;
use crate::{Key, ReadError, WriteError};

/// Why a device holds no store, or cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// There is no intact superblock.
    NotAStore,
    /// The store has a version of the format that this program does not know.
    Version(u32),
    /// A superblock is intact and says what cannot be, for example because the device was made smaller or has larger sectors now.
    Inconsistent,
    /// Sectors of this size cannot be used.
    SectorSize(usize),
    /// The device is too small.
    TooSmall {
        /// The fewest bytes.
        least: u64,
        /// Those it has.
        bytes: u64,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAStore => f.write_str("there is no log store on it: format it, or attach another"),
            Self::Version(found) => {
                write!(
                    f,
                    "its log store has version {found} of the format, and this program knows version {VERSION}: use the program that made it"
                )
            }
            Self::Inconsistent => {
                f.write_str("its log store does not fit the device: was it cut short, or attached with another sector size?")
            }
            Self::SectorSize(size) => write!(f, "its sectors of {size} bytes cannot be used: 512 to 32768 can"),
            Self::TooSmall { least, bytes } => write!(f, "it has {bytes} bytes, and a log store needs {least}"),
        }
    }
}

impl core::error::Error for FormatError {}

/// Why a store could not be made or opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The device holds no store, or cannot.
    Format(FormatError),
    /// The device failed.
    Device(BlockError),
    /// What the log of the store says cannot be: a program with a fault has written it.
    Log {
        /// The number of the record.
        sequence: u64,
    },
    /// There is not enough memory for the store.
    NoMemory,
    /// There is no randomness to name a new store with.
    NoEntropy,
}

impl From<BlockError> for OpenError {
    fn from(error: BlockError) -> Self {
        Self::Device(error)
    }
}

impl From<FormatError> for OpenError {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
            Self::Log { sequence } => write!(f, "record {sequence} of its log makes no sense: the store was written by a faulty program"),
            Self::NoMemory => f.write_str("there is not enough memory for its log store: give the image more"),
            Self::NoEntropy => f.write_str("there is no randomness to name the new store with"),
        }
    }
}

impl core::error::Error for OpenError {}

/// What goes wrong below keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Device(BlockError),
    /// What is at this page is not what was written there.
    Damaged(u64),
    /// An entry of the tree makes no sense.
    Entry,
    NoSpace,
    NoMemory,
    /// The store takes no more writes.
    Broken(String),
}

impl From<BlockError> for Fault {
    fn from(error: BlockError) -> Self {
        Self::Device(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Damaged(page) => write!(f, "page {page} of the device is damaged"),
            Self::Entry => f.write_str("an entry of the store makes no sense"),
            Self::NoSpace => f.write_str("no space is left"),
            Self::NoMemory => f.write_str("there is no memory for the value: read it in parts"),
            Self::Broken(reason) => write!(f, "the store takes no more writes until it is opened again: {reason}"),
        }
    }
}

impl Fault {
    pub(crate) fn read(self, key: Key<'_>) -> ReadError {
        ReadError::Unavailable { key: key.to_string(), reason: self.advice() }
    }

    /// What it is, and what to do.
    fn advice(&self) -> String {
        match self {
            Self::Damaged(_) | Self::Entry => alloc::format!("{self}: `cargo xtask kv check` tells what else is"),
            _ => self.to_string(),
        }
    }

    pub(crate) fn write(self, key: Key<'_>) -> WriteError {
        match self {
            Self::NoSpace => WriteError::NoSpace(key.to_string()),
            fault => WriteError::Unavailable { key: key.to_string(), reason: fault.advice() },
        }
    }
}
