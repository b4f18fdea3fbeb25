//! Block devices: one call to the host per sector, which blocks the image until the host has done it.

use alloc::string::String;

use fogbow_block::{Block, BlockError, BlockInfo, Cause, Durability, Operation, check};

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
/// Solo5's tenders allow one sector per call: a larger sector size (`--block-sector-size:NAME=4096`) makes long transfers cheaper. They have no call
/// to flush either: what has been written survives the image, not the host.
#[derive(Debug)]
pub struct BlockDevice<T> {
    name: String,
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
                let durability = Durability::Image;
                let info = BlockInfo { sector_size: usize::from(sector_size), sectors, read_only: false, durability };
                Some(Self { name: device.name.clone(), info, transfer })
            }
            _ => None,
        }
    }

    /// The offsets of the sectors from number `sector` on, of a checked request: the device's capacity fits into 63 bits, and these are no more.
    fn offsets(&self, sector: u64) -> impl Iterator<Item = u64> + use<T> {
        (sector * self.info.sector_size as u64..).step_by(self.info.sector_size)
    }
}

impl<T: SectorTransfer> Block for BlockDevice<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> BlockInfo {
        self.info
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        let length = check::read(self, sector, into)?;
        let pieces = into.iter_mut().flat_map(|buffer| buffer.chunks_exact_mut(self.info.sector_size));
        for (piece, offset) in pieces.zip(self.offsets(sector)) {
            if !self.transfer.read_sector(offset, piece) {
                return Err(Cause::Failed.of(self, Operation::Read, sector, length));
            }
        }
        Ok(())
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        let length = check::write(self, sector, data)?;
        let pieces = data.iter().flat_map(|buffer| buffer.chunks_exact(self.info.sector_size));
        for (piece, offset) in pieces.zip(self.offsets(sector)) {
            if !self.transfer.write_sector(offset, piece) {
                return Err(Cause::Failed.of(self, Operation::Write, sector, length));
            }
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        check::discard(self, sector, sectors)?;
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
        let info = BlockInfo { sector_size: 512, sectors: 4, read_only: false, durability: Durability::Image };
        BlockDevice { name: "disk".into(), info, transfer: Host(RefCell::new(vec![0; 3 * 512])) }
    }

    #[test]
    fn what_was_written_is_read_and_what_the_host_fails_at_is_an_error() {
        fogbow::simulation::Simulation::new(1).block_on(async {
            let device = device();
            let data: Vec<u8> = (0..1024).map(|index| index as u8 ^ 0x5a).collect();
            let (mut first, mut second) = (vec![0; 512], vec![0; 512]);
            assert_eq!(device.write(1, &data).await, Ok(()));
            assert_eq!(device.read_vectored(1, &mut [&mut first, &mut second]).await, Ok(()));
            assert_eq!([first, second].concat(), data);
            let error = device.read(2, &mut vec![0; 1024]).await.unwrap_err();
            assert_eq!(error, Cause::Failed.of(&device, Operation::Read, 2, 1024));
            let error = device.write(3, &data[..512]).await.unwrap_err();
            assert_eq!(error, Cause::Failed.of(&device, Operation::Write, 3, 512));
            assert_eq!(device.write(3, &data).await.unwrap_err().cause, Cause::OutOfRange { sectors: 4 });
        });
    }
}
