//! Arbitrary bytes: they are refused, or read with errors; nothing panics, loops, or takes memory without bound.

use proptest::prelude::*;

use super::super::entry::{Meta, Place, chunk_key, garbage_key, name_key};
use super::super::layout::{Geometry, NodeRef, Superblock, checksum};
use super::super::memtable::{Operations, Slot};
use super::super::{node, record};
use super::*;
use crate::log::OpenError;

/// Opens an image and does with it whatever can be done.
async fn use_image(image: &[u8]) {
    let disk = ram(256);
    let sectors = image.len().min(256 << 10) / SECTOR;
    disk.write(0, &image[..sectors * SECTOR]).await.unwrap();
    let Ok(store) = LogStore::open(disk, Config::default()).await else { return };
    if let Ok(names) = store.list(Key::ROOT).await {
        for name in names.iter().take(50) {
            if let Ok(key) = Key::new(&name.name) {
                let _ = (store.exists(key).await, store.get(key).await.is_ok(), store.last_modified(key).await);
            }
        }
    }
    let _ = store.check(|_, _| {}).await;
    for name in ["a", "b/c", "zz"] {
        let _ = (store.set(key(name), &[1; 2000]).await, store.set_partial(key(name), 70_000, b"x").await);
        let _ = (store.rename(key(name), key("other")).await, store.remove(key(name)).await);
    }
    let _ = store.checkpoint().await;
}

/// An image whose checksums are right and whose contents are the fuzzer's: superblock fields, a root node, a log record.
fn forged(fields: &[u64; 6], level: u16, root: &[(Vec<u8>, Vec<u8>)], payload: &[u8], raw: &[u8]) -> Vec<u8> {
    let info = ram(256).info();
    let geometry = Geometry::of(info).unwrap();
    let mut image = alloc::vec![0; 256 << 10];
    let at = geometry.data_start() + fields[0] % 3;
    let mut page = node::encode(geometry.page, level, root);
    for (index, byte) in raw.iter().enumerate() {
        page[(index * 7 + fields[1] as usize % 64) % 200] ^= byte;
    }
    let place = at as usize * geometry.page;
    image[place..place + page.len()].copy_from_slice(&page);
    let root = Some(NodeRef { page: at, checksum: checksum(7, &page) });
    let superblock = Superblock {
        geometry,
        id: 7,
        generation: 4,
        root,
        level,
        sequence: fields[2] >> 1,
        half: (fields[3] % 2) as usize,
        map_checksum: fields[3],
        next_object: fields[4] >> 1,
        leaves: fields[5],
        branches: fields[1],
    };
    for place in Superblock::places(4) {
        superblock.emit(&mut image[place as usize * geometry.page..]);
    }
    let record = record::encode(7, geometry.sector, superblock.sequence, payload);
    let start = geometry.half_start(superblock.half) as usize * geometry.page;
    let length = record.len().min(geometry.half_bytes());
    image[start..start + length].copy_from_slice(&record[..length]);
    image
}

fn entries() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let key = prop_oneof![
        "k[a-c]{0,3}".prop_map(String::into_bytes),
        (any::<u8>(), 0_u8..3).prop_map(|(object, chunk)| chunk_key(object.into(), chunk.into()).to_vec()),
        any::<u8>().prop_map(|object| garbage_key(object.into()).to_vec()),
        prop::collection::vec(any::<u8>(), 0..30),
    ];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        (any::<u64>(), 0_u64..400_000)
            .prop_map(|(object, size)| { Meta { version: 1, modified: 2, place: Place::Object { object: object % 8, size } }.emit(&[]) }),
        (15_u64..64, any::<u64>()).prop_map(|(page, checksum)| NodeRef { page, checksum }.emit().to_vec()),
    ];
    prop::collection::btree_map(key, value, 0..12).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn forged_images_are_survived(
        fields: [u64; 6],
        level in 0_u16..3,
        root in entries(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        raw in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let image = forged(&fields, level, &root, &payload, &raw);
        Simulation::new(1).block_on(async move { use_image(&image).await });
    }

    /// Many sectors of a good image are damaged, and every checksum of its superblocks put right again.
    #[test]
    fn ruined_images_are_survived(seed: u64, damage in prop::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 0..60)) {
        Simulation::new(1).block_on(async move {
            let disk = Rc::new(ram(256));
            let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
            let mut steps = Steps(seed);
            for _ in 0..20 {
                let _ = steps.step().apply(&store).await;
            }
            drop(store);
            let mut image = alloc::vec![0; 256 << 10];
            disk.read(0, &mut image).await.unwrap();
            for (sector, offset, byte) in damage {
                let at = usize::from(sector) * SECTOR + usize::from(offset) % SECTOR;
                let length = image.len();
                image[at % length] ^= byte;
            }
            for place in 0..4 {
                let start = place * 4096;
                let sum = checksum(0, &image[start..start + 120]);
                image[start + 120..start + 128].copy_from_slice(&sum.to_le_bytes());
            }
            use_image(&image).await;
        });
    }
}

