//! Fogbow's block devices.
//!
//! A [`Block`] device reads and writes whole sectors, flushes, and discards. The targets implement it for the host's devices. Here are [`Ram`], a disk in
//! memory; what lies over other devices: [`View`], `partition`, `cache`, `encryption`; `blocking`, which runs code over them that was written against
//! blocking devices; and, for tests, `fault`, a disk that does to its data what disks do. All but the first two are features.
//!
//! # What a power cut leaves
//! A write that has returned need not be on the medium: until a [`flush`](Block::flush) that began after it has returned, a power cut leaves each
//! of its sectors as it was before, as written, or torn: the beginning of the one and the rest of the other. Writes between two flushes may reach
//! the medium in any order. What was written before a flush that has returned stays, as far as the device's [`Durability`] goes.
//!
//! Limits: a request that is dropped before it is ready may be done, in part or not at all; requests that overlap while both are under way are done
//! in any order. Buffers are borrowed, so that devices which transfer behind the processor's back copy.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

use alloc::rc::Rc;
use core::future::Future;

#[cfg(feature = "blocking")]
pub mod blocking;
#[cfg(feature = "cache")]
pub mod cache;
pub mod check;
#[cfg(feature = "encryption")]
pub mod encryption;
mod error;
#[cfg(any(test, feature = "simulation"))]
pub mod fault;
#[cfg(feature = "layers")]
pub mod layers;
#[cfg(feature = "partition")]
pub mod partition;
mod ram;
mod view;

pub use error::{BlockError, Cause, Operation};
pub use ram::{Ram, RamError};
pub use view::{View, ViewError};

/// What a device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Bytes in a sector, the unit of all requests: a power of two, 512 or more.
    pub sector_size: usize,
    /// Sectors on the device.
    pub sectors: u64,
    /// True when every write and discard fails.
    pub read_only: bool,
    /// What flushed data survives.
    pub durability: Durability,
}

impl BlockInfo {
    /// Bytes on the device.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.sectors.saturating_mul(self.sector_size as u64)
    }
}

/// What data survives once a [`flush`](Block::flush) has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Nothing: it goes when the image ends.
    Volatile,
    /// The image's end, however it comes, but not a crash or power cut of the host: the host cannot be told to flush (Solo5's own tenders have no
    /// such call).
    Image,
    /// A power cut of the host, as far as the host keeps its own promise (`fdatasync`, a virtio flush).
    Host,
}

/// A device that stores sectors. What a power cut leaves, and the limits, are [the crate's](crate).
pub trait Block: 'static {
    /// The device's name, for messages.
    fn name(&self) -> &str;

    /// The device's limits, which do not change.
    fn info(&self) -> BlockInfo;

    /// Reads the sectors from number `sector` on into the buffers of `into`, one after the other, each of whole sectors.
    ///
    /// # Errors
    /// [`BlockError`]; the contents of the buffers are then unspecified.
    fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> impl Future<Output = Result<(), BlockError>>;

    /// Writes the buffers of `data`, one after the other, each of whole sectors, to the sectors from number `sector` on.
    ///
    /// # Errors
    /// [`BlockError`]; each of those sectors may then be as before, as written, or torn.
    fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> impl Future<Output = Result<(), BlockError>>;

    /// Waits until every write that returned before this call is durable: a barrier that no later write overtakes.
    ///
    /// # Errors
    /// [`BlockError`]; what has been written since the last good flush may then be lost, also when a later flush is good.
    fn flush(&self) -> impl Future<Output = Result<(), BlockError>>;

    /// Tells the device that the contents of `sectors` sectors from number `sector` on are not needed: they read as anything from then on, until they
    /// are written. A device that has no use for this does nothing.
    ///
    /// # Errors
    /// [`BlockError`].
    fn discard(&self, sector: u64, sectors: u64) -> impl Future<Output = Result<(), BlockError>>;

    /// [`read_vectored`](Self::read_vectored) into one buffer.
    ///
    /// # Errors
    /// As there.
    fn read(&self, sector: u64, into: &mut [u8]) -> impl Future<Output = Result<(), BlockError>> {
        async move { self.read_vectored(sector, &mut [into]).await }
    }

    /// [`write_vectored`](Self::write_vectored) of one buffer.
    ///
    /// # Errors
    /// As there.
    fn write(&self, sector: u64, data: &[u8]) -> impl Future<Output = Result<(), BlockError>> {
        async move { self.write_vectored(sector, &[data]).await }
    }

    /// Writes zeros to `sectors` sectors from number `sector` on. A device that can do that by itself is not sent any.
    ///
    /// # Errors
    /// As for [`write_vectored`](Self::write_vectored).
    fn write_zeroes(&self, sector: u64, sectors: u64) -> impl Future<Output = Result<(), BlockError>> {
        async move {
            check::write_zeroes(self, sector, sectors)?;
            let sector_size = self.info().sector_size;
            let most = (ZEROS / sector_size).max(1) as u64;
            let zeros = alloc::vec![0; sector_size * sectors.min(most) as usize];
            let (mut at, end) = (sector, sector + sectors);
            while at < end {
                let count = most.min(end - at);
                self.write(at, &zeros[..sector_size * count as usize]).await?;
                at += count;
            }
            Ok(())
        }
    }
}

/// Bytes that a device is sent at a time when it has to be sent zeros.
const ZEROS: usize = 64 << 10;

/// A shared device is a device: so that several layers or partitions lie on one.
impl<B: Block> Block for Rc<B> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn info(&self) -> BlockInfo {
        (**self).info()
    }

    fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> impl Future<Output = Result<(), BlockError>> {
        (**self).read_vectored(sector, into)
    }

    fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> impl Future<Output = Result<(), BlockError>> {
        (**self).write_vectored(sector, data)
    }

    fn flush(&self) -> impl Future<Output = Result<(), BlockError>> {
        (**self).flush()
    }

    fn discard(&self, sector: u64, sectors: u64) -> impl Future<Output = Result<(), BlockError>> {
        (**self).discard(sector, sectors)
    }

    fn read(&self, sector: u64, into: &mut [u8]) -> impl Future<Output = Result<(), BlockError>> {
        (**self).read(sector, into)
    }

    fn write(&self, sector: u64, data: &[u8]) -> impl Future<Output = Result<(), BlockError>> {
        (**self).write(sector, data)
    }

    fn write_zeroes(&self, sector: u64, sectors: u64) -> impl Future<Output = Result<(), BlockError>> {
        (**self).write_zeroes(sector, sectors)
    }
}

/// Writes sectors that follow each other as one buffer: a device's call costs more than copying.
#[cfg(any(feature = "blocking", feature = "cache"))]
async fn write_run<'a, B: Block>(device: &B, first: u64, sectors: impl Iterator<Item = &'a [u8]>) -> Result<(), BlockError> {
    let run = sectors.fold(alloc::vec::Vec::new(), |mut run, sector| {
        run.extend_from_slice(sector);
        run
    });
    device.write(first, &run).await
}
