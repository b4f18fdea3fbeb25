//! Putting a half of the log into the tree, a leaf at a time, from the least key to the greatest.
//!
//! The way from the root to the present leaf is a stack of branches; each gathers the children that its successors will have. What is done is written to
//! new pages; the tree on the device stays whole until a superblock leads to the new one. A node that is left with little takes over its next sibling.
//! However many operations fall into one leaf: they are taken a page at a time, and what is full is written before more are.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Bound;

use fogbow_block::Block;

use super::cache::Cached;
use super::entry::{Chunk, owned};
use super::error::Fault;
use super::layout::{Extent, NodeRef, checksum};
use super::memtable::{Memtable, Slot};
use super::node::{CHILD, HEADER, Node, divide, encode, entry_size, separator};
use super::{Inner, Value};

/// A node that is used less than this part of a page takes over its sibling.
const SMALL_PART: usize = 4;

/// How full leaves that are divided should be, in percent, and how many siblings they take over for it: normally, and where space is short.
const FILL: (usize, usize) = (62, 1);
const TIGHT_FILL: (usize, usize) = (88, 6);

/// Space is short when less than this part of the device is free.
const TIGHT_PART: u64 = 6;

/// Pages that a leaf may grow to before those that are full are written; and how many are kept then, to be divided evenly with what follows.
const GROWN: usize = 4;
const KEPT: usize = 2;

/// Bytes that are written at once where pages follow each other.
const RUN: usize = 256 << 10;

/// What keys are less than; `None`: they have no bound.
type Upper = Option<Box<[u8]>>;

/// A child of a branch with the least key that it may hold.
type Child = (Box<[u8]>, NodeRef);

#[derive(Debug)]
pub(crate) struct Merge {
    table: Rc<Memtable>,
    /// All operations up to this one are merged.
    last: Option<Box<[u8]>>,
    /// How many those are.
    pub(crate) done: usize,
    is_begun: bool,
    frames: Vec<Frame>,
    /// The present leaf, below the last of the frames.
    leaf: Option<Leaf>,
    /// The nodes of the highest level so far.
    top: Vec<Child>,
    top_level: u16,
    /// Pages that only the old tree needs.
    pub(crate) freed: Vec<Extent>,
    /// By how many the new tree has more.
    pub(crate) leaves: i64,
    pub(crate) branches: i64,
    /// Pages that may be used to fill nodes better, beyond those that the operations need.
    spare: u64,
    is_tight: bool,
    /// Pages that are to be written together.
    run_page: u64,
    run: Vec<u8>,
}

/// A branch of the old tree on the way to the present leaf.
#[derive(Debug)]
struct Frame {
    node: Node,
    /// The first child that is not dealt with.
    next: usize,
    /// The children of the branches that replace it.
    out: Vec<Child>,
    /// Bytes that those take in a node.
    size: usize,
    lower: Box<[u8]>,
    upper: Upper,
}

/// What a leaf of the old tree becomes.
#[derive(Debug)]
struct Leaf {
    /// `None`: the old tree is empty.
    node: Option<Node>,
    /// The first of the node's entries that is not dealt with.
    next: usize,
    /// What is not written yet.
    entries: Vec<(Value, Value)>,
    lower: Box<[u8]>,
    upper: Upper,
    /// How many siblings it has taken over.
    siblings: usize,
}

impl Leaf {
    const fn new(node: Option<Node>, lower: Box<[u8]>, upper: Upper) -> Self {
        Self { node, next: 0, entries: Vec::new(), lower, upper, siblings: 0 }
    }

    /// Keeps the node's entries while `is_before` is true of their keys.
    fn keep_while(&mut self, is_before: impl Fn(&[u8]) -> bool) {
        let Some(node) = &self.node else { return };
        while self.next < node.count && is_before(node.key(self.next)) {
            self.entries.push(entry(node, self.next));
            self.next += 1;
        }
    }

