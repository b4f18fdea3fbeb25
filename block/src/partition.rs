//! Partition tables, MBR and GPT: which ranges of a disk are what.
//!
//! A GPT is read by gpt_disk_io and believed when its checksums are right; when those of the first are not, the second, at the end of the disk, is
//! read. An MBR gives its four primary partitions. Each partition that lies on the disk is opened as a [`View`].
//!
//! Limits: tables are read, not written; no logical partitions of an extended one (the extended one itself is listed).

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use gpt_disk_io::gpt_disk_types::{BlockSize, GptHeader, Guid, Lba};
use gpt_disk_io::{BlockIo, Disk};

use crate::blocking::{Attempt, Blocking, Interruption};
use crate::{Block, BlockError, View, ViewError};

/// The largest array of entries that is read, in bytes: 64 times what a GPT usually has.
const LARGEST_ARRAY: u64 = 1 << 20;

/// Memory for the sectors of a table while it is read, in bytes.
const MEMORY: usize = 4 << 20;

/// Where the four entries of an MBR begin, their size, and the signature behind them.
const MBR_ENTRIES: usize = 446;
const MBR_ENTRY: usize = 16;
const MBR_SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// The type of the one partition of an MBR that stands before a GPT (UEFI 2.10, table 5.4).
const PROTECTIVE: u8 = 0xee;

/// What a disk is divided into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The kind of table.
    pub kind: TableKind,
    /// The partitions, in the table's order.
    pub partitions: Vec<Partition>,
}

/// The kinds of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// A master boot record.
    Mbr,
    /// A GUID partition table.
    Gpt {
        /// True when the first table is damaged and this is the second.
        is_backup: bool,
    },
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its place in the table, from 1.
    pub number: u32,
    /// Its sectors.
    pub range: Range<u64>,
    /// What is in it: the type's GUID of a GPT, two hexadecimal digits of an MBR.
    pub kind: String,
    /// Its name; empty in an MBR.
    pub name: String,
}

/// Why there is no such partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionError {
    /// The device does not read.
    Device(BlockError),
    /// There is no table on the device.
    NoTable {
        /// The device.
        device: String,
    },
    /// There is a GPT, and neither of its copies is whole.
    Damaged {
        /// The device.
        device: String,
        /// What is wrong with the second one.
        reason: &'static str,
    },
    /// The table has no partition of this number or name.
    NotFound {
        /// The device.
        device: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        present: String,
    },
    /// The partition does not lie on the device.
    Range(ViewError),
}

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::NoTable { device } => write!(f, "block device '{device}' has no partition table: make one, with sfdisk for instance"),
            Self::Damaged { device, reason } => {
                write!(
                    f,
                    "block device '{device}': both partition tables are damaged ({reason}): repair them, with sgdisk or gdisk for instance"
                )
            }
            Self::NotFound { device, wanted, present } => {
                write!(f, "block device '{device}' has no partition '{wanted}'; it has {present}")
            }
            Self::Range(error) => write!(f, "the partition table is wrong: {error}"),
        }
    }
}

impl core::error::Error for PartitionError {}

impl From<BlockError> for PartitionError {
    fn from(error: BlockError) -> Self {
        Self::Device(error)
    }
}

impl Table {
    /// Reads the table of `device`.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub async fn read<B: Block>(device: B) -> Result<Self, PartitionError> {
        let blocking = Blocking::new(device, MEMORY);
        let mbr = blocking.run(read_mbr).await?;
        let device = || blocking.device().name().to_string();
        let Ok(mbr) = mbr else { return Err(PartitionError::NoTable { device: device() }) };
        if !mbr.iter().any(|partition| partition.kind == format!("{PROTECTIVE:02x}")) {
            return Ok(Self { kind: TableKind::Mbr, partitions: mbr });
        }
        if let Ok(partitions) = blocking.run(|attempt| read_gpt(attempt, false)).await? {
            return Ok(Self { kind: TableKind::Gpt { is_backup: false }, partitions });
        }
        match blocking.run(|attempt| read_gpt(attempt, true)).await? {
            Ok(partitions) => Ok(Self { kind: TableKind::Gpt { is_backup: true }, partitions }),
            Err(reason) => Err(PartitionError::Damaged { device: device(), reason }),
        }
    }
}

