//! Checkpoints: when all of a half of the log is in the tree, a new superblock leads to that tree, and the half is free.

use alloc::vec;
use alloc::vec::Vec;

use fogbow_block::Block;

use super::Inner;
use super::error::Fault;
use super::layout::{Extent, Superblock};
use super::merge::Merge;

/// How far the frozen half of the log is on its way into the tree.
#[derive(Debug, Default)]
pub(crate) struct Merging {
    /// `None` while a step is under way, and when a step was dropped: then all starts again.
    merge: Option<Merge>,
    /// The pages that were written for it.
    pages: Vec<Extent>,
    is_begun: bool,
    /// What is to be written, and can be written again.
    finishing: Option<Finishing>,
}

/// A checkpoint of which all but the superblock is on the device.
#[derive(Clone, Debug)]
struct Finishing {
    superblock: Superblock,
    freed: Vec<Extent>,
}

impl Merging {
    pub(crate) fn pages(&self) -> &[Extent] {
        &self.pages
    }

    pub(crate) fn add_pages(&mut self, extents: &[Extent]) {
        self.pages.extend_from_slice(extents);
    }
}

impl<B: Block> Inner<B> {
    /// Moves operations of the frozen half into the tree until so many of them are there; with the last one, makes a checkpoint. The caller holds the
    /// lock for commits.
    pub(crate) async fn advance(&self, until: usize) -> Result<(), Fault> {
        if self.state.borrow().merging.finishing.is_some() {
            self.finish().await?;
        }
        let mut merge = {
            let mut state = self.state();
            let state = &mut *state;
            let Some(frozen) = &state.frozen else { return Ok(()) };
            match state.merging.merge.take() {
                Some(merge) => merge,
                None => {
                    if state.merging.is_begun {
                        let pages = core::mem::take(&mut state.merging.pages);
                        state.space.release(&pages);
                        state.space.forget();
                    }
                    state.merging.is_begun = true;
                    Merge::new(frozen)
                }
            }
        };
        while merge.done < until {
            if merge.step(self).await? {
                return self.checkpoint(merge).await;
            }
        }
        self.state().merging.merge = Some(merge);
        Ok(())
    }

    async fn checkpoint(&self, mut merge: Merge) -> Result<(), Fault> {
        merge.flush(self).await?;
        let (pages, finishing) = {
            let mut state = self.state();
            let state = &mut *state;
            let mut freed = core::mem::take(&mut merge.freed);
            freed.extend(state.frozen.iter().flat_map(|frozen| frozen.freed.iter().copied()));
            let former = &state.superblock;
            let generation = former.generation + 1;
            let (pages, map_checksum) = state.space.emit((generation % 2) as usize, self.id, &freed);
            let superblock = Superblock {
                generation,
                root: merge.root(),
                level: merge.level(),
                sequence: state.first,
                half: state.half,
                map_checksum,
                next_object: state.next_number,
                leaves: former.leaves.saturating_add_signed(merge.leaves),
                branches: former.branches.saturating_add_signed(merge.branches),
                ..*former
            };
            (pages, Finishing { superblock, freed })
        };
        for (page, bytes) in &pages {
            self.write_pages(*page, bytes).await?;
        }
        self.device.flush().await?;
        self.state().merging.finishing = Some(finishing);
        self.finish().await
    }

    async fn finish(&self) -> Result<(), Fault> {
        let Some(Finishing { superblock, freed }) = self.state.borrow().merging.finishing.clone() else { return Ok(()) };
        self.write_superblock(&superblock).await?;
        let mut state = self.state();
        state.superblock = superblock;
        state.frozen = None;
        state.merging = Merging::default();
        state.space.release(&freed);
        state.epoch += 1;
        Ok(())
    }

    /// Writes both superblocks of a generation.
    pub(crate) async fn write_superblock(&self, superblock: &Superblock) -> Result<(), Fault> {
        let mut bytes = vec![0; self.geometry.sector];
        superblock.emit(&mut bytes);
        for place in Superblock::places(superblock.generation) {
            self.device.write(place * self.sectors(), &bytes).await?;
        }
        Ok(self.device.flush().await?)
    }

    /// Puts all that is in the log into the tree. The caller holds no lock.
    pub(crate) async fn drain(&self) -> Result<(), Fault> {
        let _commit = self.commit.lock().await;
        self.check_broken()?;
        let result = self.drain_both().await;
        self.note(result)
    }

    async fn drain_both(&self) -> Result<(), Fault> {
        self.advance(usize::MAX).await?;
        if self.state.borrow().active.len() > 0 {
            self.freeze().await?;
            self.advance(usize::MAX).await?;
        }
        Ok(())
    }
}
