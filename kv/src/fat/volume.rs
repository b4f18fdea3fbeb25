//! One operation on a volume: what it does to embedded-sdmmc, which blocks.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use embedded_sdmmc::{
    Attributes, DirEntry, Error, LfnBuffer, Mode, RawDirectory, RawVolume, ShortFileName, TimeSource, Timestamp, VolumeIdx, VolumeManager,
};
use fogbow::time::WallTime;
use fogbow_block::BlockInfo;
use fogbow_block::blocking::{Attempt, Interruption};

use super::disk::Disk;
use crate::Kind;
use crate::key::{Key, MAX_SEGMENT};

/// Directories and files that an operation has open at once.
const OPEN: usize = 4;

/// The most entries of a directory: 2 MiB of 32 bytes each (Microsoft, "FAT32 File System Specification", section 6).
const MOST_ENTRIES: usize = 65_536;

/// The first year that FAT can write, and the last.
const YEARS: core::ops::RangeInclusive<i16> = 1980..=2097;

/// Why an operation failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    NotFound,
    Exists,
    Conflict,
    NoSpace,
    Name,
    Volume(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is nothing"),
            Self::Exists => f.write_str("there is something already"),
            Self::Conflict => f.write_str("something is in the way"),
            Self::NoSpace => f.write_str("the volume is full"),
            Self::Name => f.write_str("the name is too long for a new one"),
            Self::Volume(reason) => f.write_str(reason),
        }
    }
}

impl From<Error<Interruption>> for Failure {
    fn from(error: Error<Interruption>) -> Self {
        match error {
            Error::NotFound => Self::NotFound,
            Error::FileAlreadyExists | Error::DirAlreadyExists => Self::Exists,
            Error::OpenedDirAsFile | Error::OpenedFileAsDir | Error::DeleteNonEmptyDir => Self::Conflict,
            Error::NotEnoughSpace | Error::DiskFull | Error::AllocationError => Self::NoSpace,
            Error::FilenameError(_) => Self::Name,
            other => Self::Volume(other.to_string()),
        }
    }
}

/// The time at which an operation began: each run of it writes the same.
struct Now(WallTime);

impl TimeSource for Now {
    fn get_timestamp(&self) -> Timestamp {
        let moment = jiff::Timestamp::from_nanosecond(self.0.as_unix_nanos().into()).unwrap_or_default();
        let date = jiff::tz::Offset::UTC.to_datetime(moment);
        Timestamp {
            year_since_1970: ((*YEARS.start()).max(date.year()).min(*YEARS.end()) - 1970) as u8,
            zero_indexed_month: (date.month() - 1) as u8,
            zero_indexed_day: (date.day() - 1) as u8,
            hours: date.hour() as u8,
            minutes: date.minute() as u8,
            seconds: date.second() as u8,
        }
    }
}

fn wall(time: Timestamp) -> WallTime {
    let fields = [time.zero_indexed_month + 1, time.zero_indexed_day + 1, time.hours, time.minutes, time.seconds].map(|field| field as i8);
    let [month, day, hour, minute, second] = fields;
    let date = jiff::civil::DateTime::new(1970 + i16::from(time.year_since_1970), month, day, hour, minute, second, 0);
    let moment = date.ok().and_then(|date| jiff::tz::Offset::UTC.to_timestamp(date).ok());
    WallTime::from_unix_nanos(moment.map_or(0, |moment| u64::try_from(moment.as_nanosecond()).unwrap_or(0)))
}

pub(super) fn kind(attributes: Attributes) -> Kind {
    if attributes.is_directory() { Kind::Dictionary } else { Kind::Value }
}

/// A volume during one run of an operation.
pub(super) struct Volume<'a> {
    manager: VolumeManager<Disk<'a>, Now, OPEN, OPEN, 1>,
    volume: RawVolume,
    /// The most bytes of a file.
    largest: u64,
}

impl<'a> Volume<'a> {
    pub(super) fn open(attempt: &'a Attempt<'a>, now: WallTime) -> Result<Self, Failure> {
        let manager = VolumeManager::new_with_limits(Disk::new(attempt)?, Now(now), 1);
        let volume = manager.open_raw_volume(VolumeIdx(0))?;
        Ok(Self { manager, volume, largest: largest(attempt.info()) })
    }

