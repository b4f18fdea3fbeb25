//! What opening a store sees to.

use fogbow_block::View;
use fogbow_block::fault::FaultDisk;

use super::super::layout::Superblock;
use super::*;

/// Both copies of the superblock are there again after one was damaged.
#[test]
fn a_superblock_that_was_damaged_is_written_again() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(1024), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        store.set(key("a"), b"1").await.unwrap();
        store.checkpoint().await.unwrap();
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

/// A device that can only be read is: with what is in its log, damaged or not, and without a write.
#[test]
fn a_read_only_device_is_read() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(1024));
        let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        store.set(key("a"), b"1").await.unwrap();
        store.checkpoint().await.unwrap();
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
        let store = LogStore::format(Rc::clone(&old), Config::default()).await.unwrap();
        store.set(key("old"), b"1").await.unwrap();
        store.checkpoint().await.unwrap();
        drop(store);
        let mut sectors = 0;
        loop {
            let disk = FaultDisk::new(old.snapshot(), 1);
            disk.cut_after(sectors);
            let is_formatted = LogStore::format(disk.clone(), Config::default()).await.is_ok();
            for seed in 0..4 {
                let left = disk.power_cut(if is_formatted { Survivors::None } else { Survivors::Random(seed) });
                match LogStore::open(left, Config::default()).await {
                    Ok(store) if store.get(key("old")).await.is_err() => {
                        assert_eq!(contents(&store).await, Model::new());
                        // Should its map not be the one that was written, it would have been made again.
                        assert_eq!(store.0.state.borrow().superblock.generation, 0, "after {sectors} sectors");
                    }
                    Ok(_) => assert!(sectors <= 32, "the old store, after {sectors} sectors"),
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
