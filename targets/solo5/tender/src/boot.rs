//! What a guest finds in low memory when it starts: after its target's boot information, the manifest and the command line. How a command line is made of
//! arguments is the same on every target.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::memory::GuestMemory;

/// Bytes of the longest command line with its terminator: `HVT_CMDLINE_SIZE` and `SPT_CMDLINE_SIZE`.
pub const COMMAND_LINE_SIZE: usize = 8192;

/// Where [`place`] put things, as guest addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// `struct mft`, aligned to 8 bytes.
    pub manifest: u64,
    /// The command line, a C string.
    pub command_line: u64,
}

/// Why low memory could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The guest's arguments are too long.
    #[error("Guest command line too long: {length} characters, at most {limit}; give the guest fewer or shorter arguments")]
    CommandLineTooLong {
        /// Bytes that it has.
        length: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// Guest memory ends before.
    #[error("guest memory ends at {0:#x}, before its boot information: give it more with --mem")]
    NoRoom(u64),
}

/// Writes the manifest and, after it, the guest's arguments joined by single spaces, from `address` up.
///
/// # Errors
/// [`BootError`].
pub fn place(memory: &mut GuestMemory<'_>, address: u64, manifest: &[u8], arguments: &[OsString]) -> Result<Placed, BootError> {
    let no_room = BootError::NoRoom(memory.end());
    let command_line = command_line(arguments, COMMAND_LINE_SIZE)?;
    let manifest_address = address.checked_next_multiple_of(8).ok_or(no_room.clone())?;
    let command_line_address = manifest_address.checked_add(manifest.len() as u64).ok_or(no_room.clone())?;
    let end = command_line_address.checked_add(command_line.len() as u64).ok_or(no_room.clone())?;
    memory.slice_mut(manifest_address..command_line_address).ok_or(no_room.clone())?.copy_from_slice(manifest);
    memory.slice_mut(command_line_address..end).ok_or(no_room)?.copy_from_slice(&command_line);
    Ok(Placed { manifest: manifest_address, command_line: command_line_address })
}

/// The arguments as a guest reads them: joined by single spaces, not quoted, with a terminator; `size` bytes at most.
///
/// # Errors
/// [`BootError::CommandLineTooLong`].
pub fn command_line(arguments: &[OsString], size: usize) -> Result<Vec<u8>, BootError> {
    let parts: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
    let mut line = parts.join(&b' ');
    if line.len() >= size {
        return Err(BootError::CommandLineTooLong { length: line.len(), limit: size.saturating_sub(1) });
    }
    line.push(0);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[test]
    fn arguments_are_joined_by_spaces_and_terminated() {
        let mut bytes = [0xff; 64];
        let mut memory = GuestMemory::new(0x1000, &mut bytes);
        let placed = place(&mut memory, 0x1003, b"manifest", &arguments(&["a", "b c", ""])).expect("there is room");
        assert_eq!(placed, Placed { manifest: 0x1008, command_line: 0x1010 });
        assert_eq!(bytes[8..24], *b"manifesta b c \0\xff");
    }

    #[test]
    fn the_longest_command_line_fits_and_one_more_does_not() {
        let longest = "x".repeat(COMMAND_LINE_SIZE - 1);
        assert_eq!(command_line(&arguments(&[&longest]), COMMAND_LINE_SIZE).map(|line| line.len()), Ok(COMMAND_LINE_SIZE));
        let longer = arguments(&[&longest[1..], ""]);
        assert!(command_line(&longer, COMMAND_LINE_SIZE).is_ok());
        let longer = arguments(&[&longest, ""]);
        let too_long = BootError::CommandLineTooLong { length: COMMAND_LINE_SIZE, limit: COMMAND_LINE_SIZE - 1 };
        assert_eq!(command_line(&longer, COMMAND_LINE_SIZE), Err(too_long));
    }

    #[test]
    fn too_little_memory_is_an_error() {
        let mut bytes = [0; 16];
        let mut memory = GuestMemory::new(0, &mut bytes);
        assert_eq!(place(&mut memory, 8, b"manifest", &[]), Err(BootError::NoRoom(16)));
        assert_eq!(place(&mut memory, u64::MAX - 3, b"manifest", &[]), Err(BootError::NoRoom(16)));
    }
}
