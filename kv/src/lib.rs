//! Fogbow's key-value stores, after mirage-kv 6.
//!
//! A store maps keys, which are paths such as `pages/index.html`, to values, which are bytes. A prefix of keys is a dictionary: it exists while a
//! value lies below it. Applications are written against [`ReadOnly`] and [`ReadWrite`]; the stores here are [`Embedded`], built into the image
//! from a directory, and [`Memory`]. The unix target adds the host's directories.
//!
//! Limits: a value is read whole or in ranges, not streamed; batches are not offered yet; see [`key`] for those of keys.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;

use fogbow::time::WallTime;

mod dictionary;
pub mod embedded;
pub mod key;
mod memory;

pub use embedded::Embedded;
pub use key::{Key, KeyError};
pub use memory::Memory;

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A value.
    Value,
    /// A dictionary: keys below this one have values.
    Dictionary,
}

/// A name in a dictionary.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The last segment of the key.
    pub name: String,
    /// What the key leads to.
    pub kind: Kind,
}

/// The SHA-256 digest of a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `value`.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(value).into())
    }
}

impl fmt::Display for Digest {
    /// 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A store that can be read.
pub trait ReadOnly: 'static {
    /// A value's bytes, or a part of them: borrowed or shared where the store can, so that reading need not copy.
    type Value: AsRef<[u8]> + 'static;

    /// What `key` leads to, or `None`.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`].
    fn exists(&self, key: Key<'_>) -> impl Future<Output = Result<Option<Kind>, ReadError>>;

    /// The value of `key`.
    ///
    /// # Errors
    /// [`ReadError`].
    fn get(&self, key: Key<'_>) -> impl Future<Output = Result<Self::Value, ReadError>>;

    /// At most `length` bytes of the value of `key` from `offset` on; fewer, or none, at and beyond its end.
    ///
    /// # Errors
    /// [`ReadError`].
    fn get_partial(&self, key: Key<'_>, offset: u64, length: usize) -> impl Future<Output = Result<Self::Value, ReadError>>;

    /// The names in the dictionary `key`, in the order of their bytes. The root is always a dictionary.
    ///
    /// # Errors
    /// [`ReadError`].
    fn list(&self, key: Key<'_>) -> impl Future<Output = Result<Vec<Name>, ReadError>>;

    /// The length of the value of `key`, in bytes.
    ///
    /// # Errors
    /// [`ReadError`].
    fn size(&self, key: Key<'_>) -> impl Future<Output = Result<u64, ReadError>>;

    /// When the value of `key` was last set. Of a dictionary: when the latest value below it was.
    ///
    /// # Errors
    /// [`ReadError`].
    fn last_modified(&self, key: Key<'_>) -> impl Future<Output = Result<WallTime, ReadError>>;

    /// The digest of the value of `key`: equal values have equal digests, in every store.
    ///
    /// # Errors
    /// [`ReadError`].
    fn digest(&self, key: Key<'_>) -> impl Future<Output = Result<Digest, ReadError>>;
}

/// A store that can be read and written.
pub trait ReadWrite: ReadOnly {
    /// Sets the value of `key`, which is then wholly the new one.
    ///
    /// # Errors
    /// [`WriteError`]; the former value is then kept.
    fn set(&self, key: Key<'_>, value: &[u8]) -> impl Future<Output = Result<(), WriteError>>;

    /// Overwrites a part of the value of `key` from `offset` on; a value that is too short grows, zeros filling a gap.
    ///
    /// # Errors
    /// [`WriteError`].
    fn set_partial(&self, key: Key<'_>, offset: u64, part: &[u8]) -> impl Future<Output = Result<(), WriteError>>;

    /// Makes `key` a value of `size` zeros.
    ///
    /// # Errors
    /// [`WriteError::Exists`] when `key` has a value already, and others.
    fn allocate(&self, key: Key<'_>, size: u64) -> impl Future<Output = Result<(), WriteError>>;

    /// Removes the value of `key`, or every value below the dictionary `key`. Nothing there: nothing to do.
    ///
    /// # Errors
    /// [`WriteError`].
    fn remove(&self, key: Key<'_>) -> impl Future<Output = Result<(), WriteError>>;

    /// Moves a value, or a dictionary with all that is below it, from `from` to `to`. A value at `to` is replaced.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] when there is nothing at `from`, and others.
    fn rename(&self, from: Key<'_>, to: Key<'_>) -> impl Future<Output = Result<(), WriteError>>;
}

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
            Self::Unavailable { key, reason } => write!(f, "'{key}' cannot be written: {reason}"),
        }
    }
}

impl core::error::Error for WriteError {}

/// `length` bytes of `value` from `offset` on, cut off at its end.
fn part(value: &[u8], offset: u64, length: usize) -> &[u8] {
    let rest = usize::try_from(offset).ok().and_then(|offset| value.get(offset..)).unwrap_or_default();
    &rest[..rest.len().min(length)]
}

fn not_a_value(key: Key<'_>, is_dictionary: bool) -> ReadError {
    let key = key.as_str().to_owned();
    if is_dictionary { ReadError::IsDictionary(key) } else { ReadError::NotFound(key) }
}
