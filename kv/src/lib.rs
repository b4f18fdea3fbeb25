//! Fogbow's key-value stores, after mirage-kv 6.
//!
//! A store maps keys, which are paths such as `pages/index.html`, to values, which are bytes. A prefix of keys is a dictionary: it exists while a
//! value lies below it. Applications are written against [`ReadOnly`] and [`ReadWrite`]; the stores here are [`Embedded`], built into the image
//! from a directory, [`Memory`], and [`LogStore`], which keeps its values on a block device whatever happens; `tar` and `fat`, features, are an archive
//! and a FAT volume on a block device. The unix target adds the host's directories.
//!
//! A value is read whole ([`get`](ReadOnly::get)), in ranges, or, when it is large, as a stream ([`read`](ReadOnly::read)); it is set from a slice or
//! from a stream ([`set_stream`](ReadWrite::set_stream)). Several changes become one with [`batch`](ReadWrite::batch).
//!
//! Limits: see [`key`] for those of keys, and each store for its own.
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

use embedded_io_async::Read;
use fogbow::time::WallTime;

mod dictionary;
pub mod embedded;
mod error;
#[cfg(feature = "fat")]
pub mod fat;
pub mod key;
pub mod log;
mod memory;
#[cfg(feature = "stores")]
pub mod stores;
mod stream;
#[cfg(feature = "tar")]
pub mod tar;

pub use embedded::Embedded;
pub use error::{ReadError, StreamError, WriteError};
#[cfg(feature = "fat")]
pub use fat::Fat;
pub use key::{Key, KeyError};
pub use log::LogStore;
pub use memory::Memory;
pub use stream::Slice;
#[cfg(feature = "tar")]
pub use tar::Tar;

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

    /// The digest of all that `value` gives.
    ///
    /// # Errors
    /// The stream's.
    pub async fn of_stream<R: Read>(value: &mut R) -> Result<Self, R::Error> {
        use sha2::Digest as _;
        let (mut digest, mut part) = (sha2::Sha256::new(), alloc::vec![0; 16 * 1024]);
        loop {
            match value.read(&mut part).await? {
                0 => return Ok(Self(digest.finalize().into())),
                count => digest.update(&part[..count]),
            }
        }
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

    /// A value as a stream. It takes memory for a part of the value at a time, unless the store has all of it in memory anyway.
    type Reader: Read<Error = ReadError> + 'static;

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

    /// The value of `key` as a stream from its beginning. The stream gives the value as it was at this call, or an error: when the value is replaced
    /// or removed meanwhile, never parts of two values.
    ///
    /// # Errors
    /// [`ReadError`].
    fn read(&self, key: Key<'_>) -> impl Future<Output = Result<Self::Reader, ReadError>>;

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

/// One of the changes of a [`batch`](ReadWrite::batch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// As [`ReadWrite::set`].
    Set(Key<'a>, &'a [u8]),
    /// As [`ReadWrite::remove`].
    Remove(Key<'a>),
    /// As [`ReadWrite::rename`].
    Rename(Key<'a>, Key<'a>),
}

impl<'a> Change<'a> {
    /// The key that errors name.
    const fn key(&self) -> Key<'a> {
        let (Self::Set(key, _) | Self::Remove(key) | Self::Rename(key, _)) = self;
        *key
    }
}

/// A store that can be read and written.
pub trait ReadWrite: ReadOnly {
    /// Sets the value of `key`, which is then wholly the new one. In a store that survives a power cut, the new value does once this has returned.
    ///
    /// # Errors
    /// [`WriteError`]; the former value is then kept.
    fn set(&self, key: Key<'_>, value: &[u8]) -> impl Future<Output = Result<(), WriteError>>;

    /// Sets the value of `key` to all that `source` gives. Others see the former value until the new one is complete, and for good when the source or
    /// the store fails, or the call is dropped. Gives the value's length in bytes.
    ///
    /// # Errors
    /// [`StreamError`].
    fn set_stream<R: Read>(&self, key: Key<'_>, source: &mut R) -> impl Future<Output = Result<u64, StreamError<R::Error>>>;

    /// Makes all of `changes`, in their order, or none of them: nobody sees some without the others, and in a store that survives a power cut, it leaves
    /// all or none.
    ///
    /// # Errors
    /// [`WriteError`], of the first change that cannot be made; none has been made then. [`WriteError::Unsupported`] where the store cannot do this.
    fn batch(&self, changes: &[Change<'_>]) -> impl Future<Output = Result<(), WriteError>>;

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
    /// [`WriteError::NotFound`] when there is nothing at `from`, [`WriteError::Conflict`] when one of the two lies below the other, and others.
    fn rename(&self, from: Key<'_>, to: Key<'_>) -> impl Future<Output = Result<(), WriteError>>;
}

/// `length` bytes of `value` from `offset` on, cut off at its end.
fn part(value: &[u8], offset: u64, length: usize) -> &[u8] {
    let rest = usize::try_from(offset).ok().and_then(|offset| value.get(offset..)).unwrap_or_default();
    &rest[..rest.len().min(length)]
}

fn not_a_value(key: Key<'_>, is_dictionary: bool) -> ReadError {
    let key = key.as_str().to_owned();
    if is_dictionary { ReadError::IsDictionary(key) } else { ReadError::NotFound(key) }
}
