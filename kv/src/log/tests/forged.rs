//! Contents that no store writes, all checksums being right: errors that name the key, no loops, nothing given to two owners.

use core::time::Duration;

use fogbow_block::fault::FaultDisk;

use super::super::entry::{Chunk, chunk_key};
use super::super::layout::{Extent, NodeRef};
use super::super::memtable::{Operations, Slot};
use super::forge::{Entry, Forge, child, inline, large};
use super::*;
use crate::ReadError;

#[track_caller]
fn makes_no_sense<T>(result: Result<T, ReadError>) {
    match result {
        Err(ReadError::Unavailable { reason, .. }) => assert!(reason.contains("makes no sense"), "{reason}"),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("what makes no sense is no data"),
    }
}

/// The error of whoever goes from name to name. Reading takes some time, so that one who goes in circles is found out.
async fn error_of_going_round(disk: Ram) -> String {
    let disk = FaultDisk::new(disk, 1);
    disk.set_latency(Duration::from_micros(10)..Duration::from_micros(11));
    let store = LogStore::open(disk, Config { cache: 0 }).await.unwrap();
    let around = async {
        let listed = store.list(Key::ROOT).await.unwrap_err();
        assert_eq!(store.last_modified(Key::ROOT).await.unwrap_err(), listed);
        store.remove(Key::ROOT).await.unwrap_err();
        listed.to_string()
    };
    fogbow::time::timeout(Duration::from_secs(1), around).await.expect("it ends")
}

#[test]
fn names_that_are_not_in_order_are_not_gone_through_for_ever() {
    Simulation::new(1).block_on(async {
        let mut forge = Forge::new();
        let (first, second) = (forge.node(0, &[inline("a"), inline("c")]), forge.node(0, &[inline("b")]));
        let root = forge.node(1, &[child("a", first), child("m", second)]);
        let error = error_of_going_round(forge.disk(root, 1).await).await;
        assert!(error.contains("makes no sense"), "{error}");
        // Names that are not written as keys are: what follows the key is the name again.
        for name in ["a/", "/a", "a//b", "a/../b"] {
            let mut forge = Forge::new();
            let root = forge.node(0, &[inline(name)]);
            let error = error_of_going_round(forge.disk(root, 0).await).await;
            assert!(error.contains("makes no sense"), "{error}");
        }
    });
}

#[test]
fn a_root_of_another_level_than_is_said_leads_to_nothing() {
    Simulation::new(1).block_on(async {
        for said in 0..4 {
            let mut forge = Forge::new();
            let leaf = forge.node(0, &[inline("a"), inline("b")]);
            let root = forge.node(1, &[child("a", leaf)]);
            for (root, level) in [(leaf, 0), (root, 1)].into_iter().filter(|(_, level)| *level != said) {
                let forge = Forge { geometry: forge.geometry, image: forge.image.clone(), next: forge.next };
                let store = forge.open(root, said).await;
                for name in ["a", "b", "c"] {
                    let result = store.get(key(name)).await.map(drop);
                    assert!(matches!(&result, Err(ReadError::Unavailable { key, .. }) if key == name), "{level} as {said}: {result:?}");
                }
                assert!(store.set(key("a"), b"2").await.is_err() && store.checkpoint().await.is_err());
            }
        }
    });
}

/// A branch has children beyond where it may have any: what belongs between is in the log.
#[test]
fn children_beyond_their_bounds_do_no_harm() {
    Simulation::new(1).block_on(async {
        let mut forge = Forge::new();
        let (first, beyond, last) = (forge.node(0, &[inline("a")]), forge.node(0, &[inline("x")]), forge.node(0, &[inline("y")]));
        let (low, high) = (forge.node(1, &[child("a", first), child("x", beyond)]), forge.node(1, &[child("m", last)]));
        let root = forge.node(2, &[child("a", low), child("m", high)]);
        let store = forge.open(root, 2).await;
        for name in ["b", "n", "z"] {
            store.set(key(name), b"2").await.unwrap();
        }
        store.checkpoint().await.unwrap();
        for name in ["a", "b"] {
            assert!(store.get(key(name)).await.is_ok());
        }
        assert!(!store.check(|_, _| {}).await.problems.is_empty());
    });
}

#[test]
fn sizes_and_places_that_cannot_be_are_errors() {
    Simulation::new(1).block_on(async {
        for size in [(512 << 10) + 1, 1 << 40, u64::MAX] {
            let mut forge = Forge::new();
            let root = forge.node(0, &[large("a", 5, size)]);
            let store = forge.open(root, 0).await;
            makes_no_sense(store.size(key("a")).await);
            makes_no_sense(store.get_partial(key("a"), size / 2, 10).await);
            makes_no_sense(store.read(key("a")).await);
            makes_no_sense(store.digest(key("a")).await);
        }
        // Superblocks, log, map, and what is behind the device belong to no value.
        let geometry = Forge::new().geometry;
        for page in [0, geometry.half_start(1), geometry.map_start(1), geometry.data_start() - 1, geometry.pages, u64::MAX] {
            let key_of_chunk = chunk_key(5, 0).to_vec();
            let zeros = Chunk::new(&key_of_chunk, &[0; 3], [Extent { page, count: 1 }].into());
            let mut forge = Forge::new();
            let root = forge.node(0, &[large("a", 5, 3), (key_of_chunk, zeros.emit())]);
            makes_no_sense(forge.open(root, 0).await.get(key("a")).await);
        }
    });
}

/// The tree and the log may say the same, and the log may say it twice: what is still led to is not free.
#[test]
fn what_is_said_again_keeps_its_pages() {
    Simulation::new(1).block_on(async {
        for (in_tree, times) in [(true, 1), (true, 2), (false, 2)] {
            let mut forge = Forge::new();
            let (chunk, value) = forge.chunk(5, 0, &[8; 3000]);
            let name = large("a", 5, 3000);
            let mut operations = Operations::default();
            for _ in 0..times {
                operations.push(&name.0, Slot::Put(name.1.clone().into()));
                operations.push(&chunk, Slot::Put(value.clone().into()));
            }
            forge.log(&operations);
            let entries: &[Entry] = if in_tree { &[name, (chunk, value)] } else { &[inline("b")] };
            let root: NodeRef = forge.node(0, entries);
            let store = forge.open(root, 0).await;
            store.checkpoint().await.unwrap();
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0], "{in_tree} {times}");
            for number in 0..80 {
                store.set(key(&format!("other-{number}")), &[9; 900]).await.unwrap();
            }
            assert_eq!(store.get(key("a")).await.unwrap().as_ref(), [8; 3000]);
        }
    });
}
