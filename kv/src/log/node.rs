//! Nodes of the tree: a page of sorted entries.
//!
//! A leaf (level 0) holds keys and values; a branch holds for each child the least key that it may hold, its page and its checksum. The first child
//! of a branch also takes what is less than its key.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::entry::MAX_ENTRY;
use super::layout::{NodeRef, u16_at, u32_at, u64_at};

const MAGIC: u32 = u32::from_le_bytes(*b"FKVN");

/// Bytes before the table of offsets: magic, level, count, and eight that are zero.
pub(crate) const HEADER: usize = 16;

/// Bytes of a child's page and checksum.
pub(crate) const CHILD: usize = 16;

/// A page that was checked to be a node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) bytes: Rc<[u8]>,
    pub(crate) level: u16,
    pub(crate) count: usize,
}

impl Node {
    /// Checks everything that the other functions rely on.
    pub(crate) fn parse(bytes: Rc<[u8]>) -> Option<Self> {
        if u32_at(&bytes, 0)? != MAGIC {
            return None;
        }
        let node = Self { level: u16_at(&bytes, 4)?, count: usize::from(u16_at(&bytes, 6)?), bytes };
        let mut last: Option<&[u8]> = None;
        for index in 0..node.count {
            let (key, value) = node.checked(index)?;
            if entry_size(key, value) > MAX_ENTRY || last.is_some_and(|last| last >= key) || (node.level > 0 && value.len() != CHILD) {
                return None;
            }
            last = Some(key);
        }
        (node.count > 0).then_some(node)
    }

    fn ranges(&self, index: usize) -> Option<(Range<usize>, Range<usize>)> {
        let at = usize::from(u16_at(&self.bytes, HEADER + 2 * index)?);
        let key = at + 4..at + 4 + usize::from(u16_at(&self.bytes, at)?);
        let value = key.end..key.end + usize::from(u16_at(&self.bytes, at + 2)?);
        Some((key, value))
    }

    fn checked(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.ranges(index)?;
        Some((self.bytes.get(key)?, self.bytes.get(value)?))
    }

    /// Key and value of an entry; empty beyond the last.
    pub(crate) fn entry(&self, index: usize) -> (&[u8], &[u8]) {
        self.checked(index).unwrap_or_default()
    }

    pub(crate) fn key(&self, index: usize) -> &[u8] {
        self.entry(index).0
    }

    /// Where an entry's value is in the page.
    pub(crate) fn value_range(&self, index: usize) -> Range<usize> {
        self.ranges(index).unwrap_or_default().1
    }

    /// The entry with `key`, or where it would be.
    pub(crate) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle).cmp(key) {
                core::cmp::Ordering::Equal => return Ok(middle),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The child of a branch below which `key` is.
    pub(crate) fn child_index(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|at| at.saturating_sub(1))
    }

    /// A child of a branch.
    pub(crate) fn child(&self, index: usize) -> NodeRef {
        let value = self.entry(index).1;
        NodeRef { page: u64_at(value, 0).unwrap_or_default(), checksum: u64_at(value, 8).unwrap_or_default() }
    }
}

impl NodeRef {
    pub(crate) fn emit(self) -> [u8; CHILD] {
        let mut bytes = [0; CHILD];
        bytes[..8].copy_from_slice(&self.page.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }
}

/// Bytes that an entry takes in a node.
pub(crate) const fn entry_size(key: &[u8], value: &[u8]) -> usize {
    2 + 4 + key.len() + value.len()
}

/// A page with `entries`, which are sorted and fit.
pub(crate) fn encode<K: AsRef<[u8]>, V: AsRef<[u8]>>(page: usize, level: u16, entries: &[(K, V)]) -> Vec<u8> {
    let mut bytes = vec![0; page];
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4..6].copy_from_slice(&level.to_le_bytes());
    bytes[6..8].copy_from_slice(&(entries.len() as u16).to_le_bytes());
    let mut at = HEADER + 2 * entries.len();
    for (index, (key, value)) in entries.iter().enumerate() {
        let (key, value) = (key.as_ref(), value.as_ref());
        bytes[HEADER + 2 * index..][..2].copy_from_slice(&(at as u16).to_le_bytes());
        bytes[at..at + 2].copy_from_slice(&(key.len() as u16).to_le_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&(value.len() as u16).to_le_bytes());
        bytes[at + 4..at + 4 + key.len()].copy_from_slice(key);
        at += 4 + key.len();
        bytes[at..at + value.len()].copy_from_slice(value);
        at += value.len();
    }
    bytes
}

