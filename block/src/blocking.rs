//! Running code over a device that was written against blocking devices.
//!
//! Such code calls "read this sector" and expects it at once. Here an operation is run as an [`Attempt`] over sectors that are in memory. The first
//! sector that is missing interrupts it: it is fetched, and the operation is run again from its beginning, until nothing is missing. What an
//! operation writes is seen by it alone, until it has come to its end without an error; then it goes to the device, which is flushed. So an
//! operation must depend on nothing but what it reads, and have no effects but what it writes; nothing blocks, on any device.
//!
//! Limits: an operation that needs n fetches is run n + 1 times (what is fetched grows from 8 to 256 sectors at a time, and stays for later
//! operations until one needs its place; where there is none, what it has not read is given up, and it goes on). All that one operation reads and writes
//! must fit into the memory that there is, or it ends with [`Cause::NoMemory`]; one that reads far more than there is ends with [`Cause::Endless`],
//! whatever it makes of it. Its writes go to the device in the order of sectors: a power cut in between leaves some of them. Whatever else writes to the
//! device is not seen.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::ops::Range;

use fogbow::lock::Lock;

use crate::{Block, BlockError, BlockInfo, Cause, Operation, write_run};

/// Sectors fetched at first, and at most, beyond those that were asked for: each fetch of an operation doubles it.
const AHEAD: Range<u64> = 8..256;

/// What is fetched ahead takes at most one part in so many of the room that there is, so that an operation that jumps about soon has what it needs.
const SHARE: u64 = 2;

/// How often an operation may read each of the sectors that it has room for. Code without a cache reads some many times, but a chain on the device that
/// leads back to its beginning would be followed for ever.
const READS_PER_SECTOR: u64 = 64;

type Sectors = BTreeMap<u64, Vec<u8>>;

/// A device, and sectors of it in memory.
#[derive(Debug)]
pub struct Blocking<B> {
    device: B,
    kept: Lock<Sectors>,
    /// The most sectors in memory: those that are kept, and those that an operation writes.
    limit: usize,
}

/// What an operation reads and writes.
#[derive(Debug)]
pub struct Attempt<'a> {
    info: BlockInfo,
    kept: &'a Sectors,
    changed: RefCell<Sectors>,
    /// The most sectors that it may change.
    room: usize,
    /// What stands in its way: the operation, its first sector that is missing or has no room, and how many it asked for from there on.
    obstacle: Cell<Option<(Operation, u64, u64)>>,
    /// Sectors that it may still read.
    reads: Cell<u64>,
    /// Whether it has asked for more than that.
    is_endless: Cell<bool>,
    /// Sectors that it has read, where they are asked for.
    seen: Option<RefCell<BTreeSet<u64>>>,
}

/// Why an attempt cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// A sector is not in memory yet: the operation ends, and is run again when it is.
    Missing,
    /// What is written does not fit into memory: the operation ends, and is run again if there was something else in memory.
    NoMemory,
    /// The sectors do not lie on the device, or the buffer is not of whole sectors.
    OutOfRange,
    /// The device cannot be written.
    ReadOnly,
    /// The operation has read far more than there is: what it follows on the device leads in circles.
    Endless,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "a sector has to be fetched first",
            Self::NoMemory => "there is no memory for what is written",
            Self::OutOfRange => "the range is not of whole sectors of the device",
            Self::ReadOnly => "the device is read-only",
            Self::Endless => "what is stored leads in circles",
        })
    }
}

impl core::error::Error for Interruption {}

impl<B: Block> Blocking<B> {
    /// Operations on `device`, with `memory` bytes for sectors: each may take all of it, and what it leaves is for those that others have read.
    #[must_use]
    pub fn new(device: B, memory: usize) -> Self {
        let limit = memory / device.info().sector_size;
        Self { device, kept: Lock::new(Sectors::new()), limit }
    }

    /// The device.
    pub const fn device(&self) -> &B {
        &self.device
    }

