//! Images whose checksums are right, and whose contents are whatever a test says.

use super::super::check::Report;
use super::super::entry::{Chunk, Meta, Place, chunk_key, name_key};
use super::super::layout::{Extent, Geometry, NodeRef, Superblock, checksum};
use super::super::memtable::Operations;
use super::super::{node, record};
use super::*;

const ID: u64 = 7;

pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// An image that is written page by page.
pub(super) struct Forge {
    pub(super) geometry: Geometry,
    pub(super) image: Vec<u8>,
    pub(super) next: u64,
}

impl Forge {
    pub(super) fn new() -> Self {
        let geometry = Geometry::of(ram(512).info()).unwrap();
        Self { geometry, image: alloc::vec![0; 512 << 10], next: geometry.data_start() }
    }

    fn write(&mut self, page: &[u8]) -> u64 {
        let at = self.next;
        let start = at as usize * self.geometry.page;
        self.image[start..start + page.len()].copy_from_slice(page);
        self.next += 1;
        at
    }

    pub(super) fn node(&mut self, level: u16, entries: &[Entry]) -> NodeRef {
        let page = node::encode(self.geometry.page, level, entries);
        NodeRef { page: self.write(&page), checksum: checksum(ID, &page) }
    }

    /// The entry that leads to a chunk of these bytes, which are written.
    pub(super) fn chunk(&mut self, object: u64, number: u64, data: &[u8]) -> Entry {
        let extent = Extent { page: self.write(data), count: 1 };
        let key = chunk_key(object, number).to_vec();
        let chunk = Chunk::new(&key, data, alloc::vec![extent]);
        (key, chunk.emit())
    }

    /// Makes these the first operations of the log.
    pub(super) fn log(&mut self, operations: &Operations) {
        let record = record::encode(ID, self.geometry.sector, 1, &operations.emit());
        let start = self.geometry.half_start(0) as usize * self.geometry.page;
        self.image[start..start + record.len()].copy_from_slice(&record);
    }

    /// A disk with the store that has this root.
    pub(super) async fn disk(mut self, root: NodeRef, level: u16) -> Ram {
        let superblock = Superblock {
            geometry: self.geometry,
            id: ID,
            generation: 4,
            root: Some(root),
            level,
            sequence: 1,
            half: 0,
            map_checksum: 0,
            next_object: 100,
            leaves: 1,
            branches: 0,
        };
        for place in Superblock::places(4) {
            superblock.emit(&mut self.image[place as usize * self.geometry.page..]);
        }
        let disk = ram(512);
        disk.write(0, &self.image).await.unwrap();
        disk
    }

    pub(super) async fn open(self, root: NodeRef, level: u16) -> LogStore<Ram> {
        LogStore::open(self.disk(root, level).await, Config::default()).await.unwrap()
    }

    /// What a check says of the store with this root, and the store.
    pub(super) async fn check(self, root: NodeRef, level: u16) -> (Report, LogStore<Ram>) {
        let store = self.open(root, level).await;
        let report = store.check(|_, _| {}).await;
        (report, store)
    }

    pub(super) async fn leaf(mut self, entries: &[Entry]) -> Report {
        let mut entries = entries.to_vec();
        entries.sort();
        let root = self.node(0, &entries);
        self.check(root, 0).await.0
    }
}

pub(super) fn inline(name: &str) -> Entry {
    (name_key(name), Meta { version: 1, modified: 2, place: Place::Inline(1) }.emit(b"1"))
}

pub(super) fn large(name: &str, object: u64, size: u64) -> Entry {
    (name_key(name), Meta { version: 1, modified: 2, place: Place::Object { object, size } }.emit(&[]))
}

pub(super) fn child(key: &str, child: NodeRef) -> Entry {
    (name_key(key), child.emit().to_vec())
}
