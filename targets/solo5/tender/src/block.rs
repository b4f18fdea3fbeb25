//! Attaching a block device: a file or a host block device, read and written at its sectors.
//!
//! As with Solo5's tenders, the file is always opened for reading and writing, its size is the device's capacity, and the guest can
//! neither grow it nor go beyond it.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// A block device that has been opened.
#[derive(Debug)]
pub struct BlockDevice {
    /// The open file.
    pub descriptor: OwnedFd,
    /// Its size in bytes: a multiple of the sector size, at least one sector.
    pub capacity: u64,
}

/// Why a file cannot be a block device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// It does not open.
    #[error("Could not open block device: {}: {source}; it must exist and be readable and writable (make one with: truncate -s 16M FILE)", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// It has no size, as a pipe or a terminal has none.
    #[error("{}: is neither a regular file nor a block device: give one of these", .0.display())]
    NoCapacity(PathBuf),
    /// Its size is no multiple of the sector size.
    #[error("{}: Backing storage size must be block aligned ({sector_size} bytes) and is {size}: enlarge it with truncate -s %{sector_size} FILE", .path.display())]
    Misaligned {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The sector size.
        sector_size: u16,
    },
    /// It is empty.
    #[error("{}: Backing storage must be at least 1 block ({sector_size} bytes) in size: enlarge it with truncate -s {sector_size} FILE", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// The sector size.
        sector_size: u16,
    },
}

/// Opens a file as a block device with sectors of `sector_size` bytes.
///
/// # Errors
/// One of [`BlockError`].
pub fn open(path: &Path, sector_size: u16) -> Result<BlockDevice, BlockError> {
    let open_error = |source| BlockError::Open { path: path.to_owned(), source };
    let mut file: File = OpenOptions::new().read(true).write(true).open(path).map_err(open_error)?;
    let file_type = file.metadata().map_err(open_error)?.file_type();
    if !file_type.is_file() && !file_type.is_block_device() {
        return Err(BlockError::NoCapacity(path.to_owned()));
    }
    let size = file.seek(SeekFrom::End(0)).map_err(open_error)?;
    if size % u64::from(sector_size) != 0 {
        return Err(BlockError::Misaligned { path: path.to_owned(), size, sector_size });
    }
    if size == 0 {
        return Err(BlockError::Empty { path: path.to_owned(), sector_size });
    }
    Ok(BlockDevice { descriptor: file.into(), capacity: size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(size).expect("the file grows");
        file
    }

    #[test]
    fn the_size_is_the_capacity() {
        assert_eq!(open(file_of(8192).path(), 4096).expect("a good file").capacity, 8192);
    }

    #[test]
    fn bad_sizes_and_files_are_errors() {
        assert!(matches!(open(file_of(6144).path(), 4096), Err(BlockError::Misaligned { size: 6144, .. })));
        assert!(matches!(open(file_of(0).path(), 512), Err(BlockError::Empty { .. })));
        assert!(matches!(open(Path::new("/dev/null"), 512), Err(BlockError::NoCapacity(_))));
        assert!(matches!(open(Path::new("/nonexistent/disk"), 512), Err(BlockError::Open { .. })));
    }
}
