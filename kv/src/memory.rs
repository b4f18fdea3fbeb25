//! The in-memory store: a sorted map that lives as long as the image does.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Bound;

use fogbow::time::{self, WallTime};

use crate::key::Key;
use crate::{Digest, Kind, Name, ReadError, ReadOnly, ReadWrite, WriteError, dictionary, not_a_value, part};

/// A store in memory. Cloning gives another handle to the same store. A value that is being read stays as it was when it was got.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    values: Rc<RefCell<BTreeMap<String, Stored>>>,
}

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
        match self.values.borrow().get(key.as_str()) {
            Some(stored) => Ok(stored.clone()),
            None => Err(not_a_value(key, self.is_dictionary(key))),
        }
    }

    fn is_dictionary(&self, key: Key<'_>) -> bool {
        let values = self.values.borrow();
        dictionary::is_dictionary(key, |text| first_at(&values, text))
    }

    fn has_value(&self, key: Key<'_>) -> bool {
        self.values.borrow().contains_key(key.as_str())
    }

    /// Checks that `key` can take a value: it is no dictionary and lies below no value.
    fn check_place(&self, key: Key<'_>) -> Result<(), WriteError> {
        match self.is_dictionary(key) || key.ancestors().any(|above| self.has_value(above)) {
            true => Err(WriteError::Conflict(key.as_str().to_owned())),
            false => Ok(()),
        }
    }

    fn put(&self, key: Key<'_>, value: Rc<[u8]>) -> Result<(), WriteError> {
        self.check_place(key)?;
        self.values.borrow_mut().insert(key.as_str().to_owned(), Stored { value, modified: time::wall() });
        Ok(())
    }

    fn keys_below(&self, key: Key<'_>) -> Vec<String> {
        let start = dictionary::start_of(key);
        let values = self.values.borrow();
        values.range(start.clone()..).map(|(key, _)| key).take_while(|key| key.starts_with(&start)).cloned().collect()
    }
}

fn first_at<'m>(values: &'m BTreeMap<String, Stored>, text: &str) -> Option<&'m str> {
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

    async fn exists(&self, key: Key<'_>) -> Result<Option<Kind>, ReadError> {
        Ok(match self.has_value(key) {
            true => Some(Kind::Value),
            false => self.is_dictionary(key).then_some(Kind::Dictionary),
        })
    }

    async fn get(&self, key: Key<'_>) -> Result<Rc<[u8]>, ReadError> {
        Ok(self.find(key)?.value)
    }

    async fn get_partial(&self, key: Key<'_>, offset: u64, length: usize) -> Result<Rc<[u8]>, ReadError> {
        Ok(part(&self.find(key)?.value, offset, length).into())
    }

    async fn list(&self, key: Key<'_>) -> Result<Vec<Name>, ReadError> {
        if self.has_value(key) {
            return Err(ReadError::IsValue(key.as_str().to_owned()));
        }
        if !self.is_dictionary(key) {
            return Err(ReadError::NotFound(key.as_str().to_owned()));
        }
        let values = self.values.borrow();
        Ok(dictionary::names(key, |text| first_at(&values, text)))
    }

    async fn size(&self, key: Key<'_>) -> Result<u64, ReadError> {
        Ok(self.find(key)?.value.len() as u64)
    }

    async fn last_modified(&self, key: Key<'_>) -> Result<WallTime, ReadError> {
        match self.find(key) {
            Ok(stored) => Ok(stored.modified),
            Err(ReadError::IsDictionary(_)) => {
                let below = self.keys_below(key);
                let values = self.values.borrow();
                Ok(below.iter().filter_map(|key| values.get(key)).map(|stored| stored.modified).max().unwrap_or_default())
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
        self.put(key, value.into())
    }

    async fn set_partial(&self, key: Key<'_>, offset: u64, part: &[u8]) -> Result<(), WriteError> {
        self.check_place(key)?;
        let former = self.find(key).map(|stored| stored.value).unwrap_or_default();
        let end = offset.checked_add(part.len() as u64).ok_or_else(|| WriteError::NoSpace(key.as_str().to_owned()))?;
        let mut value = zeros(key, end.max(former.len() as u64))?;
        value[..former.len()].copy_from_slice(&former);
        value[end as usize - part.len()..end as usize].copy_from_slice(part);
        self.put(key, value.into())
    }

    async fn allocate(&self, key: Key<'_>, size: u64) -> Result<(), WriteError> {
        if self.has_value(key) {
            return Err(WriteError::Exists(key.as_str().to_owned()));
        }
        self.put(key, zeros(key, size)?.into())
    }

    async fn remove(&self, key: Key<'_>) -> Result<(), WriteError> {
        let below = self.keys_below(key);
        let mut values = self.values.borrow_mut();
        values.remove(key.as_str());
        for key in below {
            values.remove(&key);
        }
        Ok(())
    }

    async fn rename(&self, from: Key<'_>, to: Key<'_>) -> Result<(), WriteError> {
        if from == to {
            return Ok(());
        }
        if to.below(from).is_some() || from.below(to).is_some() {
            return Err(WriteError::Conflict(to.as_str().to_owned()));
        }
        if self.has_value(from) {
            self.check_place(to)?;
            let mut values = self.values.borrow_mut();
            let stored = values.remove(from.as_str());
            values.extend(stored.map(|stored| (to.as_str().to_owned(), stored)));
            return Ok(());
        }
        if from.is_root() || !self.is_dictionary(from) {
            return Err(WriteError::NotFound(from.as_str().to_owned()));
        }
        self.check_place(to)?;
        if self.has_value(to) {
            return Err(WriteError::Conflict(to.as_str().to_owned()));
        }
        let below = self.keys_below(from);
        let mut values = self.values.borrow_mut();
        for key in below {
            let stored = values.remove(&key);
            let moved = alloc::format!("{to}{}", &key[from.as_str().len()..]);
            values.extend(stored.map(|stored| (moved, stored)));
        }
        Ok(())
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
            assert_eq!(store.rename(key("q"), key("r")).await, Err(WriteError::NotFound("q".into())));
            store.rename(key("a"), key("x/y")).await.unwrap();
            assert_eq!(store.exists(key("a")).await, Ok(None));
            assert_eq!(&*store.get(key("x/y/c/d")).await.unwrap(), b"2");
            store.remove(key("x")).await.unwrap();
            assert_eq!(store.list(Key::ROOT).await.unwrap(), [Name { name: "ab".into(), kind: Kind::Value }]);
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