    /// Runs `operation` until it comes to its end, then writes what it has written, unless it gives an error. Operations run one after the other.
    ///
    /// # Errors
    /// [`BlockError`], of the device. The inner error is the operation's own.
    pub async fn run<T, E>(&self, mut operation: impl FnMut(&Attempt<'_>) -> Result<T, E>) -> Result<Result<T, E>, BlockError> {
        let mut kept = self.kept.lock().await;
        let mut ahead = AHEAD.start;
        loop {
            let attempt = Attempt::new(self.device.info(), &kept, self.limit);
            let result = operation(&attempt);
            let Attempt { obstacle, changed, is_endless, .. } = attempt;
            let (obstacle, changed, is_endless) = (obstacle.get(), changed.into_inner(), is_endless.get());
            let step = match obstacle {
                Some((Operation::Read, sector, count)) => self.fetch(&mut kept, sector, count, ahead, changed.len()).await,
                Some((_, sector, count)) => Err(self.no_memory(Operation::Write, sector, count)),
                // Whatever the operation made of it, it has not seen all that there is.
                None if is_endless => return Err(Cause::Endless.of(&self.device, Operation::Read, 0, 0)),
                None => {
                    if result.is_ok() && !changed.is_empty() {
                        self.commit(&mut kept, changed).await?;
                    }
                    return Ok(result);
                }
            };
            match step {
                Ok(()) => ahead = (ahead * 2).min(AHEAD.end),
                // Whether an operation has room for its sectors must depend neither on what others have left nor on what is fetched ahead.
                Err(error) if error.cause == Cause::NoMemory => {
                    let attempt = Attempt { seen: Some(RefCell::default()), ..Attempt::new(self.device.info(), &kept, self.limit) };
                    let _ = operation(&attempt);
                    let seen = attempt.seen.map(RefCell::into_inner).unwrap_or_default();
                    let before = kept.len();
                    kept.retain(|sector, _| seen.contains(sector));
                    if kept.len() == before {
                        return Err(error);
                    }
                    ahead = AHEAD.start;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads `count` sectors, up to `ahead` if there is room; fewer where the device ends or one is there already.
    async fn fetch(&self, kept: &mut Sectors, sector: u64, count: u64, ahead: u64, changed: usize) -> Result<(), BlockError> {
        let BlockInfo { sector_size, sectors, .. } = self.device.info();
        let next = kept.range(sector..).next().map_or(sectors, |(next, _)| *next);
        let room = self.limit.saturating_sub(kept.len()).saturating_sub(changed) as u64;
        let needed = count.min(next - sector);
        if needed > room {
            return Err(self.no_memory(Operation::Read, sector, needed));
        }
        let count = needed.max(ahead.min(room / SHARE).min(next - sector));
        let mut data = vec![0; count as usize * sector_size];
        self.device.read(sector, &mut data).await?;
        kept.extend((sector..).zip(data.chunks_exact(sector_size).map(<[u8]>::to_vec)));
        Ok(())
    }

    fn no_memory(&self, operation: Operation, sector: u64, count: u64) -> BlockError {
        Cause::NoMemory.of(&self.device, operation, sector, count * self.device.info().sector_size as u64)
    }

    /// Writes sectors, those that follow each other together, and flushes.
    async fn commit(&self, kept: &mut Sectors, changed: Sectors) -> Result<(), BlockError> {
        // Should this end halfway, nobody knows what is on the device: it has to be read again.
        for sector in changed.keys() {
            kept.remove(sector);
        }
        let mut rest = changed.iter().peekable();
        while let Some((&first, data)) = rest.next() {
            let mut run = vec![data.as_slice()];
            while let Some((_, data)) = rest.next_if(|(sector, _)| **sector == first + run.len() as u64) {
                run.push(data);
            }
            write_run(&self.device, first, run.into_iter()).await?;
        }
        self.device.flush().await?;
        kept.extend(changed);
        Ok(())
    }
}

impl<'a> Attempt<'a> {
    fn new(info: BlockInfo, kept: &'a Sectors, limit: usize) -> Self {
        Self {
            info,
            kept,
            changed: RefCell::default(),
            room: limit.saturating_sub(kept.len()),
            obstacle: Cell::new(None),
            reads: Cell::new(READS_PER_SECTOR * limit as u64),
            is_endless: Cell::new(false),
            seen: None,
        }
    }

    /// The device's limits.
    #[must_use]
    pub const fn info(&self) -> BlockInfo {
        self.info
    }

    /// Reads whole sectors.
    ///
    /// # Errors
    /// [`Interruption`]; the operation has to end with whatever error it likes.
    pub fn read(&self, sector: u64, into: &mut [u8]) -> Result<(), Interruption> {
        let count = self.check(sector, into.len())?;
        let Some(rest) = self.reads.get().checked_sub(count) else {
            self.is_endless.set(true);
            return Err(Interruption::Endless);
        };
        self.reads.set(rest);
        let changed = self.changed.borrow();
        if let Some(seen) = &self.seen {
            seen.borrow_mut().extend(sector..sector + count);
        }
        for (at, piece) in (sector..).zip(into.chunks_exact_mut(self.info.sector_size)) {
            match changed.get(&at).or_else(|| self.kept.get(&at)) {
                Some(data) => piece.copy_from_slice(data),
                None => {
                    self.stop(Operation::Read, at, sector + count - at);
                    return Err(Interruption::Missing);
                }
            }
        }
        Ok(())
    }

    /// Writes whole sectors, for this operation to read, and for the device once it is complete.
    ///
    /// # Errors
    /// [`Interruption`].
    pub fn write(&self, sector: u64, data: &[u8]) -> Result<(), Interruption> {
        let count = self.check(sector, data.len())?;
        if self.info.read_only {
            return Err(Interruption::ReadOnly);
        }
        let mut changed = self.changed.borrow_mut();
        for (at, piece) in (sector..).zip(data.chunks_exact(self.info.sector_size)) {
            if changed.len() >= self.room && !changed.contains_key(&at) {
                self.stop(Operation::Write, at, sector + count - at);
                return Err(Interruption::NoMemory);
            }
            changed.insert(at, piece.to_vec());
        }
        Ok(())
    }

    /// Notes what stands in the way. Only the first counts: what follows it may follow from an error.
    fn stop(&self, operation: Operation, sector: u64, count: u64) {
        if self.obstacle.get().is_none() {
            self.obstacle.set(Some((operation, sector, count)));
        }
    }

    fn check(&self, sector: u64, length: usize) -> Result<u64, Interruption> {
        let count = (length / self.info.sector_size) as u64;
        let is_inside = sector.checked_add(count).is_some_and(|end| end <= self.info.sectors);
        if is_inside && length.is_multiple_of(self.info.sector_size) { Ok(count) } else { Err(Interruption::OutOfRange) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ram;
    use crate::fault::{Fault, FaultDisk};
    use fogbow::simulation::Simulation;

    /// Adds one to the first byte of every sector of a range, and gives the sum.
    fn add(attempt: &Attempt<'_>, range: Range<u64>) -> Result<u32, Interruption> {
        let mut sector = [0; 512];
        let mut sum = 0;
        for at in range {
            attempt.read(at, &mut sector)?;
            sector[0] += 1;
            sum += u32::from(sector[0]);
            attempt.write(at, &sector)?;
        }
        Ok(sum)
    }

    #[test]
    fn operations_are_run_again_until_nothing_is_missing_and_have_their_effects_once() {
        Simulation::new(1).block_on(async {
            let disk = FaultDisk::new(Ram::new("disk", 512, 500).unwrap(), 1);
            let blocking = Blocking::new(disk.clone(), 512 * 1000);
            let mut runs = 0;
            let sum = blocking.run(|attempt| {
                runs += 1;
                add(attempt, 10..400)
            });
            assert_eq!(sum.await.unwrap(), Ok(390));
            assert_eq!((runs, disk.counts().reads), (7, 6), "8, 16, 32, 64, 128 and 256 sectors");
            assert_eq!((disk.counts().sectors_written, disk.counts().flushes, disk.pending()), (390, 1, 0));
            assert_eq!(blocking.run(|attempt| add(attempt, 10..400)).await.unwrap(), Ok(780));
            assert_eq!(disk.counts().reads, 6, "what was fetched stays");
            assert_eq!(blocking.run(|attempt| add(attempt, 499..501)).await.unwrap(), Err(Interruption::OutOfRange));
            assert_eq!(disk.counts().sectors_written, 780, "an operation that fails writes nothing");
        });
    }

    #[test]
    fn an_operation_sees_what_it_has_written_and_writes_nothing_that_must_not_be() {
        Simulation::new(1).block_on(async {
            let disk = FaultDisk::new(Ram::new("disk", 512, 500).unwrap(), 1);
            let twice = |attempt: &Attempt<'_>| add(attempt, 0..9).and_then(|_| add(attempt, 0..9));
            let blocking = Blocking::new(disk.clone(), 512 * 100);
            assert_eq!(blocking.run(twice).await.unwrap(), Ok(18));
            assert_eq!(disk.pending(), 0, "it is flushed");
            assert_eq!(blocking.run(|attempt| attempt.read(0, &mut [0; 100])).await.unwrap(), Err(Interruption::OutOfRange));
            let blocking = Blocking::new(crate::View::read_only(disk.clone()), 512 * 100);
            let before = disk.counts().writes;
            assert_eq!(blocking.run(twice).await.unwrap(), Err(Interruption::ReadOnly));
            assert_eq!(disk.counts().writes, before);
        });
    }

    /// An operation of which one sector more would not fit is made all the same, whatever others have left in memory and however it goes about.
    #[test]
    fn an_operation_has_all_the_memory_and_no_more() {
        Simulation::new(1).block_on(async {
            let disk = FaultDisk::new(Ram::new("disk", 512, 500).unwrap(), 1);
            let blocking = Blocking::new(disk.clone(), 512 * 100);
            let write = |attempt: &Attempt<'_>, count: u64| attempt.write(1, &vec![7; 512 * count as usize]);
            assert_eq!(
                blocking.run(|attempt| add(attempt, 200..250)).await.unwrap(),
                Ok(50),
                "50 that are kept, and as many that are written"
            );
            let apart = |attempt: &Attempt<'_>| {
                let sectors = (0..500).step_by(10);
                sectors.clone().try_for_each(|at| add(attempt, at..at + 1).map(drop)).map(|()| sectors.count())
            };
            assert_eq!(blocking.run(apart).await.unwrap(), Ok(50));
            let small = Blocking::new(disk.clone(), 512 * 3);
            small.run(|attempt| attempt.read(1, &mut [0; 512])).await.unwrap().unwrap();
            assert!(small.kept.lock().await.len() <= 3, "no more is fetched ahead than there is room for");
            let around = small.run(|attempt| attempt.read(1, &mut [0; 512]).and_then(|()| attempt.read(0, &mut [0; 3 * 512])));
            assert_eq!(around.await.unwrap(), Ok(()), "what is there already needs no room");
            let mut runs = 0;
            let large = blocking.run(|attempt| {
                runs += 1;
                attempt.read(0, &mut [0; 512]).and_then(|()| (1..200).try_for_each(|at| attempt.read(at, &mut [0; 512])))
            });
            assert_eq!(large.await.unwrap_err().cause, Cause::NoMemory);
            assert!(runs < 40, "{runs} runs to find out that it does not fit");
            let before = disk.counts();
            let error = blocking.run(|attempt| write(attempt, 101)).await.unwrap_err();
            assert_eq!((error.cause, error.operation, error.sector, error.length), (Cause::NoMemory, Operation::Write, 101, 512));
            let rewriting = blocking.run(|attempt| write(attempt, 99).and_then(|()| write(attempt, 100)).and_then(|()| write(attempt, 99)));
            assert_eq!(rewriting.await.unwrap(), Ok(()));
            let error = blocking.run(|attempt| add(attempt, 300..351)).await.unwrap_err();
            assert_eq!((error.cause, error.operation, error.sector), (Cause::NoMemory, Operation::Read, 350));
            let error = blocking.run(|attempt| write(attempt, 98).and_then(|()| attempt.read(110, &mut [0; 3 * 512]))).await.unwrap_err();
            assert_eq!((error.cause, error.operation, error.sector, error.length), (Cause::NoMemory, Operation::Read, 110, 3 * 512));
            assert_eq!(disk.counts().sectors_written - before.sectors_written, 100, "of the one that fitted");
        });
    }

    #[test]
    fn only_what_is_missing_is_fetched_whatever_follows_from_an_error() {
        Simulation::new(1).block_on(async {
            let disk = FaultDisk::new(Ram::new("disk", 512, 500).unwrap(), 1);
            let blocking = Blocking::new(disk.clone(), 512 * 100);
            blocking.run(|attempt| attempt.read(104, &mut [0; 512])).await.unwrap().unwrap();
            assert_eq!(disk.counts().sectors_read, 8);
            blocking.run(|attempt| attempt.read(103, &mut [0; 4 * 512])).await.unwrap().unwrap();
            assert_eq!(disk.counts().sectors_read, 9, "those behind it are there");
            let careless = |attempt: &Attempt<'_>| {
                let mut found = [0; 512];
                // An error taken for a sector of zeros.
                let _ = attempt.read(300, &mut found);
                if found[0] == 0 {
                    let _ = attempt.read(400, &mut found);
                }
                Ok::<_, Interruption>(found[0])
            };
            disk.write(300, &[9; 512]).await.unwrap();
            let reads = disk.counts().reads;
            assert_eq!(blocking.run(careless).await.unwrap(), Ok(9));
            assert_eq!(disk.counts().reads - reads, 1);
        });
    }

    #[test]
    fn an_operation_that_goes_in_circles_ends() {
        Simulation::new(1).block_on(async {
            let blocking = Blocking::new(Ram::new("disk", 512, 500).unwrap(), 512 * 100);
            let circle = blocking.run(|attempt| -> Result<(), Interruption> {
                loop {
                    attempt.read(7, &mut [0; 512])?;
                }
            });
            assert_eq!(circle.await.unwrap_err().cause, Cause::Endless);
            let careless = blocking.run(|attempt| {
                while attempt.read(7, &mut [0; 512]).is_ok() {}
                attempt.write(8, &[1; 512])
            });
            assert_eq!(careless.await.unwrap_err().cause, Cause::Endless, "though the operation says that all is well");
        });
    }

    #[test]
    fn errors_of_the_device_and_memory_end_an_operation() {
        Simulation::new(1).block_on(async {
            let disk = FaultDisk::new(Ram::new("disk", 512, 500).unwrap(), 1);
            let blocking = Blocking::new(disk.clone(), 512 * 100);
            assert_eq!(blocking.run(|attempt| add(attempt, 0..200)).await.unwrap_err().cause, Cause::NoMemory);
            disk.fail(Operation::Write, 1, Fault::Torn);
            assert!(blocking.run(|attempt| add(attempt, 0..4)).await.is_err());
            disk.flush().await.unwrap();
            let mut sector = [0; 512];
            disk.read(0, &mut sector).await.unwrap();
            let sum = blocking.run(|attempt| add(attempt, 0..1)).await.unwrap().unwrap();
            assert_eq!(sum, u32::from(sector[0]) + 1, "what is on the device counts");
        });
    }
}
