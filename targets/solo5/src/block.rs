//! Block devices: one call to the host per sector, which blocks the image until the host has done it.

use fogbow_block::{Block, BlockError, BlockInfo};

use crate::manifest::{Device, Properties};

/// What a target does to move one sector.
pub trait SectorTransfer: 'static {
    /// Reads the sector at byte `offset` into `into`; true when the host has done it.
    fn read_sector(&self, offset: u64, into: &mut [u8]) -> bool;

    /// Writes `data` to the sector at byte `offset`; true when the host has done it.
    fn write_sector(&self, offset: u64, data: &[u8]) -> bool;
}

/// A block device of the tender's.
///
/// Solo5's tenders allow one sector per call: a larger sector size (`--block-sector-size:NAME=4096`) makes long transfers cheaper.
#[derive(Debug)]
pub struct BlockDevice<T> {
    info: BlockInfo,
    transfer: T,
}

impl<T: SectorTransfer> BlockDevice<T> {
    /// `None` when `device` is no usable block device.
    #[must_use]
    pub fn new(device: &Device, transfer: T) -> Option<Self> {
        match device.properties {
            Ok(Properties::Block { capacity, sector_size }) => {
                let sectors = capacity / u64::from(sector_size);
                let info = BlockInfo { sector_size: usize::from(sector_size), sectors, read_only: false };
                Some(Self { info, transfer })
            }
            _ => None,
        }
    }

    /// The offset of `sector`, if `length` bytes from there are whole sectors of the device.
    fn offset(&self, sector: u64, length: usize) -> Result<u64, BlockError> {
        let count = (length / self.info.sector_size) as u64;
        let within = sector.checked_add(count).is_some_and(|end| end <= self.info.sectors);
        if within && length.is_multiple_of(self.info.sector_size) {
            // The device's capacity fits into 63 bits, and this is no more.
            Ok(sector * self.info.sector_size as u64)
        } else {
            Err(BlockError::OutOfRange { sector, length })
        }
    }
}

impl<T: SectorTransfer> Block for BlockDevice<T> {
    fn info(&self) -> BlockInfo {
        self.info
    }

    async fn read(&self, sector: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let length = into.len();
        let offsets = (self.offset(sector, length)?..).step_by(self.info.sector_size);
        for (piece, offset) in into.chunks_exact_mut(self.info.sector_size).zip(offsets) {
            if !self.transfer.read_sector(offset, piece) {
                return Err(BlockError::Failed { sector, length });
            }
        }
        Ok(())
    }

    async fn write(&self, sector: u64, data: &[u8]) -> Result<(), BlockError> {
        let length = data.len();
        let offsets = (self.offset(sector, length)?..).step_by(self.info.sector_size);
        for (piece, offset) in data.chunks_exact(self.info.sector_size).zip(offsets) {
            if !self.transfer.write_sector(offset, piece) {
                return Err(BlockError::Failed { sector, length });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use std::vec;
    use std::vec::Vec;

    /// A host that has no more than three sectors of the four it promised.
    struct Host(RefCell<Vec<u8>>);

    impl SectorTransfer for Host {
        fn read_sector(&self, offset: u64, into: &mut [u8]) -> bool {
            let start = offset as usize;
            self.0.borrow().get(start..start + 512).map(|sector| into.copy_from_slice(sector)).is_some()
        }

        fn write_sector(&self, offset: u64, data: &[u8]) -> bool {
            let start = offset as usize;
            self.0.borrow_mut().get_mut(start..start + 512).map(|sector| sector.copy_from_slice(data)).is_some()
        }
    }

    fn device() -> BlockDevice<Host> {
        BlockDevice { info: BlockInfo { sector_size: 512, sectors: 4, read_only: false }, transfer: Host(RefCell::new(vec![0; 3 * 512])) }
    }

    #[test]
    fn only_whole_sectors_of_the_device_are_reached() {
        let device = device();
        assert_eq!(device.offset(3, 512), Ok(1536));
        assert_eq!(device.offset(0, 2048), Ok(0));
        assert_eq!(device.offset(4, 0), Ok(2048));
        for (sector, length) in [(4, 512), (3, 1024), (0, 511), (0, 2049), (u64::MAX, 512), (u64::MAX / 512 + 2, 512)] {
            assert_eq!(device.offset(sector, length), Err(BlockError::OutOfRange { sector, length }));
        }
    }

    #[test]
    fn what_was_written_is_read_and_what_the_host_fails_at_is_an_error() {
        fogbow::simulation::Simulation::new(1).block_on(async {
            let device = device();
            let data: Vec<u8> = (0..1024).map(|index| index as u8 ^ 0x5a).collect();
            let mut back = vec![0; 1024];
            assert_eq!(device.write(1, &data).await, Ok(()));
            assert_eq!(device.read(1, &mut back).await, Ok(()));
            assert_eq!(back, data);
            assert_eq!(device.read(2, &mut back).await, Err(BlockError::Failed { sector: 2, length: 1024 }));
            assert_eq!(device.write(3, &data[..512]).await, Err(BlockError::Failed { sector: 3, length: 512 }));
        });
    }
}
