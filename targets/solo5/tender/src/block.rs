//! Attaching a block device: a file or a host block device, read and written at its sectors.
//!
//! The file's size is the device's capacity, and the guest can neither grow it nor go beyond it.
//!
//! As long as it is open it is locked: one program alone may write to it, or several may read it. The lock is advisory, and of the kind that
//! QEMU takes, on the same bytes (of the open file, fcntl(2)), so that an image, QEMU and `cargo xtask kv` keep out of each other's way. Solo5's own tenders do not look at it.
//! Where the file's system knows no locks, there is none.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
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

/// What a block device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading alone: others may read it, too.
    Read,
    /// For reading and writing: nobody else may have it.
    Write,
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
    /// Another program has it.
    #[error("{}: another program has it open, and two would destroy what is on it: end that one first (fuser {} tells which it is)", .0.display(), .0.display())]
    InUse(PathBuf),
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

/// Opens a file as a block device with sectors of `sector_size` bytes, and locks it.
///
/// # Errors
/// One of [`BlockError`].
pub fn open(path: &Path, sector_size: u16, access: Access) -> Result<BlockDevice, BlockError> {
    let open_error = |source| BlockError::Open { path: path.to_owned(), source };
    let mut file: File = OpenOptions::new().read(true).write(access == Access::Write).open(path).map_err(open_error)?;
    let file_type = file.metadata().map_err(open_error)?.file_type();
    if !file_type.is_file() && !file_type.is_block_device() {
        return Err(BlockError::NoCapacity(path.to_owned()));
    }
    if !lock(&file, access) {
        return Err(BlockError::InUse(path.to_owned()));
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

/// The bytes by whose locks QEMU's programs tell each other what they do with a file (`RAW_LOCK_PERM_BASE` and `RAW_LOCK_SHARED_BASE` of its
/// block/file-posix.c, and the bits of `BLK_PERM_*`): reading, writing, and not having others write.
const READS: i64 = 100;
const WRITES: i64 = 101;
const ALONE_IN_WRITING: i64 = 201;

/// Locks a file as long as it is open; false when another has it. Who writes locks all of it.
fn lock(file: &File, access: Access) -> bool {
    match access {
        Access::Write => lock_bytes(file, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 0).is_some(),
        Access::Read => {
            let is_locked =
                [READS, ALONE_IN_WRITING].iter().all(|byte| lock_bytes(file, libc::F_OFD_SETLK, libc::F_RDLCK, *byte, 1).is_some());
            let writer = lock_bytes(file, libc::F_OFD_GETLK, libc::F_WRLCK, WRITES, 1);
            is_locked && writer.is_none_or(|found| i32::from(found.l_type) == libc::F_UNLCK)
        }
    }
}

/// Takes back the lock of a file that [`open`] gave, which closing it does only when no copy of the descriptor is left: a process that another thread
/// is about to start has one for a moment.
pub fn unlock(file: &File) {
    // It was locked before, so that nothing can fail that has not then.
    let _ = lock_bytes(file, libc::F_OFD_SETLK, libc::F_UNLCK, 0, 0);
}

/// Locks bytes of a file, whatever its length, or asks who has; `length` 0 stands for all that follow. `None` when another has them.
fn lock_bytes(file: &File, command: libc::c_int, kind: libc::c_int, start: i64, length: i64) -> Option<libc::flock> {
    let mut bytes =
        libc::flock { l_type: kind as libc::c_short, l_whence: libc::SEEK_SET as libc::c_short, l_start: start, l_len: length, l_pid: 0 };
    // SAFETY: the descriptor is open, and the kernel reads and writes the structure during the call alone.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut bytes) };
    if result == 0 {
        return Some(bytes);
    }
    let is_taken = matches!(io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN | libc::EACCES));
    // Where there are no locks, nobody has one.
    (!is_taken).then_some(libc::flock { l_type: libc::F_UNLCK as libc::c_short, ..bytes })
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
        assert_eq!(open(file_of(8192).path(), 4096, Access::Write).expect("a good file").capacity, 8192);
    }

    #[test]
    fn bad_sizes_and_files_are_errors() {
        assert!(matches!(open(file_of(6144).path(), 4096, Access::Write), Err(BlockError::Misaligned { size: 6144, .. })));
        assert!(matches!(open(file_of(0).path(), 512, Access::Write), Err(BlockError::Empty { .. })));
        assert!(matches!(open(Path::new("/dev/null"), 512, Access::Write), Err(BlockError::NoCapacity(_))));
        assert!(matches!(open(Path::new("/nonexistent/disk"), 512, Access::Write), Err(BlockError::Open { .. })));
    }

    #[test]
    fn one_writes_or_several_read() {
        let file = file_of(512);
        let open = |access| open(file.path(), 512, access);
        let writer = open(Access::Write).expect("nobody else has it");
        for access in [Access::Write, Access::Read] {
            let error = open(access).expect_err("there is a writer").to_string();
            assert!(error.starts_with(&file.path().display().to_string()) && error.contains("end that one first"), "{error}");
        }
        drop(writer);
        let readers = [Access::Read; 2].map(|access| open(access).expect("only readers"));
        assert!(matches!(open(Access::Write), Err(BlockError::InUse(_))));
        drop(readers);
        open(Access::Write).expect("it is free again");
    }

    #[test]
    fn a_lock_is_taken_back_whoever_has_a_copy() {
        let file = file_of(512);
        for access in [Access::Write, Access::Read] {
            let device = File::from(open(file.path(), 512, access).expect("nobody else has it").descriptor);
            let _copy = device.try_clone().expect("a descriptor");
            unlock(&device);
            drop(device);
            open(file.path(), 512, Access::Write).expect("it is free again");
        }
    }

    #[test]
    fn what_is_opened_for_reading_is_not_written() {
        let file = file_of(512);
        let device = open(file.path(), 512, Access::Read).expect("a good file");
        assert_eq!(rustix::io::write(&device.descriptor, b"x"), Err(rustix::io::Errno::BADF));
    }
}
