//! Large values: written chunk by chunk before the commit that makes them a key's value; and what becomes of those that no key leads to.

use alloc::boxed::Box;
use alloc::vec::Vec;

use fogbow::lock::Guard;
use fogbow_block::Block;

use super::entry::{CHUNK, Place, chunk_key, chunk_of, garbage_key};
use super::error::Fault;
use super::memtable::Slot;
use super::transaction::{Taken, Transaction};
use super::tree::Layers;
use super::{Inner, entry};
use crate::Key;

/// Values that are longer are written before their commit, shorter ones with it.
const MAX_LOGGED: usize = 32 << 10;

/// Chunks that are held back until they are committed together.
const TOGETHER: usize = 16;

/// Chunks of garbage that are taken apart with a commit.
const SWEEP: usize = 8;

/// What a value is set to.
pub(crate) enum Content<'v, 's, B: Block> {
    /// Kept with its key.
    Inline(&'v [u8]),
    /// One chunk, first in the log.
    Logged(&'v [u8]),
    /// Written already.
    Object(Object<'s, B>),
}

/// A value that is being written.
pub(crate) struct Object<'s, B: Block> {
    store: &'s Inner<B>,
    number: u64,
    growing: Growing<'s, B>,
    size: u64,
    chunks: Vec<(u64, entry::Chunk)>,
    taken: Taken<'s, B>,
    /// Whether the store knows of it, as garbage so far.
    is_known: bool,
}

impl<'s, B: Block> Object<'s, B> {
    pub(crate) fn new(store: &'s Inner<B>) -> Self {
        let number = {
            let mut state = store.state();
            let number = state.take_number();
            state.growing.insert(number);
            number
        };
        Self { store, number, growing: Growing { store, number }, size: 0, chunks: Vec::new(), taken: Taken::new(store), is_known: false }
    }

    /// Adds the next chunk: of [`CHUNK`] bytes, unless it is the last.
    pub(crate) async fn push(&mut self, data: &[u8]) -> Result<(), Fault> {
        if self.chunks.len() == TOGETHER {
            self.commit_chunks().await?;
        }
        let number = self.size / CHUNK as u64;
        let chunk = self.store.store_chunk((self.number, number), data, &mut self.taken, None).await?;
        self.chunks.push((number, chunk));
        self.size += data.len() as u64;
        Ok(())
    }

    /// Commits the chunks so far, which nothing leads to yet.
    async fn commit_chunks(&mut self) -> Result<(), Fault> {
        let mut transaction = Transaction::new(self.store);
        if !self.is_known {
            transaction.push(&garbage_key(self.number), Slot::Put([].into()));
        }
        self.move_chunks(&mut transaction);
        let stage = self.store.stage.lock().await;
        self.store.make_room(&transaction, false, &stage).await?;
        self.store.submit(stage, transaction).await?;
        self.is_known = true;
        Ok(())
    }

    fn move_chunks(&mut self, transaction: &mut Transaction<'s, B>) {
        for (number, chunk) in self.chunks.drain(..) {
            transaction.push(&chunk_key(self.number, number), Slot::Put(chunk.emit().into()));
        }
        transaction.taken.append(&mut self.taken);
    }

    /// Makes it part of a transaction that leads to it.
    pub(crate) fn finish(mut self, transaction: &mut Transaction<'s, B>) -> Place {
        self.move_chunks(transaction);
        if self.is_known {
            transaction.push(&garbage_key(self.number), Slot::Deleted);
        }
        transaction.growing.push(self.growing);
        Place::Object { object: self.number, size: self.size }
    }
}

/// Keeps an object that no key leads to yet from being taken for garbage.
pub(crate) struct Growing<'s, B: Block> {
    store: &'s Inner<B>,
    number: u64,
}

impl<B: Block> Drop for Growing<'_, B> {
    fn drop(&mut self) {
        self.store.state().growing.remove(&self.number);
    }
}

impl<B: Block> Inner<B> {
    /// The longest value that goes through the log.
    pub(crate) fn max_logged(&self) -> usize {
        MAX_LOGGED.min(self.max_record() / 4)
    }

