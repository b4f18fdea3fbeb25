//! A write-back cache: sectors in memory, over a device that is slow to reach.
//!
//! What is written stays in memory until a flush, or until its place is needed; then it goes to the device with the changed sectors next to it, in
//! one write. A flush writes all that has changed and flushes the device, so that what the cache's user makes a barrier is one on the device.
//!
//! Limits: sectors take as much memory as is given, and about 100 bytes each besides; for the time of a request up to a quarter more, and what is written
//! in one piece (1 MiB at most) is copied. Requests larger than a quarter pass the cache by. One request at a time: the others wait.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::ops::Range;

use fogbow::lock::Lock;

use crate::{Block, BlockError, BlockInfo, check, write_run};

/// The longest write to the device, in bytes: what the targets move at once.
const LONGEST_WRITE: u64 = 1 << 20;

/// A device with some of its sectors in memory.
#[derive(Debug)]
pub struct Cache<B> {
    device: B,
    state: Lock<State>,
    /// The most sectors in memory.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    sectors: BTreeMap<u64, Cached>,
    /// The sectors by when they were last used.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Cached {
    data: Box<[u8]>,
    used: u64,
    is_dirty: bool,
}

/// What a cache has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sectors that were read from memory.
    pub hits: u64,
    /// Sectors that were read from the device.
    pub misses: u64,
    /// Sectors that were written to the device.
    pub written: u64,
}

impl<B: Block> Cache<B> {
    /// A cache of `memory` bytes, at least 16 sectors, over `device`.
    #[must_use]
    pub fn new(device: B, memory: usize) -> Self {
        let limit = (memory / device.info().sector_size).max(16);
        Self { device, state: Lock::default(), limit }
    }

    /// What the cache has done so far.
    pub async fn counts(&self) -> Counts {
        self.state.lock().await.counts
    }

    /// Whether a request of so many bytes passes the cache by.
    fn is_large(&self, length: usize) -> bool {
        length / self.device.info().sector_size > self.limit / 4
    }

    async fn read_buffer(&self, state: &mut State, sector: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let size = self.device.info().sector_size;
        let keeps = !self.is_large(into.len());
        let (mut at, end) = (sector, sector + (into.len() / size) as u64);
        let mut rest = into;
        while at < end {
            let next = state.sectors.range(at..end).next().map_or(end, |(next, _)| *next);
            let (missing, behind) = rest.split_at_mut((next - at) as usize * size);
            rest = behind;
            if !missing.is_empty() {
                self.device.read(at, missing).await?;
                state.counts.misses += next - at;
                if keeps {
                    for (at, data) in (at..).zip(missing.chunks_exact(size)) {
                        state.put(at, data, false);
                    }
                }
            }
            at = next;
            while at < end
                && let Some(data) = state.get(at)
            {
                let (piece, behind) = rest.split_at_mut(size);
                piece.copy_from_slice(data);
                rest = behind;
                at += 1;
                state.counts.hits += 1;
            }
        }
        self.make_room(state).await
    }

    async fn write_buffer(&self, state: &mut State, sector: u64, data: &[u8]) -> Result<(), BlockError> {
        let size = self.device.info().sector_size;
        if self.is_large(data.len()) {
            state.forget(sector..sector + (data.len() / size) as u64);
            state.counts.written += (data.len() / size) as u64;
            return self.device.write(sector, data).await;
        }
        for (at, piece) in (sector..).zip(data.chunks_exact(size)) {
            state.put(at, piece, true);
        }
        self.make_room(state).await
    }

    /// Drops the sectors that have not been used for the longest time, until there are no more than the limit.
    async fn make_room(&self, state: &mut State) -> Result<(), BlockError> {
        while state.sectors.len() > self.limit {
            let Some((_, &oldest)) = state.by_use.first_key_value() else { break };
            if state.sectors.get(&oldest).is_some_and(|cached| cached.is_dirty) {
                self.write_back(state, state.dirty_run(oldest)).await?;
            }
            state.forget(oldest..oldest + 1);
        }
        Ok(())
    }

    /// Writes changed sectors that follow each other.
    async fn write_back(&self, state: &mut State, range: Range<u64>) -> Result<(), BlockError> {
        let most = LONGEST_WRITE / self.device.info().sector_size as u64;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + most);
            write_run(&self.device, at, state.sectors.range(at..end).map(|(_, cached)| &*cached.data)).await?;
            state.sectors.range_mut(at..end).for_each(|(_, cached)| cached.is_dirty = false);
            state.counts.written += end - at;
            at = end;
        }
        Ok(())
    }
}

impl State {
    fn get(&mut self, sector: u64) -> Option<&[u8]> {
        self.uses += 1;
        let cached = self.sectors.get_mut(&sector)?;
        self.by_use.remove(&cached.used);
        cached.used = self.uses;
        self.by_use.insert(self.uses, sector);
        Some(&cached.data)
    }

