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
        let disk = FaultDisk::new(ram(32 << 10), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        for number in 0..40 {
            store.set(key(&format!("key-{number}")), &[1; 900]).await.unwrap();
        }
        let large = alloc::vec![2; 8 << 20];
        store.set(key("large"), &large).await.unwrap();
        store.set(key("other"), &large).await.unwrap();
        store.checkpoint().await.unwrap();
        store.batch(&[Change::Remove(key("large")), Change::Remove(key("other"))]).await.unwrap();
        let superblock = store.0.state.borrow().superblock;
        let root = store.0.node(superblock.root.unwrap(), superblock.level).await.unwrap();
        let parts = (0..root.count).find(|&index| root.key(index).starts_with(b"o")).unwrap();
        disk.damage(root.child(parts).page * store.0.sectors(), 0, &[0xff; SECTOR]);
        let store = LogStore::open(disk, Config::default()).await.unwrap();
        for round in 0..20 {
            store.set(key("key-7"), &[round; 900]).await.unwrap();
            store.remove(key("key-8")).await.unwrap();
        }
        // There is no room for this without what the other removed value had.
        store.set(key("again"), &alloc::vec![3; 20 << 20]).await.unwrap();
        assert_eq!(store.get(key("key-7")).await.unwrap().as_ref(), [19; 900]);
        assert!(!store.check(|_, _| {}).await.problems.is_empty());
    });
}

/// Keys whose node is damaged are neither read nor written, each with an error that names it; all others are.
#[test]
fn what_does_not_lie_in_a_damaged_node_is_written() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(1024), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        let names: Vec<String> = (0..40).map(|number| format!("key-{number:02}")).collect();
        for name in &names {
            store.set(key(name), &[1; 900]).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        let superblock = store.0.state.borrow().superblock;
        let root = store.0.node(superblock.root.unwrap(), superblock.level).await.unwrap();
        disk.damage(root.child(5).page * store.0.sectors(), 0, &[0xff; SECTOR]);
        for image in 0..3 {
            let store = LogStore::open(disk.clone(), Config::default()).await.unwrap();
            let mut refused = 0;
            for name in &names {
                match store.set(key(name), &[image; 900]).await {
                    Ok(()) => assert_eq!(store.get(key(name)).await.unwrap().as_ref(), [image; 900]),
                    Err(error) => {
                        assert!(matches!(error, WriteError::Unavailable { key, .. } if key == *name));
                        assert!(matches!(store.get(key(name)).await, Err(ReadError::Unavailable { key, .. }) if key == *name));
                        refused += 1;
                    }
                }
            }
            assert!((1..8).contains(&refused), "{refused}");
            store.checkpoint().await.unwrap();
        }
        // The nodes beside it become almost empty, and would take over what it has.
        let store = LogStore::open(disk, Config::default()).await.unwrap();
        for (number, name) in names[..36].iter().enumerate() {
            let _ = store.remove(key(name)).await;
            if number % 8 == 7 {
                store.checkpoint().await.unwrap();
            }
        }
        for number in 0..200 {
            store.set(key(&format!("z-{number}")), &[4; 300]).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        let report = store.check(|_, _| {}).await;
        assert_eq!((report.problem_count, report.read_only), (1, None), "{:?}", report.problems);
    });
}

