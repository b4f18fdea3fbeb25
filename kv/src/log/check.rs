//! Checking a store: every checksum, and that all of it belongs together.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Bound;

use fogbow_block::Block;

use super::entry::{Chunk, Meta, Place, chunk_of, garbage_of, name_of, owned};
use super::error::Fault;
use super::layout::{Extent, NodeRef};
use super::memtable::{Memtable, Slot};
use super::node::Node;
use super::space::Space;
use super::{Inner, LogStore};
use crate::Key;

/// The most problems that are described one by one.
const MAX_PROBLEMS: usize = 100;

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Values in the tree; those that are only in the log are not counted.
    pub values: u64,
    /// Their bytes.
    pub value_bytes: u64,
    /// Nodes of the tree.
    pub nodes: u64,
    /// Levels of the tree.
    pub levels: u16,
    /// Chunks of large values.
    pub chunks: u64,
    /// Operations in the log that are not in the tree.
    pub in_log: usize,
    /// Checkpoints since the store was made.
    pub generation: u64,
    /// Bytes in a page.
    pub page_size: usize,
    /// Pages of the device that the store uses.
    pub pages: u64,
    /// Those that are free.
    pub free_pages: u64,
    /// Whether the store can be written, and why not if it cannot.
    pub read_only: Option<String>,
    /// What was damaged when the store was opened, each in words, and was told from the rest; it is written anew if the device can be written. A power
    /// cut can leave this behind.
    pub mended: Vec<String>,
    /// What is wrong, each in words; the first hundred.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problem_count: u64,
}

impl Report {
    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        }
    }
}

impl<B: Block> LogStore<B> {
    /// Reads every node and value from the device and checks all that there is to check. `progress` is told how many pages have been read, and how many are
    /// in use.
    ///
    /// Takes memory for a bit for each page, and for each value of more than 1 KiB. Nothing may be written meanwhile.
    pub async fn check(&self, mut progress: impl FnMut(u64, u64)) -> Report {
        let _stage = self.0.stage.lock().await;
        let _commit = self.0.commit.lock().await;
        let mut checker = Checker::new(&self.0);
        checker.walk(&mut progress).await;
        checker.log().await;
        checker.end()
    }
}

/// An object, as far as it is known.
#[derive(Default)]
struct Object {
    /// The key that leads to it, and the size that it says.
    owner: Option<(String, u64)>,
    is_garbage: bool,
    chunks: u64,
}

struct Checker<'s, B: Block> {
    store: &'s Inner<B>,
    report: Report,
    /// What is in use, as the tree says.
    space: Space,
    objects: BTreeMap<u64, Object>,
    read: u64,
}

/// A node that is to be checked, and the bounds of its keys.
struct Pending {
    at: NodeRef,
    level: u16,
    lower: Box<[u8]>,
    upper: Option<Box<[u8]>>,
}

impl<'s, B: Block> Checker<'s, B> {
    fn new(store: &'s Inner<B>) -> Self {
        let state = store.state.borrow();
        let report = Report {
            generation: state.superblock.generation,
            page_size: store.geometry.page,
            pages: store.geometry.pages,
            free_pages: state.space.free(),
            levels: if state.superblock.root.is_some() { state.superblock.level + 1 } else { 0 },
            in_log: state.active.len() + state.frozen.as_ref().map_or(0, |frozen| frozen.len()),
            read_only: state.broken.clone(),
            mended: state.mended.clone(),
            ..Report::default()
        };
        Self { store, report, space: Space::new(store.geometry), objects: BTreeMap::new(), read: 0 }
    }

    async fn walk(&mut self, progress: &mut impl FnMut(u64, u64)) {
        let (root, total) = {
            let state = self.store.state.borrow();
            let used = self.store.geometry.pages - state.space.free();
            (state.superblock.root.map(|root| (root, state.superblock.level)), used)
        };
        let mut pending: Vec<Pending> =
            root.into_iter().map(|(at, level)| Pending { at, level, lower: Box::default(), upper: None }).collect();
        while let Some(next) = pending.pop() {
            progress(self.read, total);
            self.read += 1;
            let node = match self.store.read_node(next.at).await {
                Ok(node) if node.level == next.level => node,
                Ok(_) => {
                    self.unreadable(&next, "it has another level than it should");
                    continue;
                }
                Err(fault) => {
                    self.unreadable(&next, &fault.to_string());
                    continue;
                }
            };
            self.report.nodes += 1;
            let is_first = self.claim(Extent { page: next.at.page, count: 1 }, "a node");
            let out_of_bounds = (0..node.count)
                .map(|index| node.key(index))
                .any(|key| key < &*next.lower || next.upper.as_ref().is_some_and(|upper| key >= &**upper));
            if out_of_bounds && next.level == 0 {
                self.report.problem(format!("page {}: a leaf has keys that belong elsewhere", next.at.page));
            }
            if next.level == 0 {
                self.leaf(&node).await;
            } else if is_first {
                // Where several lead to one branch, what lies below is checked once: there may be more ways through a tree than pages.
                // Last first, so that the first is the next to be checked.
                for index in (0..node.count).rev() {
                    let upper = if index + 1 < node.count { Some(node.key(index + 1).into()) } else { next.upper.clone() };
                    let lower = if index == 0 { next.lower.clone() } else { node.key(index).into() };
                    pending.push(Pending { at: node.child(index), level: next.level - 1, lower, upper });
                }
            }
        }
        progress(total, total);
    }