/// Where to divide entries of the given sizes among pages: the end of each page's. Evenly, or as full as can be for entries that others will follow.
pub(crate) fn divide(sizes: &[usize], page: usize, fill: bool) -> Vec<usize> {
    let room = page - HEADER;
    let total: usize = sizes.iter().sum();
    let target = if fill { room } else { total.div_ceil(total.div_ceil(room).max(1)) };
    let mut ends = Vec::new();
    let mut size = 0;
    for (index, &entry) in sizes.iter().enumerate() {
        if size > 0 && (size + entry > room || size + entry / 2 > target) {
            ends.push(index);
            size = 0;
        }
        size += entry;
    }
    if !sizes.is_empty() {
        ends.push(sizes.len());
    }
    ends
}

/// The shortest text that is greater than `left` and not greater than `right`.
pub(crate) fn separator<'k>(left: &[u8], right: &'k [u8]) -> &'k [u8] {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    right.get(..=common).unwrap_or(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_found(entries in prop::collection::btree_map("[a-d]{0,8}", "[x-z]{0,12}", 1..40)) {
            let list: Vec<_> = entries.iter().collect();
            let node = Node::parse(encode(4096, 0, &list).into()).unwrap();
            for (index, (key, value)) in list.iter().enumerate() {
                prop_assert_eq!(node.search(key.as_bytes()), Ok(index));
                prop_assert_eq!(node.entry(index), (key.as_bytes(), value.as_bytes()));
            }
            prop_assert!(node.search(b"e").is_err());
        }

        /// An entry that is longer than three in a page, though it lies in this one, could not be written again: not alone, nor its key in a branch.
        #[test]
        fn no_entry_is_too_long_to_be_written_again(length in 0_usize..4000, value in 0_usize..4000) {
            let entry = [(alloc::vec![b'a'; length], alloc::vec![0; value])];
            if HEADER + entry_size(&entry[0].0, &entry[0].1) <= 4096 {
                let page = encode(4096, 0, &entry);
                prop_assert_eq!(Node::parse(page.into()).is_some(), 6 + length + value <= MAX_ENTRY);
            }
        }

        #[test]
        fn arbitrary_pages_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), key: [u8; 2]) {
            if let Some(start) = bytes.first_chunk_mut() {
                *start = MAGIC.to_le_bytes();
            }
            if let Some(node) = Node::parse(bytes.into()) {
                let _ = (node.search(&key), node.child(node.child_index(&key)));
            }
        }

        /// A page is none but as it was written: with another beginning, without entries, in another order, or with what no writer puts there.
        #[test]
        fn pages_that_cannot_be_are_no_nodes(entries in prop::collection::btree_map("[a-d]{1,8}", Just([7_u8; CHILD]), 2..40)) {
            let list: Vec<_> = entries.iter().collect();
            let is_node = |page: Vec<u8>| Node::parse(page.into()).is_some();
            for level in 0..2 {
                prop_assert!(is_node(encode(4096, level, &list)));
                for byte in 0..4 {
                    let mut page = encode(4096, level, &list);
                    page[byte] ^= 1;
                    prop_assert!(!is_node(page), "byte {} of the beginning", byte);
                }
                prop_assert!(!is_node(encode::<&str, &str>(4096, level, &[])), "empty");
                let reversed: Vec<_> = list.iter().rev().collect();
                prop_assert!(!is_node(encode(4096, level, &reversed.iter().map(|(key, value)| (key, value)).collect::<Vec<_>>())));
                prop_assert!(!is_node(encode(4096, level, &[list[0], list[0]])), "twice the same key");
                for length in [0, CHILD - 1, CHILD + 1] {
                    let value = alloc::vec![0; length];
                    prop_assert_eq!(is_node(encode(4096, level, &[("a", &value)])), level == 0, "{} bytes of a child", length);
                }
            }
        }

        /// Every page has something, none too much.
        #[test]
        fn entries_are_divided_among_pages(sizes in prop::collection::vec(6_usize..1400, 0..100), fill: bool) {
            let ends = divide(&sizes, 4096, fill);
            let mut start = 0;
            for end in &ends {
                prop_assert!(*end > start && sizes[start..*end].iter().sum::<usize>() <= 4096 - HEADER);
                start = *end;
            }
            prop_assert_eq!(start, sizes.len());
        }

        /// With keys as short as can be: the more children a branch has, the fewer levels.
        #[test]
        fn separators_separate(left in prop::collection::vec(0_u8..3, 0..9), right in prop::collection::vec(0_u8..3, 0..9)) {
            if left < right {
                let between = separator(&left, &right);
                prop_assert!(left.as_slice() < between && between <= right.as_slice());
                prop_assert!(&between[..between.len() - 1] <= left.as_slice(), "a shorter one does as well");
            }
        }
    }
}
