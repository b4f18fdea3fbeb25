//! Looking things up: in what is not in the tree yet, newest first, and then in the tree.
//!
//! Nothing is locked: a node that was replaced while it was being read fails its checksum, and the search starts again from the new root.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use fogbow_block::Block;

use super::cache::Cached;
use super::entry::{name_key, name_of};
use super::error::Fault;
use super::layout::{Extent, NodeRef, checksum};
use super::memtable::{Memtable, Slot};
use super::node::Node;
use super::{Inner, MAX_LEVELS, State, Value, zeros};
use crate::{Key, dictionary};

/// The operations that a reader sees: of the reader's own transaction, of those that are about to be committed, and of those that are.
#[derive(Clone, Copy)]
pub(crate) struct Layers<'l> {
    /// A transaction's own changes.
    pub(crate) own: Option<&'l Memtable>,
    /// Whether to look at changes that are not committed yet.
    pub(crate) staged: bool,
}

impl Layers<'_> {
    /// What is committed.
    pub(crate) const COMMITTED: Self = Self { own: None, staged: false };
}

/// What was found for a key of the tree.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// An entry's value.
    Value(Value),
    /// A chunk's bytes.
    Data(Rc<[u8]>),
}

impl State {
    /// The memtables that are looked at, newest first.
    fn memtables<'s>(&'s self, layers: Layers<'s>) -> impl Iterator<Item = &'s Memtable> {
        let staged = layers.staged.then(|| self.commits.memtables()).into_iter().flatten();
        layers.own.into_iter().chain(staged).chain([&self.active]).chain(self.frozen.as_deref())
    }

    fn root(&self) -> Option<(NodeRef, u16)> {
        self.superblock.root.map(|root| (root, self.superblock.level))
    }
}

impl<B: Block> Inner<B> {
    /// What is at `key`.
    pub(crate) async fn find(&self, key: &[u8], layers: Layers<'_>) -> Result<Option<Found>, Fault> {
        loop {
            let (root, epoch) = {
                let state = self.state.borrow();
                match state.memtables(layers).find_map(|memtable| memtable.get(key)) {
                    Some(Slot::Put(value)) => return Ok(Some(Found::Value(Value::new(Rc::clone(value), 0..value.len())))),
                    Some(Slot::Data(data)) => return Ok(Some(Found::Data(Rc::clone(data)))),
                    Some(Slot::Deleted) => return Ok(None),
                    None => (state.root(), state.epoch),
                }
            };
            let Some((root, level)) = root else { return Ok(None) };
            match self.find_in_tree(root, level, key).await {
                Err(Fault::Damaged(_)) if self.state.borrow().epoch != epoch => {}
                found => return Ok(found?.map(Found::Value)),
            }
        }
    }

    async fn find_in_tree(&self, root: NodeRef, level: u16, key: &[u8]) -> Result<Option<Value>, Fault> {
        let mut node = self.node(root, level).await?;
        while node.level > 0 {
            node = self.node(node.child(node.child_index(key)), node.level - 1).await?;
        }
        Ok(node.search(key).ok().map(|index| Value::new(Rc::clone(&node.bytes), node.value_range(index))))
    }

    /// The first name at or after `from`, if it lies below the dictionary `within`.
    pub(crate) async fn first_name(&self, within: Key<'_>, from: &str, layers: Layers<'_>) -> Result<Option<String>, Fault> {
        let start = name_key(&dictionary::start_of(within));
        let Some(name) = self.first_at(&name_key(from), &start, layers).await?.and_then(|key| name_of(&key)) else { return Ok(None) };
        match Key::new(&name) {
            // A name that is not written as keys are would be found again and again by whoever goes from name to name.
            Ok(key) if key.as_str() == name => Ok(key.below(within).is_some().then_some(name)),
            _ => Err(Fault::Entry),
        }
    }

