//! Damaged sectors: never wrong data.

use fogbow_block::fault::FaultDisk;

use super::*;
use crate::ReadError;

/// A populated image, with operations in both halves of the log, and what it holds.
async fn populated(seed: u64) -> (Ram, Model) {
    let disk = Rc::new(ram(1024));
    let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
    let (mut steps, mut model) = (Steps(seed), Model::new());
    for _ in 0..400 {
        let step = steps.step();
        if step.apply(&store).await.is_ok() {
            model = step.model(&model).unwrap();
        }
    }
    drop(store);
    (disk.snapshot(), model)
}

#[derive(Default)]
struct Counts {
    unharmed: u32,
    harmed: u32,
    refused: u32,
}

/// Everything in the model reads as it should or fails by name; nothing else is there.
async fn check_reads(disk: FaultDisk, model: &Model, counts: &mut Counts) {
    let Ok(store) = LogStore::open(disk, Config::default()).await else {
        counts.refused += 1;
        return;
    };
    let mut harmed = false;
    for (name, value) in model {
        match store.get(key(name)).await {
            Ok(found) => assert!(found.as_ref() == value, "wrong data at {name}"),
            Err(ReadError::Unavailable { key, .. }) => {
                assert_eq!(&key, name);
                harmed = true;
            }
            Err(error) => panic!("{error}"),
        }
    }
    match store.get(key("never-set")).await {
        Err(ReadError::NotFound(_) | ReadError::Unavailable { .. }) => {}
        other => panic!("{other:?}"),
    }
    if let Ok(names) = store.list(Key::ROOT).await {
        let expected: std::collections::BTreeSet<_> = model.keys().map(|name| name.split('/').next().unwrap_or(name)).collect();
        assert!(names.iter().map(|name| name.name.as_str()).eq(expected));
    }
    if harmed {
        assert!(!store.check(|_, _| {}).await.problems.is_empty(), "the check finds what reading finds");
        counts.harmed += 1;
    } else {
        counts.unharmed += 1;
    }
}

#[test]
fn no_damaged_sector_of_10000_reads_as_wrong_data() {
    Simulation::new(1).block_on(async {
        let mut counts = Counts::default();
        let mut steps = Steps(99);
        for image in 0..10 {
            let (disk, model) = populated(image + 1).await;
            for _ in 0..1000 {
                let disk = FaultDisk::new(disk.snapshot(), 1);
                let sector = steps.next(disk.info().sectors);
                match steps.next(3) {
                    0 => disk.damage(sector, steps.next(512) as usize, &[steps.next(256) as u8]),
                    1 => disk.damage(sector, 0, &[0; SECTOR]),
                    _ => {
                        let garbage: Vec<u8> = (0..SECTOR).map(|_| steps.next(256) as u8).collect();
                        disk.damage(sector, 0, &garbage);
                    }
                }
                check_reads(disk, &model, &mut counts).await;
            }
        }
        std::println!("{} without harm, {} with errors that name keys, {} not opened", counts.unharmed, counts.harmed, counts.refused);
        assert_eq!(counts.refused, 0, "one damaged sector never keeps a store from being opened");
        assert!(counts.harmed > 100);
    });
}

/// Where the parts of a removed value are listed, damage keeps the space that they take: nobody is kept from writing.
#[test]
fn damage_to_what_was_removed_is_nobodys_harm() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(8 << 10), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        for number in 0..40 {
            store.set(key(&format!("key-{number}")), &[1; 900]).await.unwrap();
        }
        store.set(key("large"), &alloc::vec![2; 2 << 20]).await.unwrap();
        store.remove(key("large")).await.unwrap();
        store.checkpoint().await.unwrap();
        let superblock = store.0.state.borrow().superblock;
        let root = store.0.node(superblock.root.unwrap(), superblock.level).await.unwrap();
        assert_eq!(root.level, 1);
        disk.damage(root.child(root.count - 1).page * store.0.sectors(), 0, &[0xff; SECTOR]);
        let store = LogStore::open(disk, Config::default()).await.unwrap();
        for round in 0..300 {
            store.set(key("key-7"), &[round as u8; 900]).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        store.remove(key("key-8")).await.unwrap();
        assert_eq!(store.get(key("key-7")).await.unwrap().as_ref(), [299_u16 as u8; 900]);
        assert!(!store.check(|_, _| {}).await.problems.is_empty());
    });
}

/// Each sector of the superblocks, the log and the map, one after the other: nothing is lost at all.
#[test]
fn superblocks_log_and_map_survive_damage() {
    Simulation::new(1).block_on(async {
        let (disk, model) = populated(5).await;
        let store = LogStore::open(disk.snapshot(), Config::default()).await.unwrap();
        let sectors = store.0.geometry.data_start() * store.0.sectors();
        assert!(store.0.state.borrow().active.len() > 0 && store.0.state.borrow().frozen.is_some());
        for sector in 0..sectors {
            let damaged = FaultDisk::new(disk.snapshot(), 1);
            damaged.damage(sector, 0, &[0xff; SECTOR]);
            let store = LogStore::open(damaged.clone(), Config::default()).await.unwrap();
            assert_eq!(contents(&store).await, model, "sector {sector}");
            store.set(key("more"), b"written after the damage").await.unwrap();
            // What was damaged has been made whole: the same again, elsewhere, is survived too.
            damaged.damage((sector + 8) % sectors, 0, &[0xff; SECTOR]);
            let store = LogStore::open(damaged, Config::default()).await.unwrap();
            assert_eq!(contents(&store).await.len(), model.len() + 1, "sector {sector}");
        }
    });
}

/// A record survives the loss of one sector, and once it was opened again, the loss of another: what was damaged has been made again from the rest.
#[test]
fn a_sector_of_the_log_that_was_damaged_is_written_again() {
    Simulation::new(1).block_on(async {
        let (disk, model) = populated(6).await;
        let store = LogStore::open(disk.snapshot(), Config::default()).await.unwrap();
        let sectors = store.0.sectors();
        let log = store.0.geometry.half_start(0) * sectors..store.0.geometry.map_start(0) * sectors;
        for sector in log.start..log.end - 1 {
            let damaged = FaultDisk::new(disk.snapshot(), 1);
            damaged.damage(sector, 0, &[0xff; SECTOR]);
            drop(LogStore::open(damaged.clone(), Config::default()).await.unwrap());
            damaged.damage(sector + 1, 0, &[0xff; SECTOR]);
            let store = LogStore::open(damaged, Config::default()).await.unwrap();
            assert_eq!(contents(&store).await, model, "sectors {sector} and {}", sector + 1);
        }
    });
}
