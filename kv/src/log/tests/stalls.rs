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

/// What commits of so many values of a length make a device do that takes up to 60 us for a read or a write and a flush: at most, on average, in the median. There
/// are 10,000 keys in a tree of three levels, the cache is small, and the commits are all over it.
async fn measure(at_once: u64, length: usize) -> (Work, u64, Duration) {
    let disk = FaultDisk::new(ram(64 << 10), 1);
    let store = LogStore::format(disk.clone(), Config { cache: 128 << 10 }).await.unwrap();
    for number in 0..10_000 {
        store.set(key(&format!("key-{number:05}")), &[1; 100]).await.unwrap();
    }
    disk.set_latency(Duration::from_micros(50)..Duration::from_micros(60));
    let mut steps = Steps(3);
    let (mut most, mut sectors, mut times) = (Work::default(), 0, Vec::new());
    let commits = 10_000 / at_once;
    let value = alloc::vec![2; length];
    for _ in 0..commits {
        let names: Vec<String> = (0..at_once).map(|_| format!("key-{:05}", steps.next(10_000))).collect();
        let changes: Vec<Change<'_>> = names.iter().map(|name| Change::Set(key(name), &value)).collect();
        let (before, start) = (disk.counts(), time::now());
        store.batch(&changes).await.unwrap();
        let after = disk.counts();
        let work = Work {
            reads: after.reads - before.reads,
            sectors: after.sectors_written - before.sectors_written,
            flushes: after.flushes - before.flushes,
            time: start.elapsed(),
        };
        most = most.most(work);
        sectors += work.sectors;
        times.push(work.time);
    }
    times.sort_unstable();
    let (mean, median) = (sectors / commits, times[times.len() / 2]);
    std::println!("{at_once} of {length} bytes: at most {most:?}; {mean} sectors on average, {median:?} in the median");
    assert!(store.0.state.borrow().superblock.level >= 2);
    (most, mean, median)
}

#[test]
fn no_set_waits_for_the_work_of_many() {
    Simulation::new(5).block_on(async {
        let (most, _, median) = measure(1, 100).await;
        assert!(most.flushes <= 3 && most.reads <= 8 && most.sectors <= 640, "{most:?}");
        assert!(most.time < 4 * median, "{most:?}");
    });
}

/// Whether it is the bytes that fill the log, or the operations: the work on the tree goes along with both.
#[test]
fn no_commit_waits_for_the_work_of_others_however_large_it_is() {
    Simulation::new(5).block_on(async {
        for (at_once, length) in [(1, 900), (1, 3000), (16, 10)] {
            let (most, _, _) = measure(at_once, length).await;
            assert!(most.flushes <= 3 && most.reads <= 8 * at_once, "{most:?}");
        }
    });
}