    /// The first key at or after `from` that has something, if it begins with `start`, as `from` does. No node is read that can have no such key: should it
    /// be damaged, that is nobody's harm.
    pub(crate) async fn first_at(&self, from: &[u8], start: &[u8], layers: Layers<'_>) -> Result<Option<Box<[u8]>>, Fault> {
        let mut from: Vec<u8> = from.to_vec();
        loop {
            let (root, epoch) = {
                let state = self.state.borrow();
                (state.root(), state.epoch)
            };
            let in_tree = match root {
                Some((root, level)) => self.first_in_tree(root, level, &from, start).await,
                None => Ok(None),
            };
            let state = self.state.borrow();
            if state.epoch != epoch {
                continue;
            }
            let in_tree = in_tree?;
            let newest = |least: &mut Option<(Box<[u8]>, bool)>, key: &[u8], is_deleted| {
                if least.as_ref().is_none_or(|(found, _)| key < &**found) {
                    *least = Some((key.into(), is_deleted));
                }
            };
            let mut least = None;
            for memtable in state.memtables(layers) {
                if let Some((key, slot)) = memtable.first_at(&from) {
                    newest(&mut least, key, *slot == Slot::Deleted);
                }
            }
            if let Some(key) = in_tree {
                newest(&mut least, &key, false);
            }
            match least {
                Some((key, true)) if key.starts_with(start) => {
                    from = key.into_vec();
                    from.push(0);
                }
                least => return Ok(least.map(|(key, _)| key).filter(|key| key.starts_with(start))),
            }
        }
    }

    async fn first_in_tree(&self, root: NodeRef, level: u16, from: &[u8], start: &[u8]) -> Result<Option<Box<[u8]>>, Fault> {
        let mut path: Vec<(Node, usize)> = Vec::new();
        let mut node = self.node(root, level).await?;
        while node.level > 0 {
            let index = node.child_index(from);
            let child = self.node(node.child(index), node.level - 1).await?;
            path.push((core::mem::replace(&mut node, child), index));
        }
        let index = node.search(from).unwrap_or_else(|at| at);
        if index < node.count {
            return Ok(Some(node.key(index).into()));
        }
        // Nothing in this leaf: the first key of the next.
        while let Some((branch, index)) = path.pop() {
            if index + 1 < branch.count {
                // All that comes is not less than this, which is behind `from`.
                if !branch.key(index + 1).starts_with(start) {
                    return Ok(None);
                }
                let mut node = self.node(branch.child(index + 1), branch.level - 1).await?;
                while node.level > 0 {
                    node = self.node(node.child(0), node.level - 1).await?;
                }
                // Leaves that are not in order would lead whoever goes from key to key in circles.
                let key = node.key(0);
                return if key > from { Ok(Some(key.into())) } else { Err(Fault::Entry) };
            }
        }
        Ok(None)
    }

    /// A node of the tree, which must be of this level.
    pub(crate) async fn node(&self, at: NodeRef, level: u16) -> Result<Node, Fault> {
        let cached = self.cache.borrow_mut().get(at);
        let node = match cached {
            Some(Cached::Node(node)) => node,
            _ => {
                let node = self.read_node(at).await?;
                self.cache.borrow_mut().insert(at, Cached::Node(node.clone()));
                node
            }
        };
        if node.level == level && level < MAX_LEVELS { Ok(node) } else { Err(Fault::Damaged(at.page)) }
    }

    /// Reads and checks a node, past the cache.
    pub(crate) async fn read_node(&self, at: NodeRef) -> Result<Node, Fault> {
        if !self.is_data(Extent { page: at.page, count: 1 }) {
            return Err(Fault::Damaged(at.page));
        }
        let mut bytes = zeros(self.geometry.page);
        if let Some(bytes) = Rc::get_mut(&mut bytes) {
            self.read_pages(at.page, bytes).await?;
        }
        let intact = checksum(self.id, &bytes) == at.checksum;
        intact.then(|| Node::parse(bytes)).flatten().ok_or(Fault::Damaged(at.page))
    }
}
