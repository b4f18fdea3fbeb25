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

/// Where new keys lie.
#[derive(Clone, Copy, Debug)]
enum Order {
    Ascending,
    Descending,
    /// In no order, all of them between two neighbours among 10,000 others.
    Between,
}

impl Order {
    fn name(self, number: u64) -> String {
        match self {
            Self::Ascending => format!("log/m{number:010}"),
            Self::Descending => format!("log/m{:010}", u64::from(u32::MAX) - number),
            Self::Between => format!("log/m{:010}", number * 0x9e37_79b1 % (1 << 32)),
        }
    }
}

/// The most that a commit of so many new values of a length makes a device do, on one with a log of full size.
async fn most_for_new_keys(order: Order, at_once: u64, length: usize) -> Work {
    let disk = FaultDisk::new(ram(1 << 20), 1);
    let store = LogStore::format(disk.clone(), Config { cache: 128 << 10 }).await.unwrap();
    let others = if matches!(order, Order::Between) { 10_000 } else { 0 };
    for number in 0..others {
        let letter = if number < others / 2 { 'a' } else { 'z' };
        store.set(key(&format!("log/{letter}{number:05}")), &[1; 100]).await.unwrap();
    }
    let (mut most, value) = (Work::default(), alloc::vec![2; length]);
    // So many that both halves of the log are filled twice.
    let commits = 4 * store.0.geometry.half_bytes() as u64 / (at_once * (length as u64 + 100)).next_multiple_of(1024);
    for commit in 0..commits {
        let names: Vec<String> = (0..at_once).map(|index| order.name(commit * at_once + index)).collect();
        let changes: Vec<Change<'_>> = names.iter().map(|name| Change::Set(key(name), &value)).collect();
        let before = disk.counts();
        store.batch(&changes).await.unwrap();
        let after = disk.counts();
        most = most.most(Work {
            reads: after.reads - before.reads,
            sectors: after.sectors_written - before.sectors_written,
            flushes: after.flushes - before.flushes,
            time: Duration::ZERO,
        });
    }
    std::println!(
        "{order:?}, {at_once} of {length} bytes: at most {} reads, {} KiB, {} flushes",
        most.reads,
        most.sectors / 2,
        most.flushes
    );
    store.checkpoint().await.unwrap();
    let report = store.check(|_, _| {}).await;
    assert_eq!((report.problems, report.values), (Vec::new(), others + commits * at_once));
    most
}

/// All that is in the log may fall into one leaf of the tree: it is still not the work of one commit.
#[test]
fn no_set_waits_for_the_work_of_many_at_the_same_place() {
    Simulation::new(5).block_on(async {
        for order in [Order::Ascending, Order::Descending, Order::Between] {
            for (at_once, length) in [(1, 0), (1, 100), (1, 900), (1, 3000), (16, 100)] {
                let most = most_for_new_keys(order, at_once, length).await;
                assert!(most.flushes <= 3 && most.reads <= 8 * at_once && most.sectors <= 640, "{most:?}");
            }
        }
    });
}
