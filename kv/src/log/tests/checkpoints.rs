//! Checkpoints that are dropped at any point or take long, and what a power cut leaves then.

use core::time::Duration;

use fogbow::time;
use fogbow_block::fault::{FaultDisk, Survivors};

use super::super::objects::Object;
use super::power::Probe;
use super::*;

const REQUEST: Duration = Duration::from_micros(10);

/// Whatever a power cut leaves of what was written, the store holds this.
async fn assert_cuts_leave(disk: &FaultDisk, model: &Model, when: &str) {
    for survivors in [Survivors::None, Survivors::All].into_iter().chain((0..8).map(Survivors::Random)) {
        let left = LogStore::open(disk.power_cut(survivors), Config::default()).await.unwrap();
        assert_eq!(contents(&left).await, *model, "{survivors:?} {when}");
    }
}

/// A checkpoint is dropped at each of its requests of the device, and then the next one, too. Values that are given up overwrite whatever pages are free
/// now: none that the first superblock leads to, which may be on the device, is among those.
#[test]
fn pages_of_a_superblock_that_may_be_written_are_not_used_again() {
    Simulation::new(1).block_on(async {
        for (requests, later) in (1..=6).flat_map(|requests| (0..6).map(move |later| (requests, later))) {
            let disk = FaultDisk::new(ram(320), 1);
            let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
            for number in 0..20_u8 {
                store.set(key(&format!("key-{number:02}")), &[number; 700]).await.unwrap();
            }
            store.checkpoint().await.unwrap();
            store.set(key("key-07"), &[70; 700]).await.unwrap();
            let model = contents(&store).await;
            let generation = store.0.state().superblock.generation;
            disk.set_latency(REQUEST..REQUEST);
            let is_whole = time::timeout(REQUEST * requests + REQUEST / 2, store.checkpoint()).await.is_ok();
            assert_eq!(is_whole, requests == 6, "requests of a checkpoint");
            let _ = time::timeout(REQUEST * later + REQUEST / 2, store.checkpoint()).await;
            disk.set_latency(Duration::ZERO..Duration::ZERO);
            let reached = store.0.state().superblock.generation;
            for _ in 0..store.0.geometry.pages {
                Object::new(&store.0).push(&[9; 4096]).await.unwrap();
            }
            assert_eq!(store.0.state().superblock.generation, reached, "there is room without a checkpoint");
            assert_cuts_leave(&disk, &model, &format!("after requests {requests} and {later}")).await;
            store.checkpoint().await.unwrap();
            assert_eq!(store.0.state().superblock.generation, generation + 1);
            assert_cuts_leave(&disk, &model, &format!("after requests {requests} and {later}, and a whole checkpoint")).await;
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        }
    });
}

/// A checkpoint is dropped at each of its requests of the device, and then others are, until all free pages would have been used for one of them; then there
/// are commits. At each flush of these the power fails.
#[test]
fn nothing_is_lost_when_the_power_fails_after_a_checkpoint_was_dropped() {
    Simulation::new(1).block_on(async {
        for requests in 1.. {
            let (disk, expected) = Probe::expecting(320, 1);
            let store = disk.format().await;
            let set = async |name: String, value: Vec<u8>| {
                expected.borrow_mut().after.insert(name.clone(), value.clone());
                store.set(key(&name), &value).await.unwrap();
                expected.borrow_mut().before.insert(name, value);
            };
            // So large that the free pages are no multiple of what a checkpoint takes: the second time round, other bytes would lie in them.
            set("large".into(), alloc::vec![1; 114_000]).await;
            for number in 0..20_u8 {
                set(format!("key-{number}"), alloc::vec![number; 700]).await;
            }
            disk.disk.set_latency(REQUEST..REQUEST);
            let is_whole = time::timeout(REQUEST * requests + REQUEST / 2, store.checkpoint()).await.is_ok();
            for _ in 0..20 {
                let _ = time::timeout(REQUEST * 5 / 2, store.checkpoint()).await;
            }
            for number in 0..40_u8 {
                set(format!("key-{}", number % 20), alloc::vec![number; 700]).await;
            }
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
            if is_whole {
                assert!(requests >= 6);
                break;
            }
        }
    });
}

/// What a checkpoint that was dropped has written of the free-space map is not known: the next one writes all of it.
#[test]
fn the_map_is_whole_after_a_checkpoint_was_dropped() {
    Simulation::new(1).block_on(async {
        for requests in 1.. {
            // So large that the map has two pages, and used up to the second one's part.
            let disk = FaultDisk::new(ram(136 << 10), 1);
            let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
            let geometry = store.0.geometry;
            assert!(store.0.state().space.take((geometry.map_bits() - geometry.data_start()) as u32).is_some());
            store.set(key("a"), b"1").await.unwrap();
            disk.set_latency(REQUEST..REQUEST);
            let is_whole = time::timeout(REQUEST * requests + REQUEST / 2, store.checkpoint()).await.is_ok();
            store.checkpoint().await.unwrap();
            // From a damaged tree the map could not be made again, and nothing could be written.
            let root = store.0.state.borrow().superblock.root.unwrap();
            disk.damage(root.page * store.0.sectors(), 0, &[0xff; SECTOR]);
            let store = LogStore::open(disk, Config::default()).await.unwrap();
            assert_eq!(store.check(|_, _| {}).await.read_only, None, "dropped at request {requests}");
            if is_whole {
                assert!(requests >= 7);
                break;
            }
        }
    });
}

/// While a superblock is on its way, others take all the pages that they can have: what the former one leads to is not among them.
#[test]
fn the_former_tree_stays_until_the_new_superblock_is_durable() {
    Simulation::new(1).block_on(async {
        for requests in 0.. {
            let disk = FaultDisk::new(ram(512), 1);
            let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
            for number in 0..20_u8 {
                store.set(key(&format!("key-{number:02}")), &[number; 700]).await.unwrap();
            }
            // So that the pages that are taken next are not those that were written last.
            for round in 0..12 {
                store.set(key("key-00"), &[round; 700]).await.unwrap();
                store.checkpoint().await.unwrap();
            }
            store.set(key("key-19"), &[1; 700]).await.unwrap();
            let model = contents(&store).await;
            disk.set_latency(REQUEST..REQUEST);
            let checkpoint = {
                let store = store.clone();
                fogbow::spawn(async move { store.checkpoint().await })
            };
            time::sleep(REQUEST * requests + REQUEST / 2).await;
            let is_whole = checkpoint.is_finished();
            disk.set_latency(Duration::ZERO..Duration::ZERO);
            let mut objects = Vec::new();
            loop {
                let mut object = Object::new(&store.0);
                match time::timeout(REQUEST / 10, object.push(&[9; 4096])).await {
                    Ok(Ok(())) => objects.push(object),
                    _ => break,
                }
            }
            assert!(objects.len() > 20);
            assert_cuts_leave(&disk, &model, &format!("at request {requests}")).await;
            if is_whole {
                assert!(requests >= 6);
                break;
            }
            checkpoint.await.unwrap();
        }
    });
}
