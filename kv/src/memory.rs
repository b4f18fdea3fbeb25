//! The in-memory store: a sorted map that lives as long as the image does.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Bound;

use embedded_io_async::Read;
use fogbow::time::{self, WallTime};

use crate::key::Key;
use crate::{
    Change, Digest, Kind, Name, ReadError, ReadOnly, ReadWrite, Slice, StreamError, WriteError, dictionary, not_a_value, part, stream,
};

/// A store in memory. Cloning gives another handle to the same store. A value that is being read stays as it was when it was got.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    values: Rc<RefCell<Values>>,
}

type Values = BTreeMap<String, Stored>;

#[derive(Clone, Debug)]
struct Stored {
    value: Rc<[u8]>,
    modified: WallTime,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn find(&self, key: Key<'_>) -> Result<Stored, ReadError> {
        let values = self.values.borrow();
        values.get(key.as_str()).cloned().ok_or_else(|| not_a_value(key, is_dictionary(&values, key)))
    }

    /// Makes changes, all or none.
    fn edit(&self, change: impl FnOnce(&mut Edit<'_>) -> Result<(), WriteError>) -> Result<(), WriteError> {
        let mut values = self.values.borrow_mut();
        let mut edit = Edit { values: &mut values, undo: Vec::new() };
        let result = change(&mut edit);
        if result.is_err() {
            edit.undo();
        }
        result
    }
}

/// Changes under way, and what undoes them.
struct Edit<'m> {
    values: &'m mut Values,
    undo: Vec<(String, Option<Stored>)>,
}

impl Edit<'_> {
    /// Checks that `key` can take a value: it is no dictionary and lies below no value.
    fn check_place(&self, key: Key<'_>) -> Result<(), WriteError> {
        match is_dictionary(self.values, key) || key.ancestors().any(|above| self.values.contains_key(above.as_str())) {
            true => Err(WriteError::Conflict(key.as_str().to_owned())),
            false => Ok(()),
        }
    }

    fn store(&mut self, key: String, stored: Stored) {
        let former = self.values.insert(key.clone(), stored);
        self.undo.push((key, former));
    }

    fn take(&mut self, key: String) -> Option<Stored> {
        let former = self.values.remove(&key)?;
        self.undo.push((key, Some(former.clone())));
        Some(former)
    }

    fn set(&mut self, key: Key<'_>, value: Rc<[u8]>) -> Result<(), WriteError> {
        self.check_place(key)?;
        self.store(key.as_str().to_owned(), Stored { value, modified: time::wall() });
        Ok(())
    }

    fn remove(&mut self, key: Key<'_>) -> Result<(), WriteError> {
        for key in keys_below(self.values, key) {
            self.take(key);
        }
        self.take(key.as_str().to_owned());
        Ok(())
    }

    fn rename(&mut self, from: Key<'_>, to: Key<'_>) -> Result<(), WriteError> {
        let is_value = self.values.contains_key(from.as_str());
        if !is_value && !is_dictionary(self.values, from) {
            return Err(WriteError::NotFound(from.as_str().to_owned()));
        }
        if from == to {
            return Ok(());
        }
        if to.below(from).is_some() {
            return Err(WriteError::Conflict(to.as_str().to_owned()));
        }
        if is_value {
            self.check_place(to)?;
            if let Some(stored) = self.take(from.as_str().to_owned()) {
                self.store(to.as_str().to_owned(), stored);
            }
            return Ok(());
        }
        self.check_place(to)?;
        if self.values.contains_key(to.as_str()) {
            return Err(WriteError::Conflict(to.as_str().to_owned()));
        }
        for key in keys_below(self.values, from) {
            let moved = alloc::format!("{to}{}", &key[from.as_str().len()..]);
            Key::new(&moved).map_err(|_| WriteError::Unsupported { key: moved.clone(), reason: "the new key would be too long" })?;
            if let Some(stored) = self.take(key) {
                self.store(moved, stored);
            }
        }
        Ok(())
    }

    fn undo(self) {
        for (key, former) in self.undo.into_iter().rev() {
            match former {
                Some(stored) => drop(self.values.insert(key, stored)),
                None => drop(self.values.remove(&key)),
            }
        }
    }
}

fn is_dictionary(values: &Values, key: Key<'_>) -> bool {
    dictionary::is_dictionary(key, |text| first_at(values, text))
}

fn keys_below(values: &Values, key: Key<'_>) -> Vec<String> {
    let start = dictionary::start_of(key);
    values.range(start.clone()..).map(|(key, _)| key).take_while(|key| key.starts_with(&start)).cloned().collect()
}

