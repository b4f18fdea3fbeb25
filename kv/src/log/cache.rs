//! The cache of nodes and chunks: bounded in bytes, with the CLOCK policy, each lookup in constant time.
//!
//! An entry is found by its place and its checksum together: a page that was written anew is another entry.

use alloc::rc::Rc;
use alloc::vec::Vec;

use hashbrown::HashTable;

use super::layout::NodeRef;
use super::node::Node;

/// What is cached.
#[derive(Clone, Debug)]
pub(crate) enum Cached {
    Node(Node),
    Chunk(Rc<[u8]>),
}

impl Cached {
    fn size(&self) -> usize {
        match self {
            Self::Node(node) => node.bytes.len(),
            Self::Chunk(bytes) => bytes.len(),
        }
    }
}

struct Entry {
    key: NodeRef,
    value: Cached,
    is_used: bool,
}

pub(crate) struct Cache {
    limit: usize,
    size: usize,
    table: HashTable<usize>,
    entries: Vec<Entry>,
    hand: usize,
}

/// Bytes that an entry takes beside what is cached, roughly.
const OVERHEAD: usize = 96;

fn hash(key: NodeRef) -> u64 {
    key.checksum ^ key.page.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Cache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, size: 0, table: HashTable::new(), entries: Vec::new(), hand: 0 }
    }

    pub(crate) fn get(&mut self, key: NodeRef) -> Option<Cached> {
        let index = *self.table.find(hash(key), |&index| self.entries[index].key == key)?;
        let entry = &mut self.entries[index];
        entry.is_used = true;
        Some(entry.value.clone())
    }

    pub(crate) fn insert(&mut self, key: NodeRef, value: Cached) {
        let size = value.size() + OVERHEAD;
        if size > self.limit || self.table.find(hash(key), |&index| self.entries[index].key == key).is_some() {
            return;
        }
        while self.size + size > self.limit {
            self.evict_one();
        }
        self.size += size;
        let index = self.entries.len();
        self.entries.push(Entry { key, value, is_used: false });
        let entries = &self.entries;
        self.table.insert_unique(hash(key), index, |&index| hash(entries[index].key));
    }

    /// Evicts the next entry that was not used since the hand last passed. Only called while there are entries.
    fn evict_one(&mut self) {
        loop {
            self.hand %= self.entries.len();
            let entry = &mut self.entries[self.hand];
            if !core::mem::take(&mut entry.is_used) {
                break;
            }
            self.hand += 1;
        }
        let gone = self.hand;
        let entry = self.entries.swap_remove(gone);
        self.size -= entry.value.size() + OVERHEAD;
        if let Ok(found) = self.table.find_entry(hash(entry.key), |&index| index == gone) {
            found.remove();
        }
        // The entry that was last has taken the place of the one that is gone.
        if let Some(moved) = self.entries.get(gone) {
            let last = self.entries.len();
            if let Some(index) = self.table.find_mut(hash(moved.key), |&index| index == last) {
                *index = gone;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is found is what was put there, and the limit holds.
        #[test]
        fn finds_what_it_keeps(keys in prop::collection::vec(0_u64..40, 0..400)) {
            let mut cache = Cache::new(10 * (100 + OVERHEAD));
            for page in keys {
                let key = NodeRef { page, checksum: page % 3 };
                match cache.get(key) {
                    Some(Cached::Chunk(found)) => prop_assert_eq!(u64::from(found[0]), page),
                    Some(Cached::Node(_)) => unreachable!(),
                    None => cache.insert(key, Cached::Chunk([page as u8; 100].into())),
                }
                prop_assert!(matches!(cache.get(key), Some(Cached::Chunk(found)) if u64::from(found[0]) == page));
                prop_assert!(cache.size <= cache.limit && cache.entries.len() == cache.table.len());
            }
        }
    }
}
