//! What a check finds: one store for each kind of damage, made so that all checksums are right.

use core::time::Duration;

use fogbow_block::fault::FaultDisk;

use super::super::entry::{Chunk, chunk_key, garbage_key, name_key};
use super::super::layout::{Extent, NodeRef};
use super::super::{Value, check::Report, node};
use super::forge::{Entry, Forge, child, inline, large};
use super::*;

#[track_caller]
fn only(report: &Report, problem: &str) {
    assert!(
        report.problem_count == 1 && report.problems.len() == 1 && report.problems[0].contains(problem),
        "{problem}: {:?}",
        report.problems
    );
}

#[test]
fn entries_that_make_no_sense() {
    Simulation::new(1).block_on(async {
        let mut forge = Forge::new();
        let whole = [inline("a"), large("b", 5, 3), forge.chunk(5, 0, b"two"), (garbage_key(9).to_vec(), Vec::new())];
        assert_eq!(forge.leaf(&whole).await.problems, [""; 0]);
        only(&Forge::new().leaf(&[inline("a"), (b"zzz".to_vec(), Vec::new())]).await, "an entry of no known kind");
        only(&Forge::new().leaf(&[inline("a"), inline("b//c")]).await, "'b//c' is no key");
        only(&Forge::new().leaf(&[(name_key("a"), alloc::vec![1; 20])]).await, "'a': what is known of its value makes no sense");
        only(&Forge::new().leaf(&[large("a", 5, 1), large("b", 5, 1)]).await, "'b' and 'a' lead to the same value");
        let mut forge = Forge::new();
        let orphan = forge.chunk(5, 0, b"two");
        only(&forge.leaf(&[inline("a"), orphan]).await, "object 5: no key leads to its 1 chunks");
        only(&Forge::new().leaf(&[large("a", 5, 1), (garbage_key(5).to_vec(), Vec::new())]).await, "'a': its value counts as garbage");
        let report = Forge::new().leaf(&[large("a", 5, u64::MAX), large("b", 6, u64::MAX)]).await;
        assert_eq!((report.value_bytes, report.values), (u64::MAX, 2));
        let many: Vec<Entry> = (0..110).map(|number| inline(&format!("{number:03}//"))).collect();
        let report = Forge::new().leaf(&many[..]).await;
        assert_eq!((report.problem_count, report.problems.len()), (110, 100), "the first hundred are described");
    });
}

#[test]
fn values_that_cannot_be_read() {
    Simulation::new(1).block_on(async {
        let nonsense = (chunk_key(5, 1).to_vec(), alloc::vec![1; 5]);
        let text = "'a': the 64 KiB from byte 65536 on cannot be read: an entry of the store makes no sense";
        only(&Forge::new().leaf(&[large("a", 5, 70_000), nonsense]).await, text);
        for (length, count) in [(5000, 1), (0, 0), (3, 200)] {
            let key = chunk_key(5, 0).to_vec();
            let extents = alloc::vec![Extent { page: 100, count }];
            let entry = (key.clone(), Chunk::new(&key, &alloc::vec![0; length], extents).emit());
            let report = Forge::new().leaf(&[large("a", 5, 3), entry]).await;
            assert!(report.problems[0].contains("'a': the 64 KiB from byte 0 on cannot be read"), "{:?}", report.problems);
        }
        let mut forge = Forge::new();
        let chunk = forge.chunk(5, 0, b"two");
        let start = (forge.next - 1) as usize * forge.geometry.page;
        forge.image[start] ^= 1;
        only(&forge.leaf(&[large("a", 5, 3), chunk]).await, "'a': the 64 KiB from byte 0 on cannot be read: page");
        // The bytes of another chunk are not those of this one, though they are the same.
        let mut forge = Forge::new();
        let (_, other) = forge.chunk(5, 1, b"two");
        only(&forge.leaf(&[large("a", 5, 3), (chunk_key(5, 0).to_vec(), other)]).await, "from byte 0 on cannot be read: page");
    });
}

