//! What opening a store sees to.

use core::time::Duration;

use fogbow_block::View;
use fogbow_block::fault::FaultDisk;

use super::super::layout::{Extent, Superblock};
use super::*;
use crate::log::{FormatError, OpenError};

/// A store with the value `a`, which is in its tree.
async fn with_a_value_in_its_tree<B: Block>(disk: B) -> LogStore<B> {
    let store = LogStore::format(disk, Config::default()).await.unwrap();
    store.set(key("a"), b"1").await.unwrap();
    store.checkpoint().await.unwrap();
    store
}

/// Both copies of the superblock are there again after one was damaged.
#[test]
fn a_superblock_that_was_damaged_is_written_again() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(1024), 1);
        let store = with_a_value_in_its_tree(disk.clone()).await;
        let newest = store.0.state.borrow().superblock;
        let places = Superblock::places(newest.generation);
        for place in places {
            disk.damage(place * 8, 0, &[0xff; SECTOR]);
            drop(LogStore::open(disk.clone(), Config::default()).await.unwrap());
            for place in places {
                let mut sector = [0; SECTOR];
                disk.read(place * 8, &mut sector).await.unwrap();
                assert_eq!(Superblock::parse(&sector, place, disk.info()), Ok(newest), "place {place}");
            }
        }
    });
}

/// Values that were removed, but not taken apart yet when the image ended, give their space back to the next.
#[test]
fn what_was_removed_before_is_taken_apart_after_it_was_opened_again() {
    Simulation::new(1).block_on(async {
        for checkpoint in [false, true] {
            let disk = Rc::new(ram(8 << 10));
            let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
            for name in ["a", "b", "c"] {
                store.set(key(name), &alloc::vec![1; 2 << 20]).await.unwrap();
            }
            // Two of the three, whose parts lie on both sides of what stays.
            store.batch(&[Change::Remove(key("a")), Change::Remove(key("c"))]).await.unwrap();
            if checkpoint {
                store.checkpoint().await.unwrap();
            }
            let store = LogStore::open(disk, Config::default()).await.unwrap();
            for round in 0..100_u64 {
                store.set(key("small"), &round.to_le_bytes()).await.unwrap();
            }
            store.checkpoint().await.unwrap();
            assert!(store.0.state.borrow().space.free() > store.0.geometry.pages * 7 / 10);
            assert!(store.get(key("b")).await.unwrap().as_ref() == alloc::vec![1; 2 << 20], "what stays is whole");
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        }
    });
}

/// Whenever the image ends, the next finds all of both halves of the log: also when what was in one of them has gone into the tree since it was opened.
#[test]
fn both_halves_of_the_log_are_found_after_each_image() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(1024));
        let mut store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        let (mut model, mut checkpoints) = (Model::new(), Vec::new());
        for round in 0..400 {
            let (name, value) = (format!("key-{}", round % 50), alloc::vec![round as u8; 100]);
            store.set(key(&name), &value).await.unwrap();
            model.insert(name, value);
            if round % 3 == 0 {
                store = LogStore::open(Rc::clone(&disk), Config::default()).await.unwrap();
                assert_eq!(contents(&store).await, model, "round {round}");
            }
            checkpoints.push(store.0.state.borrow().superblock.generation);
        }
        checkpoints.dedup();
        assert!(checkpoints.len() > 4, "{checkpoints:?}");
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
    });
}

/// A call that is dropped in the middle of a checkpoint leaves nothing undone: the next image does not have to look through the tree.
#[test]
fn opening_reads_no_more_after_a_dropped_checkpoint() {
    Simulation::new(1).block_on(async {
        // Large enough for a map of three pages, with values in the second, and something to be freed in the first.
        let whole = Rc::new(ram(256 << 10));
        let store = LogStore::format(Rc::clone(&whole), Config::default()).await.unwrap();
        let taken = store.0.state().space.take(33_000).unwrap();
        for number in 0..60 {
            store.set(key(&format!("key-{number}")), &[1; 900]).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        for patience in (0..6000).step_by(100) {
            let disk = FaultDisk::new(whole.snapshot(), 1);
            let store = LogStore::open(disk.clone(), Config::default()).await.unwrap();
            for _ in 0..2 {
                store.set(key("key-6"), &[2; 900]).await.unwrap();
                store.checkpoint().await.unwrap();
            }
            store.0.state().space.release(&[Extent { page: taken[0].page, count: 1 }]);
            store.set(key("key-7"), &[2; 900]).await.unwrap();
            disk.set_latency(Duration::from_micros(100)..Duration::from_micros(101));
            let is_dropped = fogbow::time::timeout(Duration::from_micros(patience), store.checkpoint()).await.is_err();
            store.checkpoint().await.unwrap();
            let before = disk.counts().reads;
            drop(LogStore::open(disk.clone(), Config::default()).await.unwrap());
            // Four superblocks, the map's pages, two halves of the log, and a way through the tree to what is to be taken apart.
            let reads = disk.counts().reads - before;
            assert!(reads <= 4 + 3 + 2 + 3, "{reads} reads, after {patience} µs");
            if !is_dropped {
                return;
            }
        }
        panic!("no checkpoint was done in time");
    });
}

/// A value whose writing was given up has no pages: others have them, after the next opening too.
#[test]
fn what_was_given_up_does_not_take_pages_from_others() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(1024));
        let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        let mut object = super::super::objects::Object::new(&store.0);
        for _ in 0..3 {
            object.push(&[1; 65536]).await.unwrap();
        }
        drop(object);
        // Until all pages have been taken by others, and again.
        for round in 0..50 {
            let large = alloc::vec![round; 50_000];
            store.set(key("large"), &large).await.unwrap();
            store.checkpoint().await.unwrap();
            let store = LogStore::open(disk.snapshot(), Config::default()).await.unwrap();
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0], "round {round}");
            store.set(key("other"), &[4; 200_000]).await.unwrap();
            assert!(store.get(key("large")).await.unwrap().as_ref() == large);
        }
    });
}

