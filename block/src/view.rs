//! A window on a device: a range of its sectors, perhaps for reading alone.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::ops::Range;

use crate::{Block, BlockError, BlockInfo, check};

/// A range of a device's sectors as a device of its own. What is asked for beyond the range fails here, whatever the device would do.
#[derive(Clone, Debug)]
pub struct View<B> {
    device: B,
    name: String,
    first: u64,
    info: BlockInfo,
}

/// The range does not lie on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewError {
    /// The device's name.
    pub device: String,
    /// The range that was to be shown.
    pub range: Range<u64>,
    /// Sectors that the device has.
    pub sectors: u64,
}

impl fmt::Display for ViewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, range, sectors } = self;
        write!(f, "sectors {} to {} are no range of the block device '{device}', which has {sectors}", range.start, range.end)
    }
}

impl core::error::Error for ViewError {}

impl<B: Block> View<B> {
    /// The sectors of `range` of `device`, under a name of their own.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn new(device: B, name: &str, range: Range<u64>) -> Result<Self, ViewError> {
        let info = device.info();
        match range.end.checked_sub(range.start) {
            Some(sectors) if range.end <= info.sectors => {
                Ok(Self { device, name: name.to_owned(), first: range.start, info: BlockInfo { sectors, ..info } })
            }
            _ => Err(ViewError { device: device.name().to_owned(), range, sectors: info.sectors }),
        }
    }

    /// All of `device`, for reading alone.
    #[must_use]
    pub fn read_only(device: B) -> Self {
        let (name, info) = (device.name().to_owned(), device.info());
        Self { device, name, first: 0, info: BlockInfo { read_only: true, ..info } }
    }

    /// The same range, for reading alone.
    #[must_use]
    pub fn into_read_only(mut self) -> Self {
        self.info.read_only = true;
        self
    }
}

impl<B: Block> Block for View<B> {
    fn name(&self) -> &str {
        &self.name
    }

    fn info(&self) -> BlockInfo {
        self.info
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        check::read(self, sector, into)?;
        self.device.read_vectored(self.first + sector, into).await
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        check::write(self, sector, data)?;
        self.device.write_vectored(self.first + sector, data).await
    }

    async fn flush(&self) -> Result<(), BlockError> {
        self.device.flush().await
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        check::discard(self, sector, sectors)?;
        self.device.discard(self.first + sector, sectors).await
    }

    async fn write_zeroes(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        check::write_zeroes(self, sector, sectors)?;
        self.device.write_zeroes(self.first + sector, sectors).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cause, Ram};
    use alloc::rc::Rc;
    use alloc::vec;
    use fogbow::simulation::Simulation;
    use proptest::prelude::*;

    #[test]
    fn a_range_must_lie_on_the_device_and_reading_alone_is_reading_alone() {
        Simulation::new(1).block_on(async {
            let disk = Rc::new(Ram::new("disk", 512, 10).unwrap());
            for (start, end) in [(0, 11), (11, 11), (10, 9), (5, u64::MAX)] {
                assert!(View::new(Rc::clone(&disk), "part", start..end).is_err(), "{start}..{end}");
            }
            let view = View::new(disk, "part", 2..4).unwrap().into_read_only();
            let error = view.write(0, &[0; 512]).await.unwrap_err();
            assert_eq!((error.device.as_str(), error.cause), ("part", Cause::ReadOnly));
            assert_eq!(view.discard(0, 1).await.unwrap_err().cause, Cause::ReadOnly);
            assert_eq!(view.write_zeroes(0, 1).await.unwrap_err().cause, Cause::ReadOnly);
            assert_eq!(view.read(1, &mut [0; 512]).await, Ok(()));
        });
    }

    #[test]
    fn all_goes_to_its_own_sectors_and_to_the_device() {
        Simulation::new(1).block_on(async {
            let disk = crate::fault::FaultDisk::new(Ram::new("disk", 512, 10).unwrap(), 1);
            let view = View::new(disk.clone(), "part", 2..5).unwrap();
            view.write_vectored(0, &[&[7; 512], &[8; 512], &[9; 512]]).await.unwrap();
            view.discard(1, 1).await.unwrap();
            let mut all = [0; 10 * 512];
            disk.read(0, &mut all).await.unwrap();
            assert_eq!([1, 2, 3, 4, 5].map(|sector| all[sector * 512]), [0, 7, 0xd1, 9, 0]);
            let mut sector = [0; 512];
            view.read(2, &mut sector).await.unwrap();
            assert_eq!(sector, [9; 512]);
            let error = view.read(2, &mut [0; 2 * 512]).await.unwrap_err();
            assert_eq!((error.device.as_str(), error.cause), ("part", Cause::OutOfRange { sectors: 3 }));
            assert_eq!(disk.write_zeroes(9, u64::MAX).await.unwrap_err().cause, Cause::OutOfRange { sectors: 10 });
            assert!(disk.pending() > 0);
            view.flush().await.unwrap();
            assert_eq!(disk.pending(), 0);
            assert!(View::read_only(disk).info().read_only);
        });
    }

    #[test]
    fn zeros_are_written_to_the_sectors_asked_for_alone() {
        Simulation::new(1).block_on(async {
            let disk = Rc::new(Ram::new("disk", 512, 400).unwrap());
            disk.write(0, &vec![7; 400 * 512]).await.unwrap();
            let view = View::new(Rc::clone(&disk), "part", 2..398).unwrap();
            assert_eq!(view.write_zeroes(1, 396).await.unwrap_err().cause, Cause::OutOfRange { sectors: 396 });
            // More than are sent at a time, and none.
            view.write_zeroes(1, 300).await.unwrap();
            view.write_zeroes(350, 0).await.unwrap();
            let mut all = vec![0; 400 * 512];
            disk.read(0, &mut all).await.unwrap();
            let zeroed = |sector: usize| all[sector * 512..][..512].iter().all(|byte| *byte == 0);
            assert!((0..400).all(|sector| zeroed(sector) == (3..303).contains(&sector)));
        });
    }

    proptest! {
        /// Nothing that is written through a view lands outside of its range.
        #[test]
        fn a_view_keeps_to_its_range(first in 0_u64..20, length in 0_u64..20, sector in prop_oneof![0_u64..40, any::<u64>()], count in 0_usize..40) {
            Simulation::new(1).block_on(async move {
                let disk = Rc::new(Ram::new("disk", 512, 40).unwrap());
                let view = View::new(Rc::clone(&disk), "part", first..first + length).unwrap();
                let written = view.write(sector, &std::vec![7; count * 512]).await;
                let fits = sector.checked_add(count as u64).is_some_and(|end| end <= length);
                assert_eq!(written.is_ok(), fits);
                let mut all = std::vec![0; 40 * 512];
                disk.read(0, &mut all).await.unwrap();
                for (at, data) in (0..).zip(all.chunks(512)) {
                    let inside = fits && (first + sector..first + sector + count as u64).contains(&at);
                    assert_eq!(data[0], if inside { 7 } else { 0 });
                }
            });
        }
    }
}
