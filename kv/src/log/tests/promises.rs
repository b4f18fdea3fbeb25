//! What the traits promise of listings, streams and batches, and which devices are made into a store.

use embedded_io_async::Read as _;

use super::*;
use crate::ReadError;
use crate::log::{FormatError, OpenError};

#[test]
fn names_are_listed_in_the_order_of_their_bytes_from_log_and_tree_alike() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(1024), Config::default()).await.unwrap();
        // A slash sorts behind a hyphen and a full stop, and before a letter.
        for name in ["ab", "a/c", "a.b", "a-b", "b"] {
            store.set(key(name), name.as_bytes()).await.unwrap();
            let all: Vec<_> = store.list(Key::ROOT).await.unwrap().into_iter().map(|name| name.name).collect();
            assert!(all.is_sorted(), "{all:?}");
            store.checkpoint().await.unwrap();
        }
        let all = store.list(Key::ROOT).await.unwrap();
        let all: Vec<_> = all.iter().map(|name| (name.name.as_str(), name.kind)).collect();
        let [value, dictionary] = [Kind::Value, Kind::Dictionary];
        assert_eq!(all, [("a", dictionary), ("a-b", value), ("a.b", value), ("ab", value), ("b", value)]);
    });
}

/// Keys that come in their order leave full leaves behind them: no more pages than their bytes take.
#[test]
fn what_is_set_in_order_fills_its_pages() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(16 << 10), Config::default()).await.unwrap();
        for number in 0..8000 {
            store.set(key(&format!("{number:06}")), &[1; 100]).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        let report = store.check(|_, _| {}).await;
        let bytes = 8000 * (2 + 4 + 7 + 17 + 100);
        let filled = bytes * 100 / (report.nodes * 4096);
        assert!(filled >= 90, "{filled} % of {} nodes", report.nodes);
    });
}

#[test]
fn a_stream_of_a_value_that_is_replaced_says_so() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(4096), Config::default()).await.unwrap();
        let (old, new) = ([1; 200_000], [2; 200_000]);
        store.set(key("a"), &old).await.unwrap();
        let mut reader = store.read(key("a")).await.unwrap();
        let mut part = [0; 1000];
        reader.read_exact(&mut part).await.unwrap();
        assert_eq!(part, [1; 1000]);
        store.set(key("a"), &new).await.unwrap();
        store.checkpoint().await.unwrap();
        let mut rest = Vec::new();
        let ended = loop {
            match reader.read(&mut part).await {
                Ok(0) => break Ok(()),
                Ok(length) => rest.extend_from_slice(&part[..length]),
                Err(error) => break Err(error),
            }
        };
        assert_eq!(ended, Err(ReadError::Changed("a".into())));
        assert!(rest.iter().all(|byte| *byte == 1), "nothing of the new value");
    });
}

/// A part that is overwritten makes another value, too, however often.
#[test]
fn a_stream_of_a_value_that_is_changed_in_part_says_so() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(4096), Config::default()).await.unwrap();
        store.set(key("a"), &[1; 200_000]).await.unwrap();
        for round in 2..4 {
            let mut reader = store.read(key("a")).await.unwrap();
            reader.read_exact(&mut [0; 1000]).await.unwrap();
            store.set_partial(key("a"), 150_000, &[round; 10]).await.unwrap();
            let error = reader.read_exact(&mut alloc::vec![0; 199_000]).await.unwrap_err();
            assert!(matches!(error, embedded_io_async::ReadExactError::Other(ReadError::Changed(_))), "{error:?}");
        }
        assert_eq!(store.size(key("a")).await, Ok(200_000));
    });
}

#[test]
fn a_batch_that_cannot_be_one_record_changes_nothing() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(1024));
        let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        for number in 0..200 {
            store.set(key(&format!("many/{number}")), b"1").await.unwrap();
        }
        let before = contents(&store).await;
        let names: Vec<String> = (0..200).map(|number| format!("new/{number}")).collect();
        let too_many: Vec<Change<'_>> = names.iter().map(|name| Change::Set(key(name), b"2")).collect();
        let dictionary = [Change::Set(key("a"), b"2"), Change::Remove(key("many"))];
        let large = [3; 20_000];
        let too_large: Vec<Change<'_>> = names[..60].iter().map(|name| Change::Set(key(name), &large[..])).collect();
        // Those go through the log, and take more bytes than a half of it has.
        let logged = [4; 3000];
        let too_long: Vec<Change<'_>> = names[..8].iter().map(|name| Change::Set(key(name), &logged[..])).collect();
        for changes in [&too_many[..], &dictionary, &too_large, &too_long] {
            let result = store.batch(changes).await;
            assert!(matches!(result, Err(WriteError::Unsupported { .. } | WriteError::NoSpace(_))), "{result:?}");
            assert_eq!(contents(&store).await, before);
        }
        let moved = "x".repeat(255);
        let deep = [moved.as_str(); 4].join("/");
        assert!(matches!(store.rename(key("many"), key(&deep)).await, Err(WriteError::Unsupported { .. })));
        assert_eq!(contents(&store).await, before);
        let store = LogStore::open(disk, Config::default()).await.unwrap();
        assert_eq!(contents(&store).await, before);
    });
}

#[test]
fn only_a_blank_device_is_made_into_a_store() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(1024));
        let store = LogStore::open_or_format(Rc::clone(&disk), Config::default()).await.unwrap();
        store.set(key("a"), b"1").await.unwrap();
        drop(store);
        let store = LogStore::open_or_format(Rc::clone(&disk), Config::default()).await.unwrap();
        assert_eq!(store.get(key("a")).await.unwrap().as_ref(), b"1");
        for place in [0, 1, 31] {
            let other = Rc::new(ram(1024));
            let text = [b'x'; SECTOR];
            other.write(place, &text).await.unwrap();
            let result = LogStore::open_or_format(Rc::clone(&other), Config::default()).await.map(drop);
            assert!(matches!(result, Err(OpenError::Format(FormatError::NotAStore))), "{result:?}");
            let mut back = [0; SECTOR];
            other.read(place, &mut back).await.unwrap();
            assert_eq!(back, text);
        }
    });
}