    /// Leaves out the node's next entry if it is that of `key`, and gives its value.
    fn take_former(&mut self, key: &[u8]) -> Option<&[u8]> {
        let (found, former) = self.node.as_ref().filter(|node| self.next < node.count)?.entry(self.next);
        (found == key).then(|| {
            self.next += 1;
            former
        })
    }

    fn size(&self) -> usize {
        self.entries.iter().map(|(key, value)| entry_size(key.as_ref(), value.as_ref())).sum()
    }
}

impl Frame {
    fn push(&mut self, child: Child) {
        self.size += entry_size(&child.0, &[0; CHILD]);
        self.out.push(child);
    }

    fn copy_until(&mut self, end: usize) {
        for index in self.next..end {
            self.push((self.node.key(index).into(), self.node.child(index)));
        }
        self.next = self.next.max(end);
    }

    /// The next child, and the bounds of its keys.
    fn take_child(&mut self) -> (NodeRef, Box<[u8]>, Upper) {
        let index = self.next;
        self.next += 1;
        let upper = if self.next < self.node.count { Some(self.node.key(self.next).into()) } else { self.upper.clone() };
        (self.node.child(index), self.node.key(index).into(), upper)
    }
}

impl Merge {
    pub(crate) fn new(table: &Rc<Memtable>) -> Self {
        Self {
            table: Rc::clone(table),
            last: None,
            done: 0,
            is_begun: false,
            frames: Vec::new(),
            leaf: None,
            top: Vec::new(),
            top_level: 0,
            freed: Vec::new(),
            leaves: 0,
            branches: 0,
            spare: 0,
            is_tight: false,
            run_page: 0,
            run: Vec::new(),
        }
    }

    /// The new root.
    pub(crate) fn root(&self) -> Option<NodeRef> {
        self.top.first().map(|(_, root)| *root)
    }

    /// The new root's level.
    pub(crate) fn level(&self) -> u16 {
        if self.top.is_empty() { 0 } else { self.top_level }
    }

    fn next_key(&self) -> Option<&[u8]> {
        let from = self.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.table.range(from, Bound::Unbounded).next().map(|(key, _)| key)
    }

    /// Does the next piece of work: a page of operations, or one node. True when there is no more.
    pub(crate) async fn step<B: Block>(&mut self, store: &Inner<B>) -> Result<bool, Fault> {
        if !core::mem::replace(&mut self.is_begun, true) {
            return self.begin(store).await.map(|()| false);
        }
        if let Some(leaf) = self.leaf.take() {
            return self.go_on(store, leaf).await.map(|()| false);
        }
        let Some(frame) = self.frames.last_mut() else {
            if self.top.len() <= 1 {
                return self.lower_root(store).await;
            }
            self.top_level += 1;
            let children = core::mem::take(&mut self.top);
            self.top = self.write_branches(store, children, Box::default(), self.top_level, false).await?;
            return Ok(false);
        };
        let from = self.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let key = self.table.range(from, Bound::Unbounded).next().map(|(key, _)| key);
        match key.filter(|key| frame.upper.as_ref().is_none_or(|upper| *key < &**upper)) {
            None => self.close(store).await?,
            Some(key) => {
                frame.copy_until(frame.node.child_index(key));
                let (child, lower, upper) = frame.take_child();
                let level = frame.node.level - 1;
                self.descend(store, child, level, lower, upper).await?;
            }
        }
        Ok(false)
    }

    /// A root with one child is none: the child takes its place. True when there is no such root.
    async fn lower_root<B: Block>(&mut self, store: &Inner<B>) -> Result<bool, Fault> {
        let Some(root) = self.root().filter(|_| self.top_level > 0) else { return Ok(true) };
        // It may be among what is still to be written, and not in the cache.
        self.flush(store).await?;
        if store.node(root, self.top_level).await?.count > 1 {
            return Ok(true);
        }
        let child = self.take_over(store, root, self.top_level).await?.child(0);
        self.top_level -= 1;
        self.top = [(Box::default(), child)].into();
        Ok(false)
    }