#[test]
fn nodes_that_are_damaged_or_not_where_they_belong() {
    Simulation::new(1).block_on(async {
        // Two leaves below a branch, and what goes wrong with the second.
        let report = async |second: &dyn Fn(&mut Forge) -> NodeRef| {
            let mut forge = Forge::new();
            let first = forge.node(0, &[inline("a")]);
            let second = second(&mut forge);
            let root = forge.node(1, &[child("a", first), child("m", second)]);
            forge.check(root, 1).await.0
        };
        assert_eq!(report(&|forge| forge.node(0, &[inline("m")])).await.problems, [""; 0]);
        only(&report(&|forge| forge.node(0, &[inline("b"), inline("n")])).await, "a leaf has keys that belong elsewhere");
        let other = report(&|forge| forge.node(3, &[child("m", NodeRef { page: 1, checksum: 0 })])).await;
        only(&other, "it has another level than it should; keys from 'm' to the last cannot be found");
        assert!(other.read_only.unwrap().contains("the free-space map and the tree are damaged"));
        let damaged = report(&|forge| NodeRef { checksum: 1, ..forge.node(0, &[inline("m")]) }).await;
        only(&damaged, "is damaged; keys from 'm' to the last cannot be found");
        let elsewhere = report(&|forge| NodeRef { page: forge.geometry.pages, checksum: 1 }).await;
        only(&elsewhere, "is damaged; keys from 'm' to the last cannot be found");

        let mut forge = Forge::new();
        let first = forge.node(0, &[inline("a"), inline("x")]);
        let parts = NodeRef { checksum: 1, ..forge.node(0, &[inline("z")]) };
        let root = forge.node(1, &[child("a", first), child("m", first), (b"o".to_vec(), parts.emit().to_vec())]);
        let (report, store) = forge.check(root, 1).await;
        let has = |text: &str| report.problems.iter().any(|problem| problem.contains(text));
        assert!(has("a node shares them with something else") && has("parts of values of more than 1 KiB cannot be found"), "{report:?}");
        assert_eq!(report.problem_count, 4, "{report:?}");
        assert!(report.read_only.unwrap().contains("the free-space map and the tree are damaged"));
        assert!(matches!(store.set(key("a"), b"2").await, Err(WriteError::Unavailable { .. })), "what is free is not known");
    });
}

/// Branches whose children are all one: there are more ways through such a tree than anybody could go.
#[test]
fn a_tree_of_few_nodes_and_endless_ways_is_checked_once() {
    Simulation::new(1).block_on(async {
        let mut forge = Forge::new();
        let mut below = forge.node(0, &[inline("a")]);
        for level in 1..=10 {
            let children: Vec<Entry> = (0..100).map(|number| child(&format!("{number:02}"), below)).collect();
            below = forge.node(level, &children);
        }
        let (report, store) = forge.check(below, 10).await;
        assert!(report.problems[1].contains("a node shares them with something else"), "{report:?}");
        assert!(report.nodes <= 10 * 100 + 1, "{} nodes", report.nodes);
        assert!(matches!(store.set(key("a"), b"2").await, Err(WriteError::Unavailable { .. })), "what is free is not known");
    });
}

/// Keys in a leaf where nobody looks for them could be removed again and again.
#[test]
fn keys_that_are_not_in_their_place_are_an_error_and_no_endless_work() {
    Simulation::new(1).block_on(async {
        let mut forge = Forge::new();
        let first = forge.node(0, &[(garbage_key(9).to_vec(), Vec::new()), inline("a")]);
        let names: Vec<Entry> = (0..60).map(|number| inline(&format!("b-{number:02}"))).collect();
        let second = forge.node(0, &names);
        let chunks: Vec<Entry> = (0..40).map(|number| (chunk_key(9, number).to_vec(), alloc::vec![0; 12])).collect();
        let third = forge.node(0, &chunks);
        let root = forge.node(1, &[child("a", first), child("z", second), (b"p".to_vec(), third.emit().to_vec())]);
        let (report, store) = forge.check(root, 1).await;
        assert!(report.problems[0].contains("a leaf has keys that belong elsewhere"), "{report:?}");
        assert!(matches!(store.list(Key::ROOT).await, Err(crate::ReadError::Unavailable { .. })));
        assert!(matches!(store.remove(Key::ROOT).await, Err(WriteError::Unavailable { .. })));
        assert_eq!(store.get(key("a")).await.unwrap().as_ref(), b"1");
        // As much as there is room for, and until everything is taken apart that can be.
        let mut count = 0;
        while store.set(key(&format!("a-{count}")), &[1; 900]).await.is_ok() {
            count += 1;
        }
        assert!(count > 10);
        for number in 0..count {
            store.remove(key(&format!("a-{number}"))).await.unwrap();
        }
    });
}

