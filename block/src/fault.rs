//! A disk for tests that does to its data what disks do.
//!
//! What is written lies in a volatile cache until a flush. [`FaultDisk::power_cut`] gives the disk that a power cut at this moment would leave: of
//! the writes since the last flush any may have reached the medium, in any order, and any sector of them may be torn. [`FaultDisk::cut_after`] lets the
//! power fail by itself after a number of written sectors, in the middle of a request or between two. Besides, the n-th read, write, flush or discard can
//! meet a [`Fault`], every request can be late, and the medium can be damaged at will. All of it follows from the seed.
//!
//! ```
//! use fogbow::simulation::Simulation;
//! use fogbow_block::fault::{FaultDisk, Survivors};
//! use fogbow_block::{Block, Ram};
//!
//! Simulation::new(1).block_on(async {
//!     let disk = FaultDisk::new(Ram::new("disk", 512, 8)?, 1);
//!     disk.write(0, &[1; 512]).await?;
//!     disk.flush().await?;
//!     disk.write(0, &[2; 512]).await?;
//!     let left = disk.power_cut(Survivors::None);
//!     let mut sector = [0; 512];
//!     left.read(0, &mut sector).await?;
//!     assert_eq!(sector, [1; 512]);
//!     Ok::<(), Box<dyn core::error::Error>>(())
//! }).unwrap();
//! ```

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;

use fogbow::time::{self, Duration};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::{Block, BlockError, BlockInfo, Cause, Durability, Operation, Ram, check};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails and changes nothing.
    Error,
    /// It fails when a part of its sectors has been written, the last of them torn. For a write.
    Torn,
    /// It succeeds, and nothing is written. For a write; a flush that is lost leaves everything in the volatile cache.
    Lost,
    /// It succeeds, and goes to other sectors. For a write, and for a read.
    Misdirected,
    /// It succeeds after so long.
    Late(Duration),
}

/// Which writes of the volatile cache a power cut lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// None of them.
    None,
    /// All of them.
    All,
    /// So many of them, in the order in which they were written; and a part of the next sector.
    First {
        /// Sectors that reach the medium.
        sectors: usize,
        /// Bytes of the next one that do.
        torn: usize,
    },
    /// Each of them or not, in any order, and torn or not, as the seed says.
    Random(u64),
}

/// How many requests a disk has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Sectors read by them.
    pub sectors_read: u64,
    /// Writes.
    pub writes: u64,
    /// Sectors written by them.
    pub sectors_written: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
}

impl Counts {
    fn count(&mut self, operation: Operation) -> u64 {
        let count = match operation {
            Operation::Read => &mut self.reads,
            Operation::Write => &mut self.writes,
            Operation::Flush => &mut self.flushes,
            Operation::Discard => &mut self.discards,
        };
        *count += 1;
        *count
    }
}

/// A disk with faults. Cloning gives another handle to the same disk.
#[derive(Clone, Debug)]
pub struct FaultDisk(Rc<Disk>);

#[derive(Debug)]
struct Disk {
    medium: Ram,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    /// Sectors written since the last flush, oldest first.
    pending: Vec<(u64, Vec<u8>)>,
    /// For each sector with pending writes, the latest one's index.
    latest: BTreeMap<u64, usize>,
    random: ChaCha8Rng,
    counts: Counts,
    faults: Vec<(Operation, u64, Fault)>,
    latency: Range<Duration>,
    /// Sectors that can still be written before the power fails.
    power: Option<u64>,
    is_dead: bool,
}

impl FaultDisk {
    /// A disk with the contents of `medium`, without faults as long as none are asked for.
    #[must_use]
    pub fn new(medium: Ram, seed: u64) -> Self {
        let state = State {
            pending: Vec::new(),
            latest: BTreeMap::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            counts: Counts::default(),
            faults: Vec::new(),
            latency: Duration::ZERO..Duration::ZERO,
            power: None,
            is_dead: false,
        };
        Self(Rc::new(Disk { medium, state: RefCell::new(state) }))
    }

    /// Lets the `nth` request of a kind from now on (1 is the next) meet a fault.
    pub fn fail(&self, operation: Operation, nth: u64, fault: Fault) {
        let mut state = self.0.state.borrow_mut();
        let Counts { reads, writes, flushes, discards, .. } = state.counts;
        let done = match operation {
            Operation::Read => reads,
            Operation::Write => writes,
            Operation::Flush => flushes,
            Operation::Discard => discards,
        };
        state.faults.push((operation, done + nth, fault));
    }

