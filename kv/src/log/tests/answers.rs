//! What a store says: of what is not there, of what is of the other kind or in the way, and of times.

use core::time::Duration;

use fogbow::time::{self, WallTime};
use fogbow_block::View;

use super::*;
use crate::log::{FormatError, OpenError};
use crate::{Name, ReadError};

#[test]
fn what_cannot_be_is_said_whether_it_is_in_the_log_or_in_the_tree() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(1024), Config::default()).await.unwrap();
        assert_eq!((store.list(Key::ROOT).await, store.exists(Key::ROOT).await), (Ok(Vec::new()), Ok(Some(Kind::Dictionary))));
        assert_eq!(store.last_modified(Key::ROOT).await, Ok(WallTime::default()));
        store.set(key("a/b"), b"1").await.unwrap();
        store.set(key("c"), b"2").await.unwrap();
        for _ in 0..2 {
            let kinds = [("a", Some(Kind::Dictionary)), ("a/b", Some(Kind::Value)), ("q", None), ("c/d", None)];
            for (name, kind) in kinds {
                assert_eq!(store.exists(key(name)).await, Ok(kind), "{name}");
            }
            assert_eq!(store.list(key("a")).await, Ok([Name { name: "b".into(), kind: Kind::Value }].into()));
            assert_eq!(store.list(key("q")).await, Err(ReadError::NotFound("q".into())));
            assert_eq!(store.list(key("c")).await, Err(ReadError::IsValue("c".into())));
            assert_eq!(store.last_modified(key("q")).await, Err(ReadError::NotFound("q".into())));
            assert_eq!(store.size(key("q")).await, Err(ReadError::NotFound("q".into())));
            assert_eq!(store.get(key("a")).await.map(drop), Err(ReadError::IsDictionary("a".into())));
            let conflicts = [("a", "a/x"), ("a/b", "a"), ("a/b", "a/b/x"), ("", "d"), ("a", ""), ("a", "c"), ("a/b", "c/d")];
            for (from, to) in conflicts {
                assert_eq!(store.rename(key(from), key(to)).await, Err(WriteError::Conflict(to.into())), "{from} to {to}");
            }
            for name in ["", "a", "c/d"] {
                assert_eq!(store.set(key(name), b"3").await, Err(WriteError::Conflict(name.into())));
            }
            for (from, to) in [("q", "r"), ("q", "q/r"), ("q/r", "q"), ("q", "a")] {
                assert_eq!(store.rename(key(from), key(to)).await, Err(WriteError::NotFound(from.into())), "{from} to {to}");
            }
            // 1023 bytes, and two more below it.
            let deep = ["x".repeat(255).as_str(); 4].join("/");
            assert!(
                matches!(store.rename(key("a"), key(&deep)).await, Err(WriteError::Unsupported { key, .. }) if key == format!("{deep}/b"))
            );
            assert_eq!(contents(&store).await, [("a/b".into(), b"1".to_vec()), ("c".into(), b"2".to_vec())].into());
            store.checkpoint().await.unwrap();
        }
    });
}

/// Whatever sets a value is when it was last modified; that of a dictionary is the latest below it.
#[test]
fn times_are_those_of_the_last_change() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(2048), Config::default()).await.unwrap();
        let modified = async |name: &str| store.last_modified(key(name)).await.unwrap();
        let steps = [
            ("d/small", Step::Set("d/small".into(), alloc::vec![1; 10])),
            ("d/logged", Step::Set("d/logged".into(), alloc::vec![1; 2000])),
            ("d/large", Step::Set("d/large".into(), alloc::vec![1; 100_000])),
            ("d/stream", Step::Stream("d/stream".into(), alloc::vec![1; 100_000])),
            ("d/zeros", Step::Allocate("d/zeros".into(), 10)),
            ("d/many-zeros", Step::Allocate("d/many-zeros".into(), 100_000)),
            ("d/small", Step::Part("d/small".into(), 5, alloc::vec![2; 10])),
            ("d/large", Step::Part("d/large".into(), 5, alloc::vec![2; 10])),
            ("d/many", Step::Batch([Step::Set("d/many".into(), Vec::new())].into())),
            // The latest is now in the middle of the dictionary.
            ("d/logged", Step::Set("d/logged".into(), alloc::vec![1; 10])),
        ];
        for (name, step) in steps {
            time::sleep(Duration::from_secs(1)).await;
            let now = time::wall();
            step.apply(&store).await.unwrap();
            for _ in 0..2 {
                assert_eq!((modified(name).await, modified("d").await, modified("").await), (now, now, now), "{step:?}");
                store.checkpoint().await.unwrap();
            }
        }
        let before = (modified("d/logged").await, modified("d/small").await);
        time::sleep(Duration::from_secs(1)).await;
        store.rename(key("d/logged"), key("moved")).await.unwrap();
        assert_eq!((modified("moved").await, modified("d/small").await), before, "a value that is moved stays what it was");
    });
}

/// A batch names the first change that cannot be made with those before it.
#[test]
fn what_is_too_much_at_once_is_said_of_the_change_that_was() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(1024), Config::default()).await.unwrap();
        let names: Vec<String> = (0..200).map(|number| format!("{number:03}")).collect();
        let changes: Vec<Change<'_>> = names.iter().map(|name| Change::Set(key(name), b"1")).collect();
        let most = store.0.geometry.max_entries();
        let error = store.batch(&changes).await.unwrap_err();
        assert!(matches!(&error, WriteError::Unsupported { key, .. } if *key == names[most]), "{error}");
        store.batch(&changes[..most]).await.unwrap();
        assert_eq!(store.list(Key::ROOT).await.unwrap().len(), most);
    });
}

#[test]
fn a_blank_device_that_can_only_be_read_is_no_store() {
    Simulation::new(1).block_on(async {
        let opened = LogStore::open_or_format(View::read_only(ram(1024)), Config::default()).await.map(drop);
        assert_eq!(opened, Err(OpenError::Format(FormatError::NotAStore)));
    });
}