/// Parts of a value that claim what is the store's own, or no device's: they are nobody's to give back.
#[test]
fn what_a_forged_value_does_not_have_is_not_given_away() {
    Simulation::new(1).block_on(async {
        let mut forge = Forge::new();
        let mut entries = alloc::vec![large("a", 5, 300_000), inline("b")];
        for (number, page) in [0, forge.geometry.data_start() - 3, forge.geometry.pages - 2, u64::MAX - 3].into_iter().enumerate() {
            let key = chunk_key(5, number as u64).to_vec();
            entries.push((key.clone(), Chunk::new(&key, &[0; 9], alloc::vec![Extent { page, count: 8 }]).emit()));
        }
        entries.sort();
        let root = forge.node(0, &entries);
        let (_, store) = forge.check(root, 0).await;
        store.remove(key("a")).await.unwrap();
        for round in 0..200_u8 {
            store.set(key("c"), &[round; 5000]).await.unwrap();
            store.checkpoint().await.unwrap();
        }
        let disk = store.0.device.snapshot();
        for store in [store, LogStore::open(disk, Config::default()).await.unwrap()] {
            assert_eq!(contents(&store).await, [("b".into(), b"1".to_vec()), ("c".into(), alloc::vec![199; 5000])].into());
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        }
    });
}

#[test]
fn pages_that_have_two_owners_or_none() {
    Simulation::new(1).block_on(async {
        let mut forge = Forge::new();
        let (own, value) = forge.chunk(5, 0, b"two");
        let extents = Chunk::parse(&value).unwrap().extents;
        let other = chunk_key(5, 1).to_vec();
        let shared = (other.clone(), Chunk::new(&other, b"two", extents).emit());
        only(&forge.leaf(&[large("a", 5, 70_000), (own, value), shared]).await, "1 of them: a value shares them with something else");

        let mut forge = Forge::new();
        let root = forge.node(0, &[inline("a")]);
        let (_, store) = forge.check(root, 0).await;
        let taken = store.0.state().space.take(3).unwrap();
        only(&store.check(|_, _| {}).await, "3 pages are not in use and do not count as free");
        store.0.state().space.release(&taken);
        store.0.state().space.release(&[Extent { page: root.page, count: 1 }]);
        only(&store.check(|_, _| {}).await, "1 pages are in use and count as free");
    });
}

/// A value that is only in the log leads to pages, too; and what is under way is not taken for damage.
#[test]
fn what_is_in_the_log_is_checked() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(2048));
        let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        store.set(key("a"), &[7; 100_000]).await.unwrap();
        store.set(key("a"), &[8; 100_000]).await.unwrap();
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        let mut image = alloc::vec![0; 2048 << 10];
        disk.read(0, &mut image).await.unwrap();
        let at = image.chunks(SECTOR).position(|sector| sector.iter().all(|byte| *byte == 8)).unwrap();
        disk.write(at as u64, &[9; SECTOR]).await.unwrap();
        only(&store.check(|_, _| {}).await, "a value that is in the log: page");
        let mut calls = Vec::new();
        store.checkpoint().await.unwrap();
        store.check(|done, total| calls.push((done, total))).await;
        assert!(calls.is_sorted() && calls[0].0 == 0 && calls.last().is_some_and(|(done, total)| done == total), "{calls:?}");
    });
}

/// What is written waits while a check runs, and a check waits for what is being written: it sees no half of a checkpoint.
#[test]
fn a_check_finds_nothing_wrong_while_others_write() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(1024), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        disk.set_latency(Duration::from_micros(10)..Duration::from_micros(200));
        let is_done = Rc::new(core::cell::Cell::new(false));
        let writer = {
            let (store, is_done) = (store.clone(), Rc::clone(&is_done));
            fogbow::spawn(async move {
                for number in 0..300_u32 {
                    store.set(key(&format!("key-{}", number % 50)), &[1; 800]).await.unwrap();
                }
                is_done.set(true);
            })
        };
        let mut checks = 0;
        while !is_done.get() {
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
            checks += 1;
            fogbow::time::sleep(Duration::from_micros(10)).await;
        }
        writer.await;
        assert!(checks > 20, "{checks}");
    });
}

#[test]
fn three_of_the_longest_entries_fit_into_the_smallest_page() {
    for length in [1, 2, 500, crate::key::MAX_KEY] {
        let name = "k".repeat(length);
        let most = (0..4096).rev().find(|size| super::super::entry::is_inline(&name, *size)).unwrap();
        assert!(most <= 1024 && (length > 2 || most == 1024), "a value of at most 1 KiB, {most} of a key of {length} bytes");
        let value = Value::from(alloc::vec![0; super::super::entry::META + most]);
        assert!(3 * node::entry_size(&name_key(&name), value.as_ref()) <= 4096 - node::HEADER, "{length}");
    }
}