fn first_at<'m>(values: &'m Values, text: &str) -> Option<&'m str> {
    values.range::<str, _>((Bound::Included(text), Bound::Unbounded)).next().map(|(key, _)| key.as_str())
}

/// A vector of zeros, or an error where memory for it cannot be had.
fn zeros(key: Key<'_>, size: u64) -> Result<Vec<u8>, WriteError> {
    let no_space = || WriteError::NoSpace(key.as_str().to_owned());
    let size = usize::try_from(size).map_err(|_| no_space())?;
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(size).map_err(|_| no_space())?;
    zeros.resize(size, 0);
    Ok(zeros)
}

impl ReadOnly for Memory {
    type Value = Rc<[u8]>;
    type Reader = Slice<Rc<[u8]>>;

    async fn exists(&self, key: Key<'_>) -> Result<Option<Kind>, ReadError> {
        let values = self.values.borrow();
        Ok(match values.contains_key(key.as_str()) {
            true => Some(Kind::Value),
            false => is_dictionary(&values, key).then_some(Kind::Dictionary),
        })
    }

    async fn get(&self, key: Key<'_>) -> Result<Rc<[u8]>, ReadError> {
        Ok(self.find(key)?.value)
    }

    async fn get_partial(&self, key: Key<'_>, offset: u64, length: usize) -> Result<Rc<[u8]>, ReadError> {
        Ok(part(&self.find(key)?.value, offset, length).into())
    }

    async fn read(&self, key: Key<'_>) -> Result<Slice<Rc<[u8]>>, ReadError> {
        Ok(Slice::new(self.find(key)?.value))
    }

    async fn list(&self, key: Key<'_>) -> Result<Vec<Name>, ReadError> {
        let values = self.values.borrow();
        if values.contains_key(key.as_str()) {
            return Err(ReadError::IsValue(key.as_str().to_owned()));
        }
        if !is_dictionary(&values, key) {
            return Err(ReadError::NotFound(key.as_str().to_owned()));
        }
        Ok(dictionary::names(key, |text| first_at(&values, text)))
    }

    async fn size(&self, key: Key<'_>) -> Result<u64, ReadError> {
        Ok(self.find(key)?.value.len() as u64)
    }

