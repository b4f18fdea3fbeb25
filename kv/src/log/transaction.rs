//! Transactions: the changes of a commit as they are gathered, each seeing those before it.
//!
//! They are made while the lock for staging is held, so that what was looked up stays true until they are staged.

use alloc::borrow::ToOwned;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use fogbow::lock::Guard;
use fogbow_block::Block;

use super::Inner;
use super::Value;
use super::entry::{CHUNK, META, Meta, Place, chunk_key, garbage_key, name_key};
use super::error::Fault;
use super::layout::Extent;
use super::memtable::{Memtable, Operations, Slot};
use super::objects::{Content, Growing};
use super::tree::{Found, Layers};
use crate::{Change, Key, WriteError, dictionary};

/// A value of at most so many chunks is taken apart in the commit that removes it; a larger one afterwards.
const FEW_CHUNKS: u64 = 16;

/// Pages that were taken for a commit; free again when this is dropped.
pub(crate) struct Taken<'s, B: Block> {
    store: &'s Inner<B>,
    extents: Vec<Extent>,
}

impl<'s, B: Block> Taken<'s, B> {
    pub(crate) const fn new(store: &'s Inner<B>) -> Self {
        Self { store, extents: Vec::new() }
    }

    pub(crate) fn add(&mut self, extents: &[Extent]) {
        self.extents.extend_from_slice(extents);
    }

    pub(crate) fn keep(&mut self) -> Vec<Extent> {
        core::mem::take(&mut self.extents)
    }

    pub(crate) fn append(&mut self, other: &mut Self) {
        self.extents.append(&mut other.extents);
    }
}

impl<B: Block> Drop for Taken<'_, B> {
    fn drop(&mut self) {
        self.store.state().space.release(&self.extents);
    }
}

pub(crate) struct Transaction<'s, B: Block> {
    store: &'s Inner<B>,
    pub(crate) operations: Operations,
    own: Memtable,
    pub(crate) taken: Taken<'s, B>,
    pub(crate) growing: Vec<Growing<'s, B>>,
}

impl<B: Block> Inner<B> {
    /// Operations that remove a part of a dictionary: a quarter of the most, so that what belongs to the last name still fits.
    pub(crate) fn most_removed(&self) -> usize {
        self.geometry.max_entries() / 4
    }
}

impl<'s, B: Block> Transaction<'s, B> {
    pub(crate) fn new(store: &'s Inner<B>) -> Self {
        let own = Memtable::new(store.geometry.page);
        Self { store, operations: Operations::default(), own, taken: Taken::new(store), growing: Vec::new() }
    }

    pub(crate) const fn table(&self) -> &Memtable {
        &self.own
    }