    async fn begin<B: Block>(&mut self, store: &Inner<B>) -> Result<(), Fault> {
        let (root, level) = {
            let state = store.state.borrow();
            let free = state.space.free();
            self.spare = free.saturating_sub(state.pages_promised()) / 2;
            self.is_tight = free < store.geometry.pages / TIGHT_PART;
            (state.superblock.root, state.superblock.level)
        };
        match root {
            Some(root) if self.next_key().is_some() => self.descend(store, root, level, Box::default(), None).await,
            Some(root) => {
                self.top.push((Box::default(), root));
                self.top_level = level;
                Ok(())
            }
            None => {
                self.leaf = Some(Leaf::new(None, Box::default(), None));
                Ok(())
            }
        }
    }

    async fn descend<B: Block>(&mut self, store: &Inner<B>, at: NodeRef, level: u16, lower: Box<[u8]>, upper: Upper) -> Result<(), Fault> {
        let node = self.take_over(store, at, level).await?;
        if level == 0 {
            self.leaf = Some(Leaf::new(Some(node), lower, upper));
        } else {
            self.frames.push(Frame { node, next: 0, out: Vec::new(), size: 0, lower, upper });
        }
        Ok(())
    }

    /// Reads a node that will be replaced.
    async fn take_over<B: Block>(&mut self, store: &Inner<B>, at: NodeRef, level: u16) -> Result<Node, Fault> {
        let node = store.node(at, level).await?;
        self.freed.push(Extent { page: at.page, count: 1 });
        *if level == 0 { &mut self.leaves } else { &mut self.branches } -= 1;
        Ok(node)
    }

    /// Takes over the next child of the lowest branch, with the bound of its keys; `None` when there is none, or it cannot be read: it stays as it is.
    async fn take_sibling<B: Block>(&mut self, store: &Inner<B>, level: u16) -> Option<(Node, Upper)> {
        let frame = self.frames.last().filter(|frame| frame.next < frame.node.count)?;
        let node = self.take_over(store, frame.node.child(frame.next), level).await.ok()?;
        self.spare -= 1;
        let (_, _, upper) = self.frames.last_mut()?.take_child();
        Some((node, upper))
    }

    /// Goes on with a leaf: takes operations below its upper bound; when there are no more, takes over its sibling if it has little left, or writes the rest.
    async fn go_on<B: Block>(&mut self, store: &Inner<B>, mut leaf: Leaf) -> Result<(), Fault> {
        let page = store.geometry.page;
        if self.take_operations(store, &mut leaf).await? {
            if leaf.size() > GROWN * page {
                self.write_leaves(store, &mut leaf, true, KEPT).await?;
            }
            self.leaf = Some(leaf);
            return self.spill(store).await;
        }
        leaf.keep_while(|_| true);
        if self.spare > 0
            && self.is_loose(leaf.size(), leaf.siblings, page)
            && let Some((sibling, upper)) = self.take_sibling(store, 0).await
        {
            self.leaf = Some(Leaf { node: Some(sibling), next: 0, upper, siblings: leaf.siblings + 1, ..leaf });
            return Ok(());
        }
        let fill = leaf.upper.is_none();
        self.write_leaves(store, &mut leaf, fill, 0).await?;
        self.spill(store).await
    }

    /// Writes what was gathered for a leaf, but for as much as so many pages hold.
    async fn write_leaves<B: Block>(&mut self, store: &Inner<B>, leaf: &mut Leaf, fill: bool, kept: usize) -> Result<(), Fault> {
        let page = store.geometry.page;
        let entries = &leaf.entries;
        let sizes: Vec<usize> = entries.iter().map(|(key, value)| entry_size(key.as_ref(), value.as_ref())).collect();
        let ends = divide(&sizes, page, fill);
        let mut start = 0;
        for &end in &ends[..ends.len().saturating_sub(kept)] {
            let node = self.write_node(store, encode(page, 0, &entries[start..end])).await?;
            self.leaves += 1;
            let behind = entries.get(end).map(|(key, _)| separator(entries[end - 1].0.as_ref(), key.as_ref()).into());
            let key = core::mem::replace(&mut leaf.lower, behind.unwrap_or_default());
            self.push((key, node), 0);
            start = end;
        }
        leaf.entries.drain(..start);
        Ok(())
    }