    /// Makes each request take a time from this range, drawn anew.
    pub fn set_latency(&self, latency: Range<Duration>) {
        self.0.state.borrow_mut().latency = latency;
    }

    /// Lets the power fail once `sectors` more sectors have been written: from then on every request fails. [`power_cut`](Self::power_cut) gives what is left.
    pub fn cut_after(&self, sectors: u64) {
        self.0.state.borrow_mut().power = Some(sectors);
    }

    /// True once the power has failed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.state.borrow().is_dead
    }

    /// How many requests there have been.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.state.borrow().counts
    }

    /// Sectors in the volatile cache, each as often as it was written since the last flush.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.state.borrow().pending.len()
    }

    /// The disk that a power cut at this moment leaves. This one goes on as if nothing had happened.
    #[must_use]
    pub fn power_cut(&self, survivors: Survivors) -> Ram {
        let state = self.0.state.borrow();
        let left = self.0.medium.snapshot();
        match survivors {
            Survivors::None => {}
            Survivors::All => state.pending.iter().for_each(|(sector, data)| store(&left, *sector, data, data.len())),
            Survivors::First { sectors, torn } => {
                for (index, (sector, data)) in state.pending.iter().enumerate().take(sectors.saturating_add(1)) {
                    store(&left, *sector, data, if index < sectors { data.len() } else { torn });
                }
            }
            Survivors::Random(seed) => {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let mut order: Vec<usize> = (0..state.pending.len()).collect();
                for index in (1..order.len()).rev() {
                    order.swap(index, below(&mut random, index as u64 + 1) as usize);
                }
                for index in order {
                    let (sector, data) = &state.pending[index];
                    let length = match below(&mut random, 8) {
                        0..=3 => 0,
                        4 => below(&mut random, data.len() as u64) as usize,
                        _ => data.len(),
                    };
                    store(&left, *sector, data, length);
                }
            }
        }
        left
    }

    /// Replaces a stored sector's bytes from `offset` on, behind the back of whoever uses the disk. What does not fit is left out.
    pub fn damage(&self, sector: u64, offset: usize, bytes: &[u8]) {
        let size = self.0.medium.info().sector_size;
        if sector >= self.0.medium.info().sectors {
            return;
        }
        let mut data = vec![0; size];
        self.0.medium.read_now(sector, &mut data);
        data.iter_mut().skip(offset).zip(bytes).for_each(|(stored, byte)| *stored = *byte);
        store(&self.0.medium, sector, &data, size);
    }

    /// Counts a request and waits as long as it takes; then gives the fault that it meets.
    async fn begin(&self, operation: Operation, sector: u64, length: u64) -> Result<Option<Fault>, BlockError> {
        let (fault, latency) = {
            let mut state = self.0.state.borrow_mut();
            // Whatever comes after the last sector that could be written comes too late, a flush too.
            state.is_dead |= state.power == Some(0);
            let nth = state.counts.count(operation);
            let found = state.faults.iter().position(|(kind, at, _)| *kind == operation && *at == nth);
            let fault = found.map(|index| state.faults.swap_remove(index).2);
            let Range { start, end } = state.latency.clone();
            let spread = end.saturating_sub(start).as_nanos() as u64;
            (fault, start + Duration::from_nanos(below(&mut state.random, spread)))
        };
        let late = if let Some(Fault::Late(late)) = fault { late } else { Duration::ZERO };
        if latency + late > Duration::ZERO {
            time::sleep(latency + late).await;
        }
        match fault {
            _ if self.is_dead() => Err(Cause::Failed.of(self, operation, sector, length)),
            Some(Fault::Error) => Err(Cause::Failed.of(self, operation, sector, length)),
            fault => Ok(fault),
        }
    }

    /// Another place for as many sectors, or the same where there is none.
    fn elsewhere(&self, sector: u64, length: u64) -> u64 {
        let BlockInfo { sector_size, sectors, .. } = self.0.medium.info();
        let places = sectors - length / sector_size as u64 + 1;
        let step = 1 + below(&mut self.0.state.borrow_mut().random, places - 1);
        (sector + step) % places
    }
}