    /// Ends an operation: a volume that is closed has written what it knows of free space.
    pub(super) fn close(self) -> Result<(), Failure> {
        Ok(self.manager.close_volume(self.volume)?)
    }

    /// Looks at what is in an open directory, with the names that it shows.
    fn visit(&self, directory: RawDirectory, mut look: impl FnMut(&str, &DirEntry)) -> Result<(), Failure> {
        // A name of 255 UTF-16 units takes three times as many bytes at most.
        let mut storage = [0; 3 * MAX_SEGMENT];
        let mut names = LfnBuffer::new(&mut storage);
        let mut count = 0;
        self.manager.iterate_dir_lfn(directory, &mut names, |entry, long| {
            count += 1;
            if count > MOST_ENTRIES {
                return core::ops::ControlFlow::Break(());
            }
            let short = entry.name.to_string();
            let name = long.unwrap_or(&short);
            if !entry.attributes.is_volume() {
                look(name, entry);
            }
            core::ops::ControlFlow::Continue(())
        })?;
        if count > MOST_ENTRIES {
            return Err(Failure::Volume("a directory has more entries than there can be: the volume is damaged".into()));
        }
        Ok(())
    }

    fn entry(&self, directory: RawDirectory, segment: &str) -> Result<Option<DirEntry>, Failure> {
        let (mut exact, mut other) = (None, None);
        self.visit(directory, |name, entry| {
            if name == segment {
                exact.get_or_insert_with(|| entry.clone());
            } else if name.eq_ignore_ascii_case(segment) || entry.name.to_string().eq_ignore_ascii_case(segment) {
                other.get_or_insert_with(|| entry.clone());
            }
        })?;
        let Some(entry): Option<DirEntry> = exact.or(other) else { return Ok(None) };
        // Files are opened by their short names: of two that have the same, embedded-sdmmc takes the first. And some numbers of clusters make it panic.
        let opened = self.manager.find_directory_entry(directory, entry.name)?;
        if opened.attributes.is_volume() {
            return Err(label(segment));
        }
        if (opened.entry_block, opened.entry_offset) != (entry.entry_block, entry.entry_offset) {
            return Err(Failure::Volume(alloc::format!("{segment} is there twice: the volume is damaged")));
        }
        let cluster = self.manager.device(|disk| disk.first_cluster(&entry))?;
        if cluster != 0 && !self.manager.device(|disk| disk.has(cluster)) {
            return Err(Failure::Volume(alloc::format!("{segment} begins at a cluster that there is not: the volume is damaged")));
        }
        Ok(Some(entry))
    }

