//! The cache of nodes and chunks: bounded in bytes, with the CLOCK policy, each lookup in constant time.
//!
//! An entry is found by its place and its checksum together: a page that was written anew is another entry.

use alloc::collections::VecDeque;
use alloc::rc::Rc;

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
    /// The numbers of entries.
    table: HashTable<u64>,
    /// In the order in which the hand passes them: those that it has passed follow again behind.
    entries: VecDeque<Entry>,
    /// The number of the first entry; those of the others follow.
    first: u64,
}

/// Bytes that an entry takes beside what is cached, roughly.
const OVERHEAD: usize = 96;

fn hash(key: NodeRef) -> u64 {
    key.checksum ^ key.page.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Cache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, size: 0, table: HashTable::new(), entries: VecDeque::new(), first: 0 }
    }

    pub(crate) fn get(&mut self, key: NodeRef) -> Option<Cached> {
        let number = *self.find(key)?;
        let entry = &mut self.entries[(number - self.first) as usize];
        entry.is_used = true;
        Some(entry.value.clone())
    }

    fn find(&self, key: NodeRef) -> Option<&u64> {
        self.table.find(hash(key), |&number| self.entries[(number - self.first) as usize].key == key)
    }

    pub(crate) fn insert(&mut self, key: NodeRef, value: Cached) {
        let size = value.size() + OVERHEAD;
        if size > self.limit || self.find(key).is_some() {
            return;
        }
        while self.size + size > self.limit {
            self.evict_one();
        }
        self.size += size;
        let number = self.first + self.entries.len() as u64;
        self.entries.push_back(Entry { key, value, is_used: false });
        let (entries, first) = (&self.entries, self.first);
        self.table.insert_unique(hash(key), number, |&number| hash(entries[(number - first) as usize].key));
    }

    /// Evicts the next entry that was not used since the hand last passed.
    fn evict_one(&mut self) {
        while let Some(mut entry) = self.entries.pop_front() {
            let number = self.first;
            self.first += 1;
            if core::mem::take(&mut entry.is_used) {
                let behind = self.first + self.entries.len() as u64;
                if let Some(found) = self.table.find_mut(hash(entry.key), |&other| other == number) {
                    *found = behind;
                }
                self.entries.push_back(entry);
            } else {
                self.size -= entry.value.size() + OVERHEAD;
                if let Ok(found) = self.table.find_entry(hash(entry.key), |&other| other == number) {
                    found.remove();
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(page: u64) -> (NodeRef, Cached) {
        (NodeRef { page, checksum: 0 }, Cached::Chunk([0; 100].into()))
    }

    #[test]
    fn what_is_used_again_stays_while_others_pass() {
        let mut cache = Cache::new(10 * (100 + OVERHEAD));
        for page in 0..1000 {
            for again in [1_000_000, 1_000_001, 1_000_002, 1_000_003] {
                let (key, value) = chunk(again);
                let found = cache.get(key).is_some();
                assert_eq!(found, page > 0, "{again} after {page} others");
                cache.insert(key, value);
            }
            let (key, value) = chunk(page);
            cache.insert(key, value);
        }
    }

    /// What came last is not what goes first.
    #[test]
    fn the_oldest_of_those_unused_goes_first() {
        let mut cache = Cache::new(10 * (100 + OVERHEAD));
        for page in 0..100 {
            let (key, value) = chunk(page);
            cache.insert(key, value);
        }
        let kept: alloc::vec::Vec<u64> = (0..100).filter(|&page| cache.find(chunk(page).0).is_some()).collect();
        assert_eq!(kept, (90..100).collect::<alloc::vec::Vec<_>>());
    }

    /// Two tasks may have read the same at the same time; and what is larger than the cache is not for it.
    #[test]
    fn what_is_there_or_does_not_fit_is_left_out() {
        let mut cache = Cache::new(100 + OVERHEAD);
        let large = NodeRef { page: 7, checksum: 0 };
        cache.insert(large, Cached::Chunk([0; 101].into()));
        assert!(cache.get(large).is_none());
        for _ in 0..2 {
            let (key, value) = chunk(1);
            cache.insert(key, value);
            assert_eq!((cache.entries.len(), cache.table.len(), cache.size), (1, 1, 100 + OVERHEAD));
        }
        assert!(cache.find(chunk(1).0).is_some_and(|number| *number == 0), "what is there is not evicted for itself");
    }

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
