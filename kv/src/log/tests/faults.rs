//! A failing device, dropped calls, and many tasks.

use core::time::Duration;

use fogbow_block::Operation;
use fogbow_block::fault::{Fault, FaultDisk, Survivors};

use super::super::FormatError;
use super::*;
use crate::log::OpenError;

/// A record that was written, but whose flush failed with the image: once the next one has shown it, it is there to stay.
#[test]
fn what_was_shown_once_does_not_vanish() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(1024), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        store.set(key("a"), b"1").await.unwrap();
        disk.fail(Operation::Flush, 1, Fault::Error);
        assert!(store.set(key("b"), b"2").await.is_err());
        let shown = contents(&LogStore::open(disk.clone(), Config::default()).await.unwrap()).await;
        assert_eq!(shown.len(), 2);
        let left = disk.power_cut(Survivors::None);
        assert_eq!(contents(&LogStore::open(left, Config::default()).await.unwrap()).await, shown);
    });
}

#[test]
fn tasks_share_records() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(4096), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        disk.set_latency(Duration::from_micros(100)..Duration::from_micros(200));
        let before = disk.counts().flushes;
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let store = store.clone();
                fogbow::spawn(async move { store.set(key(&format!("key-{number}")), &[number]).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let flushes = disk.counts().flushes - before;
        assert!(flushes < 20, "{flushes} flushes for 100 tasks");
        let store = LogStore::open(disk, Config::default()).await.unwrap();
        assert_eq!(contents(&store).await.len(), 100);
    });
}

/// What tasks set at the same time may be more than one record takes, and more than a half of the log.
#[test]
fn more_than_a_record_takes_is_divided() {
    Simulation::new(1).block_on(async {
        for (count, length) in [(40, 3000), (150, 10)] {
            let disk = FaultDisk::new(ram(1024), 1);
            let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
            disk.set_latency(Duration::from_micros(100)..Duration::from_micros(200));
            let tasks: Vec<_> = (0..count)
                .map(|number| {
                    let (store, value) = (store.clone(), alloc::vec![number; length]);
                    fogbow::spawn(async move { store.set(key(&format!("key-{number}")), &value).await })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let store = LogStore::open(disk, Config::default()).await.unwrap();
            let expected = (0..count).map(|number| (format!("key-{number}"), alloc::vec![number; length])).collect();
            assert_eq!(contents(&store).await, expected);
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        }
    });
}

/// Nobody sees a value before it is durable: a power cut would take it away again.
#[test]
fn what_is_not_durable_yet_is_not_shown() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(1024), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        disk.fail(Operation::Flush, 1, Fault::Late(Duration::from_secs(1)));
        let setting = store.clone();
        let task = fogbow::spawn(async move { setting.set(key("a"), b"1").await });
        fogbow::time::sleep(Duration::from_millis(500)).await;
        assert_eq!((store.exists(key("a")).await, store.list(Key::ROOT).await), (Ok(None), Ok(Vec::new())));
        task.await.unwrap();
        assert_eq!(store.exists(key("a")).await, Ok(Some(Kind::Value)));
    });
}

/// Large values that are being written have parts that no key leads to yet: who takes garbage apart meanwhile leaves them alone, to the very end.
#[test]
fn a_value_that_is_being_written_is_no_garbage() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(16 << 10), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        disk.set_latency(Duration::from_micros(10)..Duration::from_micros(200));
        for round in 1..6_u8 {
            let large = alloc::vec![round; 2_000_000];
            let setting = (store.clone(), large.clone());
            let writer = fogbow::spawn(async move { setting.0.set(key("large"), &setting.1).await });
            let is_done = Rc::new(core::cell::Cell::new(false));
            let others: Vec<_> = (0..4)
                .map(|task| {
                    let (store, is_done) = (store.clone(), Rc::clone(&is_done));
                    fogbow::spawn(async move {
                        while !is_done.get() {
                            store.set(key(&format!("small-{task}")), b"1").await.unwrap();
                        }
                    })
                })
                .collect();
            writer.await.unwrap();
            assert!(store.get(key("large")).await.unwrap().as_ref() == large, "round {round}");
            is_done.set(true);
            for other in others {
                other.await;
            }
            assert!(store.get(key("large")).await.unwrap().as_ref() == large, "round {round}");
        }
        store.checkpoint().await.unwrap();
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
    });
}

