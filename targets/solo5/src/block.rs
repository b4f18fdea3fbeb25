//! Block devices: calls to the host that block the image until the host has done them.

use alloc::string::String;

use fogbow_block::{Block, BlockError, BlockInfo, Cause, Durability, Operation, check};

use crate::manifest::{Device, Extension, Properties};

/// What a target's calls to its tender do.
pub trait Transfer: 'static {
    /// Bytes that a call moves, on any tender, wherever they are on the device; `None`: one sector, unless the tender offers more.
    const LONGEST: Option<usize>;

    /// Reads from byte `offset` on into `into`; true when the host has done it.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool;

    /// Writes `data` at byte `offset`; true when the host has done it.
    fn write_at(&self, offset: u64, data: &[u8]) -> bool;

    /// Makes what has been written durable; true when the host has done it. Called where the tender offers it.
    fn flush(&self) -> bool;
}

/// A block device of the tender's.
///
/// Solo5's spt tender allows one sector per call: there a larger sector size (`--block-sector-size:NAME=4096`) makes long transfers cheaper. Fogbow's own
/// offers more in the manifest it hands over: up to a mebibyte per call. Solo5's tenders have no call to flush: what has been written survives the
/// image, not the host ([`Durability::Image`]); under Fogbow's it is as durable as the host's `fdatasync` makes it.
///
/// Limits: discarding does nothing.
#[derive(Debug)]
pub struct BlockDevice<T> {
    name: String,
    info: BlockInfo,
    extension: Option<Extension>,
    transfer: T,
}

impl<T: Transfer> BlockDevice<T> {
    /// `None` when `device` is no usable block device.
    #[must_use]
    pub fn new(device: &Device, transfer: T) -> Option<Self> {
        match device.properties {
            Ok(Properties::Block { capacity, sector_size, extension, read_only }) => {
                let sectors = capacity / u64::from(sector_size);
                let durability = if extension.is_some() { Durability::Host } else { Durability::Image };
                let info = BlockInfo { sector_size: usize::from(sector_size), sectors, read_only, durability };
                Some(Self { name: device.name.clone(), info, extension, transfer })
            }
            _ => None,
        }
    }

    /// How much of `rest` bytes one call from `offset` on moves: whole sectors.
    fn longest(&self, offset: u64, rest: usize) -> usize {
        let beyond = self.info.capacity() - offset;
        let offered = || self.extension?.transfer_sizes.into_iter().rev().find(|size| u64::from(*size) <= beyond).map(|size| size as usize);
        rest.min(T::LONGEST.or_else(offered).unwrap_or(0).max(self.info.sector_size))
    }
}

impl<T: Transfer> Block for BlockDevice<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> BlockInfo {
        self.info
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        let length = check::read(self, sector, into)?;
        // The device's capacity fits into 63 bits, and these offsets are within it.
        let mut offset = sector * self.info.sector_size as u64;
        for buffer in into {
            let mut rest = &mut **buffer;
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at_mut(self.longest(offset, rest.len()));
                if !self.transfer.read_at(offset, piece) {
                    return Err(Cause::Failed.of(self, Operation::Read, sector, length));
                }
                offset += piece.len() as u64;
                rest = behind;
            }
        }
        Ok(())
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        let length = check::write(self, sector, data)?;
        let mut offset = sector * self.info.sector_size as u64;
        for buffer in data {
            let mut rest = *buffer;
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(self.longest(offset, rest.len()));
                if !self.transfer.write_at(offset, piece) {
                    return Err(Cause::Failed.of(self, Operation::Write, sector, length));
                }
                offset += piece.len() as u64;
                rest = behind;
            }
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        match self.extension.is_none() || self.transfer.flush() {
            true => Ok(()),
            false => Err(Cause::Failed.of(self, Operation::Flush, 0, 0)),
        }
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

    /// A host that has no more than three sectors of the four it promised, and keeps the lengths of its calls.
    #[derive(Default)]
    struct Host {
        bytes: RefCell<Vec<u8>>,
        calls: RefCell<Vec<usize>>,
    }

    impl Transfer for Host {
        const LONGEST: Option<usize> = None;

        fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
            self.calls.borrow_mut().push(into.len());
            let start = offset as usize;
            self.bytes.borrow().get(start..start + into.len()).map(|stored| into.copy_from_slice(stored)).is_some()
        }

        fn write_at(&self, offset: u64, data: &[u8]) -> bool {
            let start = offset as usize;
            self.bytes.borrow_mut().get_mut(start..start + data.len()).map(|stored| stored.copy_from_slice(data)).is_some()
        }

        fn flush(&self) -> bool {
            false
        }
    }

    fn device() -> BlockDevice<Host> {
        let info = BlockInfo { sector_size: 512, sectors: 4, read_only: false, durability: Durability::Image };
        let transfer = Host { bytes: RefCell::new(vec![0; 3 * 512]), ..Host::default() };
        BlockDevice { name: "disk".into(), info, extension: None, transfer }
    }

    #[test]
    fn a_call_moves_as_much_as_the_tender_offers_and_no_more() {
        fogbow::simulation::Simulation::new(1).block_on(async {
            let mut device = device();
            assert_eq!(device.flush().await, Ok(()), "without an offer there is nothing to call");
            device.read(0, &mut vec![0; 3 * 512]).await.unwrap();
            assert_eq!(device.transfer.calls.take(), [512; 3]);
            device.extension = Some(Extension { transfer_sizes: [1024, 4096] });
            device.info.sectors = 9;
            device.transfer.bytes.replace(vec![0; 9 * 512]);
            device.read(0, &mut vec![0; 9 * 512]).await.unwrap();
            assert_eq!(device.transfer.calls.take(), [4096, 512]);
            device.read(5, &mut vec![0; 4 * 512]).await.unwrap();
            assert_eq!(device.transfer.calls.take(), [1024, 1024]);
            assert!(device.flush().await.is_err());
        });
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