    async fn last_modified(&self, key: Key<'_>) -> Result<WallTime, ReadError> {
        match self.find(key) {
            Ok(stored) => Ok(stored.modified),
            Err(ReadError::IsDictionary(_)) => {
                let values = self.values.borrow();
                Ok(keys_below(&values, key)
                    .iter()
                    .filter_map(|key| values.get(key))
                    .map(|stored| stored.modified)
                    .max()
                    .unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }

    async fn digest(&self, key: Key<'_>) -> Result<Digest, ReadError> {
        Ok(Digest::of(&self.find(key)?.value))
    }
}

impl ReadWrite for Memory {
    async fn set(&self, key: Key<'_>, value: &[u8]) -> Result<(), WriteError> {
        self.edit(|edit| edit.set(key, value.into()))
    }

    async fn set_stream<R: Read>(&self, key: Key<'_>, source: &mut R) -> Result<u64, StreamError<R::Error>> {
        let value = stream::collect(key, source).await?;
        let length = value.len() as u64;
        self.edit(|edit| edit.set(key, value.into()))?;
        Ok(length)
    }

    async fn batch(&self, changes: &[Change<'_>]) -> Result<(), WriteError> {
        self.edit(|edit| {
            changes.iter().try_for_each(|change| match *change {
                Change::Set(key, value) => edit.set(key, value.into()),
                Change::Remove(key) => edit.remove(key),
                Change::Rename(from, to) => edit.rename(from, to),
            })
        })
    }

    async fn set_partial(&self, key: Key<'_>, offset: u64, part: &[u8]) -> Result<(), WriteError> {
        let former = self.find(key).map(|stored| stored.value).unwrap_or_default();
        let end = offset.checked_add(part.len() as u64).ok_or_else(|| WriteError::NoSpace(key.as_str().to_owned()))?;
        let mut value = zeros(key, end.max(former.len() as u64))?;
        value[..former.len()].copy_from_slice(&former);
        value[end as usize - part.len()..end as usize].copy_from_slice(part);
        self.edit(|edit| edit.set(key, value.into()))
    }

    async fn allocate(&self, key: Key<'_>, size: u64) -> Result<(), WriteError> {
        if self.values.borrow().contains_key(key.as_str()) {
            return Err(WriteError::Exists(key.as_str().to_owned()));
        }
        let value = zeros(key, size)?.into();
        self.edit(|edit| edit.set(key, value))
    }

    async fn remove(&self, key: Key<'_>) -> Result<(), WriteError> {
        self.edit(|edit| edit.remove(key))
    }

    async fn rename(&self, from: Key<'_>, to: Key<'_>) -> Result<(), WriteError> {
        self.edit(|edit| edit.rename(from, to))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use fogbow::simulation::Simulation;
    use proptest::prelude::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    /// Runs a future that never waits.
    pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("a store in memory never waits"),
        }
    }

    fn key(text: &str) -> Key<'_> {
        Key::new(text).unwrap()
    }

    #[test]
    fn a_value_cannot_be_a_dictionary_too() {
        Simulation::new(1).block_on(async {
            let store = Memory::new();
            store.set(key("a/b"), b"1").await.unwrap();
            assert_eq!(store.set(key("a"), b"2").await, Err(WriteError::Conflict("a".into())));
            assert_eq!(store.set(key("a/b/c"), b"2").await, Err(WriteError::Conflict("a/b/c".into())));
            assert_eq!(store.set(Key::ROOT, b"2").await, Err(WriteError::Conflict(String::new())));
            assert_eq!(store.allocate(key("a/b"), 1).await, Err(WriteError::Exists("a/b".into())));
        });
    }

    #[test]
    fn parts_are_overwritten_and_gaps_are_zero() {
        Simulation::new(1).block_on(async {
            let store = Memory::new();
            store.set_partial(key("a"), 3, b"xyz").await.unwrap();
            store.set_partial(key("a"), 1, b"ab").await.unwrap();
            assert_eq!(&*store.get(key("a")).await.unwrap(), b"\0abxyz");
            assert_eq!(&*store.get_partial(key("a"), 4, 100).await.unwrap(), b"yz");
            assert!(matches!(store.set_partial(key("a"), u64::MAX, b"ab").await, Err(WriteError::NoSpace(_))));
            assert!(matches!(store.allocate(key("b"), u64::MAX / 2).await, Err(WriteError::NoSpace(_))));
        });
    }

    #[test]
    fn dictionaries_move_and_go_as_a_whole() {
        Simulation::new(1).block_on(async {
            let store = Memory::new();
            store.set(key("a/b"), b"1").await.unwrap();
            store.set(key("a/c/d"), b"2").await.unwrap();
            store.set(key("ab"), b"3").await.unwrap();
            assert_eq!(store.rename(key("a"), key("a/x")).await, Err(WriteError::Conflict("a/x".into())));
            assert_eq!(store.rename(key("a"), key("ab")).await, Err(WriteError::Conflict("ab".into())));
            for to in ["r", "q", "q/r", "ab", "ab/q"] {
                assert_eq!(store.rename(key("q"), key(to)).await, Err(WriteError::NotFound("q".into())), "to {to}");
            }
            assert_eq!(store.rename(key("a"), key("a")).await, Ok(()));
            assert_eq!(store.rename(key("a/c"), key("a")).await, Err(WriteError::Conflict("a".into())));
            assert_eq!(store.rename(key("a/q"), key("a")).await, Err(WriteError::NotFound("a/q".into())));
            let deep = ["x".repeat(255).as_str(); 4].join("/");
            assert!(
                matches!(store.rename(key("a"), key(&deep)).await, Err(WriteError::Unsupported { .. })),
                "no key is longer than 1024 bytes"
            );
            assert_eq!(&*store.get(key("a/b")).await.unwrap(), b"1");
            store.rename(key("a"), key("x/y")).await.unwrap();
            assert_eq!(store.exists(key("a")).await, Ok(None));
            assert_eq!(&*store.get(key("x/y/c/d")).await.unwrap(), b"2");
            store.remove(key("x")).await.unwrap();
            assert_eq!(store.list(Key::ROOT).await.unwrap(), [Name { name: "ab".into(), kind: Kind::Value }]);
        });
    }

    #[test]
    fn what_is_in_the_way_stays() {
        Simulation::new(1).block_on(async {
            let store = Memory::new();
            store.set(key("a/b"), b"1").await.unwrap();
            let early = time::wall();
            time::sleep(time::Duration::from_secs(1)).await;
            store.set(key("a/a"), b"2").await.unwrap();
            store.set(key("c"), b"3").await.unwrap();
            let late = store.last_modified(key("a/a")).await.unwrap();
            time::sleep(time::Duration::from_secs(1)).await;
            store.set(key("a/b"), b"1").await.unwrap();
            let latest = store.last_modified(key("a")).await.unwrap();
            assert!(latest > late && late > early, "the latest of those below");
            assert_eq!(store.rename(key("a/b"), key("a/b")).await, Ok(()));
            assert_eq!(store.last_modified(key("a/b")).await, Ok(latest), "nothing has changed");
            store.set(key("a/c"), b"4").await.unwrap();
            time::sleep(time::Duration::from_secs(1)).await;
            store.set(key("a/a"), b"2").await.unwrap();
            assert!(store.last_modified(key("a")).await.unwrap() > latest, "wherever it is");
            assert_eq!(store.rename(key("c"), key("a")).await, Err(WriteError::Conflict("a".into())));
            assert_eq!(store.rename(key("a/b"), key("a")).await, Err(WriteError::Conflict("a".into())));
            assert_eq!(store.rename(key("a"), key("c/d")).await, Err(WriteError::Conflict("c/d".into())));
            assert_eq!(store.rename(Key::ROOT, key("d")).await, Err(WriteError::Conflict("d".into())));
            assert_eq!(store.list(key("c")).await, Err(ReadError::IsValue("c".into())));
            assert_eq!(&*store.get(key("a/b")).await.unwrap(), b"1");
        });
    }

    #[test]
    fn a_batch_is_made_whole_or_not_at_all() {
        Simulation::new(1).block_on(async {
            let store = Memory::new();
            store.set(key("a/b"), b"1").await.unwrap();
            store.set(key("c"), b"2").await.unwrap();
            let mut changes = std::vec![
                Change::Remove(key("a")),
                Change::Set(key("a"), b"3"),
                Change::Rename(key("c"), key("d/e")),
                Change::Set(key("d/e"), b"4"),
                Change::Set(key("a/b"), b"5"),
            ];
            assert_eq!(store.batch(&changes).await, Err(WriteError::Conflict("a/b".into())));
            assert_eq!(&*store.get(key("a/b")).await.unwrap(), b"1");
            assert_eq!(&*store.get(key("c")).await.unwrap(), b"2");
            assert_eq!(store.exists(key("d")).await, Ok(None));
            changes.pop();
            store.batch(&changes).await.unwrap();
            assert_eq!(&*store.get(key("a")).await.unwrap(), b"3");
            assert_eq!(&*store.get(key("d/e")).await.unwrap(), b"4");
            assert_eq!(store.exists(key("c")).await, Ok(None));
        });
    }

    #[test]
    fn a_stream_gives_the_value_as_it_was() {
        Simulation::new(1).block_on(async {
            let store = Memory::new();
            let value: Vec<u8> = (0..10_000).map(|index| index as u8).collect();
            assert_eq!(store.set_stream(key("a"), &mut &value[..]).await, Ok(10_000));
            let mut reader = store.read(key("a")).await.unwrap();
            let mut part = [0; 100];
            reader.read_exact(&mut part).await.unwrap();
            store.set(key("a"), b"other").await.unwrap();
            let mut rest = std::vec![0; 9_900];
            reader.read_exact(&mut rest).await.unwrap();
            assert_eq!([&part[..], &rest[..]].concat(), value);
            assert_eq!(reader.read(&mut part).await, Ok(0));
        });
    }

    proptest! {
        /// After any sequence of writes, what is listed is what can be got, and the digests are those of the values.
        #[test]
        fn what_is_listed_can_be_got(writes in proptest::collection::vec(("[ab](/[ab-]){0,2}", any::<[u8; 2]>(), any::<bool>()), 0..40)) {
            Simulation::new(1).block_on(async move {
                let store = Memory::new();
                for (text, value, remove) in &writes {
                    if *remove {
                        store.remove(key(text)).await.unwrap();
                        assert_eq!(store.exists(key(text)).await, Ok(None));
                    } else if store.set(key(text), value).await.is_ok() {
                        assert_eq!(&*store.get(key(text)).await.unwrap(), value);
                        assert_eq!(store.digest(key(text)).await, Ok(Digest::of(value)));
                    }
                }
                let mut pending = std::vec![String::new()];
                let mut seen = 0;
                while let Some(at) = pending.pop() {
                    let names = store.list(key(&at)).await.unwrap();
                    assert!(names.is_sorted() && (at.is_empty() || !names.is_empty()));
                    for Name { name, kind } in names {
                        let below = std::format!("{at}/{name}");
                        assert_eq!(store.exists(key(&below)).await, Ok(Some(kind)));
                        match kind {
                            Kind::Value => seen += 1,
                            Kind::Dictionary => pending.push(below),
                        }
                    }
                }
                assert_eq!(seen, store.values.borrow().len());
            });
        }
    }
}
