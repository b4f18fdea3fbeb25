//! A directory of the host as a store: each value is a file.
//!
//! A key never leads out of the directory, not even over a symbolic link: the host's kernel resolves it (openat2(2), `RESOLVE_BENEATH`). A value is
//! replaced by renaming a new file over it, so that a reader, and whoever comes after a crash, sees the old one or the new one whole.
//!
//! # What a power cut leaves
//! What `set`, `remove` and `rename` did is on stable storage when they return: the file, and each directory that was changed, are synchronised. A
//! value that was being written leaves a file whose name begins with `.fogbow-new-` at most, which is not listed, and which the next value that is set
//! beside it takes over. `remove` of a dictionary may be done in part; `rename` of one is not. Below the host's file system lie its own promises.
//!
//! Limits: a host's file system renames one file at a time: a batch of one change is made, a larger one is refused. A directory without files is a
//! dictionary, too. Linux 5.6 or later; file names that are not UTF-8 are not listed; calls block the image.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use embedded_io_async::ErrorType;
use fogbow::time::WallTime;
use fogbow_kv::{Change, Digest, Key, Kind, Name, ReadError, ReadOnly, ReadWrite, StreamError, WriteError};
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Access rights of new files and directories, before the process's umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// What a stream is written in at a time, in bytes.
const PART: usize = 64 * 1024;

/// How the names of files begin that are about to replace a value; no key leads to them. A number follows.
const TEMPORARY: &str = ".fogbow-new-";

/// A store over a directory of the host.
#[derive(Debug)]
pub struct Directory {
    root: OwnedFd,
}

