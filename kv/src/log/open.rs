//! Opening a store: the newest superblock, the free-space map, and then what is in the log.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use fogbow::lock::Lock;
use fogbow_block::{Block, Durability};

use super::cache::Cache;
use super::entry::{GARBAGE, Meta, NAME, Place, chunk_of, garbage_of, owned};
use super::error::Fault;
use super::fresh::device_error;
use super::layout::{Extent, Geometry, NodeRef, SUPERBLOCKS, Superblock};
use super::memtable::{Operations, Slot};
use super::space::Space;
use super::tree::Layers;
use super::{Config, FormatError, Inner, LogStore, OpenError, State, record};

/// The most garbage that is looked for when a store is opened: the rest is found the next time.
const MAX_GARBAGE: usize = 4096;

impl<B: Block> LogStore<B> {
    /// Opens the store on a device.
    ///
    /// Reads the superblocks, the free-space map and the log, and of the tree the way to what is to be taken apart. What a power cut left half done is
    /// undone, and what of this is damaged is written anew if the device is not read-only; then the store can only be read, too.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(device: B, config: Config) -> Result<Self, OpenError> {
        let (superblock, damaged) = find_superblock(&device).await?;
        let space = Space::new(superblock.geometry);
        let inner = Inner {
            geometry: superblock.geometry,
            id: superblock.id,
            device,
            state: RefCell::new(State::new(superblock, space)),
            cache: RefCell::new(Cache::new(config.cache)),
            stage: Lock::new(()),
            commit: Lock::new(()),
        };
        inner.read_map().await?;
        let repaired = inner.replay().await?;
        if damaged {
            inner.state().mended.push("one of the two copies of the superblock".into());
        }
        if !repaired.is_empty() {
            inner.state().mended.push(format!("{} of the log's sectors", repaired.len()));
        }
        if inner.device.info().read_only {
            inner.state().broken.get_or_insert_with(|| "its device is read-only".into());
        } else {
            inner.repair(damaged, repaired).await.map_err(device_error)?;
        }
        inner.find_garbage().await;
        Ok(Self(Rc::new(inner)))
    }
}

/// The newest superblock, and whether its other copy is damaged.
async fn find_superblock<B: Block>(device: &B) -> Result<(Superblock, bool), OpenError> {
    let info = device.info();
    let sectors = (Geometry::of(info)?.page / info.sector_size) as u64;
    let mut found: Vec<Superblock> = Vec::new();
    let mut problem = FormatError::NotAStore;
    let mut bytes = vec![0; info.sector_size];
    for place in 0..SUPERBLOCKS {
        device.read(place * sectors, &mut bytes).await?;
        match Superblock::parse(&bytes, place, info) {
            Ok(superblock) => found.push(superblock),
            Err(FormatError::NotAStore) => {}
            Err(other) => problem = other,
        }
    }
    if let FormatError::Version(_) = problem {
        return Err(problem.into());
    }
    let Some(newest) = found.iter().copied().max_by_key(|superblock| superblock.generation) else { return Err(problem.into()) };
    let copies = found.iter().filter(|other| **other == newest).count();
    Ok((newest, copies < 2))
}

/// Sectors that have to be written again.
type Repair = Vec<(u64, Vec<u8>)>;

impl<B: Block> Inner<B> {
    async fn read_map(&self) -> Result<(), OpenError> {
        let superblock = self.state.borrow().superblock;
        let copy = (superblock.generation % 2) as usize;
        let mut bytes = vec![0; self.geometry.page];
        for group in 0..self.geometry.map_pages() {
            self.read_pages(self.geometry.map_start(copy) + group, &mut bytes).await.map_err(device_error)?;
            self.state().space.read_group(copy, self.id, group as usize, &bytes);
        }
        if !self.state.borrow().space.is_whole(copy, self.id, superblock.map_checksum) {
            self.state().mended.push("the map of free space".into());
            self.rebuild_map().await;
        }
        Ok(())
    }

    /// Finds out from the tree which pages are in use.
    async fn rebuild_map(&self) {
        self.state().space = Space::new(self.geometry);
        let root = {
            let state = self.state.borrow();
            state.superblock.root.map(|root| (root, state.superblock.level))
        };
        let mut pending: Vec<(NodeRef, u16)> = root.into_iter().collect();
        while let Some((at, level)) = pending.pop() {
            let extent = Extent { page: at.page, count: 1 };
            let node = match self.read_node(at).await {
                Ok(node) if node.level == level && self.state().space.set_all(extent) => node,
                _ => {
                    let reason = "the free-space map and the tree are damaged: export what can be read, and format the device";
                    self.state().broken = Some(reason.to_string());
                    return;
                }
            };
            for index in 0..node.count {
                if level > 0 {
                    pending.push((node.child(index), level - 1));
                } else {
                    let (key, value) = node.entry(index);
                    for extent in owned(key, value) {
                        self.state().space.set_all(extent);
                    }
                }
            }
        }
    }