/// Calls that are dropped at any point leave a store that works, and what others do is not lost.
#[test]
fn dropped_calls_do_no_harm() {
    Simulation::new(3).block_on(async {
        let disk = FaultDisk::new(ram(2048), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        disk.set_latency(Duration::from_micros(10)..Duration::from_micros(200));
        let mut steps = Steps(17);
        for round in 0..3000_u64 {
            let patience = Duration::from_micros(steps.next(2000));
            let value = alloc::vec![round as u8; if round % 50 == 0 { 90_000 } else { 100 }];
            let name = format!("dropped-{}", steps.next(30));
            let _ = fogbow::time::timeout(patience, store.set(key(&name), &value)).await;
            if round % 10 == 0 {
                store.set(key("kept"), &round.to_le_bytes()).await.unwrap();
                assert_eq!(store.get(key("kept")).await.unwrap().as_ref(), round.to_le_bytes());
            }
        }
        store.checkpoint().await.unwrap();
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        let found = contents(&store).await;
        let store = LogStore::open(disk, Config::default()).await.unwrap();
        assert_eq!(contents(&store).await, found);
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        for value in found.values() {
            assert!(value.len() == 8 || value.iter().all(|byte| *byte == value[0]));
        }
    });
}

/// Reading while others write: each value is one that was set, never a mixture.
#[test]
fn readers_see_whole_values() {
    Simulation::new(4).block_on(async {
        let disk = FaultDisk::new(ram(8192), 1);
        let store = LogStore::format(disk.clone(), Config { cache: 16 << 10 }).await.unwrap();
        disk.set_latency(Duration::from_micros(10)..Duration::from_micros(300));
        store.set(key("v"), &[0; 150_000]).await.unwrap();
        let writer = {
            let store = store.clone();
            fogbow::spawn(async move {
                for round in 1..100_u8 {
                    let length = if round % 3 == 0 { 20_000 } else { 150_000 };
                    store.set(key("v"), &alloc::vec![round; length]).await.unwrap();
                }
            })
        };
        for _ in 0..300 {
            let value = store.get(key("v")).await.unwrap();
            let bytes = value.as_ref();
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            assert_eq!(bytes.len(), if bytes[0] % 3 == 0 && bytes[0] > 0 { 20_000 } else { 150_000 });
        }
        writer.await;
    });
}

/// A read that takes so long that meanwhile the tree was written anew and what is being read given to something else: it starts again, and finds what there is.
#[test]
fn searches_start_again_when_the_tree_was_replaced_meanwhile() {
    Simulation::new(5).block_on(async {
        // A chunk is read after two nodes: the one with the value's name, and the one that leads to the chunk.
        for late in 1..=3 {
            let disk = FaultDisk::new(ram(512), 1);
            let store = LogStore::format(disk.clone(), Config { cache: 0 }).await.unwrap();
            store.set(key("large"), &[1; 60_000]).await.unwrap();
            store.set(key("in-tree"), &[2; 900]).await.unwrap();
            store.checkpoint().await.unwrap();
            store.set(key("in-log"), &[3; 900]).await.unwrap();
            let reading = store.clone();
            disk.fail(Operation::Read, late, Fault::Late(Duration::from_secs(1)));
            let readers = async move {
                match late {
                    1 => assert_eq!(reading.get(key("in-tree")).await.unwrap().as_ref(), [2; 900]),
                    2 => assert_eq!(reading.list(Key::ROOT).await.unwrap().len(), 4),
                    _ => assert_eq!(reading.get(key("large")).await.unwrap().as_ref(), [9; 60_000]),
                }
            };
            let reader = fogbow::spawn(readers);
            fogbow::task::yield_now().await;
            store.set(key("large"), &[9; 60_000]).await.unwrap();
            // More than enough for each page of the device to be written anew.
            for round in 0..200_u8 {
                store.set(key("other"), &[round; 900]).await.unwrap();
                store.checkpoint().await.unwrap();
            }
            reader.await;
            assert!(disk.counts().reads >= late);
        }
    });
}

#[test]
fn what_cannot_be_opened_is_said() {
    Simulation::new(1).block_on(async {
        let open = async |disk: Ram| LogStore::open(disk, Config::default()).await.map(drop);
        assert_eq!(open(ram(1024)).await, Err(OpenError::Format(FormatError::NotAStore)));
        for sectors in [0, 1, 31, 200] {
            let small = || Ram::new("ram", SECTOR, sectors).unwrap();
            let expected = Err(OpenError::Format(FormatError::TooSmall { least: 256 << 10, bytes: sectors * 512 }));
            assert_eq!(open(small()).await, expected);
            assert_eq!(LogStore::format(small(), Config::default()).await.map(drop), expected);
            assert_eq!(LogStore::open_or_format(small(), Config::default()).await.map(drop), expected);
        }
        let large_sectors = Ram::new("ram", 65536, 1000).unwrap();
        assert_eq!(open(large_sectors).await, Err(OpenError::Format(FormatError::SectorSize(65536))));
        let disk = Rc::new(ram(1024));
        drop(LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap());
        // A version that is to come.
        let mut sector = [0; SECTOR];
        for place in 0..2 {
            disk.read(place * 8, &mut sector).await.unwrap();
            sector[8] = 2;
            let sum = super::super::layout::checksum(0, &sector[..120]);
            sector[120..128].copy_from_slice(&sum.to_le_bytes());
            disk.write(place * 8, &sector).await.unwrap();
        }
        assert_eq!(open(disk.snapshot()).await, Err(OpenError::Format(FormatError::Version(2))));
    });
}
