//! Reading: [`ReadOnly`] for the log store.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use embedded_io_async::{ErrorType, Read};
use fogbow::time::WallTime;
use fogbow_block::Block;

use super::entry::{CHUNK, META, Meta, Place, name_key};
use super::error::Fault;
use super::tree::{Found, Layers};
use super::{Inner, LogStore, Value};
use crate::{Digest, Key, Kind, Name, ReadError, ReadOnly, dictionary, not_a_value};

impl<B: Block> Inner<B> {
    /// What is at a name.
    async fn name(&self, key: Key<'_>) -> Result<Option<(Value, Meta)>, ReadError> {
        match self.find(&name_key(key.as_str()), Layers::COMMITTED).await.map_err(|fault| fault.read(key))? {
            Some(Found::Value(value)) => {
                let meta = Meta::parse(value.as_ref()).filter(|meta| meta.size() <= self.max_value());
                Ok(Some((value, meta.ok_or_else(|| Fault::Entry.read(key))?)))
            }
            _ => Ok(None),
        }
    }

    async fn value(&self, key: Key<'_>) -> Result<(Value, Meta), ReadError> {
        match self.name(key).await? {
            Some(found) => Ok(found),
            None => Err(not_a_value(key, self.is_dictionary(key).await?)),
        }
    }

    /// The first name at or after `from`, if it lies below `dictionary`.
    async fn first_below(&self, dictionary: Key<'_>, from: &str) -> Result<Option<String>, ReadError> {
        self.first_name(dictionary, from, Layers::COMMITTED).await.map_err(|fault| fault.read(dictionary))
    }

    async fn is_dictionary(&self, key: Key<'_>) -> Result<bool, ReadError> {
        Ok(key.is_root() || self.first_below(key, &dictionary::start_of(key)).await?.is_some())
    }

    /// Bytes of an object, which may be changed meanwhile: the caller looks again.
    async fn object(&self, object: u64, start: u64, end: u64) -> Result<Value, Fault> {
        const STEP: u64 = CHUNK as u64;
        let chunks = start / STEP..end.div_ceil(STEP);
        if chunks.end - chunks.start.min(chunks.end) <= 1 {
            let (from, to) = ((start % STEP) as usize, (start % STEP + (end - start)) as usize);
            let chunk = self.chunk(object, start / STEP, Layers::COMMITTED).await?;
            if chunk.as_ref().len() >= to {
                return Ok(chunk.part(from..to));
            }
        }
        let length = usize::try_from(end - start).map_err(|_| Fault::NoMemory)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| Fault::NoMemory)?;
        for number in chunks {
            let chunk = self.chunk(object, number, Layers::COMMITTED).await?;
            let from = start.saturating_sub(number * STEP) as usize;
            let to = (end - number * STEP).min(STEP) as usize;
            let present = chunk.part(from..to);
            bytes.extend_from_slice(present.as_ref());
            bytes.resize(bytes.len() + (to - from - present.as_ref().len()), 0);
        }
        Ok(bytes.into())
    }

    /// At most `length` bytes of a value from `offset` on.
    async fn range(&self, key: Key<'_>, offset: u64, length: usize) -> Result<Value, ReadError> {
        loop {
            let (value, meta) = self.value(key).await?;
            let start = offset.min(meta.size());
            let end = start.saturating_add(length as u64).min(meta.size());
            let Place::Object { object, .. } = meta.place else {
                return Ok(value.part(META + start as usize..META + end as usize));
            };
            let found = self.object(object, start, end).await;
            if self.is_still(key, meta.version).await? {
                return found.map_err(|fault| fault.read(key));
            }
        }
    }

    async fn is_still(&self, key: Key<'_>, version: u64) -> Result<bool, ReadError> {
        Ok(self.name(key).await?.is_some_and(|(_, meta)| meta.version == version))
    }
}

impl<B: Block> ReadOnly for LogStore<B> {
    type Value = Value;
    type Reader = Reader<B>;

    async fn exists(&self, key: Key<'_>) -> Result<Option<Kind>, ReadError> {
        Ok(match self.0.name(key).await? {
            Some(_) => Some(Kind::Value),
            None => self.0.is_dictionary(key).await?.then_some(Kind::Dictionary),
        })
    }

    async fn get(&self, key: Key<'_>) -> Result<Value, ReadError> {
        self.0.range(key, 0, usize::MAX).await
    }

    async fn get_partial(&self, key: Key<'_>, offset: u64, length: usize) -> Result<Value, ReadError> {
        self.0.range(key, offset, length).await
    }