    /// Reads the log: the half that the superblock names, and then the other.
    async fn replay(&self) -> Result<Repair, OpenError> {
        let mut repair = Repair::default();
        let mut half = vec![0; self.geometry.half_bytes()];
        for turn in 0..2 {
            let number = self.state.borrow().half;
            let number = if turn == 0 { number } else { 1 - number };
            self.read_pages(self.geometry.half_start(number), &mut half).await.map_err(device_error)?;
            let mut at = 0;
            loop {
                let sequence = self.state.borrow().sequence;
                let Some(found) = record::decode(self.id, self.geometry.sector, sequence, &half[at..]) else { break };
                let operations = Operations::parse(&found.payload).ok_or(OpenError::Log { sequence })?;
                if at == 0 && turn == 1 {
                    self.state().begin_half();
                }
                if let Some(sector) = found.repaired {
                    let again = record::encode(self.id, self.geometry.sector, sequence, &found.payload);
                    let start = sector * self.geometry.sector;
                    repair.push((self.place_in_half(number, at + start), again[start..start + self.geometry.sector].to_vec()));
                }
                self.apply(&operations);
                at += found.size;
                self.state().at = at;
            }
            self.check_end(number, &half, &mut repair);
        }
        Ok(repair)
    }

    /// The device's sector at which a byte of a half of the log lies.
    fn place_in_half(&self, number: usize, at: usize) -> u64 {
        self.geometry.half_start(number) * self.sectors() + (at / self.device.info().sector_size) as u64
    }

    /// Makes sure that a half of the log ends where it seems to: no record is written before the one before it is durable.
    ///
    /// A device that cannot be flushed promises nothing of the kind. There, what came after a record that its host has lost is lost with it.
    fn check_end(&self, number: usize, half: &[u8], repair: &mut Repair) {
        let mut state = self.state();
        let sequence = state.sequence;
        let size = self.geometry.sector;
        let later = half.chunks_exact(size).enumerate().filter(|(_, sector)| record::is_later(self.id, sequence, sector));
        let mut later = later.map(|(index, _)| self.place_in_half(number, index * size)).peekable();
        if later.peek().is_some() && self.device.info().durability != Durability::Image {
            state.broken.get_or_insert_with(|| {
                format!("record {sequence} of its log is damaged, and what was changed since is lost: export what can be read, and format the device")
            });
            return;
        }
        repair.extend(later.map(|place| (place, vec![0; size])));
    }

    fn apply(&self, operations: &Operations) {
        let mut state = self.state();
        let state = &mut *state;
        for (key, slot) in &operations.list {
            if let Slot::Put(value) = slot {
                for extent in owned(key, value) {
                    state.space.set_all(extent);
                }
            }
            let numbers = [chunk_of(key).map(|(object, _)| object), garbage_of(key), version(key, slot)];
            let highest = numbers.into_iter().flatten().max().unwrap_or_default();
            state.next_number = state.next_number.max(highest.saturating_add(1));
        }
        state.active.apply(operations);
        state.sequence += 1;
    }

    async fn repair(&self, superblock: bool, repair: Repair) -> Result<(), Fault> {
        for (sector, bytes) in &repair {
            self.device.write(*sector, bytes).await?;
        }
        // What was read may not be durable yet, if the last image was killed. It is about to be shown to others and built upon: it must not vanish again.
        self.device.flush().await?;
        if superblock {
            let superblock = self.state.borrow().superblock;
            self.write_superblock(&superblock).await?;
        }
        Ok(())
    }

    async fn find_garbage(&self) {
        let mut from = vec![GARBAGE];
        for _ in 0..MAX_GARBAGE {
            // A damaged page here only keeps the space that garbage takes.
            let Ok(Some(key)) = self.first_at(&from, &[GARBAGE], Layers::COMMITTED).await else { return };
            let Some(object) = garbage_of(&key) else { return };
            self.state().garbage.insert(object);
            from = key.into_vec();
            from.push(0);
        }
    }
}

/// The highest number in a name's meta data.
fn version(key: &[u8], slot: &Slot) -> Option<u64> {
    let Slot::Put(value) = slot else { return None };
    if key.first() != Some(&NAME) {
        return None;
    }
    let meta = Meta::parse(value)?;
    match meta.place {
        Place::Object { object, .. } => Some(meta.version.max(object)),
        Place::Inline(_) => Some(meta.version),
    }
}