    fn put(&mut self, sector: u64, data: &[u8], is_dirty: bool) {
        self.uses += 1;
        if let Some(former) = self.sectors.insert(sector, Cached { data: data.into(), used: self.uses, is_dirty }) {
            self.by_use.remove(&former.used);
        }
        self.by_use.insert(self.uses, sector);
    }

    fn forget(&mut self, range: Range<u64>) {
        while let Some((&sector, cached)) = self.sectors.range(range.clone()).next() {
            self.by_use.remove(&cached.used);
            self.sectors.remove(&sector);
        }
    }

    /// The changed sectors around a changed one.
    fn dirty_run(&self, sector: u64) -> Range<u64> {
        let above = self.sectors.range(sector..).zip(sector..);
        let end = above.take_while(|((at, cached), expected)| **at == *expected && cached.is_dirty).count() as u64;
        let below = self.sectors.range(..sector).rev().zip((0..sector).rev());
        let start = below.take_while(|((at, cached), expected)| **at == *expected && cached.is_dirty).count() as u64;
        sector - start..sector + end
    }
}

impl<B: Block> Block for Cache<B> {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn info(&self) -> BlockInfo {
        self.device.info()
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        check::read(self, sector, into)?;
        let mut state = self.state.lock().await;
        let mut at = sector;
        for buffer in into {
            self.read_buffer(&mut state, at, buffer).await?;
            at += (buffer.len() / self.info().sector_size) as u64;
        }
        Ok(())
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        check::write(self, sector, data)?;
        let mut state = self.state.lock().await;
        let mut at = sector;
        for buffer in data {
            self.write_buffer(&mut state, at, buffer).await?;
            at += (buffer.len() / self.info().sector_size) as u64;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        let mut state = self.state.lock().await;
        let mut from = 0;
        while let Some(first) = state.sectors.range(from..).find(|(_, cached)| cached.is_dirty).map(|(sector, _)| *sector) {
            let run = state.dirty_run(first);
            from = run.end;
            self.write_back(&mut state, run).await?;
        }
        self.device.flush().await
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        check::discard(self, sector, sectors)?;
        self.state.lock().await.forget(sector..sector + sectors);
        self.device.discard(sector, sectors).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, FaultDisk, Survivors};
    use crate::{Cause, Operation, Ram};
    use fogbow::simulation::Simulation;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn disk(sectors: u64) -> FaultDisk {
        FaultDisk::new(Ram::new("disk", 512, sectors).unwrap(), 5)
    }

    async fn first_byte(disk: &FaultDisk, sector: u64) -> u8 {
        let mut data = [0; 512];
        disk.read(sector, &mut data).await.unwrap();
        data[0]
    }

    #[test]
    fn neighbours_are_written_together_and_reads_come_from_memory() {
        Simulation::new(1).block_on(async {
            let disk = disk(100);
            let cache = Cache::new(disk.clone(), 64 * 512);
            for sector in [7, 5, 6, 8, 20] {
                cache.write(sector, &[sector as u8; 512]).await.unwrap();
            }
            assert_eq!(disk.counts().writes, 0);
            let mut back = vec![0; 4 * 512];
            cache.read(5, &mut back).await.unwrap();
            assert_eq!((back[0], back[3 * 512], disk.counts().reads), (5, 8, 0));
            cache.flush().await.unwrap();
            let counts = disk.counts();
            assert_eq!((counts.writes, counts.sectors_written, counts.flushes), (2, 5, 1));
            assert_eq!(cache.counts().await, Counts { hits: 4, misses: 0, written: 5 });
            cache.write(30, &[1; 512]).await.unwrap();
            cache.discard(30, 1).await.unwrap();
            cache.flush().await.unwrap();
            assert_eq!(disk.counts().writes, 2, "what was discarded is not written");
        });
    }

