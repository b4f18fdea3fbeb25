//! Values, however they come: as streams, in parts, longer than what is changed at once.

use core::convert::Infallible;
use core::time::Duration;

use embedded_io_async::{ErrorType, Read};
use fogbow_block::Operation;
use fogbow_block::fault::{Fault, FaultDisk};

use super::*;
use crate::Digest;

/// A source that gives little at a time.
struct Trickle<'v>(&'v [u8]);

impl ErrorType for Trickle<'_> {
    type Error = Infallible;
}

impl Read for Trickle<'_> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        let (now, later) = self.0.split_at(self.0.len().min(into.len()).min(1000));
        into[..now.len()].copy_from_slice(now);
        self.0 = later;
        Ok(now.len())
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 5) as u8).collect()
}

#[test]
fn streams_of_every_length_are_stored_whole_and_take_no_more_than_they_need() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(16 << 10), Config::default()).await.unwrap();
        // Those of at most 1 KiB are kept with their keys.
        let lengths = [(0, 0), (10, 0), (1000, 0), (5000, 1), (65535, 1), (65536, 1), (65537, 2), (131_072, 2), (300_000, 5)];
        for (length, chunks) in lengths {
            let value = bytes(length);
            assert_eq!(store.set_stream(key("a"), &mut Trickle(&value)).await, Ok(length as u64));
            assert_eq!(store.get(key("a")).await.unwrap().as_ref(), value);
            store.checkpoint().await.unwrap();
            let report = store.check(|_, _| {}).await;
            assert_eq!((report.problems, report.chunks), (Vec::new(), chunks), "{length} bytes");
        }
        store.remove(key("a")).await.unwrap();
        store.checkpoint().await.unwrap();
        assert_eq!(store.check(|_, _| {}).await.pages, store.0.geometry.data_start() + free_pages(&store));
    });
}

fn free_pages(store: &LogStore<Ram>) -> u64 {
    store.0.state.borrow().space.free()
}

/// A value takes more operations than the store makes at once, and they are divided among commits. Nobody sees any of it before it is whole.
#[test]
fn a_value_may_be_longer_than_what_is_changed_at_once() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(32 << 10), Config::default()).await.unwrap();
        let value = bytes(10_000_000);
        assert!(value.len() / 65536 > store.0.geometry.max_entries());
        store.set(key("a"), &value).await.unwrap();
        assert_eq!(store.set_stream(key("b"), &mut &value[..]).await, Ok(value.len() as u64));
        for name in ["a", "b"] {
            assert!(store.get(key(name)).await.unwrap().as_ref() == value);
        }
        // A part is one change.
        let error = store.set_partial(key("a"), 1, &alloc::vec![7; 9_000_000]).await.unwrap_err();
        assert!(matches!(&error, WriteError::Unsupported { key, .. } if key == "a"), "{error}");
        assert!(store.get(key("a")).await.unwrap().as_ref() == value);
        store.checkpoint().await.unwrap();
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
    });
}

/// Zeros that were never written count as much as what was.
#[test]
fn parts_of_allocated_values_leave_their_size() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(4096), Config::default()).await.unwrap();
        for size in [10, 1024, 1025, 2000, 3000, 40_000, 100_000] {
            for offset in [0, 5, size - 1, size, size + 100] {
                store.allocate(key("a"), size as u64).await.unwrap();
                let mut expected = alloc::vec![0; size.max(offset + 3)];
                assert_eq!(store.get(key("a")).await.unwrap().as_ref(), &expected[..size]);
                expected[offset..offset + 3].copy_from_slice(b"xyz");
                store.set_partial(key("a"), offset as u64, b"xyz").await.unwrap();
                assert_eq!(store.get(key("a")).await.unwrap().as_ref(), expected, "{size} bytes, from {offset} on");
                store.remove(key("a")).await.unwrap();
            }
        }
    });
}

/// What was cached of a page is not what comes out of it after it was given to another value.
#[test]
fn pages_that_are_used_again_give_what_they_hold_now() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(512), Config::default()).await.unwrap();
        for round in 0..100_u8 {
            let value = alloc::vec![round; 60_000];
            store.set(key("a"), &value).await.unwrap();
            assert!(store.get(key("a")).await.unwrap().as_ref() == value, "round {round}");
            store.checkpoint().await.unwrap();
        }
    });
}

/// A digest is that of a value, whichever of those that were there meanwhile; that a value was replaced is nothing that who asks for it has to know.
#[test]
fn a_digest_is_taken_again_when_the_value_was_replaced_meanwhile() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(4096), 1);
        let store = LogStore::format(disk.clone(), Config { cache: 0 }).await.unwrap();
        store.set(key("a"), &bytes(200_000)).await.unwrap();
        let reading = store.clone();
        disk.fail(Operation::Read, 2, Fault::Late(Duration::from_secs(1)));
        let digest = fogbow::spawn(async move { reading.digest(key("a")).await });
        fogbow::task::yield_now().await;
        store.set(key("a"), &bytes(150_000)).await.unwrap();
        assert_eq!(digest.await, Ok(Digest::of(&bytes(150_000))));
    });
}
