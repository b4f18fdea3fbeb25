//! A file as a block device.

use std::fs::File;
use std::os::unix::fs::FileExt;

use fogbow_block::{Block, BlockError, BlockInfo};

/// A file of the host, in sectors.
#[derive(Debug)]
pub struct BlockDevice {
    file: File,
    info: BlockInfo,
}

impl BlockDevice {
    pub(crate) const fn new(file: File, info: BlockInfo) -> Self {
        Self { file, info }
    }

    /// The place of sectors in the file, if they are whole sectors of the device.
    fn offset(&self, sector: u64, length: usize) -> Result<u64, BlockError> {
        let BlockInfo { sector_size, sectors, .. } = self.info;
        let fits =
            length.is_multiple_of(sector_size) && sector.checked_add((length / sector_size) as u64).is_some_and(|end| end <= sectors);
        if fits { Ok(sector * sector_size as u64) } else { Err(BlockError::OutOfRange { sector, length }) }
    }
}

impl Block for BlockDevice {
    fn info(&self) -> BlockInfo {
        self.info
    }

    async fn read(&self, sector: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let offset = self.offset(sector, into.len())?;
        self.file.read_exact_at(into, offset).map_err(|_| BlockError::Failed { sector, length: into.len() })
    }

    async fn write(&self, sector: u64, data: &[u8]) -> Result<(), BlockError> {
        let offset = self.offset(sector, data.len())?;
        self.file.write_all_at(data, offset).map_err(|_| BlockError::Failed { sector, length: data.len() })
    }
}