/// Opens a partition of `device`, by its number in the table or, of a GPT, by its name.
///
/// # Errors
/// [`PartitionError`].
pub async fn open<B: Block + Clone>(device: B, wanted: &str) -> Result<View<B>, PartitionError> {
    let table = Table::read(device.clone()).await?;
    let is_wanted = |partition: &&Partition| partition.number.to_string() == wanted || partition.name == wanted;
    let Some(partition) = table.partitions.iter().find(is_wanted) else {
        let present = table.partitions.iter().map(|partition| match partition.name.as_str() {
            "" => partition.number.to_string(),
            name => format!("{} ({name})", partition.number),
        });
        let present = present.collect::<Vec<_>>().join(", ");
        let present = if present.is_empty() { "none".to_string() } else { present };
        return Err(PartitionError::NotFound { device: device.name().to_string(), wanted: wanted.to_string(), present });
    };
    let name = format!("{}, partition {}", device.name(), partition.number);
    View::new(device, &name, partition.range.clone()).map_err(PartitionError::Range)
}

/// A disk as gpt_disk_io wants it.
struct Io<'a, 'b>(&'a Attempt<'b>, BlockSize);

impl BlockIo for Io<'_, '_> {
    type Error = Interruption;

    fn block_size(&self) -> BlockSize {
        self.1
    }

    fn num_blocks(&mut self) -> Result<u64, Interruption> {
        Ok(self.0.info().sectors)
    }

    fn read_blocks(&mut self, start: Lba, into: &mut [u8]) -> Result<(), Interruption> {
        self.0.read(start.to_u64(), into)
    }

    fn write_blocks(&mut self, _: Lba, _: &[u8]) -> Result<(), Interruption> {
        Err(Interruption::ReadOnly)
    }

    fn flush(&mut self) -> Result<(), Interruption> {
        Ok(())
    }
}

fn read_mbr(attempt: &Attempt<'_>) -> Result<Vec<Partition>, &'static str> {
    let mut sector = vec![0; attempt.info().sector_size];
    attempt.read(0, &mut sector).map_err(|_| "it has no sectors")?;
    let (entries, rest) = sector[MBR_ENTRIES..].split_at(4 * MBR_ENTRY);
    if !rest.starts_with(&MBR_SIGNATURE) {
        return Err("it has no signature");
    }
    let used = (1..).zip(entries.chunks_exact(MBR_ENTRY)).filter(|(_, entry)| entry[4] != 0);
    let partitions = used.map(|(number, entry)| {
        let word = |at: usize| u64::from(u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]));
        Partition { number, range: word(8)..word(8) + word(12), kind: format!("{:02x}", entry[4]), name: String::new() }
    });
    Ok(partitions.collect())
}

fn read_gpt(attempt: &Attempt<'_>, is_backup: bool) -> Result<Vec<Partition>, &'static str> {
    let unreadable = "it does not lie on the device";
    let size = BlockSize::from_usize(attempt.info().sector_size).ok_or("its sectors are too large")?;
    let mut disk = Disk::new(Io(attempt, size)).map_err(|_| unreadable)?;
    let mut buffer = vec![0; attempt.info().sector_size];
    let header = match is_backup {
        false => disk.read_primary_gpt_header(&mut buffer),
        true => disk.read_secondary_gpt_header(&mut buffer),
    };
    let header = header.map_err(|_| unreadable)?;
    if !header.is_signature_valid() || header.header_crc32 != header.calculate_header_crc32() {
        return Err("its header has a wrong signature or checksum");
    }
    let mut storage = array_storage(&header, size)?;
    let layout = header.get_partition_entry_array_layout().map_err(|_| "its entries have a wrong size")?;
    let array = disk.read_gpt_partition_entry_array(layout, &mut storage).map_err(|_| unreadable)?;
    if { header.partition_entry_array_crc32 } != array.calculate_crc32() {
        return Err("its entries have a wrong checksum");
    }
    let entries = (0..layout.num_entries).filter_map(|index| Some((index + 1, *array.get_partition_entry(index)?)));
    let used = entries.filter(|(_, entry)| { entry.partition_type_guid }.0 != Guid::ZERO);
    let partitions = used.map(|(number, entry)| {
        let (start, end) = (Lba::from(entry.starting_lba).to_u64(), Lba::from(entry.ending_lba).to_u64());
        let name = { entry.name }.chars().collect();
        Partition { number, range: start..end.saturating_add(1), kind: { entry.partition_type_guid }.0.to_string(), name }
    });
    Ok(partitions.collect())
}

/// Memory for the entries that a header speaks of.
fn array_storage(header: &GptHeader, size: BlockSize) -> Result<Box<[u8]>, &'static str> {
    let layout = header.get_partition_entry_array_layout().map_err(|_| "its entries have a wrong size")?;
    match layout.num_bytes_rounded_to_block(size) {
        Some(length) if length <= LARGEST_ARRAY => Ok(vec![0; length as usize].into()),
        _ => Err("it has too many entries"),
    }
}

#[cfg(test)]
mod tests;
