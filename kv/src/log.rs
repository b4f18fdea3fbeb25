//! The log store: a key-value store on a block device that loses nothing it has acknowledged.
//!
//! A commit (a `set`, a `remove`, a `batch`) is one record in a log, written and flushed; what has been in the log for a while goes into a
//! copy-on-write tree, whose root a checkpoint replaces as a whole. Every node, value and record is checksummed, and the checksum is kept by whoever
//! leads to it, so that what was damaged, moved, or left over from an earlier time is an error and never data. `docs/log-store.md` describes the format.
//!
//! # Promises
//! - What was acknowledged survives a power cut at any point, as far as the device keeps its own promise (see [`Block::flush`]); a change that was not is all
//!   there or not at all.
//! - After damage to one sector every read gives the right value or an error that names the key. Records of the log, the superblocks and the free-space
//!   map are made whole again.
//! - Tasks that write at the same time share a record and its flush.
//! - Memory: the cache ([`Config::cache`]), two memtables of at most as many bytes as the log (2 × 2 MiB at most, an
//!   operation's own 100 bytes besides), 32 KiB for each GiB of the device, and 64 KiB for each value that is being written; whatever
//!   the size of the values.
//! - A commit waits for its own bytes, and for the share of the work on the tree that falls to it: an operation moves about as many older ones as it
//!   adds, each at the cost of reading one node on each level and writing two. Once in each half of the log, it waits for a checkpoint: the changed pages
//!   of the free-space map, two sectors and two flushes. Only a store that is out of space makes a commit wait for a whole checkpoint.
//!
//! # Limits
//! The checksums detect damage, not forgery: put an authenticating layer below where that matters. One image at a time may have the device open. A
//! batch has at most as many operations as the 64th part of the device's pages (64 at least, 16384 at most), and bytes as a half of the log; values of more
//! than 32 KiB do not count. Renaming a dictionary is a batch; removing one that is larger is several.

use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::ops::Range;

use fogbow::lock::Lock;
use fogbow_block::Block;

mod cache;
pub mod check;
mod checkpoint;
mod chunks;
mod commit;
mod entry;
mod error;
mod fresh;
mod layout;
mod memtable;
mod merge;
mod node;
mod objects;
mod open;
mod read;
mod record;
mod space;
#[cfg(test)]
mod tests;
mod transaction;
mod tree;
mod write;

use cache::Cache;
use checkpoint::Merging;
use commit::Commits;
use error::Fault;
pub use error::{FormatError, OpenError};
pub use layout::VERSION;
use layout::{Extent, Geometry, Superblock};
use memtable::Memtable;
pub use read::Reader;
use space::Space;

/// The levels that a tree may have; no store of 2^63 bytes has more.
const MAX_LEVELS: u16 = 32;

/// How a store uses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most bytes of nodes and values that are kept in memory.
    pub cache: usize,
}

impl Default for Config {
    /// A cache of 4 MiB.
    fn default() -> Self {
        Self { cache: 4 << 20 }
    }
}

/// A store on a block device. Cloning gives another handle to the same store.
#[derive(Debug)]
pub struct LogStore<B>(Rc<Inner<B>>);

impl<B> Clone for LogStore<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct Inner<B> {
    device: B,
    geometry: Geometry,
    id: u64,
    state: RefCell<State>,
    cache: RefCell<Cache>,
    /// Held by whoever adds to the next record.
    stage: Lock<()>,
    /// Held by whoever writes to the log or the tree.
    commit: Lock<()>,
}

impl<B> fmt::Debug for Inner<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("id", &self.id).field("geometry", &self.geometry).finish_non_exhaustive()
    }
}

struct State {
    /// As it is on the device.
    superblock: Superblock,
    space: Space,
    /// What is in the log, in the half that is written to.
    active: Memtable,
    /// What is in the other half, and on its way into the tree.
    frozen: Option<Rc<Memtable>>,
    /// The half of the log that is written to, where in it, and the number of its first record.
    half: usize,
    at: usize,
    first: u64,
    /// The number of the next record.
    sequence: u64,
    commits: Commits,
    merging: Merging,
    /// A number that no value and no object has.
    next_number: u64,
    /// Objects that no key leads to.
    garbage: BTreeSet<u64>,
    /// Objects that are being written.
    growing: BTreeSet<u64>,
    /// Changes whenever the tree does: what was read of the former one may have been given to something else.
    epoch: u64,
    /// Why nothing can be written any more.
    broken: Option<String>,
    /// What was found damaged when the store was opened, and could be told from the rest.
    mended: Vec<String>,
}

impl State {
    fn new(superblock: Superblock, space: Space) -> Self {
        Self {
            superblock,
            space,
            active: Memtable::new(superblock.geometry.page),
            frozen: None,
            half: superblock.half,
            at: 0,
            first: superblock.sequence,
            sequence: superblock.sequence,
            commits: Commits::default(),
            merging: Merging::default(),
            next_number: superblock.next_object,
            garbage: BTreeSet::new(),
            growing: BTreeSet::new(),
            epoch: 0,
            broken: None,
            mended: Vec::new(),
        }
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        // A log that was forged may have the last of all numbers.
        self.next_number = number.saturating_add(1);
        number
    }
}

impl<B: Block> Inner<B> {
    /// Device sectors in a page.
    fn sectors(&self) -> u64 {
        (self.geometry.page / self.device.info().sector_size) as u64
    }

    async fn read_pages(&self, page: u64, into: &mut [u8]) -> Result<(), Fault> {
        Ok(self.device.read(page * self.sectors(), into).await?)
    }

    async fn write_pages(&self, page: u64, data: &[u8]) -> Result<(), Fault> {
        Ok(self.device.write(page * self.sectors(), data).await?)
    }

    /// Whether an extent lies where nodes and values do.
    fn is_data(&self, extent: Extent) -> bool {
        extent.count > 0
            && extent.page >= self.geometry.data_start()
            && extent.page.checked_add(extent.count.into()).is_some_and(|end| end <= self.geometry.pages)
    }

    /// The longest value: as many bytes as the device has.
    const fn max_value(&self) -> u64 {
        self.geometry.pages * self.geometry.page as u64
    }

    fn state(&self) -> core::cell::RefMut<'_, State> {
        self.state.borrow_mut()
    }
}

/// A value, or a part of one, shared with the cache where it can be.
#[derive(Clone, Debug)]
pub struct Value {
    bytes: Rc<[u8]>,
    range: Range<usize>,
}

impl Value {
    fn new(bytes: Rc<[u8]>, range: Range<usize>) -> Self {
        let end = range.end.min(bytes.len());
        Self { range: range.start.min(end)..end, bytes }
    }

    fn part(self, range: Range<usize>) -> Self {
        let start = self.range.start.saturating_add(range.start).min(self.range.end);
        let end = self.range.start.saturating_add(range.end).min(self.range.end);
        Self { bytes: self.bytes, range: start..end.max(start) }
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self { range: 0..bytes.len(), bytes: bytes.into() }
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// `length` zeros that can be shared after they have been overwritten.
fn zeros(length: usize) -> Rc<[u8]> {
    core::iter::repeat_n(0, length).collect()
}
