//! A tar archive on a block device as a store: for exchange with the host, where `tar` makes and reads it.
//!
//! The archive (POSIX.1-2017 ustar, and GNU's and pax's long names) begins at the device's first byte. Opening it reads every header once and keeps the
//! keys in memory; a value is read from its place. Setting a value appends it where the archive ended: its data and the new end first, a
//! flush, then its header, and a flush. So a power cut leaves the archive with the value or without. Of members with the same name the last counts, as for `tar` itself.
//!
//! Limits: nothing is removed, renamed or changed in place, and no room is reclaimed: `set` appends anew. A batch of one change. Directories,
//! links and devices among the members are passed over, and a member whose name is no [`Key`] is an error, unless it is `./` alone. Headers
//! are not authenticated: a checksum of a header tells accidents alone, and there is none of the data. While one value is being appended others wait.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::fmt;
use core::ops::Bound;

use embedded_io_async::{ErrorType, Read};
use fogbow::lock::Lock;
use fogbow::time::{self, WallTime};
use fogbow_block::{Block, BlockError};

use crate::key::{Key, KeyError};
use crate::{Change, Digest, Kind, Name, ReadError, ReadOnly, ReadWrite, StreamError, WriteError, dictionary, not_a_value};

mod header;

use header::{Header, UNIT};

/// Bytes of a value that are read or written at a time.
const PART: usize = 64 * 1024;

/// An archive on a block device. Cloning gives another handle to it.
#[derive(Debug)]
pub struct Tar<B>(Rc<Archive<B>>);

#[derive(Debug)]
struct Archive<B> {
    device: B,
    members: RefCell<BTreeMap<String, Member>>,
    /// Where the next header goes: behind the last member.
    end: Cell<u64>,
    /// Held by whoever appends.
    appending: Lock<()>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    /// Where the value begins on the device, and its length, in bytes.
    offset: u64,
    length: u64,
    modified: WallTime,
}

/// Why a device is no archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TarError {
    /// The device does not read.
    Device(BlockError),
    /// A header is not one.
    Header {
        /// Where it is, in bytes from the beginning of the device.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A member's name is no key.
    Name {
        /// The name.
        name: String,
        /// Why.
        reason: KeyError,
    },
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Header { offset, reason } => {
                write!(
                    f,
                    "there is no tar archive on the device, or it is damaged: byte {offset}: {reason}; make one with tar --format=ustar -cf"
                )
            }
            Self::Name { name, reason } => {
                write!(f, "the archive's member '{name}' cannot be a key: {reason}: make the archive without it")
            }
        }
    }
}

impl core::error::Error for TarError {}

impl From<BlockError> for TarError {
    fn from(error: BlockError) -> Self {
        Self::Device(error)
    }
}

impl<B> Clone for Tar<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<B: Block> Tar<B> {
    /// Reads the archive on `device`. A device whose first bytes are zeros is an empty one.
    ///
    /// # Errors
    /// [`TarError`].
    pub async fn open(device: B) -> Result<Self, TarError> {
        let archive = Archive { device, members: RefCell::default(), end: Cell::new(0), appending: Lock::new(()) };
        let capacity = archive.device.info().capacity();
        let (mut offset, mut long_name) = (0, None);
        while offset + UNIT as u64 <= capacity {
            let wrong = |reason| TarError::Header { offset, reason };
            let mut block = [0; UNIT];
            archive.read_at(offset, &mut block).await?;
            let Some(header) = Header::read(&block).map_err(wrong)? else { break };
            let data = offset + UNIT as u64;
            let end = header.length.checked_next_multiple_of(UNIT as u64).and_then(|room| data.checked_add(room));
            let end = end.filter(|end| *end <= capacity).ok_or(wrong("the member does not end on the device"))?;
            match header.kind {
                header::Kind::File => {
                    let name = long_name.take().unwrap_or(header.name);
                    let key = Key::new(name.strip_prefix("./").unwrap_or(&name));
                    let key = key.map_err(|reason| TarError::Name { name: name.clone(), reason })?;
                    let member = Member { offset: data, length: header.length, modified: header.modified };
                    archive.members.borrow_mut().insert(key.as_str().to_owned(), member);
                }
                header::Kind::LongName | header::Kind::Extended if header.length > header::LONGEST_EXTENSION => {
                    return Err(wrong("a long name is longer than any key"));
                }
                header::Kind::LongName | header::Kind::Extended => {
                    let mut text = vec![0; (end - data) as usize];
                    archive.read_at(data, &mut text).await?;
                    text.truncate(header.length as usize);
                    long_name = match header.kind {
                        header::Kind::LongName => Some(header::text(&text).map_err(wrong)?),
                        _ => header::extended_name(&text).map_err(wrong)?.or(long_name),
                    };
                }
                header::Kind::Other => long_name = None,
            }
            offset = end;
        }
        archive.end.set(offset);
        archive.check_places()?;
        Ok(Self(Rc::new(archive)))
    }
}