/// Dictionaries, and keys that are new, at the edge of a node: the next one, damaged, is not looked at when it can hold nothing below them.
#[test]
fn a_damaged_node_is_nobodys_harm_in_the_dictionaries_before_it() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(1024), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        for number in 0..40 {
            store.set(key(&format!("{number:02}/value")), &[1; 900]).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        let superblock = store.0.state.borrow().superblock;
        let root = store.0.node(superblock.root.unwrap(), superblock.level).await.unwrap();
        assert_eq!(root.level, 1);
        let leaf = store.0.node(root.child(5), 0).await.unwrap();
        let damaged: Vec<String> = (0..leaf.count).filter_map(|index| super::super::entry::name_of(leaf.key(index))).collect();
        disk.damage(root.child(5).page * store.0.sectors(), 0, &[0xff; SECTOR]);
        for is_removed in [false, true] {
            let store = LogStore::open(disk.clone(), Config::default()).await.unwrap();
            for number in 0..40 {
                let (dictionary, name) = (format!("{number:02}"), format!("{number:02}/value"));
                if damaged.contains(&name) {
                    assert!(store.get(key(&name)).await.is_err());
                    continue;
                }
                store.set(key(&format!("{dictionary}/value-2")), b"2").await.unwrap();
                assert_eq!(store.list(key(&dictionary)).await.unwrap().len(), 2);
                assert_eq!(store.exists(key(&dictionary)).await.unwrap(), Some(Kind::Dictionary));
                if is_removed {
                    store.remove(key(&dictionary)).await.unwrap();
                    assert_eq!(store.exists(key(&dictionary)).await.unwrap(), None);
                }
            }
            assert!((1..8).contains(&damaged.len()));
        }
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
        assert_eq!(store.check(|_, _| {}).await.mended, [""; 0]);
        let mut told = alloc::collections::BTreeSet::new();
        for sector in 0..sectors {
            let damaged = FaultDisk::new(disk.snapshot(), 1);
            damaged.damage(sector, 0, &[0xff; SECTOR]);
            let store = LogStore::open(damaged.clone(), Config::default()).await.unwrap();
            assert_eq!(contents(&store).await, model, "sector {sector}");
            told.extend(store.check(|_, _| {}).await.mended);
            store.set(key("more"), b"written after the damage").await.unwrap();
            // What was damaged has been made whole: the same again, elsewhere, is survived too.
            damaged.damage((sector + 8) % sectors, 0, &[0xff; SECTOR]);
            let store = LogStore::open(damaged, Config::default()).await.unwrap();
            assert_eq!(contents(&store).await.len(), model.len() + 1, "sector {sector}");
        }
        let expected = ["1 of the log's sectors", "one of the two copies of the superblock", "the map of free space"];
        assert_eq!(told.into_iter().collect::<Vec<_>>(), expected, "what was mended is told");
    });
}

/// More than one sector of a record: what was acknowledged after it is lost, and nobody goes on as if nothing had been.
#[test]
fn a_record_that_is_lost_is_told_by_those_after_it() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(1024));
        let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        let mut models = Vec::from([Model::new()]);
        for number in 0..60 {
            store.set(key(&format!("key-{number}")), &[0; 900]).await.unwrap();
            models[0].insert(format!("key-{number}"), alloc::vec![0; 900]);
        }
        store.checkpoint().await.unwrap();
        let superblock = store.0.state.borrow().superblock;
        // Two sectors each, sixteen in one half of the log and four in the other.
        for number in 0..20 {
            let (name, value) = (format!("key-{}", number * 3), alloc::vec![1; 100]);
            store.set(key(&name), &value).await.unwrap();
            let mut model = models[number].clone();
            model.insert(name, value);
            models.push(model);
        }
        assert!(store.0.state.borrow().frozen.is_some() && store.0.state.borrow().superblock == superblock);
        for (lost, expected) in models[..20].iter().enumerate() {
            let damaged = FaultDisk::new(disk.snapshot(), 1);
            let half = if lost < 16 { superblock.half } else { 1 - superblock.half };
            for sector in 0..2 {
                let start = store.0.geometry.half_start(half) * store.0.sectors();
                damaged.damage(start + lost as u64 % 16 * 2 + sector, 0, &[0xff; SECTOR]);
            }
            let store = LogStore::open(damaged, Config::default()).await.unwrap();
            assert_eq!(&contents(&store).await, expected);
            let result = store.set(key("more"), b"1").await;
            if lost == 19 {
                // As if it had never been written: there is nothing that tells.
                result.unwrap();
                continue;
            }
            let text = format!("record {} of its log is damaged, and what was changed since is lost", superblock.sequence + lost as u64);
            assert!(result.unwrap_err().to_string().contains(&text), "{text}");
            assert!(store.check(|_, _| {}).await.read_only.is_some_and(|reason| reason.contains(&text)));
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