impl Directory {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// What the host says, when it does not exist, is no directory, or may not be read.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let root = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { root })
    }

    /// Opens what is at `key`.
    fn open_at(&self, key: Key<'_>, flags: OFlags) -> rustix::io::Result<File> {
        if key.as_str().split('/').any(|segment| segment.starts_with(TEMPORARY)) {
            return Err(Errno::NOENT);
        }
        let path = if key.is_root() { "." } else { key.as_str() };
        let mode = if flags.contains(OFlags::CREATE) { FILE_MODE } else { Mode::empty() };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, mode, resolve).map(File::from)
    }

    /// Opens what is at `key` to read it, and tells its kind.
    fn find(&self, key: Key<'_>) -> Result<(File, std::fs::Metadata), ReadError> {
        let file = self.open_at(key, OFlags::RDONLY).map_err(|error| read_error(key, error.into()))?;
        let metadata = file.metadata().map_err(|error| read_error(key, error))?;
        if metadata.is_file() || metadata.is_dir() {
            Ok((file, metadata))
        } else {
            Err(ReadError::Unavailable { key: key.to_string(), reason: "it is neither a file nor a directory".into() })
        }
    }

    fn find_value(&self, key: Key<'_>) -> Result<(File, std::fs::Metadata), ReadError> {
        let (file, metadata) = self.find(key)?;
        if metadata.is_file() { Ok((file, metadata)) } else { Err(ReadError::IsDictionary(key.to_string())) }
    }

    /// The directory that holds `key`, made if it does not exist, and the key's last segment.
    fn parent<'k>(&self, key: Key<'k>) -> rustix::io::Result<(File, &'k str)> {
        let (above, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
        let open = |text: &str| self.open_at(Key::new(text).map_err(|_| Errno::INVAL)?, OFlags::RDONLY | OFlags::DIRECTORY);
        let mut directory = open("")?;
        let ends = above.match_indices('/').map(|(at, _)| at).chain((!above.is_empty()).then_some(above.len()));
        for end in ends {
            let path = &above[..end];
            directory = match open(path) {
                Err(Errno::NOENT) => {
                    let segment = path.rsplit('/').next().unwrap_or(path);
                    rustix::fs::mkdirat(&directory, segment, DIRECTORY_MODE)?;
                    directory.sync_all().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                    open(path)?
                }
                result => result?,
            };
        }
        Ok((directory, name))
    }

    /// Begins a new value beside the old one.
    fn begin(&self, key: Key<'_>) -> Result<Replacement, WriteError> {
        if matches!(self.find(key), Ok((_, metadata)) if metadata.is_dir()) {
            return Err(WriteError::Conflict(key.to_string()));
        }
        let failed = |error: Errno| write_error(key, error.into());
        let (parent, name) = self.parent(key).map_err(failed)?;
        if name.starts_with(TEMPORARY) {
            let reason = "names that begin with .fogbow-new- are the store's own";
            return Err(WriteError::Unsupported { key: key.to_string(), reason });
        }
        let (file, temporary) = temporary(&parent).map_err(failed)?;
        Ok(Replacement { file, parent, temporary, name: name.to_owned(), is_done: false })
    }

    /// Removes what is at `key`, and gives the directory that it was in; `None` where there was nothing.
    async fn unlink(&self, key: Key<'_>) -> Result<Option<File>, WriteError> {
        let failed = |error: Errno| write_error(key, error.into());
        let (above, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
        let parent = match self.open_at(Key::new(above).unwrap_or(Key::ROOT), OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            result => result.map_err(failed)?,
        };
        if let Ok(names) = self.list(key).await {
            for Name { name, .. } in names {
                // A name of the host that is no key cannot have been set here: it stays, and the directory with it.
                if let Ok(below) = Key::new(&format!("{key}/{name}")) {
                    Box::pin(self.unlink(below)).await?;
                }
            }
            self.remove_temporaries(key)?;
        }
        if key.is_root() {
            return Ok(Some(parent));
        }
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(failed)?,
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        Ok(Some(parent))
    }

    /// Removes what crashes left in a dictionary.
    fn remove_temporaries(&self, key: Key<'_>) -> Result<(), WriteError> {
        let failed = |error: Errno| write_error(key, error.into());
        let directory = self.open_at(key, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(name) = entry.file_name().to_str().ok().filter(|name| name.starts_with(TEMPORARY)) else { continue };
            let file = rustix::fs::openat(&directory, name, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            // What is locked is a value under way.
            if file.is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()) {
                rustix::fs::unlinkat(&directory, name, AtFlags::empty()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Writes a new value beside the old one and renames it into place.
    fn replace(&self, key: Key<'_>, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), WriteError> {
        let mut replacement = self.begin(key)?;
        write(&mut replacement.file).and_then(|()| replacement.finish()).map_err(|error| write_error(key, error))
    }
}

/// The first file for a new value that nobody is writing: what a crash left is taken over. Whoever writes one has it locked.
fn temporary(parent: &File) -> rustix::io::Result<(File, String)> {
    let mut number = 0;
    loop {
        let name = format!("{TEMPORARY}{number}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(parent, &name, flags, FILE_MODE)?);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => number += 1,
            Err(error) => return Err(error),
            // Before it was locked, its writer may have made it a value.
            Ok(()) if is_at(&file, parent, &name) => {
                rustix::fs::ftruncate(&file, 0)?;
                return Ok((file, name));
            }
            Ok(()) => {}
        }
    }
}

fn is_at(file: &File, parent: &File, name: &str) -> bool {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    matches!((found, rustix::fs::fstat(file)), (Ok(found), Ok(own)) if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino))
}

/// A new value under way; dropped before it is finished, it is gone.
struct Replacement {
    file: File,
    parent: File,
    temporary: String,
    name: String,
    is_done: bool,
}

impl Replacement {
    fn finish(mut self) -> io::Result<()> {
        self.file.sync_data()?;
        rustix::fs::renameat(&self.parent, &self.temporary, &self.parent, &self.name)?;
        self.is_done = true;
        self.parent.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_done {
            // The error that led here says more than a second one would.
            let _ = rustix::fs::unlinkat(&self.parent, &self.temporary, AtFlags::empty());
        }
    }
}

/// A value of a directory as a stream. A value that is replaced keeps its file for as long as it is open.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    key: String,
}

impl ErrorType for FileReader {
    type Error = ReadError;
}

impl embedded_io_async::Read for FileReader {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, ReadError> {
        let reason = |error: io::Error| ReadError::Unavailable { key: self.key.clone(), reason: error.to_string() };
        self.file.read(into).map_err(reason)
    }
}

impl ReadOnly for Directory {
    type Value = Vec<u8>;
    type Reader = FileReader;

    async fn exists(&self, key: Key<'_>) -> Result<Option<Kind>, ReadError> {
        match self.find(key) {
            Ok((_, metadata)) => Ok(Some(if metadata.is_file() { Kind::Value } else { Kind::Dictionary })),
            Err(ReadError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, key: Key<'_>) -> Result<Vec<u8>, ReadError> {
        let (mut file, metadata) = self.find_value(key)?;
        let mut value = Vec::new();
        value
            .try_reserve_exact(metadata.len() as usize)
            .map_err(|error| read_error(key, io::Error::new(io::ErrorKind::OutOfMemory, error)))?;
        file.read_to_end(&mut value).map_err(|error| read_error(key, error))?;
        Ok(value)
    }

    async fn get_partial(&self, key: Key<'_>, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let (mut file, metadata) = self.find_value(key)?;
        let mut value = Vec::new();
        if offset < metadata.len() {
            file.seek(SeekFrom::Start(offset)).map_err(|error| read_error(key, error))?;
            file.take(length as u64).read_to_end(&mut value).map_err(|error| read_error(key, error))?;
        }
        Ok(value)
    }

    async fn read(&self, key: Key<'_>) -> Result<FileReader, ReadError> {
        Ok(FileReader { file: self.find_value(key)?.0, key: key.to_string() })
    }

    async fn list(&self, key: Key<'_>) -> Result<Vec<Name>, ReadError> {
        let (file, metadata) = self.find(key)?;
        if metadata.is_file() {
            return Err(ReadError::IsValue(key.to_string()));
        }
        let entries = Dir::read_from(&file).map_err(|error| read_error(key, error.into()))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| read_error(key, error.into()))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let kind = match entry.file_type() {
                _ if name == "." || name == ".." || name.starts_with(TEMPORARY) => continue,
                FileType::RegularFile => Kind::Value,
                FileType::Directory => Kind::Dictionary,
                // Some file systems tell only when they are asked.
                FileType::Unknown => match rustix::fs::statat(&file, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(found) if FileType::from_raw_mode(found.st_mode).is_file() => Kind::Value,
                    Ok(found) if FileType::from_raw_mode(found.st_mode).is_dir() => Kind::Dictionary,
                    _ => continue,
                },
                _ => continue,
            };
            names.push(Name { name: name.to_owned(), kind });
        }
        names.sort_unstable();
        Ok(names)
    }

    async fn size(&self, key: Key<'_>) -> Result<u64, ReadError> {
        Ok(self.find_value(key)?.1.len())
    }

    async fn last_modified(&self, key: Key<'_>) -> Result<WallTime, ReadError> {
        let (mut latest, mut pending) = (WallTime::default(), vec![key.to_string()]);
        while let Some(text) = pending.pop() {
            // Names that are no keys cannot be asked for.
            let Ok(at) = Key::new(&text) else { continue };
            let (_, metadata) = match self.find(at) {
                // Somebody else may have removed it meanwhile.
                Err(ReadError::NotFound(_)) if at != key => continue,
                found => found?,
            };
            if metadata.is_file() {
                latest = latest.max(modified(&metadata).map_err(|error| read_error(at, error))?);
            } else {
                pending.extend(self.list(at).await?.into_iter().map(|below| format!("{at}/{}", below.name)));
            }
        }
        Ok(latest)
    }

    async fn digest(&self, key: Key<'_>) -> Result<Digest, ReadError> {
        Digest::of_stream(&mut self.read(key).await?).await
    }
}

fn modified(metadata: &std::fs::Metadata) -> io::Result<WallTime> {
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(WallTime::from_unix_nanos(since.as_nanos() as u64))
}

impl ReadWrite for Directory {
    async fn set(&self, key: Key<'_>, value: &[u8]) -> Result<(), WriteError> {
        self.replace(key, |file| file.write_all(value))
    }

    async fn set_stream<R: embedded_io_async::Read>(&self, key: Key<'_>, source: &mut R) -> Result<u64, StreamError<R::Error>> {
        let failed = |error: io::Error| StreamError::Store(write_error(key, error));
        let mut replacement = self.begin(key)?;
        let mut part = vec![0; PART];
        let mut length = 0;
        loop {
            let count = source.read(&mut part).await.map_err(StreamError::Source)?;
            if count == 0 {
                replacement.finish().map_err(failed)?;
                return Ok(length);
            }
            replacement.file.write_all(&part[..count]).map_err(failed)?;
            length += count as u64;
        }
    }

    async fn batch(&self, changes: &[Change<'_>]) -> Result<(), WriteError> {
        match *changes {
            [] => Ok(()),
            [Change::Set(key, value)] => self.set(key, value).await,
            [Change::Rename(from, to)] => self.rename(from, to).await,
            [Change::Remove(key)] if !matches!(self.find(key), Ok((_, found)) if found.is_dir()) => self.remove(key).await,
            [Change::Remove(key) | Change::Set(key, _) | Change::Rename(key, _), ..] => Err(WriteError::Unsupported {
                key: key.to_string(),
                reason: "a directory of the host changes one value at a time: give a store in memory or on a block device for batches",
            }),
        }
    }

    async fn set_partial(&self, key: Key<'_>, offset: u64, part: &[u8]) -> Result<(), WriteError> {
        let mut former = match self.find_value(key) {
            Ok((file, _)) => Some(file),
            Err(ReadError::NotFound(_)) => None,
            Err(ReadError::IsDictionary(_)) => return Err(WriteError::Conflict(key.to_string())),
            Err(error) => return Err(WriteError::Unavailable { key: key.to_string(), reason: error.to_string() }),
        };
        // The host counts bytes of files with 63 bits.
        let end = offset.checked_add(part.len() as u64).filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or_else(|| WriteError::NoSpace(key.to_string()))?;
        self.replace(key, |file| {
            if let Some(former) = &mut former {
                io::copy(former, file)?;
            }
            // The host does not lengthen a file by writing no bytes behind its end.
            if file.metadata()?.len() < end {
                file.set_len(end)?;
            }
            file.write_all_at(part, offset)
        })
    }

    async fn allocate(&self, key: Key<'_>, size: u64) -> Result<(), WriteError> {
        if matches!(self.find(key), Ok((_, metadata)) if metadata.is_file()) {
            return Err(WriteError::Exists(key.to_string()));
        }
        self.replace(key, |file| file.set_len(size))
    }

    async fn remove(&self, key: Key<'_>) -> Result<(), WriteError> {
        match self.unlink(key).await? {
            Some(parent) => parent.sync_all().map_err(|error| write_error(key, error)),
            None => Ok(()),
        }
    }

    async fn rename(&self, from: Key<'_>, to: Key<'_>) -> Result<(), WriteError> {
        let source = match self.find(from) {
            Ok((_, metadata)) => metadata,
            Err(ReadError::NotFound(key)) => return Err(WriteError::NotFound(key)),
            Err(error) => return Err(WriteError::Unavailable { key: from.to_string(), reason: error.to_string() }),
        };
        if from == to {
            return Ok(());
        }
        if to.below(from).is_some() {
            return Err(WriteError::Conflict(to.to_string()));
        }
        if matches!(self.find(to), Ok((_, target)) if target.is_dir() || source.is_dir()) {
            return Err(WriteError::Conflict(to.to_string()));
        }
        let (old_parent, old_name) = self.parent(from).map_err(|error| write_error(from, error.into()))?;
        let (new_parent, new_name) = self.parent(to).map_err(|error| write_error(to, error.into()))?;
        rustix::fs::renameat(&old_parent, old_name, &new_parent, new_name).map_err(|error| write_error(to, error.into()))?;
        new_parent.sync_all().and_then(|()| old_parent.sync_all()).map_err(|error| write_error(to, error))
    }
}

fn read_error(key: Key<'_>, error: io::Error) -> ReadError {
    let key = key.to_string();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::NotFound(key),
        io::ErrorKind::IsADirectory => ReadError::IsDictionary(key),
        _ => ReadError::Unavailable { key, reason: error.to_string() },
    }
}

fn write_error(key: Key<'_>, error: io::Error) -> WriteError {
    let key = key.to_string();
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => WriteError::Conflict(key),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => WriteError::NoSpace(key),
        _ => WriteError::Unavailable { key, reason: error.to_string() },
    }
}
