//! A FAT file system (FAT16 or FAT32) on a block device as a store, for exchange with other systems; by embedded-sdmmc.
//!
//! embedded-sdmmc is written against devices that block. Each operation here is run by [`Blocking`], over sectors in memory, again and again until
//! nothing it needs is missing; what it writes goes to the device when it has come to its end, and then the device is flushed. So it works over any
//! device, and an operation that fails changes nothing.
//!
//! Limits: the device is the volume itself (put the layer `partition` over a disk with a partition table), with sectors of 512 bytes; FAT12 is refused, and
//! a FAT32 of fewer than 65,525 clusters, which some systems make and others take for a FAT16, without an information sector, or that keeps one of its
//! tables alone. A value of the name of the volume's label cannot be reached, and none is made. Names are found
//! as they are written, long or short, or in any case of ASCII letters; new ones must be short: 8 characters, a dot and 3 at most (stored in capitals). Values
//! that are set must fit into the memory given, those that are read need not: see [`read`](ReadOnly::read). Dictionaries are not
//! renamed. FAT has no journal: a power cut in the middle of an operation's writes can leave a part of them. A stream ends with
//! [`ReadError::Changed`] when anything is written meanwhile. Times are of two seconds, UTC, from 1980 on. On a damaged volume every operation ends,
//! with a value or an error, in a release build; with the compiler's overflow checks embedded-sdmmc may panic instead.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

use embedded_io_async::{ErrorType, Read};
use embedded_sdmmc::DirEntry;
use fogbow::time::{self, WallTime};
use fogbow_block::Block;
use fogbow_block::blocking::Blocking;

use crate::key::Key;
use crate::{Change, Digest, Kind, Name, ReadError, ReadOnly, ReadWrite, StreamError, WriteError, not_a_value, stream};

mod disk;
mod upkeep;
mod volume;

use volume::{Failure, Volume};

/// Bytes of a value that are read by one operation.
const PART: usize = 64 * 1024;

/// A FAT volume. Cloning gives another handle to it.
#[derive(Debug)]
pub struct Fat<B>(Rc<Shared<B>>);

#[derive(Debug)]
struct Shared<B> {
    blocking: Blocking<B>,
    /// Operations that wrote.
    writes: Cell<u64>,
}

/// Why a device is no FAT volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatError {
    reason: String,
}

impl fmt::Display for FatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no FAT volume can be read: {}; make one with mkfs.fat", self.reason)
    }
}

impl core::error::Error for FatError {}

impl<B> Clone for Fat<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<B: Block> Fat<B> {
    /// The volume on `device`, with `memory` bytes for an operation's sectors: 1 MiB is plenty for small values.
    ///
    /// # Errors
    /// [`FatError`].
    pub async fn open(device: B, memory: usize) -> Result<Self, FatError> {
        let size = device.info().sector_size;
        if size != 512 {
            let reason = format!("sectors of {size} bytes, where FAT wants 512: attach the device with --block-sector-size:NAME=512");
            return Err(FatError { reason });
        }
        let fat = Self(Rc::new(Shared { blocking: Blocking::new(device, memory), writes: Cell::new(0) }));
        let reason = |failure: Failure| failure.to_string();
        fat.run(reason, |volume| volume.list(Key::ROOT).map(drop).map_err(reason)).await.map_err(|reason| FatError { reason })?;
        Ok(fat)
    }

    /// Runs an operation on the volume. Failures of the device, and of the volume before and behind the operation, become errors by `error`.
    async fn run<T, E>(&self, error: impl Fn(Failure) -> E, mut operation: impl FnMut(&Volume<'_>) -> Result<T, E>) -> Result<T, E> {
        let now = time::wall();
        let run = self.0.blocking.run(|attempt| {
            let volume = Volume::open(attempt, now).map_err(&error)?;
            let value = operation(&volume)?;
            volume.close().map_err(&error)?;
            Ok(value)
        });
        run.await.unwrap_or_else(|failed| Err(error(Failure::Volume(failed.to_string()))))
    }

    async fn read_from<T>(&self, key: Key<'_>, operation: impl Fn(&Volume<'_>) -> Result<T, Failure>) -> Result<T, ReadError> {
        let error = |failure| read_error(key, &failure);
        self.run(error, |volume| operation(volume).map_err(error)).await
    }