impl<B: Block> Archive<B> {
    /// Checks that no value lies below another.
    fn check_places(&self) -> Result<(), TarError> {
        let members = self.members.borrow();
        for name in members.keys() {
            let above = Key::new(name).ok().and_then(|key| key.ancestors().find(|above| members.contains_key(above.as_str())));
            if let Some(above) = above {
                let offset = members.get(above.as_str()).map_or(0, |member| member.offset - UNIT as u64);
                return Err(TarError::Header { offset, reason: "a member lies below another that is a file" });
            }
        }
        Ok(())
    }

    fn find(&self, key: Key<'_>) -> Result<Member, ReadError> {
        let members = self.members.borrow();
        members.get(key.as_str()).copied().ok_or_else(|| not_a_value(key, is_dictionary(&members, key)))
    }

    /// Reads bytes, wherever sectors begin.
    async fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let size = self.device.info().sector_size as u64;
        let (first, end) = (offset / size, (offset + into.len() as u64).div_ceil(size));
        if offset.is_multiple_of(size) && (into.len() as u64).is_multiple_of(size) {
            return self.device.read(first, into).await;
        }
        let mut sectors = vec![0; ((end - first) * size) as usize];
        self.device.read(first, &mut sectors).await?;
        let start = (offset - first * size) as usize;
        into.copy_from_slice(&sectors[start..start + into.len()]);
        Ok(())
    }

    /// Writes bytes, and keeps what else is in their sectors.
    async fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), BlockError> {
        let size = self.device.info().sector_size as u64;
        let (first, end) = (offset / size, (offset + data.len() as u64).div_ceil(size));
        let mut sectors = vec![0; ((end - first) * size) as usize];
        let start = (offset - first * size) as usize;
        if start != 0 || data.len() != sectors.len() {
            self.device.read(first, &mut sectors).await?;
        }
        sectors[start..start + data.len()].copy_from_slice(data);
        self.device.write(first, &sectors).await
    }

    async fn read_part(&self, key: &str, member: Member, offset: u64, into: &mut [u8]) -> Result<usize, ReadError> {
        let length = member.length.saturating_sub(offset).min(into.len() as u64) as usize;
        let read = self.read_at(member.offset + offset, &mut into[..length]).await;
        read.map_err(|error| ReadError::Unavailable { key: key.to_owned(), reason: error.to_string() })?;
        Ok(length)
    }

    /// Checks that a value can be appended at `key`.
    fn check_place(&self, key: Key<'_>) -> Result<(), WriteError> {
        let members = self.members.borrow();
        match is_dictionary(&members, key) || key.ancestors().any(|above| members.contains_key(above.as_str())) {
            true => Err(WriteError::Conflict(key.to_string())),
            false => Ok(()),
        }
    }

    /// Whether a value of so many bytes can be appended at `key`: a header has room for its length, and the device for it and what goes with it.
    fn has_room(&self, key: Key<'_>, length: u64) -> bool {
        // Its names and its header, and two units of zeros behind it, which end the archive.
        let rest = header::names(key.as_str()).len() as u64 + 3 * UNIT as u64;
        let room = self.device.info().capacity().saturating_sub(self.end.get());
        length <= header::LARGEST && length.next_multiple_of(UNIT as u64) + rest <= room
    }

    /// Appends a value of `length` bytes.
    async fn append_all<R>(&self, key: Key<'_>, length: u64, source: &mut R) -> Result<(), WriteError>
    where
        R: Read<Error = Infallible>,
    {
        match self.append(key, length, source).await {
            Ok(_) => Ok(()),
            Err(StreamError::Store(error)) => Err(error),
            Err(StreamError::Source(never)) => match never {},
        }
    }

    /// Appends a value of `least` bytes or more, and gives their number.
    async fn append<R: Read>(&self, key: Key<'_>, least: u64, source: &mut R) -> Result<u64, StreamError<R::Error>> {
        let _appending = self.appending.lock().await;
        let failed = |error: BlockError| WriteError::Unavailable { key: key.to_string(), reason: error.to_string() };
        let no_space = || WriteError::NoSpace(key.to_string());
        self.check_place(key)?;
        if !self.has_room(key, least) {
            return Err(no_space().into());
        }
        let names = header::names(key.as_str());
        let start = self.end.get();
        let data = start + names.len() as u64 + UNIT as u64;
        let mut part = vec![0; PART];
        let mut length = 0;
        loop {
            let filled = fill(source, &mut part).await?;
            if filled == 0 {
                break;
            }
            if !self.has_room(key, length + filled as u64) {
                return Err(no_space().into());
            }
            let room = filled.next_multiple_of(UNIT);
            part[filled..room].fill(0);
            self.write_at(data + length, &part[..room]).await.map_err(failed)?;
            length += filled as u64;
            if filled < PART {
                break;
            }
        }
        let end = data + length.next_multiple_of(UNIT as u64);
        let modified = time::wall();
        let header = Header::write(key.as_str(), length, modified);
        self.write_at(end, &[0; 2 * UNIT]).await.map_err(failed)?;
        // Behind a long name, the header proper is no end of the archive: only the first unit decides whether there is more.
        let (first, rest) = names.split_at(names.len().min(UNIT));
        let behind = [rest, &header].concat();
        match names.is_empty() {
            true => self.device.flush().await.map_err(failed)?,
            false => {
                self.write_at(start + UNIT as u64, &behind).await.map_err(failed)?;
                self.device.flush().await.map_err(failed)?;
            }
        }
        let first = if names.is_empty() { &header[..] } else { first };
        self.write_at(start, first).await.map_err(failed)?;
        self.device.flush().await.map_err(failed)?;
        self.end.set(end);
        self.members.borrow_mut().insert(key.as_str().to_owned(), Member { offset: data, length, modified });
        Ok(length)
    }
}