    async fn read(&self, key: Key<'_>) -> Result<Reader<B>, ReadError> {
        let (value, meta) = self.0.value(key).await?;
        Ok(Reader { store: self.clone(), key: key.to_string(), meta, at: 0, part: value, part_at: None })
    }

    async fn list(&self, key: Key<'_>) -> Result<Vec<Name>, ReadError> {
        if self.0.name(key).await?.is_some() {
            return Err(ReadError::IsValue(key.to_string()));
        }
        let mut names = Vec::new();
        let mut from = dictionary::start_of(key);
        while let Some(found) = self.0.first_below(key, &from).await? {
            let Some(rest) = Key::new(&found).ok().and_then(|found| found.below(key)) else { break };
            let (name, kind) = rest.split_once('/').map_or((rest, Kind::Value), |(name, _)| (name, Kind::Dictionary));
            names.push(Name { name: name.to_owned(), kind });
            from = dictionary::behind(key, name, kind);
        }
        if names.is_empty() && !key.is_root() {
            return Err(ReadError::NotFound(key.to_string()));
        }
        // `a-b` sorts before `a/c`, but the name `a` before the name `a-b`.
        names.sort_unstable();
        Ok(names)
    }

    async fn size(&self, key: Key<'_>) -> Result<u64, ReadError> {
        Ok(self.0.value(key).await?.1.size())
    }

    async fn last_modified(&self, key: Key<'_>) -> Result<WallTime, ReadError> {
        if let Some((_, meta)) = self.0.name(key).await? {
            return Ok(WallTime::from_unix_nanos(meta.modified));
        }
        let mut from = dictionary::start_of(key);
        let mut latest = None;
        while let Some(found) = self.0.first_below(key, &from).await? {
            let found_key = Key::new(&found).map_err(|_| Fault::Entry.read(key))?;
            if let Some((_, meta)) = self.0.name(found_key).await? {
                latest = latest.max(Some(meta.modified));
            }
            from = found;
            from.push('\0');
        }
        match latest {
            None if !key.is_root() => Err(ReadError::NotFound(key.to_string())),
            latest => Ok(WallTime::from_unix_nanos(latest.unwrap_or_default())),
        }
    }

    async fn digest(&self, key: Key<'_>) -> Result<Digest, ReadError> {
        use sha2::Digest as _;
        'again: loop {
            let mut reader = self.read(key).await?;
            let mut digest = sha2::Sha256::new();
            loop {
                match reader.part().await {
                    Ok(part) if part.as_ref().is_empty() => return Ok(Digest(digest.finalize().into())),
                    Ok(part) => digest.update(&part),
                    Err(ReadError::Changed(_)) => continue 'again,
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// A value of a log store as a stream: it holds 64 KiB of it at a time.
#[derive(Debug)]
pub struct Reader<B> {
    store: LogStore<B>,
    key: String,
    meta: Meta,
    at: u64,
    /// The bytes around `at`: of a chunk with this number, or at first the entry of the tree.
    part: Value,
    part_at: Option<u64>,
}

impl<B: Block> Reader<B> {
    /// The next bytes; none at the end.
    async fn part(&mut self) -> Result<Value, ReadError> {
        let size = self.meta.size();
        let start = self.at;
        let Place::Object { object, .. } = self.meta.place else {
            self.at = size;
            return Ok(self.part.clone().part(META + start as usize..META + size as usize));
        };
        let number = start / CHUNK as u64;
        let first = number * CHUNK as u64;
        let end = (first + CHUNK as u64).min(size);
        if start < end && self.part_at != Some(number) {
            let key = Key::new(&self.key).map_err(|_| ReadError::NotFound(self.key.clone()))?;
            let found = self.store.0.object(object, first, end).await;
            if !self.store.0.is_still(key, self.meta.version).await? {
                return Err(ReadError::Changed(self.key.clone()));
            }
            self.part = found.map_err(|fault| fault.read(key))?;
            self.part_at = Some(number);
        }
        if start >= end {
            return Ok(self.part.clone().part(0..0));
        }
        self.at = end;
        Ok(self.part.clone().part((start - first) as usize..(end - first) as usize))
    }
}

impl<B> ErrorType for Reader<B> {
    type Error = ReadError;
}

impl<B: Block> Read for Reader<B> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, ReadError> {
        let start = self.at;
        let part = self.part().await?;
        let length = part.as_ref().len().min(into.len());
        into[..length].copy_from_slice(&part.as_ref()[..length]);
        self.at = start + length as u64;
        Ok(length)
    }
}
