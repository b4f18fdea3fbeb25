//! The embedded store: values that were built into the image (MirageOS's crunch).
//!
//! The builder makes a sorted table of a directory's files. A lookup is a binary search in it, and a value is borrowed from the image: nothing is
//! copied or allocated.

use alloc::vec::Vec;

use fogbow::time::WallTime;

use crate::key::Key;
use crate::{Digest, Kind, Name, ReadError, ReadOnly, Slice, dictionary, not_a_value, part};

/// A value of an embedded store, with what was known of it when the image was built.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The key's text, normalised as [`Key`] does.
    pub key: &'static str,
    /// The value.
    pub value: &'static [u8],
    /// The value's SHA-256.
    pub digest: Digest,
    /// When the file was last modified.
    pub modified: WallTime,
}

/// A store over a table in the image.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    entries: &'static [Entry],
}

impl Embedded {
    /// A store of `entries`, which must be sorted by the bytes of their keys, each key once: the builder's tables are, and
    /// [`is_sorted`](Self::is_sorted) tells.
    #[must_use]
    pub const fn new(entries: &'static [Entry]) -> Self {
        Self { entries }
    }

    /// True when the table is in the order that lookups rely on.
    #[must_use]
    pub fn is_sorted(&self) -> bool {
        self.entries.is_sorted_by(|a, b| a.key < b.key)
    }

    fn find(&self, key: Key<'_>) -> Result<&'static Entry, ReadError> {
        match self.entries.binary_search_by(|entry| entry.key.cmp(key.as_str())) {
            Ok(at) => Ok(&self.entries[at]),
            Err(_) => Err(not_a_value(key, self.is_dictionary(key))),
        }
    }

    fn is_dictionary(&self, key: Key<'_>) -> bool {
        dictionary::is_dictionary(key, |text| self.first_at(text))
    }

    fn first_at(&self, text: &str) -> Option<&'static str> {
        self.entries.get(self.entries.partition_point(|entry| entry.key < text)).map(|entry| entry.key)
    }

    fn below(&self, key: Key<'_>) -> impl Iterator<Item = &'static Entry> {
        let start = dictionary::start_of(key);
        let first = self.entries.partition_point(|entry| entry.key < start.as_str());
        self.entries[first..].iter().take_while(move |entry| entry.key.starts_with(start.as_str()))
    }
}

impl ReadOnly for Embedded {
    type Value = &'static [u8];
    type Reader = Slice<&'static [u8]>;

    async fn exists(&self, key: Key<'_>) -> Result<Option<Kind>, ReadError> {
        match self.find(key) {
            Ok(_) => Ok(Some(Kind::Value)),
            Err(ReadError::IsDictionary(_)) => Ok(Some(Kind::Dictionary)),
            Err(_) => Ok(None),
        }
    }

    async fn get(&self, key: Key<'_>) -> Result<&'static [u8], ReadError> {
        Ok(self.find(key)?.value)
    }

    async fn get_partial(&self, key: Key<'_>, offset: u64, length: usize) -> Result<&'static [u8], ReadError> {
        Ok(part(self.find(key)?.value, offset, length))
    }

    async fn read(&self, key: Key<'_>) -> Result<Slice<&'static [u8]>, ReadError> {
        Ok(Slice::new(self.find(key)?.value))
    }

    async fn list(&self, key: Key<'_>) -> Result<Vec<Name>, ReadError> {
        match self.find(key) {
            Ok(_) => Err(ReadError::IsValue(key.as_str().into())),
            Err(ReadError::IsDictionary(_)) => Ok(dictionary::names(key, |text| self.first_at(text))),
            Err(error) => Err(error),
        }
    }

    async fn size(&self, key: Key<'_>) -> Result<u64, ReadError> {
        Ok(self.find(key)?.value.len() as u64)
    }

    async fn last_modified(&self, key: Key<'_>) -> Result<WallTime, ReadError> {
        match self.find(key) {
            Ok(entry) => Ok(entry.modified),
            Err(ReadError::IsDictionary(_)) => Ok(self.below(key).map(|entry| entry.modified).max().unwrap_or_default()),
            Err(error) => Err(error),
        }
    }

    async fn digest(&self, key: Key<'_>) -> Result<Digest, ReadError> {
        Ok(self.find(key)?.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::block_on;
    use std::format;

    const fn entry(key: &'static str, value: &'static [u8], modified: u64) -> Entry {
        Entry { key, value, digest: Digest([modified as u8; 32]), modified: WallTime::from_unix_nanos(modified) }
    }

    static TABLE: [Entry; 5] =
        [entry("a-b", b"1", 1), entry("a/c", b"two", 2), entry("a/d/e", b"3", 5), entry("a/d/f", b"4", 4), entry("z", b"5", 3)];

    fn key(text: &str) -> Key<'_> {
        Key::new(text).unwrap()
    }

    #[test]
    fn reads_values_without_copying() {
        let store = Embedded::new(&TABLE);
        assert!(store.is_sorted());
        assert!(core::ptr::eq(block_on(store.get(key("a/c"))).unwrap(), TABLE[1].value));
        assert_eq!(block_on(store.get_partial(key("a/c"), 1, 9)), Ok(&b"wo"[..]));
        assert_eq!(block_on(store.get_partial(key("a/c"), u64::MAX, 9)), Ok(&b""[..]));
        assert_eq!(block_on(store.size(key("a/c"))), Ok(3));
        assert_eq!(block_on(store.digest(key("z"))), Ok(Digest([3; 32])));
    }

    #[test]
    fn dictionaries_are_the_prefixes_of_keys() {
        let store = Embedded::new(&TABLE);
        let list = |at| block_on(store.list(at)).map(|names| names.iter().map(|n| format!("{} {:?}", n.name, n.kind)).collect::<Vec<_>>());
        assert_eq!(list(Key::ROOT).unwrap(), ["a Dictionary", "a-b Value", "z Value"]);
        assert_eq!(list(key("a")).unwrap(), ["c Value", "d Dictionary"]);
        assert_eq!(list(key("z")), Err(ReadError::IsValue("z".into())));
        assert_eq!(list(key("a/x")), Err(ReadError::NotFound("a/x".into())));
        assert_eq!(block_on(store.get(key("a/d"))), Err(ReadError::IsDictionary("a/d".into())));
        assert_eq!(block_on(store.exists(key("a/d"))), Ok(Some(Kind::Dictionary)));
        assert_eq!(block_on(store.exists(key("a/"))), Ok(Some(Kind::Dictionary)));
        assert_eq!(block_on(store.exists(key("b"))), Ok(None));
        assert_eq!(block_on(store.last_modified(key("a"))), Ok(WallTime::from_unix_nanos(5)));
    }

    #[test]
    fn an_empty_store_has_a_root() {
        assert_eq!(block_on(Embedded::new(&[]).list(Key::ROOT)), Ok(Vec::new()));
    }
}