    fn unreadable(&mut self, node: &Pending, reason: &str) {
        let text = |key: &[u8]| name_of(key).unwrap_or_default();
        let end = node.upper.as_ref().map_or_else(|| "the last".to_string(), |upper| format!("'{}'", text(upper)));
        let which = if node.lower.first().is_some_and(|first| *first > super::entry::NAME) {
            "parts of values of more than 1 KiB cannot be found".to_string()
        } else {
            format!("keys from '{}' to {end} cannot be found", text(&node.lower))
        };
        self.report.problem(format!("page {}: {reason}; {which}", node.at.page));
    }

    async fn leaf(&mut self, node: &Node) {
        for index in 0..node.count {
            let (key, value) = node.entry(index);
            if let Some(name) = name_of(key) {
                self.name(name, value);
            } else if let Some(object) = garbage_of(key) {
                self.objects.entry(object).or_default().is_garbage = true;
            } else if let Some((object, number)) = chunk_of(key) {
                self.objects.entry(object).or_default().chunks += 1;
                self.chunk(key, object, number, value).await;
            } else {
                self.report.problem("the tree holds an entry of no known kind".to_string());
            }
        }
    }

    fn name(&mut self, name: String, value: &[u8]) {
        self.report.values += 1;
        if Key::new(&name).map(Key::as_str) != Ok(&name) {
            self.report.problem(format!("'{name}' is no key"));
        }
        match Meta::parse(value) {
            None => self.report.problem(format!("'{name}': what is known of its value makes no sense")),
            Some(meta) => {
                self.report.value_bytes = self.report.value_bytes.saturating_add(meta.size());
                if let Place::Object { object, size } = meta.place {
                    let object = self.objects.entry(object).or_default();
                    if let Some((other, _)) = object.owner.replace((name.clone(), size)) {
                        self.report.problem(format!("'{name}' and '{other}' lead to the same value"));
                    }
                }
            }
        }
    }

    async fn chunk(&mut self, key: &[u8], object: u64, number: u64, value: &[u8]) {
        self.report.chunks += 1;
        let result = match Chunk::parse(value) {
            None => Err(Fault::Entry),
            Some(chunk) => {
                for extent in &chunk.extents {
                    self.claim(*extent, "a value");
                }
                self.read += chunk.pages() as u64;
                self.store.load_chunk(key, &chunk).await.map(drop)
            }
        };
        if let Err(fault) = result {
            let owner = match self.objects.get(&object).and_then(|object| object.owner.as_ref()) {
                Some((name, _)) => format!("'{name}'"),
                None => "a value".to_string(),
            };
            let start = number.saturating_mul(super::entry::CHUNK as u64);
            self.report.problem(format!("{owner}: the 64 KiB from byte {start} on cannot be read: {fault}"));
        }
    }

    /// Notes who has these pages; false when somebody else does, too.
    fn claim(&mut self, extent: Extent, what: &str) -> bool {
        let is_free = self.space.set_all(extent);
        if !is_free {
            self.report.problem(format!("pages {} and on, {} of them: {what} shares them with something else", extent.page, extent.count));
        }
        is_free
    }

    /// The chunks that only the log leads to.
    async fn log(&mut self) {
        let entries: Vec<(Box<[u8]>, Slot)> = {
            let state = self.store.state.borrow();
            let tables = [Some(&state.active), state.frozen.as_deref()].into_iter().flatten();
            let entries = tables.flat_map(|table| table.range(Bound::Unbounded, Bound::Unbounded));
            entries.filter(|(key, _)| chunk_of(key).is_some()).map(|(key, slot)| (key.into(), slot.clone())).collect()
        };
        for (key, slot) in entries {
            if let Slot::Put(value) = slot
                && let Some(chunk) = Chunk::parse(&value)
                && let Err(fault) = self.store.load_chunk(&key, &chunk).await
            {
                self.report.problem(format!("a value that is in the log: {fault}"));
            }
        }
    }

    /// What is not in the tree yet has its pages, too.
    fn claim_log(&mut self) {
        let state = self.store.state.borrow();
        let tables: [Option<&Memtable>; 2] = [Some(&state.active), state.frozen.as_deref()];
        let mut extents: Vec<Extent> = state.merging.pages().to_vec();
        for table in tables.into_iter().flatten() {
            for (key, slot) in table.range(Bound::Unbounded, Bound::Unbounded) {
                if let Slot::Put(value) = slot {
                    extents.extend(owned(key, value));
                }
            }
            extents.extend_from_slice(&table.freed);
        }
        for extent in extents {
            self.space.set_all(extent);
        }
    }

    fn end(mut self) -> Report {
        let is_readable = self.report.problem_count == 0;
        self.claim_log();
        for (number, object) in core::mem::take(&mut self.objects) {
            match (&object.owner, object.is_garbage) {
                (None, false) if is_readable => {
                    self.report.problem(format!("object {number}: no key leads to its {} chunks", object.chunks));
                }
                (Some((name, _)), true) => self.report.problem(format!("'{name}': its value counts as garbage")),
                _ => {}
            }
        }
        if is_readable {
            let state = self.store.state.borrow();
            let (mut lost, mut leaked) = (0_u64, 0_u64);
            for page in 0..self.store.geometry.pages {
                match (self.space.is_used(page), state.space.is_used(page)) {
                    (true, false) => lost += 1,
                    (false, true) => leaked += 1,
                    _ => {}
                }
            }
            if lost > 0 {
                self.report.problem(format!("{lost} pages are in use and count as free"));
            }
            if leaked > 0 {
                self.report.problem(format!("{leaked} pages are not in use and do not count as free"));
            }
        }
        self.report
    }
}
