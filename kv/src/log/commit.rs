//! Commits: what tasks stage together becomes one record, whose flush makes it durable.

use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;

use fogbow::lock::Guard;
use fogbow_block::Block;

use super::entry::garbage_of;
use super::error::Fault;
use super::layout::Extent;
use super::memtable::{Memtable, Operations, Slot};
use super::transaction::Transaction;
use super::{Inner, State, record};

/// What is not in the log yet.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// What the next record will hold.
    staged: Group,
    /// What the record that is being written holds. It stays here should its writer be dropped, for the next one.
    writing: Option<Rc<Group>>,
    /// The number of the last group that is durable.
    done: u64,
}

/// What is committed with one record.
#[derive(Debug, Default)]
struct Group {
    operations: Operations,
    table: Memtable,
    /// Pages that were written for it.
    unlogged: Vec<Extent>,
}

impl Commits {
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Memtable> {
        core::iter::once(&self.staged.table).chain(self.writing.as_ref().map(|group| &group.table))
    }

    /// The number of the last group that has something; of the last that is durable if none has.
    pub(crate) fn last_staged(&self) -> u64 {
        if self.staged.operations.list.is_empty() { self.number() - 1 } else { self.number() }
    }

    /// The number of the group that is being staged.
    const fn number(&self) -> u64 {
        self.done + if self.writing.is_some() { 2 } else { 1 }
    }
}

impl State {
    /// The part of the active half of the log that is used, as a share of `whole`, rounded up.
    fn used(&self, whole: usize) -> usize {
        let geometry = self.superblock.geometry;
        let bytes = whole.saturating_mul(self.at).div_ceil(geometry.half_bytes());
        let entries = whole.saturating_mul(self.active.len()).div_ceil(geometry.max_entries());
        bytes.max(entries)
    }
}

impl<B: Block> Inner<B> {
    /// The longest payload of a record.
    pub(crate) fn max_record(&self) -> usize {
        record::capacity(self.geometry.half_bytes(), self.geometry.sector)
    }

    fn fits(&self, size: usize, entries: usize) -> bool {
        size <= self.max_record() && entries <= self.geometry.max_entries()
    }

    /// Whether one record can hold these operations.
    pub(crate) fn is_one_record(&self, operations: &Operations) -> bool {
        self.fits(operations.size, operations.list.len())
    }

    /// Commits a transaction, whose place among others is fixed with the lock that is handed over.
    pub(crate) async fn submit(&self, stage: Guard<'_, ()>, transaction: Transaction<'_, B>) -> Result<(), Fault> {
        if transaction.operations.list.is_empty() {
            return Ok(());
        }
        let number = self.stage(transaction).await?;
        drop(stage);
        self.commit(number).await
    }

    /// Adds a transaction to the next record and gives that record's number. The caller holds the lock for staging.
    pub(crate) async fn stage(&self, mut transaction: Transaction<'_, B>) -> Result<u64, Fault> {
        let full = {
            let state = self.state.borrow();
            let staged = &state.commits.staged.operations;
            let added = &transaction.operations;
            (!self.fits(staged.size + added.size, staged.list.len() + added.list.len())).then(|| state.commits.number())
        };
        if let Some(number) = full {
            self.commit(number).await?;
        }
        let mut state = self.state();
        let page = self.geometry.page;
        let number = state.commits.number();
        let staged = &mut state.commits.staged;
        if staged.operations.list.is_empty() {
            staged.table = Memtable::new(page);
        }
        staged.table.apply(&transaction.operations);
        staged.operations.append(core::mem::take(&mut transaction.operations));
        staged.unlogged.append(&mut transaction.taken.keep());
        Ok(number)
    }

    /// Waits until the group with this number is durable, and makes it so if nobody else does.
    pub(crate) async fn commit(&self, number: u64) -> Result<(), Fault> {
        let is_done = || self.state.borrow().commits.done >= number;
        while !is_done() {
            let commit = self.commit.lock().await;
            if !is_done() {
                self.check_broken()?;
                let result = self.write_group().await;
                self.note(result)?;
                // The commit is done; what fails from here on is for the next one to hear of.
                let _ = self.note(self.keep_up().await);
            }
            drop(commit);
        }
        Ok(())
    }

    pub(crate) fn check_broken(&self) -> Result<(), Fault> {
        match &self.state.borrow().broken {
            Some(reason) => Err(Fault::Broken(reason.clone())),
            None => Ok(()),
        }
    }

