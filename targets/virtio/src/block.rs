//! Block devices (virtio 1.2, section 5.2).
//!
//! Several requests are under way at a time, and each task waits for its own. Data goes through buffers of the driver's, as the device may still use one
//! when the task that asked has given up; a request of the image's is split into those that a buffer holds. What the device says of one is checked.
//!
//! Limits: one queue, and no indirect descriptors, since a request is three pieces; a task that gives up a request waits for the device all the same.

use alloc::string::String;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::Poll;

use fogbow_block::{Block, BlockError, BlockInfo, Cause, Durability, Operation, check};
use virtio_spec::blk::F;

use crate::guest::Guest;
use crate::transport::{Setup, SetupError, Transport};

mod limits;
mod places;
mod requests;

use limits::Limits;
use places::Places;
use requests::{Kind, LONGEST, Request, Requests};

/// The part of the heap that a device's buffers may take.
const BUDGET: usize = 16;

/// The most requests under way, for which there are buffers.
const MOST: usize = 8;

/// How long the device is waited for when a task gives up its request, in nanoseconds at a time, and how often: a second in all.
const WAIT: u64 = 10_000_000;
const WAITS: u32 = 100;

/// A block device of the machine's.
pub struct BlockDevice {
    name: String,
    info: BlockInfo,
    limits: Limits,
    can_flush: bool,
    guest: &'static Guest,
    watch: usize,
    requests: RefCell<Requests>,
    /// One for each buffer.
    places: Places,
}

fn bits(feature: F) -> u64 {
    feature.bits().to_ne() as u64
}

impl BlockDevice {
    pub(crate) fn new(guest: &'static Guest, transport: &'static dyn Transport, name: &str) -> Result<Self, SetupError> {
        let wanted = F::SIZE_MAX | F::RO | F::BLK_SIZE | F::FLUSH | F::DISCARD | F::WRITE_ZEROES;
        let mut setup = Setup::new(transport, |_| bits(wanted))?;
        let has = |feature| setup.has(bits(feature));
        let limits = setup.configuration(|device| Limits::read(&|at| device.configuration32(at), &has))??;
        // Without the feature to flush, what has been written is durable (section 5.2.6.2).
        let (can_flush, durability) = (has(F::FLUSH), Durability::Host);
        let info = BlockInfo { sector_size: limits.sector_size, sectors: limits.sectors, read_only: has(F::RO), durability };
        let count = (guest.heap_size / BUDGET / LONGEST).clamp(1, MOST);
        let requests = Requests::new(setup.queue(0)?, count).ok_or(SetupError::Nonsense("its queue is too short for a request"))?;
        guest.add(setup.finish());
        let watch = guest.watch(requests.ring());
        let places = Places::new(requests.count());
        Ok(Self { name: name.into(), info, limits, can_flush, guest, watch, requests: RefCell::new(requests), places })
    }