    #[test]
    fn large_requests_pass_by_and_wrong_ones_are_refused() {
        Simulation::new(1).block_on(async {
            let disk = disk(5000);
            let cache = Cache::new(disk.clone(), 64 * 512);
            cache.write(0, &[1; 17 * 512]).await.unwrap();
            assert_eq!((disk.counts().writes, cache.state.lock().await.sectors.len()), (1, 0));
            cache.read(0, &mut [0; 17 * 512]).await.unwrap();
            assert_eq!(cache.state.lock().await.sectors.len(), 0);
            assert!(cache.read(4999, &mut [0; 2 * 512]).await.is_err() && cache.write(4999, &[0; 2 * 512]).await.is_err());
            assert_eq!(cache.read(0, &mut [0; 100]).await.unwrap_err().cause, Cause::NotWholeSectors { sector_size: 512 });
            assert_eq!(cache.state.lock().await.sectors.len(), 0, "what is refused leaves nothing");
            cache.write(4999, &[4; 512]).await.unwrap();
            assert!(cache.discard(4999, 2).await.is_err() && cache.discard(1, u64::MAX).await.is_err());
            cache.flush().await.unwrap();
            assert_eq!(first_byte(&disk, 4999).await, 4, "what is refused changes nothing");
            cache.discard(3, 2).await.unwrap();
            assert_eq!(disk.counts().discards, 1);
            // What is clean is not written again with its neighbour.
            cache.write(10, &[1; 2 * 512]).await.unwrap();
            cache.flush().await.unwrap();
            cache.write(10, &[2; 512]).await.unwrap();
            let before = disk.counts().sectors_written;
            cache.flush().await.unwrap();
            assert_eq!(disk.counts().sectors_written - before, 1);
            // No write is longer than the targets move at once.
            let cache = Cache::new(disk.clone(), 4 << 20);
            for sector in 0..3000 {
                cache.write(sector, &[3; 512]).await.unwrap();
            }
            let before = disk.counts().writes;
            cache.flush().await.unwrap();
            assert_eq!(disk.counts().writes - before, 2);
        });
    }

    #[test]
    fn what_was_not_written_stays_to_be_written() {
        Simulation::new(1).block_on(async {
            let disk = disk(100);
            let cache = Cache::new(disk.clone(), 64 * 512);
            cache.write(5, &[1; 512]).await.unwrap();
            disk.fail(Operation::Write, 1, Fault::Error);
            assert!(cache.flush().await.is_err());
            cache.flush().await.unwrap();
            assert_eq!(first_byte(&disk, 5).await, 1);
        });
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, usize, u8),
        Read(u64, usize),
        Flush,
        Discard(u64, u64),
    }

    /// Notes what sectors hold from now on, and adds it to what they have held since the last flush.
    fn change(now: &mut [Option<u8>], since: &mut [Vec<Option<u8>>], sector: u64, count: usize, value: Option<u8>) {
        for (now, since) in now.iter_mut().zip(since).skip(sector as usize).take(count) {
            *now = value;
            since.push(value);
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u64..60, 0_usize..10, any::<u8>()).prop_map(|(sector, count, value)| Step::Write(sector, count, value)),
            2 => (0_u64..60, 0_usize..40).prop_map(|(sector, count)| Step::Read(sector, count)),
            1 => Just(Step::Flush),
            1 => (0_u64..60, 0_u64..5).prop_map(|(sector, count)| Step::Discard(sector, count)),
        ]
    }

    proptest! {
        /// Reads give what was written last; memory stays below its limit; after a power cut everything that was flushed is there.
        #[test]
        fn a_cache_is_its_device(steps in proptest::collection::vec(step(), 0..60), cut in any::<u64>()) {
            Simulation::new(1).block_on(async move {
                let disk = disk(100);
                let cache = Cache::new(disk.clone(), 16 * 512);
                // What a sector holds, and what it held at the last flush or has held since.
                let mut now: Vec<Option<u8>> = vec![Some(0); 100];
                let mut since: Vec<Vec<Option<u8>>> = vec![vec![Some(0)]; 100];
                for step in steps {
                    match step {
                        Step::Write(sector, count, value) => {
                            cache.write(sector, &vec![value; count * 512]).await.unwrap();
                            change(&mut now, &mut since, sector, count, Some(value));
                        }
                        Step::Read(sector, count) => {
                            let mut back = vec![0; count * 512];
                            cache.read(sector, &mut back).await.unwrap();
                            for (at, data) in (sector as usize..).zip(back.chunks(512)) {
                                assert!(now[at].is_none_or(|value| data == vec![value; 512]), "sector {at}");
                            }
                        }
                        Step::Flush => {
                            cache.flush().await.unwrap();
                            assert_eq!(disk.pending(), 0);
                            since = now.iter().map(|value| vec![*value]).collect();
                        }
                        Step::Discard(sector, count) => {
                            cache.discard(sector, count).await.unwrap();
                            change(&mut now, &mut since, sector, count as usize, None);
                        }
                    }
                    assert!(cache.state.lock().await.sectors.len() <= 16);
                }
                let left = disk.power_cut(Survivors::Random(cut));
                for (at, allowed) in (0..).zip(&since) {
                    let mut back = [0; 512];
                    left.read(at, &mut back).await.unwrap();
                    let is_allowed = |byte: u8| allowed.iter().any(|value| value.is_none_or(|value| value == byte));
                    assert!(back.iter().all(|byte| is_allowed(*byte)), "sector {at}");
                }
            });
        }
    }
}
