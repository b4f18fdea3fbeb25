//! How long a commit may take: never more than its own share of the work.

use core::time::Duration;

use fogbow::time;
use fogbow_block::fault::FaultDisk;

use super::*;

/// What one call made the device do.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    reads: u64,
    sectors: u64,
    flushes: u64,
    time: Duration,
}

impl Work {
    fn most(self, other: Self) -> Self {
        Self {
            reads: self.reads.max(other.reads),
            sectors: self.sectors.max(other.sectors),
            flushes: self.flushes.max(other.flushes),
            time: self.time.max(other.time),
        }
    }
}

/// A device that takes up to 60 us for a read or a write and a flush, 10,000 keys in a tree of three levels, a small cache, and sets all over it.
#[test]
fn no_set_waits_for_the_work_of_many() {
    Simulation::new(5).block_on(async {
        let disk = FaultDisk::new(ram(64 << 10), 1);
        let store = LogStore::format(disk.clone(), Config { cache: 128 << 10 }).await.unwrap();
        for number in 0..10_000 {
            store.set(key(&format!("key-{number:05}")), &[1; 100]).await.unwrap();
        }
        disk.set_latency(Duration::from_micros(50)..Duration::from_micros(60));
        let mut steps = Steps(3);
        let (mut most, mut sum, mut times) = (Work::default(), Work::default(), Vec::new());
        for _ in 0..10_000 {
            let name = format!("key-{:05}", steps.next(10_000));
            let (before, start) = (disk.counts(), time::now());
            store.set(key(&name), &[2; 100]).await.unwrap();
            let after = disk.counts();
            let work = Work {
                reads: after.reads - before.reads,
                sectors: after.sectors_written - before.sectors_written,
                flushes: after.flushes - before.flushes,
                time: start.elapsed(),
            };
            most = most.most(work);
            sum.sectors += work.sectors;
            times.push(work.time);
        }
        times.sort_unstable();
        std::println!("at most {most:?}; {} sectors on average, {:?} in the median", sum.sectors / 10_000, times[times.len() / 2]);
        assert!(store.0.state.borrow().superblock.level >= 2);
        assert!(most.flushes <= 3 && most.reads <= 8 && most.sectors <= 640, "{most:?}");
        assert!(most.time < 4 * times[times.len() / 2], "{most:?}");
    });
}
