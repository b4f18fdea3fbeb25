//! Calls that are dropped at any point, and what a power cut leaves after that.

use core::time::Duration;

use fogbow::time;
use fogbow_block::fault::FaultDisk;

use super::power::Probe;
use super::*;

const REQUEST: Duration = Duration::from_micros(10);

/// A checkpoint is dropped at each of its requests of the device, what it wrote being durable or not. The device is so full that pages are used again at once.
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
            set("large".into(), alloc::vec![1; 110_000]).await;
            for number in 0..20_u8 {
                set(format!("key-{number}"), alloc::vec![number; 700]).await;
            }
            disk.disk.set_latency(REQUEST..REQUEST);
            let is_whole = time::timeout(REQUEST * requests + REQUEST / 2, store.checkpoint()).await.is_ok();
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
