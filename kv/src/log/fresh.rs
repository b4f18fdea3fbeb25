//! Making a new store.

use alloc::rc::Rc;
use alloc::vec;
use core::cell::RefCell;

use fogbow::lock::Lock;
use fogbow_block::Block;

use super::cache::Cache;
use super::error::Fault;
use super::layout::{Geometry, Superblock};
use super::space::Space;
use super::{Config, Inner, LogStore, OpenError, State};

impl<B: Block> LogStore<B> {
    /// Makes an empty store on a device. What was there is lost.
    ///
    /// # Errors
    /// [`OpenError`]. A power cut while this runs leaves no store, or, before the first flush, what was there.
    pub async fn format(device: B, config: Config) -> Result<Self, OpenError> {
        let geometry = Geometry::of(device.info())?;
        let id = fogbow::random::next_u64().map_err(|_| OpenError::NoEntropy)?;
        let superblock = Superblock {
            geometry,
            id,
            generation: 0,
            root: None,
            level: 0,
            sequence: 1,
            half: 0,
            map_checksum: 0,
            next_object: 1,
            leaves: 0,
            branches: 0,
        };
        let inner = Inner {
            device,
            geometry,
            id,
            state: RefCell::new(State::new(superblock, Space::new(geometry))),
            cache: RefCell::new(Cache::new(config.cache)),
            stage: Lock::new(()),
            commit: Lock::new(()),
        };
        inner.write_fresh(superblock).await.map_err(device_error)?;
        Ok(Self(Rc::new(inner)))
    }

    /// Opens the store on a device; makes one first if the device can be written and is blank, all zeros where superblocks are.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_or_format(device: B, config: Config) -> Result<Self, OpenError> {
        if !device.info().read_only && is_blank(&device).await? {
            Self::format(device, config).await
        } else {
            Self::open(device, config).await
        }
    }
}

impl<B: Block> Inner<B> {
    async fn write_fresh(&self, mut superblock: Superblock) -> Result<(), Fault> {
        let empty = vec![0; self.geometry.page];
        for place in 0..super::layout::SUPERBLOCKS {
            self.write_pages(place, &empty).await?;
        }
        // What the former store has in its log must not go before the store does.
        self.device.flush().await?;
        // A file of the host gets the log's blocks now: finding one for each commit would make each flush half as slow again.
        for half in 0..2 {
            for page in 0..self.geometry.half_pages {
                self.write_pages(self.geometry.half_start(half) + page, &empty).await?;
            }
        }
        let (pages, map_checksum) = self.state().space.emit(0, self.id, &[]);
        for (page, bytes) in &pages {
            self.write_pages(*page, bytes).await?;
        }
        self.device.flush().await?;
        superblock.map_checksum = map_checksum;
        self.state().superblock = superblock;
        self.write_superblock(&superblock).await
    }
}

async fn is_blank<B: Block>(device: &B) -> Result<bool, OpenError> {
    let info = device.info();
    let mut page = vec![0; Geometry::of(info)?.page];
    let sectors = (page.len() / info.sector_size) as u64;
    for place in 0..super::layout::SUPERBLOCKS {
        device.read(place * sectors, &mut page).await?;
        if page.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The error of opening a store where nothing but the device can have failed.
pub(super) fn device_error(fault: Fault) -> OpenError {
    match fault {
        Fault::Device(error) => OpenError::Device(error),
        _ => OpenError::NoMemory,
    }
}
