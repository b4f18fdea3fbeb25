//! How much is done for what: requests of the device, counted.

use embedded_io_async::Read;
use fogbow_block::fault::{Counts, FaultDisk};

use super::*;

async fn formatted(kib: u64, cache: usize) -> (FaultDisk, LogStore<FaultDisk>) {
    let disk = FaultDisk::new(ram(kib), 1);
    let store = LogStore::format(disk.clone(), Config { cache }).await.unwrap();
    (disk, store)
}

/// What a call makes the device do.
async fn work(disk: &FaultDisk, call: impl AsyncFnOnce()) -> Counts {
    let before = disk.counts();
    call().await;
    let after = disk.counts();
    Counts {
        reads: after.reads - before.reads,
        writes: after.writes - before.writes,
        sectors_written: after.sectors_written - before.sectors_written,
        flushes: after.flushes - before.flushes,
        ..Counts::default()
    }
}

#[test]
fn a_small_value_is_one_write_and_one_flush_however_it_is_set() {
    Simulation::new(1).block_on(async {
        let (disk, store) = formatted(8 << 10, 1 << 20).await;
        store.set(key("b"), &[1; 3000]).await.unwrap();
        store.allocate(key("c"), 3000).await.unwrap();
        let steps = [
            Step::Set("a".into(), alloc::vec![1; 3000]),
            Step::Stream("a".into(), alloc::vec![2; 100]),
            Step::Stream("a".into(), alloc::vec![2; 3000]),
            Step::Part("b".into(), 100, alloc::vec![2; 50]),
            Step::Part("c".into(), 100, alloc::vec![2; 50]),
            Step::Part("d".into(), 100, alloc::vec![2; 50]),
            Step::Allocate("e".into(), 3000),
            Step::Rename("a".into(), "f".into()),
            Step::Remove("f".into()),
        ];
        for step in steps {
            let work = work(&disk, async || step.apply(&store).await.unwrap()).await;
            assert_eq!((work.reads, work.writes, work.flushes), (0, 1, 1), "{step:?}");
        }
    });
}

/// However often a value is replaced: where it is, what comes of it is work on the tree once.
#[test]
fn a_value_that_is_replaced_takes_the_place_of_the_former_in_the_log() {
    Simulation::new(1).block_on(async {
        let (_, store) = formatted(64 << 10, 0).await;
        for length in [100, 3000] {
            for round in 0..20 {
                store.set(key("a"), &alloc::vec![round; length]).await.unwrap();
            }
            // The key, and where the value has one, its chunk.
            assert_eq!(store.check(|_, _| {}).await.in_log, if length > 1024 { 2 } else { 1 });
        }
    });
}

/// What was read or written before, and fits into the cache, is there.
#[test]
fn what_the_cache_holds_is_not_read_from_the_device() {
    Simulation::new(1).block_on(async {
        let (disk, store) = formatted(8 << 10, 4 << 20).await;
        let value = |number: usize| alloc::vec![number as u8; if number.is_multiple_of(20) { 50_000 } else { 200 }];
        let set_all = async || {
            for number in 0..400 {
                store.set(key(&format!("key-{number}")), &value(number)).await.unwrap();
            }
            store.checkpoint().await.unwrap();
        };
        let get_all = async || {
            for number in 0..400 {
                assert_eq!(store.get(key(&format!("key-{number}"))).await.unwrap().as_ref(), value(number));
            }
        };
        assert_eq!(work(&disk, set_all).await.reads, 0, "nodes are cached when they are written");
        assert_eq!(work(&disk, get_all).await.reads, 20, "large values when they are read");
        assert_eq!(work(&disk, get_all).await.reads, 0);
    });
}

/// A stream reads each chunk once, in however small pieces it is read.
#[test]
fn a_stream_reads_each_chunk_once() {
    Simulation::new(1).block_on(async {
        let (disk, store) = formatted(8 << 10, 0).await;
        store.set(key("a"), &[1; 200_000]).await.unwrap();
        store.checkpoint().await.unwrap();
        let read = async |piece: usize| {
            let mut reader = store.read(key("a")).await.unwrap();
            let (mut buffer, mut length) = (alloc::vec![0; piece], 0);
            loop {
                match reader.read(&mut buffer).await.unwrap() {
                    0 => break,
                    count => length += count,
                }
            }
            assert_eq!(length, 200_000);
        };
        let whole = work(&disk, async || read(100_000).await).await.reads;
        assert_eq!(work(&disk, async || read(1000).await).await.reads, whole);
    });
}

/// Who is refused for want of space writes nothing once all is free that can be.
#[test]
fn a_set_that_is_refused_wears_nothing() {
    Simulation::new(1).block_on(async {
        let (disk, store) = formatted(1024, 1 << 20).await;
        let set = async |number: u32| store.set(key(&number.to_string()), &[1; 900]).await;
        let mut number = 0;
        while set(number).await.is_ok() {
            number += 1;
        }
        let work = work(&disk, async || assert_eq!(set(number).await, Err(WriteError::NoSpace(number.to_string())))).await;
        assert_eq!((work.writes, work.flushes), (0, 0));
    });
}

/// A dictionary that is too large for one batch is not gathered as a whole to find that out.
#[test]
fn what_is_too_much_at_once_is_refused_before_all_of_it_was_looked_at() {
    Simulation::new(1).block_on(async {
        let (disk, store) = formatted(1024, 0).await;
        let mut reads = Vec::new();
        for (dictionary, count) in [("small", 100), ("large", 1000)] {
            for number in 0..count {
                store.set(key(&format!("{dictionary}/{number:04}")), b"1").await.unwrap();
            }
            store.checkpoint().await.unwrap();
            let rename = async || {
                let result = store.rename(key(dictionary), key("other")).await;
                assert!(matches!(result, Err(WriteError::Unsupported { .. })), "{result:?}");
            };
            reads.push(work(&disk, rename).await.reads);
        }
        assert!(reads[1] < 3 * reads[0], "{reads:?}");
    });
}
