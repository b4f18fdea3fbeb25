//! A file, or a raw device of the host, as a block device.
//!
//! Calls block the image. A flush is `fdatasync`; what is discarded becomes a hole in the file, if the host can.

use std::fs::File;
use std::os::unix::fs::FileExt;

use fogbow_block::{Block, BlockError, BlockInfo, Cause, Operation, check};
use rustix::fs::FallocateFlags;

/// A file of the host, in sectors.
#[derive(Debug)]
pub struct BlockDevice {
    name: String,
    file: File,
    info: BlockInfo,
}

impl BlockDevice {
    pub(crate) fn new(name: &str, file: File, info: BlockInfo) -> Self {
        Self { name: name.to_owned(), file, info }
    }

    /// The place in the file of a sector of a checked request: the file's size fits into 63 bits, and this is no more.
    fn offset(&self, sector: u64) -> u64 {
        sector * self.info.sector_size as u64
    }
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        fogbow_tender::block::unlock(&self.file);
    }
}

impl Block for BlockDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> BlockInfo {
        self.info
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        let length = check::read(self, sector, into)?;
        let mut offset = self.offset(sector);
        for buffer in into {
            self.file.read_exact_at(buffer, offset).map_err(|_| Cause::Failed.of(self, Operation::Read, sector, length))?;
            offset += buffer.len() as u64;
        }
        Ok(())
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        let length = check::write(self, sector, data)?;
        let mut offset = self.offset(sector);
        for buffer in data {
            self.file.write_all_at(buffer, offset).map_err(|_| Cause::Failed.of(self, Operation::Write, sector, length))?;
            offset += buffer.len() as u64;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        self.file.sync_data().map_err(|_| Cause::Failed.of(self, Operation::Flush, 0, 0))
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        let length = check::discard(self, sector, sectors)?;
        if length > 0 {
            // Where the host's file system makes no holes, the contents stay, as they may.
            let _ = rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, self.offset(sector), length);
        }
        Ok(())
    }
}