    async fn write_to(&self, key: Key<'_>, operation: impl Fn(&Volume<'_>) -> Result<(), WriteError>) -> Result<(), WriteError> {
        self.0.writes.set(self.0.writes.get().wrapping_add(1));
        self.run(|failure| write_error(key, failure), operation).await
    }

    fn largest(&self) -> u64 {
        volume::largest(self.0.blocking.device().info())
    }

    /// The file of `key`.
    async fn file(&self, key: Key<'_>) -> Result<DirEntry, ReadError> {
        match self.read_from(key, |volume| volume.find(key)).await? {
            Some(entry) if !entry.attributes.is_directory() => {
                volume::check_size(&entry, self.largest()).map_err(|failure| read_error(key, &failure))?;
                Ok(entry)
            }
            found => Err(not_a_value(key, found.is_some() || key.is_root())),
        }
    }
}

/// Makes a change on a volume; its error names the key that is in question.
fn make(volume: &Volume<'_>, change: &Change<'_>) -> Result<(), WriteError> {
    match *change {
        Change::Set(key, value) => volume.set(key, value).map_err(|failure| write_error(key, failure)),
        Change::Remove(key) => volume.remove(key).map_err(|failure| write_error(key, failure)),
        Change::Rename(from, to) => volume.rename(from, to).map_err(|failure| match failure {
            Failure::NotFound | Failure::Volume(_) => write_error(from, failure),
            failure => write_error(to, failure),
        }),
    }
}

fn read_error(key: Key<'_>, failure: &Failure) -> ReadError {
    match failure {
        Failure::NotFound => ReadError::NotFound(key.to_string()),
        failure => ReadError::Unavailable { key: key.to_string(), reason: failure.to_string() },
    }
}

fn write_error(key: Key<'_>, failure: Failure) -> WriteError {
    let key = key.to_string();
    match failure {
        Failure::NotFound => WriteError::NotFound(key),
        Failure::Conflict => WriteError::Conflict(key),
        Failure::Exists => WriteError::Exists(key),
        Failure::NoSpace => WriteError::NoSpace(key),
        Failure::Name => WriteError::Unsupported { key, reason: "new names on a FAT volume have 8 characters, a dot and 3 at most" },
        failure => WriteError::Unavailable { key, reason: failure.to_string() },
    }
}

/// A file as a stream.
#[derive(Debug)]
pub struct FatReader<B> {
    fat: Fat<B>,
    key: String,
    entry: DirEntry,
    writes: u64,
    at: u32,
}

impl<B> ErrorType for FatReader<B> {
    type Error = ReadError;
}

impl<B: Block> Read for FatReader<B> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, ReadError> {
        let length = into.len().min(PART).min((self.entry.size - self.at) as usize);
        if length == 0 {
            return Ok(0);
        }
        let Ok(key) = Key::new(&self.key) else { return Err(ReadError::NotFound(self.key.clone())) };
        let at = self.at;
        let value = self.fat.read_from(key, |volume| volume.read(key, at, length)).await?;
        if self.fat.0.writes.get() != self.writes || value.len() != length {
            return Err(ReadError::Changed(self.key.clone()));
        }
        into[..length].copy_from_slice(&value);
        self.at += length as u32;
        Ok(length)
    }
}

impl<B: Block> ReadOnly for Fat<B> {
    type Value = Vec<u8>;
    type Reader = FatReader<B>;

    async fn exists(&self, key: Key<'_>) -> Result<Option<Kind>, ReadError> {
        if key.is_root() {
            return Ok(Some(Kind::Dictionary));
        }
        let found = self.read_from(key, |volume| volume.find(key)).await?;
        Ok(found.map(|entry| volume::kind(entry.attributes)))
    }

    async fn get(&self, key: Key<'_>) -> Result<Vec<u8>, ReadError> {
        let size = self.file(key).await?.size as usize;
        self.get_partial(key, 0, size).await
    }

    async fn get_partial(&self, key: Key<'_>, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let writes = self.0.writes.get();
        let entry = self.file(key).await?;
        let at = offset.min(entry.size.into()) as u32;
        let length = length.min((entry.size - at) as usize);
        let no_memory = |_| ReadError::Unavailable { key: key.to_string(), reason: format!("{length} bytes do not fit into memory") };
        let mut value = Vec::new();
        value.try_reserve_exact(length).map_err(no_memory)?;
        value.resize(length, 0);
        let mut reader = FatReader { fat: self.clone(), key: key.to_string(), entry, writes, at };
        let mut filled = 0;
        while filled < length {
            filled += reader.read(&mut value[filled..]).await?;
        }
        Ok(value)
    }