    /// Runs a request to its end. `fill` writes what the device reads, and `take` gets what it wrote.
    async fn run(&self, request: Request, fill: impl FnOnce(&mut [u8]), take: impl FnOnce(&[u8])) -> bool {
        let _place = self.places.take().await;
        let Some(slot) = self.requests.borrow_mut().begin(request, fill) else { return false };
        let mut under_way = UnderWay { device: self, slot, is_done: false };
        let is_good = poll_fn(|context| {
            loop {
                let mut requests = self.requests.borrow_mut();
                requests.collect();
                if let Some(is_good) = requests.poll(slot, context) {
                    return Poll::Ready(is_good);
                }
                drop(requests);
                if self.guest.poll(self.watch, context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
        under_way.is_done = true;
        if is_good {
            take(self.requests.borrow_mut().data(slot, request));
        }
        is_good
    }

    /// The sector of 512 bytes, which requests count in, at which a sector of the device begins.
    fn position(&self, sector: u64) -> u64 {
        sector * (self.info.sector_size as u64 / limits::UNIT)
    }

    /// Discards or zeroes sectors, as many at a time as the device takes.
    async fn clear(&self, kind: Kind, most: u32, sector: u64, sectors: u64) -> bool {
        let (mut at, end) = (self.position(sector), self.position(sector + sectors));
        while at < end {
            let count = u32::try_from(end - at).unwrap_or(u32::MAX).min(most);
            let range = limits::range(at, count, kind == Kind::WriteZeroes);
            let request = Request { kind, sector: 0, length: range.len() };
            if !self.run(request, |data| data.copy_from_slice(&range), |_| ()).await {
                return false;
            }
            at += u64::from(count);
        }
        true
    }
}

/// A request that a task waits for. When the task gives it up, the image waits until the device is done with the buffer.
struct UnderWay<'a> {
    device: &'a BlockDevice,
    slot: usize,
    is_done: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Self { device, slot, is_done } = *self;
        let is_over = || {
            let mut requests = device.requests.borrow_mut();
            requests.collect();
            requests.is_over(slot)
        };
        let ring = device.requests.borrow().ring();
        let is_over = is_done
            || is_over()
            || (0..WAITS).any(|_| {
                device.guest.wait_for(ring, WAIT);
                is_over()
            });
        // A device that keeps a request for ever keeps its buffer as well.
        if is_over {
            device.requests.borrow_mut().release(slot);
        }
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
        let mut rest = check::read(self, sector, into)?;
        let failed = Cause::Failed.of(self, Operation::Read, sector, rest);
        let mut at = self.position(sector);
        // Where the next bytes go: a buffer, and a place in it.
        let (mut buffer, mut offset) = (0, 0);
        while rest > 0 {
            let request = Request { kind: Kind::Read, sector: at, length: rest.min(self.limits.longest as u64) as usize };
            let take = |mut data: &[u8]| {
                while let Some(room) = into.get_mut(buffer).map(|buffer| &mut buffer[offset..]).filter(|_| !data.is_empty()) {
                    let count = room.len().min(data.len());
                    let (now, later) = data.split_at(count);
                    room[..count].copy_from_slice(now);
                    data = later;
                    (buffer, offset) = if count == room.len() { (buffer + 1, 0) } else { (buffer, offset + count) };
                }
            };
            if !self.run(request, |_| (), take).await {
                return Err(failed);
            }
            at += request.length as u64 / limits::UNIT;
            rest -= request.length as u64;
        }
        Ok(())
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        let mut rest = check::write(self, sector, data)?;
        let failed = Cause::Failed.of(self, Operation::Write, sector, rest);
        let mut at = self.position(sector);
        let (mut buffer, mut offset) = (0, 0);
        while rest > 0 {
            let request = Request { kind: Kind::Write, sector: at, length: rest.min(self.limits.longest as u64) as usize };
            let fill = |mut room: &mut [u8]| {
                while let Some(bytes) = data.get(buffer).map(|buffer| &buffer[offset..]).filter(|_| !room.is_empty()) {
                    let count = bytes.len().min(room.len());
                    let (now, later) = room.split_at_mut(count);
                    now.copy_from_slice(&bytes[..count]);
                    room = later;
                    (buffer, offset) = if count == bytes.len() { (buffer + 1, 0) } else { (buffer, offset + count) };
                }
            };
            if !self.run(request, fill, |_| ()).await {
                return Err(failed);
            }
            at += request.length as u64 / limits::UNIT;
            rest -= request.length as u64;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        let request = Request { kind: Kind::Flush, sector: 0, length: 0 };
        if !self.can_flush || self.run(request, |_| (), |_| ()).await {
            return Ok(());
        }
        Err(Cause::Failed.of(self, Operation::Flush, 0, 0))
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        let length = check::discard(self, sector, sectors)?;
        match self.limits.discarded {
            Some(most) if !self.clear(Kind::Discard, most, sector, sectors).await => {
                Err(Cause::Failed.of(self, Operation::Discard, sector, length))
            }
            _ => Ok(()),
        }
    }

    async fn write_zeroes(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        let length = check::write_zeroes(self, sector, sectors)?;
        let failed = || Cause::Failed.of(self, Operation::Write, sector, length);
        if let Some(most) = self.limits.zeroed {
            return if self.clear(Kind::WriteZeroes, most, sector, sectors).await { Ok(()) } else { Err(failed()) };
        }
        let (mut at, mut rest) = (self.position(sector), length);
        while rest > 0 {
            let request = Request { kind: Kind::Write, sector: at, length: rest.min(self.limits.longest as u64) as usize };
            if !self.run(request, |data| data.fill(0), |_| ()).await {
                return Err(failed());
            }
            at += request.length as u64 / limits::UNIT;
            rest -= request.length as u64;
        }
        Ok(())
    }
}
