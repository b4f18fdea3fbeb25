//! The console: standard output, made to take a part of what it is given rather than let a guest wait for whoever reads it.

use std::io;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::stdio::{dup2_stdout, stdout};

/// Opens a pipe or a terminal that is standard output anew, non-blocking, in its place: other processes that share it notice nothing. A file takes
/// everything at once; a socket cannot be opened and stays as it is.
///
/// # Errors
/// The host's, when what is there cannot be opened, such as another user's pipe; it stays as it is.
pub fn open_without_waiting() -> io::Result<()> {
    let kind = FileType::from_raw_mode(fstat(stdout())?.st_mode);
    if matches!(kind, FileType::Fifo | FileType::CharacterDevice) {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        dup2_stdout(open("/proc/self/fd/1", flags, Mode::empty())?)?;
    }
    Ok(())
}