    const fn layers(&self) -> Layers<'_> {
        Layers { own: Some(&self.own), staged: true }
    }

    pub(crate) fn push(&mut self, key: &[u8], slot: Slot) {
        self.own.insert(key, &slot);
        self.operations.push(key, slot);
    }

    /// What is at a name, with its meta data.
    async fn name(&self, key: Key<'_>) -> Result<Option<(Value, Meta)>, WriteError> {
        match self.store.find(&name_key(key.as_str()), self.layers()).await.map_err(|fault| fault.write(key))? {
            Some(Found::Value(value)) => {
                let meta = Meta::parse(value.as_ref()).ok_or_else(|| Fault::Entry.write(key))?;
                Ok(Some((value, meta)))
            }
            _ => Ok(None),
        }
    }

    /// The first name at or after `from` that lies below `dictionary`.
    async fn first_below(&self, dictionary: Key<'_>, from: &str) -> Result<Option<String>, WriteError> {
        self.store.first_name(dictionary, from, self.layers()).await.map_err(|fault| fault.write(dictionary))
    }

    pub(crate) async fn is_dictionary(&self, key: Key<'_>) -> Result<bool, WriteError> {
        Ok(key.is_root() || self.first_below(key, &dictionary::start_of(key)).await?.is_some())
    }

    /// Checks that `key` can take a value: it is no dictionary and lies below no value.
    async fn check_place(&self, key: Key<'_>) -> Result<(), WriteError> {
        let mut is_free = !self.is_dictionary(key).await?;
        for above in key.ancestors() {
            is_free = is_free && self.name(above).await?.is_none();
        }
        if is_free { Ok(()) } else { Err(WriteError::Conflict(key.as_str().to_owned())) }
    }

    pub(crate) async fn exists(&self, key: Key<'_>) -> Result<bool, WriteError> {
        Ok(self.name(key).await?.is_some())
    }

    /// A value that is small enough to be set as a whole again; what does not exist is empty. `None`: it is not small.
    pub(crate) async fn small(&self, key: Key<'_>) -> Result<Option<Vec<u8>>, WriteError> {
        match self.name(key).await? {
            None => Ok(Some(Vec::new())),
            Some((value, Meta { place: Place::Inline(_), .. })) => Ok(Some(value.as_ref()[META..].to_vec())),
            Some((_, Meta { place: Place::Object { object, size }, .. })) if size <= self.store.max_logged() as u64 => {
                let chunk = self.store.chunk(object, 0, self.layers()).await.map_err(|fault| fault.write(key))?;
                let mut value = chunk.as_ref().to_vec();
                value.resize(size as usize, 0);
                Ok(Some(value))
            }
            Some(_) => Ok(None),
        }
    }

    /// Sets a value.
    pub(crate) async fn set(&mut self, key: Key<'_>, content: Content<'_, 's, B>) -> Result<(), WriteError> {
        let former = self.name(key).await?;
        if former.is_none() {
            self.check_place(key).await?;
        }
        let former = former.map(|(_, meta)| meta.place);
        let modified = fogbow::time::wall().as_unix_nanos();
        let version = self.store.state().take_number();
        let (place, value): (Place, &[u8]) = match content {
            Content::Inline(value) => (Place::Inline(value.len()), value),
            Content::Logged(data) => {
                // A value of one chunk takes the place of another.
                let object = match former {
                    Some(Place::Object { object, size }) if size <= CHUNK as u64 => object,
                    _ => self.store.state().take_number(),
                };
                self.push(&chunk_key(object, 0), Slot::Data(data.into()));
                (Place::Object { object, size: data.len() as u64 }, &[])
            }
            Content::Object(object) => (object.finish(self), &[]),
        };
        if former.is_some_and(|former| !is_same(former, place)) {
            self.dispose(former);
        }
        self.push(&name_key(key.as_str()), Slot::Put(Meta { version, modified, place }.emit(value).into()));
        Ok(())
    }

    /// Sets a value to an object of this size, whose chunks are the caller's.
    pub(crate) fn set_object(&mut self, key: Key<'_>, object: u64, size: u64) {
        let modified = fogbow::time::wall().as_unix_nanos();
        let version = self.store.state().take_number();
        let meta = Meta { version, modified, place: Place::Object { object, size } };
        self.push(&name_key(key.as_str()), Slot::Put(meta.emit(&[]).into()));
    }

    /// Overwrites a part of a value, chunk by chunk; what it had that is no object becomes one.
    pub(crate) async fn set_partial(&mut self, key: Key<'_>, offset: u64, part: &[u8], stage: &Guard<'_, ()>) -> Result<(), WriteError> {
        let former = self.name(key).await?;
        if former.is_none() {
            self.check_place(key).await?;
        }
        let no_space = || WriteError::NoSpace(key.to_string());
        let end = offset.checked_add(part.len() as u64).filter(|end| *end <= self.store.max_value()).ok_or_else(no_space)?;
        let (object, inline, size) = match &former {
            Some((_, Meta { place: Place::Object { object, size }, .. })) => (*object, &[][..], *size),
            Some((value, meta)) => (self.store.state().take_number(), &value.as_ref()[META..], meta.size()),
            None => (self.store.state().take_number(), &[][..], 0),
        };
        let touched = offset / CHUNK as u64..end.div_ceil(CHUNK as u64);
        let first = (!inline.is_empty() && !touched.contains(&0)).then_some(0);
        for number in first.into_iter().chain(touched) {
            let start = number * CHUNK as u64;
            let mut data = self.store.chunk(object, number, self.layers()).await.map_err(|fault| fault.write(key))?.as_ref().to_vec();
            if number == 0 && !inline.is_empty() {
                data = inline.to_vec();
            }
            // The range of the part that goes into this chunk, and where in the chunk.
            let from = start.saturating_sub(offset).min(part.len() as u64) as usize;
            let to = (start + CHUNK as u64).saturating_sub(offset).min(part.len() as u64) as usize;
            let at = offset.saturating_sub(start).min(CHUNK as u64) as usize;
            if from < to {
                data.resize(data.len().max(at + to - from), 0);
                data[at..at + to - from].copy_from_slice(&part[from..to]);
            }
            let id = (object, number);
            let chunk = self.store.store_chunk(id, &data, &mut self.taken, Some(stage)).await.map_err(|fault| fault.write(key))?;
            self.push(&chunk_key(object, number), Slot::Put(chunk.emit().into()));
        }
        self.set_object(key, object, size.max(end));
        Ok(())
    }

    /// Makes a value of zeros where there is none.
    pub(crate) async fn allocate(&mut self, key: Key<'_>, size: u64) -> Result<(), WriteError> {
        self.check_place(key).await?;
        if size > self.store.max_value() {
            return Err(WriteError::NoSpace(key.to_string()));
        }
        let object = self.store.state().take_number();
        self.set_object(key, object, size);
        Ok(())
    }

    /// Gives up what a value had.
    fn dispose(&mut self, place: Option<Place>) {
        let Some(Place::Object { object, size }) = place else { return };
        let chunks = size.div_ceil(CHUNK as u64);
        if chunks <= FEW_CHUNKS {
            (0..chunks).for_each(|number| self.push(&chunk_key(object, number), Slot::Deleted));
        } else {
            self.push(&garbage_key(object), Slot::Put([].into()));
        }
    }

    /// Removes a value, or what is below a dictionary: all of it, or about `most` operations' worth. False when more is left.
    pub(crate) async fn remove(&mut self, key: Key<'_>, most: usize) -> Result<bool, WriteError> {
        if let Some((_, meta)) = self.name(key).await? {
            self.remove_name(key.as_str(), meta);
            return Ok(true);
        }
        let start = dictionary::start_of(key);
        let limit = self.operations.list.len() + most;
        while let Some(name) = self.first_below(key, &start).await? {
            if self.operations.list.len() >= limit || self.operations.size >= self.store.max_record() / 2 {
                return Ok(false);
            }
            let below = Key::new(&name).map_err(|_| Fault::Entry.write(key))?;
            match self.name(below).await? {
                Some((_, meta)) => self.remove_name(&name, meta),
                None => return Err(Fault::Entry.write(key)),
            }
        }
        Ok(true)
    }

    fn remove_name(&mut self, name: &str, meta: Meta) {
        self.dispose(Some(meta.place));
        self.push(&name_key(name), Slot::Deleted);
    }

    pub(crate) async fn rename(&mut self, from: Key<'_>, to: Key<'_>) -> Result<(), WriteError> {
        let value = self.name(from).await?;
        if value.is_none() && !self.is_dictionary(from).await? {
            return Err(WriteError::NotFound(from.to_string()));
        }
        if from == to {
            return Ok(());
        }
        if to.below(from).is_some() {
            return Err(WriteError::Conflict(to.to_string()));
        }
        if let Some((value, _)) = value {
            let former = self.name(to).await?;
            if former.is_none() {
                self.check_place(to).await?;
            }
            self.dispose(former.map(|(_, meta)| meta.place));
            self.move_name(from.as_str(), to.as_str(), value.as_ref());
            return Ok(());
        }
        self.check_place(to).await?;
        if self.exists(to).await? {
            return Err(WriteError::Conflict(to.to_string()));
        }
        let start = dictionary::start_of(from);
        while let Some(name) = self.first_below(from, &start).await? {
            let moved = alloc::format!("{to}{}", &name[from.as_str().len()..]);
            let below = Key::new(&name).map_err(|_| Fault::Entry.write(from))?;
            let Some((value, _)) = self.name(below).await? else { return Err(Fault::Entry.write(from)) };
            Key::new(&moved).map_err(|_| WriteError::Unsupported { key: moved.clone(), reason: "the new key would be too long" })?;
            self.move_name(&name, &moved, value.as_ref());
            self.check_size(from)?;
        }
        Ok(())
    }

    fn move_name(&mut self, from: &str, to: &str, meta: &[u8]) {
        debug_assert!(meta.len() >= META, "names have meta data");
        self.push(&name_key(to), Slot::Put(Rc::from(meta)));
        self.push(&name_key(from), Slot::Deleted);
    }

    /// Makes one of a batch's changes. What a `Set` takes was made ready before.
    pub(crate) async fn change(&mut self, change: &Change<'_>, content: Option<Content<'_, 's, B>>) -> Result<(), WriteError> {
        match (change, content) {
            (Change::Set(key, _), Some(content)) => self.set(*key, content).await?,
            (Change::Set(key, _), None) => return Err(Fault::Entry.write(*key)),
            (Change::Remove(key), _) => {
                if !self.remove(*key, self.store.most_removed()).await? {
                    return Err(too_large(*key));
                }
            }
            (Change::Rename(from, to), _) => self.rename(*from, *to).await?,
        }
        self.check_size(change.key())
    }

    pub(crate) fn check_size(&self, key: Key<'_>) -> Result<(), WriteError> {
        if self.store.is_one_record(&self.operations) { Ok(()) } else { Err(too_large(key)) }
    }
}

const fn is_same(former: Place, place: Place) -> bool {
    matches!((former, place), (Place::Object { object, .. }, Place::Object { object: other, .. }) if object == other)
}

fn too_large(key: Key<'_>) -> WriteError {
    WriteError::Unsupported { key: key.to_string(), reason: "this is more than the store changes at once: make several changes of it" }
}
