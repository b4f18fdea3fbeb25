//! Why something could not be read or written.

use alloc::string::String;
use core::fmt;

use embedded_io_async::{Error, ErrorKind};

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing is there.
    NotFound(String),
    /// A value was asked for, and the key is a dictionary.
    IsDictionary(String),
    /// A dictionary was asked for, and the key has a value.
    IsValue(String),
    /// The value was replaced or removed while it was being read as a stream.
    Changed(String),
    /// The store cannot be read.
    Unavailable {
        /// The key that was asked for.
        key: String,
        /// What the store or the host said.
        reason: String,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(key) => write!(f, "there is nothing at '{key}'"),
            Self::IsDictionary(key) => write!(f, "'{key}' is a dictionary, not a value"),
            Self::IsValue(key) => write!(f, "'{key}' is a value, not a dictionary"),
            Self::Changed(key) => write!(f, "'{key}' was changed while it was being read: read it again"),
            Self::Unavailable { key, reason } => write!(f, "'{key}' cannot be read: {reason}"),
        }
    }
}

impl core::error::Error for ReadError {}

/// Why something could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// Nothing is there.
    NotFound(String),
    /// Something is there already.
    Exists(String),
    /// The key, or a key above it, is in the way: a value cannot be a dictionary too.
    Conflict(String),
    /// The value, or the store, would grow too large.
    NoSpace(String),
    /// The store is read-only, or does not offer this.
    Unsupported {
        /// The key that was to be written.
        key: String,
        /// What is not offered, and what is instead.
        reason: &'static str,
    },
    /// The store cannot be written.
    Unavailable {
        /// The key that was to be written.
        key: String,
        /// What the store or the host said.
        reason: String,
    },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(key) => write!(f, "there is nothing at '{key}'"),
            Self::Exists(key) => write!(f, "'{key}' exists already"),
            Self::Conflict(key) => write!(f, "'{key}' cannot be both a value and a dictionary: remove what is in the way first"),
            Self::NoSpace(key) => write!(f, "no space is left for '{key}'"),
            Self::Unsupported { key, reason } => write!(f, "'{key}': {reason}"),
            Self::Unavailable { key, reason } => write!(f, "'{key}' cannot be written: {reason}"),
        }
    }
}

impl core::error::Error for WriteError {}

impl Error for ReadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::IsDictionary(_) | Self::IsValue(_) => ErrorKind::InvalidInput,
            Self::Changed(_) => ErrorKind::Interrupted,
            Self::Unavailable { .. } => ErrorKind::Other,
        }
    }
}

/// Why a value could not be set from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamError<E> {
    /// The stream gave no more, and not its end.
    Source(E),
    /// The store.
    Store(WriteError),
}

impl<E> From<WriteError> for StreamError<E> {
    fn from(error: WriteError) -> Self {
        Self::Store(error)
    }
}

impl<E: fmt::Display> fmt::Display for StreamError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "the value was not given to its end: {error}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for StreamError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Source(error) => Some(error),
            Self::Store(_) => None,
        }
    }
}