    /// After a failed write, what the device holds is unknown: nothing more is written until the store is opened again.
    pub(crate) fn note(&self, result: Result<(), Fault>) -> Result<(), Fault> {
        if let Err(fault) = &result {
            self.state().broken.get_or_insert_with(|| fault.to_string());
        }
        result
    }

    async fn write_group(&self) -> Result<(), Fault> {
        let group = {
            let mut state = self.state();
            match &state.commits.writing {
                Some(group) => Rc::clone(group),
                None => {
                    let group = Rc::new(core::mem::take(&mut state.commits.staged));
                    state.commits.writing = Some(Rc::clone(&group));
                    group
                }
            }
        };
        let payload = group.operations.emit();
        let size = record::size(payload.len(), self.geometry.sector);
        self.make_place(size, group.table.len()).await?;
        if !group.unlogged.is_empty() {
            // What a record leads to must be there before it.
            self.device.flush().await?;
        }
        let (page, at, sequence) = {
            let state = self.state.borrow();
            (self.geometry.half_start(state.half), state.at, state.sequence)
        };
        let bytes = record::encode(self.id, self.geometry.sector, sequence, &payload);
        let sector = page * self.sectors() + (at / self.device.info().sector_size) as u64;
        self.device.write(sector, &bytes).await?;
        self.device.flush().await?;
        self.committed(&group, size);
        Ok(())
    }

    fn committed(&self, group: &Group, size: usize) {
        let mut state = self.state();
        let state = &mut *state;
        state.active.apply(&group.operations);
        state.space.logged(&group.unlogged);
        state.note_garbage(&group.operations);
        state.at += size;
        state.sequence += 1;
        state.commits.writing = None;
        state.commits.done += 1;
    }

    /// Makes place for a record in the log, by going on in the other half where this one is full.
    async fn make_place(&self, size: usize, entries: usize) -> Result<(), Fault> {
        let is_full = {
            let state = self.state.borrow();
            state.at + size > self.geometry.half_bytes()
                || (state.active.len() > 0 && state.active.len() + entries > self.geometry.max_entries())
        };
        if is_full {
            self.freeze().await?;
        }
        Ok(())
    }

    /// Goes on in the other half of the log, once nothing is in it that is not in the tree.
    pub(crate) async fn freeze(&self) -> Result<(), Fault> {
        self.advance(usize::MAX).await?;
        self.state().begin_half();
        Ok(())
    }

    /// Moves as much of the frozen half into the tree as the active one has been filled since, and a fifth more.
    async fn keep_up(&self) -> Result<(), Fault> {
        let until = {
            let state = self.state.borrow();
            let Some(frozen) = &state.frozen else { return Ok(()) };
            state.used(frozen.len() + frozen.len() / 5) + 1
        };
        self.advance(until).await
    }
}

impl State {
    /// The other half of the log is written to from now on; what is in this one is to go into the tree.
    pub(crate) fn begin_half(&mut self) {
        let fresh = Memtable::new(self.superblock.geometry.page);
        let full = core::mem::replace(&mut self.active, fresh);
        self.frozen = Some(Rc::new(full));
        self.half = 1 - self.half;
        self.at = 0;
        self.first = self.sequence;
    }

    pub(crate) fn note_garbage(&mut self, operations: &Operations) {
        for (key, slot) in &operations.list {
            if let Some(object) = garbage_of(key) {
                match slot {
                    Slot::Deleted => self.garbage.remove(&object),
                    _ => self.garbage.insert(object),
                };
            }
        }
    }

    /// The most pages that it takes until all of this is in the tree, which become free again when it is.
    pub(crate) fn pages_for(&self, table: &Memtable) -> u64 {
        if table.len() == 0 {
            return 0;
        }
        let superblock = &self.superblock;
        let (entries, puts) = (table.len() as u64, table.puts as u64);
        let level = u64::from(superblock.level);
        let added = (table.node_bytes / (superblock.geometry.page / 2)) as u64 + 1;
        let leaves = entries.min(superblock.leaves) + puts.min(superblock.leaves);
        let branches = (entries * level).min(superblock.branches) * 2;
        leaves + branches + added + added / 4 + level + 2 + table.data_pages as u64
    }

    /// The pages that must stay free for what is committed or staged.
    pub(crate) fn pages_promised(&self) -> u64 {
        let frozen = self.frozen.as_deref();
        let tables = self.commits.memtables().chain([&self.active]).chain(frozen);
        tables.map(|table| self.pages_for(table)).sum()
    }
}