impl State {
    /// Puts a sector into the volatile cache; false when the power fails instead.
    fn write(&mut self, sector: u64, data: &[u8]) -> bool {
        match &mut self.power {
            Some(0) => {
                self.is_dead = true;
                return false;
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.counts.sectors_written += 1;
        self.latest.insert(sector, self.pending.len());
        self.pending.push((sector, data.to_vec()));
        true
    }

    /// What a read sees of a sector.
    fn read(&self, medium: &Ram, sector: u64, into: &mut [u8]) {
        match self.latest.get(&sector) {
            Some(index) => into.copy_from_slice(&self.pending[*index].1),
            None => medium.read_now(sector, into),
        }
    }
}

/// Writes the first `length` bytes of a sector to the medium, and keeps the rest of what is there.
fn store(medium: &Ram, sector: u64, data: &[u8], length: usize) {
    let mut stored = vec![0; data.len()];
    medium.read_now(sector, &mut stored);
    let length = length.min(data.len());
    stored[..length].copy_from_slice(&data[..length]);
    assert!(medium.write_now(sector, &stored), "no memory for a simulated disk");
}

/// A number below `limit`; zero when that is zero.
fn below(random: &mut ChaCha8Rng, limit: u64) -> u64 {
    random.next_u64().checked_rem(limit).unwrap_or_default()
}

impl Block for FaultDisk {
    fn name(&self) -> &str {
        self.0.medium.name()
    }

    fn info(&self) -> BlockInfo {
        BlockInfo { durability: Durability::Host, ..self.0.medium.info() }
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        let length = check::read(self, sector, into)?;
        let fault = self.begin(Operation::Read, sector, length).await?;
        let start = if fault == Some(Fault::Misdirected) { self.elsewhere(sector, length) } else { sector };
        let mut state = self.0.state.borrow_mut();
        state.counts.sectors_read += length / self.info().sector_size as u64;
        let pieces = into.iter_mut().flat_map(|buffer| buffer.chunks_exact_mut(self.info().sector_size));
        (start..).zip(pieces).for_each(|(at, piece)| state.read(&self.0.medium, at, piece));
        Ok(())
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        let length = check::write(self, sector, data)?;
        let size = self.info().sector_size;
        let fault = self.begin(Operation::Write, sector, length).await?;
        let failed = || Cause::Failed.of(self, Operation::Write, sector, length);
        let start = if fault == Some(Fault::Misdirected) { self.elsewhere(sector, length) } else { sector };
        let mut state = self.0.state.borrow_mut();
        let whole = match fault {
            Some(Fault::Lost) => return Ok(()),
            Some(Fault::Torn) => below(&mut state.random, length / size as u64),
            _ => u64::MAX,
        };
        for (at, piece) in (0..).zip(data.iter().flat_map(|buffer| buffer.chunks_exact(size))) {
            if at < whole {
                if !state.write(start + at, piece) {
                    return Err(failed());
                }
                continue;
            }
            let mut torn = vec![0; size];
            state.read(&self.0.medium, start + at, &mut torn);
            let length = below(&mut state.random, size as u64) as usize;
            torn[..length].copy_from_slice(&piece[..length]);
            state.write(start + at, &torn);
            return Err(failed());
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        // What is written while the flush takes its time is not covered by it.
        let covered = self.pending();
        let fault = self.begin(Operation::Flush, 0, 0).await?;
        if fault == Some(Fault::Lost) {
            return Ok(());
        }
        let mut state = self.0.state.borrow_mut();
        let covered = covered.min(state.pending.len());
        for (sector, data) in state.pending.drain(..covered) {
            store(&self.0.medium, sector, &data, data.len());
        }
        state.latest = state.pending.iter().enumerate().map(|(index, (sector, _))| (*sector, index)).collect();
        Ok(())
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        let length = check::discard(self, sector, sectors)?;
        self.begin(Operation::Discard, sector, length).await?;
        // The worst that a discarded sector can read as, for whoever still relies on it.
        let garbage = vec![0xd1; self.info().sector_size];
        let mut state = self.0.state.borrow_mut();
        match (sector..sector + sectors).all(|sector| state.write(sector, &garbage)) {
            true => Ok(()),
            false => Err(Cause::Failed.of(self, Operation::Discard, sector, length)),
        }
    }
}

#[cfg(test)]
mod tests;
