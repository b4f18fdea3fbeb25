//! Archives in the form that Linux takes its first file system in: cpio's "new ASCII" format (the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use anyhow::{Context as _, Result};

/// `S_IFDIR` and `S_IFREG` (stat(2)).
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// An archive being written.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory. It must come before what is in it.
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// Adds a file that anybody may read and run.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) -> Result<()> {
        self.entry(path, FILE | 0o755, contents)
    }

    /// The bytes of the archive.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        let size = u32::try_from(contents.len()).with_context(|| format!("{path} is too large for an archive"))?;
        let name_size = u32::try_from(path.len() + 1)?;
        self.entries += 1;
        // inode, mode, user, group, links, time of change, size, device (two numbers), the device it is (two), size of the name, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        self.bytes.extend(fields.iter().flat_map(|field| format!("{field:08X}").into_bytes()));
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
        Ok(())
    }

    /// Names and contents end at a multiple of four bytes.
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_contents() {
        let mut archive = Archive::default();
        archive.file("ab", b"hello").unwrap();
        let header = "070701\
            00000001000081ED00000000000000000000000100000000\
            0000000500000000000000000000000000000000\
            0000000300000000";
        // The header's 110 bytes and the name's 3 are padded to 116.
        let start = [header.as_bytes(), b"ab\0\0\0\0hello\0\0\0"].concat();
        assert_eq!(String::from_utf8_lossy(&archive.bytes), String::from_utf8_lossy(&start));
        let whole = archive.finish().unwrap();
        assert!(whole.len().is_multiple_of(4));
        assert!(String::from_utf8_lossy(&whole).contains("TRAILER!!!"));
    }
}