/// An image is attached with the sectors that the host's disk has, which may be other ones than it was made with.
#[test]
fn a_store_is_opened_with_smaller_sectors_and_refused_with_larger_ones() {
    Simulation::new(1).block_on(async {
        for (made_with, opened_with, is_possible) in [
            (512, 512, true),
            (4096, 512, true),
            (4096, 1024, true),
            (512, 4096, false),
            (8192, 512, false),
            (512, 8192, false),
            (8192, 4096, false),
        ] {
            let bytes = 1 << 20;
            let disk = Rc::new(Ram::new("ram", made_with, bytes / made_with as u64).unwrap());
            let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
            for round in 0..3 {
                store.set(key("a"), &alloc::vec![round; 3000]).await.unwrap();
                store.checkpoint().await.unwrap();
                store.set(key("b"), &alloc::vec![round; 3000]).await.unwrap();
                let mut image = alloc::vec![0; bytes as usize];
                disk.read(0, &mut image).await.unwrap();
                let other = Rc::new(Ram::new("ram", opened_with, bytes / opened_with as u64).unwrap());
                other.write(0, &image).await.unwrap();
                match LogStore::open(Rc::clone(&other), Config::default()).await {
                    Ok(store) => {
                        assert!(is_possible, "{made_with} and {opened_with}");
                        store.set(key("c"), b"3").await.unwrap();
                        store.checkpoint().await.unwrap();
                        store.set(key("d"), b"4").await.unwrap();
                        let store = LogStore::open(other, Config::default()).await.unwrap();
                        let value = alloc::vec![round; 3000];
                        let expected = [("a", value.clone()), ("b", value), ("c", b"3".to_vec()), ("d", b"4".to_vec())];
                        assert_eq!(contents(&store).await, expected.map(|(name, value)| (name.into(), value)).into());
                    }
                    Err(error) => {
                        assert!(!is_possible, "{made_with} and {opened_with}: {error}");
                        assert!(matches!(error, OpenError::Format(FormatError::Inconsistent | FormatError::NotAStore)), "{error:?}");
                    }
                }
            }
        }
    });
}

/// A device that can only be read is: with what is in its log, damaged or not, and without a write.
#[test]
fn a_read_only_device_is_read() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(1024));
        let store = with_a_value_in_its_tree(Rc::clone(&disk)).await;
        store.set(key("b"), b"2").await.unwrap();
        let places = Superblock::places(store.0.state.borrow().superblock.generation);
        drop(store);
        disk.write(places[0] * 8, &[0xff; SECTOR]).await.unwrap();
        let before = disk.snapshot();
        let store = LogStore::open(View::read_only(Rc::clone(&disk)), Config::default()).await.unwrap();
        assert_eq!(contents(&store).await, [("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())].into());
        let error = store.set(key("c"), b"3").await.unwrap_err().to_string();
        assert!(error.contains("its device is read-only"), "{error}");
        assert!(store.check(|_, _| {}).await.read_only.is_some());
        let (mut was, mut is) = (alloc::vec![0; 1 << 20], alloc::vec![0; 1 << 20]);
        before.read(0, &mut was).await.unwrap();
        disk.read(0, &mut is).await.unwrap();
        assert!(was == is);
    });
}

/// A power cut at any point of formatting leaves no store, or the new one; what was there only before the first flush.
#[test]
fn a_power_cut_while_formatting_leaves_no_store_or_the_new_one() {
    use fogbow_block::fault::Survivors;
    Simulation::new(1).block_on(async {
        let old = Rc::new(ram(512));
        let store = with_a_value_in_its_tree(Rc::clone(&old)).await;
        store.set(key("in-log"), b"2").await.unwrap();
        let former = contents(&store).await;
        drop(store);
        let mut sectors = 0;
        loop {
            let disk = FaultDisk::new(old.snapshot(), 1);
            disk.cut_after(sectors);
            let is_formatted = LogStore::format(disk.clone(), Config::default()).await.is_ok();
            for seed in 0..4 {
                let left = disk.power_cut(if is_formatted { Survivors::None } else { Survivors::Random(seed) });
                match LogStore::open(left, Config::default()).await {
                    Ok(store) if store.get(key("a")).await.is_err() => {
                        assert_eq!(contents(&store).await, Model::new());
                        // Should its map not be the one that was written, it would have been made again.
                        assert_eq!(store.0.state.borrow().superblock.generation, 0, "after {sectors} sectors");
                    }
                    Ok(store) => {
                        assert!(sectors <= 32, "the old store, after {sectors} sectors");
                        assert_eq!(contents(&store).await, former, "after {sectors} sectors");
                    }
                    Err(_) => assert!(!is_formatted),
                }
            }
            if is_formatted {
                break;
            }
            sectors += 1;
        }
        assert!(sectors > 60);
    });
}