    /// Makes a value ready to be set.
    pub(crate) async fn content<'v>(&self, key: Key<'_>, value: &'v [u8]) -> Result<Content<'v, '_, B>, Fault> {
        if entry::is_inline(key.as_str(), value.len()) {
            return Ok(Content::Inline(value));
        }
        if value.len() <= self.max_logged() {
            return Ok(Content::Logged(value));
        }
        let mut object = Object::new(self);
        for chunk in value.chunks(CHUNK) {
            object.push(chunk).await?;
        }
        Ok(Content::Object(object))
    }

    /// Writes a chunk (of an object, with a number) to pages taken for it. `stage` is the lock for staging where the caller holds it.
    pub(crate) async fn store_chunk(
        &self,
        (object, number): (u64, u64),
        data: &[u8],
        taken: &mut Taken<'_, B>,
        stage: Option<&Guard<'_, ()>>,
    ) -> Result<entry::Chunk, Fault> {
        self.check_broken()?;
        let pages = data.len().div_ceil(self.geometry.page).max(1) as u32;
        let extents = match self.take_pages(pages) {
            Some(extents) => extents,
            None => {
                match stage {
                    Some(stage) => self.reclaim(stage).await?,
                    None => self.reclaim(&self.stage.lock().await).await?,
                }
                self.take_pages(pages).ok_or(Fault::NoSpace)?
            }
        };
        taken.add(&extents);
        self.write_chunk(&chunk_key(object, number), data, extents).await
    }

    fn take_pages(&self, pages: u32) -> Option<Vec<super::layout::Extent>> {
        let mut state = self.state();
        let needed = state.pages_promised() + self.reserve() + u64::from(pages);
        if state.space.free() < needed { None } else { state.space.take_unlogged(pages) }
    }

    /// Pages that only removals use.
    fn reserve(&self) -> u64 {
        (self.geometry.pages / 128).clamp(8, 1024)
    }

    /// Makes sure that there is space for a transaction until it is in the tree. The caller holds the lock for staging.
    pub(crate) async fn make_room(&self, transaction: &Transaction<'_, B>, is_removal: bool, stage: &Guard<'_, ()>) -> Result<(), Fault> {
        let fits = || {
            let state = self.state.borrow();
            let reserve = if is_removal { 0 } else { self.reserve() };
            state.space.free() >= state.pages_promised() + state.pages_for(transaction.table()) + reserve
        };
        if fits() {
            return Ok(());
        }
        self.reclaim(stage).await?;
        if fits() { Ok(()) } else { Err(Fault::NoSpace) }
    }

    /// Makes free whatever can be.
    pub(crate) async fn reclaim(&self, stage: &Guard<'_, ()>) -> Result<(), Fault> {
        loop {
            let mut transaction = Transaction::new(self);
            self.sweep(&mut transaction, self.geometry.max_entries() / 2).await;
            let is_swept = transaction.operations.list.is_empty();
            if !is_swept {
                let number = self.stage(transaction).await?;
                self.commit(number).await?;
            } else {
                self.commit_staged(stage).await?;
            }
            self.drain().await?;
            if is_swept {
                return Ok(());
            }
        }
    }

    async fn commit_staged(&self, _stage: &Guard<'_, ()>) -> Result<(), Fault> {
        let number = self.state.borrow().commits.last_staged();
        self.commit(number).await
    }

    /// Adds to a transaction the taking apart of some garbage.
    pub(crate) async fn sweep_some(&self, transaction: &mut Transaction<'_, B>) {
        let few = transaction.operations.list.len() + 2 * SWEEP < self.geometry.max_entries()
            && transaction.operations.size < self.max_record() / 2;
        if few {
            self.sweep(transaction, SWEEP).await;
        }
    }

    async fn sweep(&self, transaction: &mut Transaction<'_, B>, limit: usize) {
        loop {
            let object = {
                let state = self.state.borrow();
                state.garbage.iter().find(|object| !state.growing.contains(object)).copied()
            };
            let Some(object) = object else { return };
            match self.parts(object, limit).await {
                Ok(keys) => return keys.iter().for_each(|key| transaction.push(key, Slot::Deleted)),
                // What cannot be read keeps the space that it takes; nobody is kept from writing by it.
                Err(_) => drop(self.state().garbage.remove(&object)),
            }
        }
    }

    /// What is to be deleted next of an object that is garbage: so many of its chunks, and itself once there are no more.
    async fn parts(&self, object: u64, limit: usize) -> Result<Vec<Box<[u8]>>, Fault> {
        let layers = Layers { own: None, staged: true };
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        if self.find(&garbage_key(object), layers).await?.is_none() {
            // It is about to become a value, or to be gone.
            return Ok(keys);
        }
        let mut from = chunk_key(object, 0).to_vec();
        let start = from[..from.len() - size_of::<u64>()].to_vec();
        for _ in 0..limit {
            match self.first_at(&from, &start, layers).await?.filter(|key| chunk_of(key).is_some_and(|(owner, _)| owner == object)) {
                Some(key) => {
                    from = [&*key, &[0]].concat();
                    keys.push(key);
                }
                None => {
                    keys.push(garbage_key(object).into());
                    break;
                }
            }
        }
        Ok(keys)
    }
}