#[test]
fn a_value_of_a_forged_size_is_an_error() {
    let meta = Meta { version: 1, modified: 2, place: Place::Object { object: 1, size: u64::MAX } }.emit(&[]);
    let image = forged(&[0, 0, 1, 0, 9, 1], 0, &[(name_key("a"), meta)], &[], &[]);
    Simulation::new(1).block_on(async move {
        let disk = ram(256);
        disk.write(0, &image).await.unwrap();
        let store = LogStore::open(disk, Config::default()).await.unwrap();
        assert!(matches!(store.get(key("a")).await, Err(crate::ReadError::Unavailable { .. })));
    });
}

/// Opens an image with a tree of one value and this operation in the log.
async fn open_with(key: &[u8], slot: Slot) -> Result<LogStore<Ram>, OpenError> {
    let mut operations = Operations::default();
    operations.push(key, slot);
    let value = Meta { version: 1, modified: 2, place: Place::Inline(0) }.emit(&[]);
    let disk = ram(256);
    disk.write(0, &forged(&[0, 0, 2, 0, 18, 1], 0, &[(name_key("z"), value)], &operations.emit(), &[])).await.unwrap();
    LogStore::open(disk, Config::default()).await
}

/// Versions and the numbers of objects are given once, whichever of them the log has: two values with one number would have each other's bytes.
#[test]
fn numbers_of_the_log_are_not_given_again() {
    Simulation::new(1).block_on(async {
        let meta = |version, place| Slot::Put(Meta { version, modified: 0, place }.emit(&[]).into());
        for number in [1 << 40, u64::MAX - 1] {
            let operations = [
                (chunk_key(number, 0).to_vec(), Slot::Data([1].into())),
                (chunk_key(number, 3).to_vec(), Slot::Deleted),
                (garbage_key(number).to_vec(), Slot::Put([].into())),
                (name_key("a"), meta(number, Place::Inline(0))),
                (name_key("a"), meta(1, Place::Object { object: number, size: 0 })),
            ];
            for (key, slot) in operations {
                let store = open_with(&key, slot).await.unwrap();
                assert!(store.0.state().take_number() > number, "{key:?}");
                // There are no more, but it goes on.
                for name in ["b", "c"] {
                    store.set(super::key(name), &[1; 2000]).await.unwrap();
                }
                store.checkpoint().await.unwrap();
            }
        }
    });
}

/// What the tree could not take is refused when the log is read, not when the tree is written.
#[test]
fn records_with_what_no_node_can_take_are_refused() {
    Simulation::new(1).block_on(async {
        for (key, slot, is_possible) in [
            (name_key("a"), Slot::Put(alloc::vec![0; 1300].into()), true),
            (name_key("a"), Slot::Put(alloc::vec![0; 1400].into()), false),
            (name_key("a"), Slot::Put(alloc::vec![0; 6000].into()), false),
            (alloc::vec![b'k'; 5000], Slot::Put([].into()), false),
            (alloc::vec![b'k'; 5000], Slot::Deleted, false),
            (name_key("a"), Slot::Data([1].into()), false),
            (chunk_key(1, 0).to_vec(), Slot::Data(alloc::vec![0; 6000].into()), true),
        ] {
            let result = open_with(&key, slot).await;
            match &result {
                Ok(store) => store.checkpoint().await.unwrap(),
                Err(error) => assert_eq!(error, &OpenError::Log { sequence: 1 }),
            }
            assert_eq!(result.is_ok(), is_possible, "a key of {} bytes", key.len());
        }
    });
}