/// Reads until `part` is full or the source ends.
async fn fill<R: Read>(source: &mut R, part: &mut [u8]) -> Result<usize, StreamError<R::Error>> {
    let mut filled = 0;
    while filled < part.len() {
        match source.read(&mut part[filled..]).await.map_err(StreamError::Source)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn is_dictionary(members: &BTreeMap<String, Member>, key: Key<'_>) -> bool {
    dictionary::is_dictionary(key, |text| first_at(members, text))
}

fn first_at<'m>(members: &'m BTreeMap<String, Member>, text: &str) -> Option<&'m str> {
    members.range::<str, _>((Bound::Included(text), Bound::Unbounded)).next().map(|(key, _)| key.as_str())
}

/// A value of an archive as a stream.
#[derive(Debug)]
pub struct TarReader<B> {
    archive: Rc<Archive<B>>,
    key: String,
    member: Member,
    at: u64,
}

impl<B> ErrorType for TarReader<B> {
    type Error = ReadError;
}

impl<B: Block> Read for TarReader<B> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, ReadError> {
        let count = self.archive.read_part(&self.key, self.member, self.at, into).await?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<B: Block> ReadOnly for Tar<B> {
    type Value = Vec<u8>;
    type Reader = TarReader<B>;

    async fn exists(&self, key: Key<'_>) -> Result<Option<Kind>, ReadError> {
        match self.0.find(key) {
            Ok(_) => Ok(Some(Kind::Value)),
            Err(ReadError::IsDictionary(_)) => Ok(Some(Kind::Dictionary)),
            Err(_) => Ok(None),
        }
    }

    async fn get(&self, key: Key<'_>) -> Result<Vec<u8>, ReadError> {
        let length = usize::try_from(self.0.find(key)?.length).unwrap_or(usize::MAX);
        self.get_partial(key, 0, length).await
    }

    async fn get_partial(&self, key: Key<'_>, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let member = self.0.find(key)?;
        let length = member.length.saturating_sub(offset).min(length as u64);
        let no_memory = || ReadError::Unavailable { key: key.to_string(), reason: format!("{length} bytes do not fit into memory") };
        let mut value = Vec::new();
        value.try_reserve_exact(usize::try_from(length).map_err(|_| no_memory())?).map_err(|_| no_memory())?;
        value.resize(length as usize, 0);
        self.0.read_part(key.as_str(), member, offset, &mut value).await?;
        Ok(value)
    }

    async fn read(&self, key: Key<'_>) -> Result<TarReader<B>, ReadError> {
        Ok(TarReader { archive: Rc::clone(&self.0), key: key.as_str().to_owned(), member: self.0.find(key)?, at: 0 })
    }

    async fn list(&self, key: Key<'_>) -> Result<Vec<Name>, ReadError> {
        match self.0.find(key) {
            Ok(_) => Err(ReadError::IsValue(key.to_string())),
            Err(ReadError::IsDictionary(_)) => {
                let members = self.0.members.borrow();
                Ok(dictionary::names(key, |text| first_at(&members, text)))
            }
            Err(error) => Err(error),
        }
    }

    async fn size(&self, key: Key<'_>) -> Result<u64, ReadError> {
        Ok(self.0.find(key)?.length)
    }

    async fn last_modified(&self, key: Key<'_>) -> Result<WallTime, ReadError> {
        match self.0.find(key) {
            Ok(member) => Ok(member.modified),
            Err(ReadError::IsDictionary(_)) => {
                let start = dictionary::start_of(key);
                let members = self.0.members.borrow();
                let below = members.range(start.clone()..).take_while(|(key, _)| key.starts_with(&start));
                Ok(below.map(|(_, member)| member.modified).max().unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }

    async fn digest(&self, key: Key<'_>) -> Result<Digest, ReadError> {
        Digest::of_stream(&mut self.read(key).await?).await
    }
}

impl<B: Block> ReadWrite for Tar<B> {
    async fn set(&self, key: Key<'_>, value: &[u8]) -> Result<(), WriteError> {
        self.0.append_all(key, value.len() as u64, &mut &*value).await
    }

    async fn set_stream<R: Read>(&self, key: Key<'_>, source: &mut R) -> Result<u64, StreamError<R::Error>> {
        self.0.append(key, 0, source).await
    }

    async fn batch(&self, changes: &[Change<'_>]) -> Result<(), WriteError> {
        match *changes {
            [] => Ok(()),
            [Change::Set(key, value)] => self.set(key, value).await,
            [first, ..] => Err(unsupported(first.key())),
        }
    }

    async fn set_partial(&self, key: Key<'_>, _: u64, _: &[u8]) -> Result<(), WriteError> {
        Err(unsupported(key))
    }

    async fn allocate(&self, key: Key<'_>, size: u64) -> Result<(), WriteError> {
        if self.0.find(key).is_ok() {
            return Err(WriteError::Exists(key.to_string()));
        }
        self.0.append_all(key, size, &mut Zeros(size)).await
    }

    async fn remove(&self, key: Key<'_>) -> Result<(), WriteError> {
        match self.exists(key).await {
            Ok(None) => Ok(()),
            _ => Err(unsupported(key)),
        }
    }

    async fn rename(&self, from: Key<'_>, _: Key<'_>) -> Result<(), WriteError> {
        Err(unsupported(from))
    }
}

fn unsupported(key: Key<'_>) -> WriteError {
    WriteError::Unsupported { key: key.to_string(), reason: "an archive takes whole values, one at a time, and keeps what it has" }
}

/// So many zeros.
struct Zeros(u64);

impl ErrorType for Zeros {
    type Error = Infallible;
}

impl Read for Zeros {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Self::Error> {
        let count = self.0.min(into.len() as u64);
        into[..count as usize].fill(0);
        self.0 -= count;
        Ok(count as usize)
    }
}

#[cfg(test)]
mod tests;
