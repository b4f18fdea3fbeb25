//! Commits that are in the log and not yet in the tree.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Bound;

use super::entry::{CHUNK, MAX_ENTRY, chunk_of, owned};
use super::layout::{Extent, u16_at, u32_at};
use super::node::entry_size;

/// What becomes of a key of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// It gets this value.
    Put(Rc<[u8]>),
    /// A chunk, whose bytes go to pages of their own when it enters the tree.
    Data(Rc<[u8]>),
    /// It is removed.
    Deleted,
}

/// Operations, in the form that a record of the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operations {
    pub(crate) list: Vec<(Box<[u8]>, Slot)>,
    /// Bytes of the record.
    pub(crate) size: usize,
}

/// Bytes before key and value of an operation in a record: kind, length of the key, length of the value.
const OPERATION: usize = 7;

impl Operations {
    pub(crate) fn push(&mut self, key: &[u8], slot: Slot) {
        self.size += OPERATION + key.len() + slot.bytes().len();
        self.list.push((key.into(), slot));
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.size += other.size;
        self.list.extend(other.list);
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size);
        for (key, slot) in &self.list {
            let value = slot.bytes();
            bytes.push(match slot {
                Slot::Put(_) => 1,
                Slot::Deleted => 2,
                Slot::Data(_) => 3,
            });
            bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut operations = Self::default();
        while let Some(&kind) = bytes.first() {
            let (key, value) = (usize::from(u16_at(bytes, 1)?), u32_at(bytes, 3)? as usize);
            let rest = &bytes[OPERATION..];
            let (key, rest) = rest.split_at_checked(key)?;
            let (value, rest) = rest.split_at_checked(value)?;
            let slot = match kind {
                1 => Slot::Put(value.into()),
                2 => Slot::Deleted,
                3 => Slot::Data(value.into()),
                _ => return None,
            };
            if !slot.fits(key) {
                return None;
            }
            operations.push(key, slot);
            bytes = rest;
        }
        Some(operations)
    }
}

impl Slot {
    /// Whether the tree can take it.
    fn fits(&self, key: &[u8]) -> bool {
        match self {
            Self::Data(data) => chunk_of(key).is_some() && data.len() <= CHUNK,
            Self::Put(_) | Self::Deleted => entry_size(key, self.bytes()) <= MAX_ENTRY,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Put(bytes) | Self::Data(bytes) => bytes,
            Self::Deleted => &[],
        }
    }
}

/// The newest operation of each key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memtable {
    slots: BTreeMap<Box<[u8]>, Slot>,
    /// Pages of chunks that were replaced before they entered the tree.
    pub(crate) freed: Vec<Extent>,
    /// Bytes of keys and values that go into nodes.
    pub(crate) node_bytes: usize,
    /// Bytes of chunks that still have to be written, each rounded up to pages.
    pub(crate) data_pages: usize,
    /// Keys that get a value.
    pub(crate) puts: usize,
    page: usize,
}

impl Memtable {
    pub(crate) fn new(page: usize) -> Self {
        Self { page, ..Self::default() }
    }

    pub(crate) fn apply(&mut self, operations: &Operations) {
        operations.list.iter().for_each(|(key, slot)| self.insert(key, slot));
    }

    pub(crate) fn insert(&mut self, key: &[u8], slot: &Slot) {
        self.count(key, slot, true);
        if let Some(former) = self.slots.insert(key.into(), slot.clone()) {
            self.count(key, &former, false);
            if let Slot::Put(value) = &former
                && slot != &former
            {
                self.freed.extend(owned(key, value));
            }
        }
    }

    fn count(&mut self, key: &[u8], slot: &Slot, add: bool) {
        let (node, data) = match slot {
            Slot::Put(value) => (key.len() + value.len() + 6, 0),
            Slot::Data(value) => (key.len() + 256, value.len().div_ceil(self.page)),
            Slot::Deleted => (0, 0),
        };
        let puts = usize::from(*slot != Slot::Deleted);
        if add {
            self.puts += puts;
            self.node_bytes += node;
            self.data_pages += data;
        } else {
            self.puts -= puts;
            self.node_bytes -= node;
            self.data_pages -= data;
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.slots.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The first entry at or after `key`.
    pub(crate) fn first_at(&self, key: &[u8]) -> Option<(&[u8], &Slot)> {
        self.range(Bound::Included(key), Bound::Unbounded).next()
    }

    pub(crate) fn range<'m>(&'m self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> impl Iterator<Item = (&'m [u8], &'m Slot)> {
        self.slots.range::<[u8], _>((from, to)).map(|(key, slot)| (&**key, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::chunk_key;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_are_read_as_written(list in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>(), 0..3), 0..10)) {
            let mut operations = Operations::default();
            for (key, value, kind) in list {
                match kind {
                    0 => operations.push(&key, Slot::Put(value.into())),
                    1 => operations.push(&key, Slot::Deleted),
                    _ => operations.push(&chunk_key(key.len() as u64, 1), Slot::Data(value.into())),
                }
            }
            let bytes = operations.emit();
            prop_assert_eq!(bytes.len(), operations.size);
            prop_assert_eq!(Operations::parse(&bytes), Some(operations));
        }

        /// Neither a chunk that is too long, nor the bytes of one where none can be.
        #[test]
        fn records_that_the_tree_could_not_take_are_none(length in CHUNK - 3..CHUNK + 3, key: Vec<u8>) {
            let parse = |key: &[u8], length: usize| {
                let mut operations = Operations::default();
                operations.push(key, Slot::Data(alloc::vec![0; length].into()));
                Operations::parse(&operations.emit())
            };
            prop_assert_eq!(parse(&chunk_key(1, 1), length).is_some(), length <= CHUNK);
            prop_assert_eq!(parse(&key, 1).is_some(), chunk_of(&key).is_some());
        }

        /// What counts is the newest operation of each key.
        #[test]
        fn former_operations_do_not_count(list in prop::collection::vec((0_u8..6, 0_usize..10_000, 0..3), 0..40)) {
            let mut table = Memtable::new(4096);
            for (key, length, kind) in list {
                let value = alloc::vec![0; length].into();
                table.insert(&[key], &match kind { 0 => Slot::Put(value), 1 => Slot::Deleted, _ => Slot::Data(value) });
            }
            let mut fresh = Memtable::new(4096);
            table.slots.iter().for_each(|(key, slot)| fresh.insert(key, slot));
            let counts = |table: &Memtable| (table.puts, table.node_bytes, table.data_pages);
            prop_assert_eq!(counts(&table), counts(&fresh));
        }

        #[test]
        fn arbitrary_records_do_not_panic(bytes: Vec<u8>) {
            let _ = Operations::parse(&bytes);
        }
    }
}