    /// The short name of what is to be made in a directory that has nothing of this name but, perhaps, the volume's label: embedded-sdmmc would take that.
    fn new_name(&self, directory: RawDirectory, segment: &str) -> Result<ShortFileName, Failure> {
        let name = ShortFileName::create_from_str(segment).map_err(|_| Failure::Name)?;
        match self.manager.find_directory_entry(directory, name) {
            Err(Error::NotFound) => Ok(name),
            Ok(_) => Err(label(segment)),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory of these segments; makes those that are missing if that is wished, else gives `None`.
    fn directory<'k>(&self, segments: impl Iterator<Item = &'k str>, makes: bool) -> Result<Option<RawDirectory>, Failure> {
        let mut directory = self.manager.open_root_dir(self.volume)?;
        for segment in segments {
            let name = match self.entry(directory, segment)? {
                Some(entry) if !entry.attributes.is_directory() => {
                    self.manager.close_dir(directory)?;
                    return if makes { Err(Failure::Conflict) } else { Ok(None) };
                }
                Some(entry) => entry.name,
                None if makes => {
                    let name = self.new_name(directory, segment)?;
                    self.manager.make_dir_in_dir(directory, name)?;
                    name
                }
                None => {
                    self.manager.close_dir(directory)?;
                    return Ok(None);
                }
            };
            let below = self.manager.open_dir(directory, name)?;
            self.manager.close_dir(directory)?;
            directory = below;
        }
        Ok(Some(directory))
    }

    /// Opens the directory above a key, and gives the key's last segment.
    fn above<'k>(&self, key: Key<'k>, makes: bool) -> Result<Option<(RawDirectory, &'k str)>, Failure> {
        let (above, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
        let segments = above.split('/').filter(|segment| !segment.is_empty());
        Ok(self.directory(segments, makes)?.map(|directory| (directory, name)))
    }

    pub(super) fn find(&self, key: Key<'_>) -> Result<Option<DirEntry>, Failure> {
        let Some((directory, name)) = self.above(key, false)? else { return Ok(None) };
        let entry = self.entry(directory, name)?;
        self.manager.close_dir(directory)?;
        Ok(entry)
    }

    pub(super) fn list(&self, key: Key<'_>) -> Result<Vec<(String, Kind, DirEntry)>, Failure> {
        let segments = key.as_str().split('/').filter(|segment| !segment.is_empty());
        let directory = self.directory(segments, false)?.ok_or(Failure::NotFound)?;
        let mut entries = Vec::new();
        self.visit(directory, |name, entry| {
            // A name that is no key cannot be asked for: `.` and `..` are none.
            if !name.contains('/') && Key::new(name).is_ok() {
                entries.push((name.to_string(), kind(entry.attributes), entry.clone()));
            }
        })?;
        self.manager.close_dir(directory)?;
        Ok(entries)
    }

    /// At most `length` bytes of a file from `at` on.
    pub(super) fn read(&self, key: Key<'_>, at: u32, length: usize) -> Result<Vec<u8>, Failure> {
        let (directory, name) = self.above(key, false)?.ok_or(Failure::NotFound)?;
        let entry = self.entry(directory, name)?.ok_or(Failure::NotFound)?;
        let file = self.manager.open_file_in_dir(directory, entry.name, Mode::ReadOnly)?;
        self.manager.file_seek_from_start(file, at.min(entry.size))?;
        check_size(&entry, self.largest)?;
        let length = length.min((entry.size - at.min(entry.size)) as usize);
        let mut value = Vec::new();
        value.try_reserve_exact(length).map_err(|_| Failure::Volume(alloc::format!("{length} bytes do not fit into memory")))?;
        value.resize(length, 0);
        let mut filled = 0;
        while filled < value.len() {
            match self.manager.read(file, &mut value[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        value.truncate(filled);
        self.manager.close_file(file)?;
        self.manager.close_dir(directory)?;
        Ok(value)
    }

    pub(super) fn set(&self, key: Key<'_>, value: &[u8]) -> Result<(), Failure> {
        if key.is_root() {
            return Err(Failure::Conflict);
        }
        if value.len() as u64 > self.largest {
            return Err(Failure::NoSpace);
        }
        let (directory, name) = self.above(key, true)?.ok_or(Failure::NotFound)?;
        let former = self.entry(directory, name)?;
        let name = match &former {
            Some(entry) => entry.name,
            None => self.new_name(directory, name)?,
        };
        let file = self.manager.open_file_in_dir(directory, name, Mode::ReadWriteCreateOrTruncate)?;
        // A file of no bytes has no cluster.
        if !value.is_empty() {
            self.manager.write(file, value)?;
        }
        self.manager.close_file(file)?;
        if let Some(former) = former.filter(|_| value.is_empty()) {
            self.manager.device(|disk| disk.empty(&former))?;
        }
        Ok(self.manager.close_dir(directory)?)
    }

    /// What is below a directory, each directory before what it holds.
    ///
    /// Not by recursion: how deep directories lie, the volume says. One that leads to itself would have no end.
    fn below(&self, key: Key<'_>, entry: Option<&DirEntry>) -> Result<Vec<(String, DirEntry)>, Failure> {
        let mut seen: BTreeSet<_> = entry.map(|entry| entry.cluster).into_iter().collect();
        let mut found = Vec::new();
        let mut pending = vec![key.to_string()];
        while let Some(at) = pending.pop() {
            let directory = Key::new(&at).map_err(|_| Failure::Volume(alloc::format!("{at} lies deeper than keys reach")))?;
            for (name, kind, entry) in self.list(directory)? {
                let name = if at.is_empty() { name } else { alloc::format!("{at}/{name}") };
                if kind == Kind::Dictionary {
                    if !seen.insert(entry.cluster) {
                        return Err(Failure::Volume(alloc::format!(
                            "{name} is a directory that is found in two places: the volume is damaged"
                        )));
                    }
                    pending.push(name.clone());
                }
                found.push((name, entry));
            }
        }
        Ok(found)
    }

    pub(super) fn remove(&self, key: Key<'_>) -> Result<(), Failure> {
        let entry = if key.is_root() { None } else { self.find(key)? };
        if entry.is_none() && !key.is_root() {
            return Ok(());
        }
        if entry.as_ref().is_none_or(|entry| entry.attributes.is_directory()) {
            let below = self.below(key, entry.as_ref())?;
            let directories = below.iter().rev().map(|(_, entry)| entry).filter(|entry| entry.attributes.is_directory());
            self.manager.device(|disk| -> Result<(), Interruption> {
                // What is deepest first: whatever lies in a directory goes with it.
                for directory in directories.chain(&entry) {
                    disk.clear(disk.first_cluster(directory)?)?;
                }
                if key.is_root() { disk.clear(0) } else { Ok(()) }
            })?;
        }
        if key.is_root() { Ok(()) } else { self.delete(key) }
    }

    /// Removes a file or an empty directory.
    fn delete(&self, key: Key<'_>) -> Result<(), Failure> {
        let Some((directory, name)) = self.above(key, false)? else { return Ok(()) };
        if let Some(entry) = self.entry(directory, name)? {
            let parent = match key.as_str().rsplit_once('/') {
                Some((above, _)) => self.find(Key::new(above).map_err(|_| Failure::NotFound)?)?,
                None => None,
            };
            let cluster = self.manager.device(|disk| -> Result<u32, Interruption> {
                let parent = parent.map_or(Ok(0), |parent| disk.first_cluster(&parent))?;
                disk.remove_long_name(parent, &entry)?;
                disk.first_cluster(&entry)
            })?;
            self.manager.delete_entry_in_dir(directory, entry.name)?;
            self.manager.device(|disk| disk.free(cluster))?;
        }
        Ok(self.manager.close_dir(directory)?)
    }

    pub(super) fn rename(&self, from: Key<'_>, to: Key<'_>) -> Result<(), Failure> {
        let entry = self.find(from)?.ok_or(Failure::NotFound)?;
        if entry.attributes.is_directory() {
            return Err(Failure::Volume("dictionaries of a FAT volume cannot be renamed: rename their values".into()));
        }
        if from == to {
            return Ok(());
        }
        if to.below(from).is_some() {
            return Err(Failure::Conflict);
        }
        let value = self.read(from, 0, entry.size as usize)?;
        self.remove(from)?;
        self.set(to, &value)
    }

    /// When a file was written, or the latest of those below a directory.
    pub(super) fn modified(&self, key: Key<'_>) -> Result<WallTime, Failure> {
        let entry = if key.is_root() { None } else { Some(self.find(key)?.ok_or(Failure::NotFound)?) };
        match entry {
            Some(entry) if !entry.attributes.is_directory() => Ok(wall(entry.mtime)),
            entry => {
                let below = self.below(key, entry.as_ref())?;
                let times = below.iter().filter(|(_, entry)| !entry.attributes.is_directory()).map(|(_, entry)| wall(entry.mtime));
                Ok(times.max().unwrap_or_default())
            }
        }
    }
}

fn label(segment: &str) -> Failure {
    Failure::Volume(alloc::format!(
        "{segment} is the volume's label, which embedded-sdmmc takes for a file: choose another name, or another label"
    ))
}

/// The most bytes of a file on such a device: all that there are, and no more than FAT counts with 32 bits.
pub(super) fn largest(info: BlockInfo) -> u64 {
    info.capacity().min(u32::MAX.into())
}

/// Checks that a file is not larger than it can be, before memory is taken for it.
pub(super) fn check_size(entry: &DirEntry, largest: u64) -> Result<(), Failure> {
    if u64::from(entry.size) <= largest {
        return Ok(());
    }
    Err(Failure::Volume("the file is larger than the volume: the volume is damaged".into()))
}