    /// Whether entries of this size would fill their pages so badly that another leaf should be added.
    const fn is_loose(&self, size: usize, siblings: usize, page: usize) -> bool {
        let (percent, most) = if self.is_tight { TIGHT_FILL } else { FILL };
        let room = page - HEADER;
        let is_small = size < page / SMALL_PART;
        let is_badly_filled = (self.is_tight || size > room) && size * 100 < size.div_ceil(room) * room * percent;
        is_small || (is_badly_filled && siblings < most)
    }

    /// Changes a leaf as the next operations below its upper bound say, about a page of them. False when there are none.
    async fn take_operations<B: Block>(&mut self, store: &Inner<B>, leaf: &mut Leaf) -> Result<bool, Fault> {
        let from = self.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut operations: Vec<(Rc<[u8]>, Slot)> = Vec::new();
        let mut size = 0;
        for (key, slot) in self.table.range(from, Bound::Unbounded) {
            if size >= store.geometry.page || leaf.upper.as_ref().is_some_and(|upper| key >= &**upper) {
                break;
            }
            size += entry_size(key, slot.bytes());
            operations.push((key.into(), slot.clone()));
        }
        for (key, slot) in &operations {
            leaf.keep_while(|other| other < &**key);
            let value: Option<Rc<[u8]>> = match slot {
                Slot::Put(value) => Some(Rc::clone(value)),
                Slot::Data(data) => Some(self.write_data(store, key, data).await?.into()),
                Slot::Deleted => None,
            };
            if let Some(former) = leaf.take_former(key)
                && value.as_deref() != Some(former)
            {
                self.freed.extend(owned(key, former));
            }
            if let Some(value) = value {
                leaf.entries.push((Value::new(Rc::clone(key), 0..key.len()), Value::new(Rc::clone(&value), 0..value.len())));
            }
        }
        self.done += operations.len();
        let Some((key, _)) = operations.last() else { return Ok(false) };
        self.last = Some((&**key).into());
        Ok(true)
    }

    /// Writes the bytes of a chunk that was only in the log, and gives the entry that leads to them.
    async fn write_data<B: Block>(&mut self, store: &Inner<B>, key: &[u8], data: &[u8]) -> Result<Vec<u8>, Fault> {
        let page = store.geometry.page;
        let extents = take(store, data.len().div_ceil(page).max(1) as u32)?;
        let mut rest = data;
        for extent in &extents {
            let (part, behind) = rest.split_at(rest.len().min(extent.count as usize * page));
            self.write(store, extent.page, part).await?;
            rest = behind;
        }
        Ok(Chunk::new(key, data, extents).emit())
    }

    async fn write_node<B: Block>(&mut self, store: &Inner<B>, bytes: Vec<u8>) -> Result<NodeRef, Fault> {
        let extents = take(store, 1)?;
        let at = NodeRef { page: extents.first().map_or(0, |extent| extent.page), checksum: checksum(store.id, &bytes) };
        self.write(store, at.page, &bytes).await?;
        if let Some(node) = Node::parse(bytes.into()) {
            store.cache.borrow_mut().insert(at, Cached::Node(node));
        }
        Ok(at)
    }

    /// Writes bytes to the pages from `page` on, together with those before it if they follow each other.
    async fn write<B: Block>(&mut self, store: &Inner<B>, page: u64, bytes: &[u8]) -> Result<(), Fault> {
        let size = store.geometry.page;
        if self.run_page + (self.run.len() / size) as u64 != page || self.run.len() >= RUN {
            self.flush(store).await?;
            self.run_page = page;
        }
        self.run.extend_from_slice(bytes);
        self.run.resize(self.run.len().next_multiple_of(size), 0);
        Ok(())
    }