    async fn read(&self, key: Key<'_>) -> Result<FatReader<B>, ReadError> {
        let writes = self.0.writes.get();
        let entry = self.file(key).await?;
        Ok(FatReader { fat: self.clone(), key: key.to_string(), entry, writes, at: 0 })
    }

    async fn list(&self, key: Key<'_>) -> Result<Vec<Name>, ReadError> {
        if !key.is_root() && self.exists(key).await? == Some(Kind::Value) {
            return Err(ReadError::IsValue(key.to_string()));
        }
        let entries = self.read_from(key, |volume| volume.list(key)).await?;
        let mut names: Vec<Name> = entries.into_iter().map(|(name, kind, _)| Name { name, kind }).collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn size(&self, key: Key<'_>) -> Result<u64, ReadError> {
        Ok(self.file(key).await?.size.into())
    }

    async fn last_modified(&self, key: Key<'_>) -> Result<WallTime, ReadError> {
        self.read_from(key, |volume| volume.modified(key)).await
    }

    async fn digest(&self, key: Key<'_>) -> Result<Digest, ReadError> {
        Digest::of_stream(&mut self.read(key).await?).await
    }
}

impl<B: Block> ReadWrite for Fat<B> {
    async fn set(&self, key: Key<'_>, value: &[u8]) -> Result<(), WriteError> {
        self.write_to(key, |volume| make(volume, &Change::Set(key, value))).await
    }

    async fn set_stream<R: Read>(&self, key: Key<'_>, source: &mut R) -> Result<u64, StreamError<R::Error>> {
        let value = stream::collect(key, source).await?;
        self.set(key, &value).await?;
        Ok(value.len() as u64)
    }

    async fn batch(&self, changes: &[Change<'_>]) -> Result<(), WriteError> {
        let Some(Change::Set(first, _) | Change::Remove(first) | Change::Rename(first, _)) = changes.first() else { return Ok(()) };
        self.write_to(*first, |volume| changes.iter().try_for_each(|change| make(volume, change))).await
    }

    async fn set_partial(&self, key: Key<'_>, offset: u64, part: &[u8]) -> Result<(), WriteError> {
        let end = offset.checked_add(part.len() as u64).filter(|end| *end <= self.largest());
        let end = end.ok_or_else(|| WriteError::NoSpace(key.to_string()))? as usize;
        let write = |volume: &Volume<'_>| -> Result<(), Failure> {
            let mut value = match volume.find(key)? {
                Some(entry) if !entry.attributes.is_directory() => volume.read(key, 0, entry.size as usize)?,
                _ => Vec::new(),
            };
            let length = value.len().max(end);
            value.try_reserve(length - value.len()).map_err(|_| Failure::NoSpace)?;
            value.resize(length, 0);
            value[end - part.len()..end].copy_from_slice(part);
            volume.set(key, &value)
        };
        self.write_to(key, |volume| write(volume).map_err(|failure| write_error(key, failure))).await
    }

    async fn allocate(&self, key: Key<'_>, size: u64) -> Result<(), WriteError> {
        let no_space = || WriteError::NoSpace(key.to_string());
        let size = usize::try_from(size).ok().filter(|size| *size as u64 <= self.largest()).ok_or_else(no_space)?;
        let mut zeros = Vec::new();
        zeros.try_reserve_exact(size).map_err(|_| no_space())?;
        zeros.resize(size, 0);
        let write = |volume: &Volume<'_>| match volume.find(key)? {
            Some(entry) if !entry.attributes.is_directory() => Err(Failure::Exists),
            _ => volume.set(key, &zeros),
        };
        self.write_to(key, |volume| write(volume).map_err(|failure| write_error(key, failure))).await
    }

    async fn remove(&self, key: Key<'_>) -> Result<(), WriteError> {
        self.write_to(key, |volume| make(volume, &Change::Remove(key))).await
    }

    async fn rename(&self, from: Key<'_>, to: Key<'_>) -> Result<(), WriteError> {
        self.write_to(from, |volume| make(volume, &Change::Rename(from, to))).await
    }
}

#[cfg(test)]
mod tests;