    /// Writes what is to be written.
    pub(crate) async fn flush<B: Block>(&mut self, store: &Inner<B>) -> Result<(), Fault> {
        if !self.run.is_empty() {
            store.write_pages(self.run_page, &self.run).await?;
            self.run.clear();
        }
        Ok(())
    }

    /// Hands a new node of a level to the branch above it.
    fn push(&mut self, child: Child, level: u16) {
        match self.frames.last_mut() {
            Some(frame) => frame.push(child),
            None => {
                self.top.push(child);
                self.top_level = level;
            }
        }
    }

    /// Ends the lowest branch: it takes over its sibling if it has little left, or is written.
    async fn close<B: Block>(&mut self, store: &Inner<B>) -> Result<(), Fault> {
        let Some(mut frame) = self.frames.pop() else { return Ok(()) };
        frame.copy_until(frame.node.count);
        let level = frame.node.level;
        if frame.size < store.geometry.page / SMALL_PART
            && self.spare > 0
            && let Some((sibling, upper)) = self.take_sibling(store, level).await
        {
            frame.node = sibling;
            frame.next = 0;
            frame.upper = upper;
            self.frames.push(frame);
            return Ok(());
        }
        let fill = frame.upper.is_none();
        for child in self.write_branches(store, frame.out, frame.lower, level, fill).await? {
            self.push(child, level);
        }
        Ok(())
    }

    /// Writes the branches that the lowest one has gathered children for, when those have become many.
    async fn spill<B: Block>(&mut self, store: &Inner<B>) -> Result<(), Fault> {
        let Some(frame) = self.frames.last_mut().filter(|frame| frame.size > 4 * store.geometry.page) else { return Ok(()) };
        let kept = frame.out.split_off(frame.out.len() / 4 * 3);
        let children = core::mem::replace(&mut frame.out, kept);
        let lower = core::mem::replace(&mut frame.lower, frame.out.first().map(|(key, _)| key.clone()).unwrap_or_default());
        frame.size = frame.out.iter().map(|(key, _)| entry_size(key, &[0; CHILD])).sum();
        let level = frame.node.level;
        let written = self.write_branches(store, children, lower, level, false).await?;
        let above = self.frames.len().checked_sub(2).and_then(|above| self.frames.get_mut(above));
        match above {
            Some(frame) => written.into_iter().for_each(|child| frame.push(child)),
            None => {
                self.top.extend(written);
                self.top_level = level;
            }
        }
        Ok(())
    }

    async fn write_branches<B: Block>(
        &mut self,
        store: &Inner<B>,
        mut children: Vec<Child>,
        lower: Box<[u8]>,
        level: u16,
        fill: bool,
    ) -> Result<Vec<Child>, Fault> {
        if let Some(first) = children.first_mut() {
            first.0 = lower;
        }
        let page = store.geometry.page;
        let sizes: Vec<usize> = children.iter().map(|(key, _)| entry_size(key, &[0; CHILD])).collect();
        let mut written = Vec::new();
        let mut start = 0;
        for end in divide(&sizes, page, fill) {
            let entries: Vec<_> = children[start..end].iter().map(|(key, child)| (key, child.emit())).collect();
            let node = self.write_node(store, encode(page, level, &entries)).await?;
            self.branches += 1;
            written.push((children[start].0.clone(), node));
            start = end;
        }
        Ok(written)
    }
}

fn take<B: Block>(store: &Inner<B>, count: u32) -> Result<Vec<Extent>, Fault> {
    let mut state = store.state();
    let extents = state.space.take(count).ok_or(Fault::NoSpace)?;
    state.merging.add_pages(&extents);
    Ok(extents)
}

fn entry(leaf: &Node, index: usize) -> (Value, Value) {
    let value = leaf.value_range(index);
    let key = value.start - leaf.key(index).len()..value.start;
    (Value::new(Rc::clone(&leaf.bytes), key), Value::new(Rc::clone(&leaf.bytes), value))
}
