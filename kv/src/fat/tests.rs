use super::*;
use fogbow::simulation::Simulation;
use fogbow_block::fault::{Fault, FaultDisk};
use fogbow_block::{Operation, Ram};
use proptest::prelude::*;
use std::vec;

mod fat32;

use fat32::{FAT32_TABLE, RESERVED, fat32};

const SECTORS: u16 = 6000;
const TABLE: u16 = 24;

/// An empty FAT16 volume: one sector to a cluster, one table, 512 entries in the root.
fn formatted() -> Vec<u8> {
    let mut image = vec![0; usize::from(SECTORS) * 512];
    image[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    image[3..11].copy_from_slice(b"FOGBOW  ");
    for (at, value) in [(11, 512_u16), (14, 1), (17, 512), (19, SECTORS), (22, TABLE), (24, 32), (26, 2)] {
        image[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    (image[13], image[16], image[21], image[38]) = (1, 1, 0xf8, 0x29);
    image[43..62].copy_from_slice(b"NO NAME    FAT16   ");
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[512..516].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff]);
    image
}

async fn disk(image: &[u8]) -> FaultDisk {
    let disk = FaultDisk::new(Ram::new("disk", 512, SECTORS.into()).unwrap(), 1);
    disk.write(0, image).await.unwrap();
    disk.flush().await.unwrap();
    disk
}

async fn store(disk: &FaultDisk) -> Fat<FaultDisk> {
    Fat::open(disk.clone(), 1 << 20).await.unwrap()
}

fn key(text: &str) -> Key<'_> {
    Key::new(text).unwrap()
}

#[test]
fn values_and_dictionaries_are_kept() {
    Simulation::new(1).block_on(async {
        let disk = disk(&formatted()).await;
        let store = store(&disk).await;
        let value: Vec<u8> = (0..100_000).map(|index| (index / 9) as u8).collect();
        store.set(key("LOGS/JAN/BIG.BIN"), &value).await.unwrap();
        store.set(key("logs/a.txt"), b"hello").await.unwrap();
        store.set(key("logs/a.txt"), b"hello, world").await.unwrap();
        let again = Fat::open(disk.clone(), 1 << 20).await.unwrap();
        assert!(again.get(key("LOGS/JAN/BIG.BIN")).await.unwrap() == value);
        assert_eq!(again.get(key("logs/A.TXT")).await.unwrap(), b"hello, world");
        assert_eq!(again.get_partial(key("LOGS/A.TXT"), 7, 3).await.unwrap(), b"wor");
        assert_eq!(again.get_partial(key("LOGS/A.TXT"), u64::MAX, 3).await.unwrap(), b"");
        let names = again.list(key("LOGS")).await.unwrap();
        assert_eq!(names, [Name { name: "A.TXT".into(), kind: Kind::Value }, Name { name: "JAN".into(), kind: Kind::Dictionary }]);
        assert_eq!(again.list(key("LOGS/A.TXT")).await, Err(ReadError::IsValue("LOGS/A.TXT".into())));
        assert_eq!(again.get(key("LOGS")).await, Err(ReadError::IsDictionary("LOGS".into())));
        assert_eq!(again.get(key("LOGS/B")).await, Err(ReadError::NotFound("LOGS/B".into())));
        assert_eq!(again.digest(key("LOGS/A.TXT")).await, Ok(Digest::of(b"hello, world")));
        assert_eq!(again.last_modified(Key::ROOT).await, Ok(WallTime::from_unix_nanos(1_767_225_600_000_000_000)));
        assert_eq!(again.set(key("LOGS"), b"").await, Err(WriteError::Conflict("LOGS".into())));
        assert_eq!(again.set(key("LOGS/A.TXT/B"), b"").await, Err(WriteError::Conflict("LOGS/A.TXT/B".into())));
        assert!(matches!(again.set(key("a-very-long-name"), b"").await, Err(WriteError::Unsupported { .. })));
    });
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    Simulation::new(1).block_on(async {
        let disk = disk(&formatted()).await;
        let store = store(&disk).await;
        store.set(key("A"), b"12345").await.unwrap();
        store.set(key("D/B"), b"2").await.unwrap();
        let before = store.last_modified(key("D")).await.unwrap();
        time::sleep(time::Duration::from_secs(60)).await;
        // A directory that is left empty has a time of its own, which is no value's.
        store.set(key("D/E/F"), b"3").await.unwrap();
        store.remove(key("D/E/F")).await.unwrap();
        assert_eq!(store.last_modified(key("D")).await, Ok(before));
        assert!(store.rename(key("D"), key("G")).await.unwrap_err().to_string().contains("cannot be renamed"));
        assert_eq!(store.rename(key("A"), key("A/B")).await, Err(WriteError::Conflict("A/B".into())));
        assert_eq!(store.rename(key("D/B"), key("D")).await, Err(WriteError::Conflict("D".into())));
        for to in ["Q", "R", "Q/R", "A"] {
            assert_eq!(store.rename(key("Q"), key(to)).await, Err(WriteError::NotFound("Q".into())));
        }
        assert_eq!(store.rename(key("D/B"), key("D/B")).await, Ok(()));
        assert_eq!(store.last_modified(key("D/B")).await, Ok(before), "nothing has changed");
        assert_eq!(store.set(Key::ROOT, b"").await, Err(WriteError::Conflict(String::new())));
        assert_eq!((store.exists(key("A/B")).await, store.get(key("D/B")).await), (Ok(None), Ok(b"2".to_vec())));
        // Before memory is taken for it: a value has at most as many bytes as the device.
        for offset in [u64::from(SECTORS) * 512 - 1, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(store.set_partial(key("A"), offset, b"xy").await, Err(WriteError::NoSpace("A".into())));
        }
        assert_eq!(store.allocate(key("N"), u64::from(SECTORS) * 512 + 1).await, Err(WriteError::NoSpace("N".into())));
        assert_eq!(store.set(key("N"), &vec![1; usize::from(SECTORS) * 512 + 1]).await, Err(WriteError::NoSpace("N".into())));
        store.set_partial(key("A"), 1, b"xy").await.unwrap();
        assert_eq!(store.get(key("A")).await.unwrap(), b"1xy45");
    });
}

/// An entry with a long name before that of its short one, as other systems write it.
fn long_name(name: &str, short: &[u8]) -> [u8; 32] {
    let mut entry = [0xff; 32];
    let units: Vec<u16> = name.encode_utf16().chain([0]).collect();
    let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
    for (at, unit) in places.zip(units) {
        entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
    }
    (entry[0], entry[11], entry[12]) = (0x41, 0x0f, 0);
    entry[13] = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    entry[26..28].fill(0);
    entry
}

#[test]
fn names_of_other_systems_are_found_long_short_and_exactly() {
    Simulation::new(1).block_on(async {
        let disk = disk(&formatted()).await;
        let whole = store(&disk).await;
        for (name, value) in [("S.TXT", b"1"), ("A.TXT", b"2"), ("B.TXT", b"3"), ("LABEL", b"4")] {
            whole.set(key(name), value).await.unwrap();
        }
        let root = 1 + u64::from(TABLE);
        let mut entries = [0; 512];
        disk.read(root, &mut entries).await.unwrap();
        let [first, second, third, fourth] = [0, 32, 64, 96].map(|at| entries[at..at + 32].to_vec());
        // B becomes what differs from A by its case alone, and the last is the volume's label.
        let (mut third, mut fourth) = (third, fourth);
        third[0] = b'a';
        fourth[11] = 8;
        let entries = [&long_name("Long name", &first[..11])[..], &first, &second, &third, &fourth].concat();
        disk.damage(root, 0, &entries);
        let store = store(&disk).await;
        let names: Vec<String> = store.list(Key::ROOT).await.unwrap().into_iter().map(|name| name.name).collect();
        assert_eq!(names, ["A.TXT", "Long name", "a.TXT"]);
        for (name, value) in [("Long name", b"1"), ("LONG NAME", b"1"), ("s.txt", b"1"), ("A.TXT", b"2"), ("a.TXT", b"3")] {
            assert_eq!(store.get(key(name)).await.unwrap(), value, "{name}");
        }
        assert_eq!(store.exists(key("LABEL")).await, Ok(None));
        store.set(key("Long name"), b"5").await.unwrap();
        assert_eq!(store.get(key("S.TXT")).await.unwrap(), b"5", "a value that is set keeps its names");
        store.remove(key("Long name")).await.unwrap();
        let mut sector = [0; 512];
        disk.read(root, &mut sector).await.unwrap();
        assert_eq!([0, 32, 64].map(|at| sector[at]), [0xe5, 0xe5, b'A'], "all of its names are gone, and no other");
        // Two long names, and in the place of a FAT32's clusters what a FAT16 may have there.
        let mut other = second.clone();
        other[20..22].fill(0xff);
        disk.damage(root, 0, &[&long_name("First", &first[..11])[..], &first, &long_name("Second", &second[..11]), &other].concat());
        let store = self::store(&disk).await;
        store.remove(key("Second")).await.unwrap();
        disk.read(root, &mut sector).await.unwrap();
        assert_eq!([0, 32, 64, 96].map(|at| sector[at]), [0x41, b'S', 0xe5, 0xe5], "no other's");
    });
}

/// The label of a volume is no value, and embedded-sdmmc must not take it for one.
#[test]
fn the_label_of_a_volume_stays() {
    Simulation::new(1).block_on(async {
        let mut image = formatted();
        let root = 512 * (1 + usize::from(TABLE));
        image[root..root + 12].copy_from_slice(b"DATA       \x08");
        let disk = disk(&image).await;
        let store = store(&disk).await;
        for name in ["DATA", "data", "DATA/X"] {
            let error = store.set(key(name), b"1").await.unwrap_err().to_string();
            assert!(error.contains("is the volume's label"), "{error}");
        }
        store.set(key("A"), b"1").await.unwrap();
        store.remove(Key::ROOT).await.unwrap();
        let mut sector = [0; 512];
        disk.read((root / 512) as u64, &mut sector).await.unwrap();
        assert_eq!((&sector[..12], sector[32]), (&b"DATA       \x08"[..], 0xe5));
        // Another system may have made a file of the same name.
        store.set(key("B"), b"1").await.unwrap();
        disk.damage((root / 512) as u64, 32, b"DATA");
        let error = self::store(&disk).await.get(key("DATA")).await.unwrap_err().to_string();
        assert!(error.contains("is the volume's label"), "{error}");
    });
}

/// A directory goes in one pass over it, however much is in it.
#[test]
fn large_directories_are_removed() {
    Simulation::new(1).block_on(async {
        let disk = disk(&formatted()).await;
        let plenty = Fat::open(disk.clone(), 8 << 20).await.unwrap();
        let values: Vec<_> = (0..1200).map(|number| std::format!("D/{}/{number}", number % 2)).collect();
        let changes: Vec<_> = values.iter().map(|name| Change::Set(key(name), b"1")).collect();
        plenty.batch(&changes).await.unwrap();
        plenty.set(key("E"), b"2").await.unwrap();
        let store = store(&disk).await;
        store.remove(key("D")).await.unwrap();
        assert_eq!(store.list(Key::ROOT).await.unwrap(), [Name { name: "E".into(), kind: Kind::Value }]);
        let mut table = vec![0; usize::from(TABLE) * 512];
        disk.read(1, &mut table).await.unwrap();
        assert_eq!(table[4..].iter().filter(|byte| **byte != 0).count(), 2, "the clusters of E alone are in use");
    });
}

#[test]
fn changes_are_made_whole_or_not_at_all() {
    Simulation::new(1).block_on(async {
        let disk = disk(&formatted()).await;
        let store = store(&disk).await;
        store.set(key("A"), b"1").await.unwrap();
        let changes = [Change::Rename(key("A"), key("D/B")), Change::Set(key("C"), b"3"), Change::Set(key("C/D"), b"4")];
        assert_eq!(store.batch(&changes).await, Err(WriteError::Conflict("C/D".into())), "of the change that cannot be made");
        assert_eq!(store.get(key("A")).await.unwrap(), b"1");
        assert_eq!(store.exists(key("D")).await, Ok(None));
        store.batch(&changes[..2]).await.unwrap();
        assert_eq!((store.get(key("D/B")).await.unwrap(), store.exists(key("A")).await), (b"1".to_vec(), Ok(None)));
        store.set_partial(key("C"), 3, b"xy").await.unwrap();
        assert_eq!(store.get(key("C")).await.unwrap(), b"3\0\0xy");
        assert_eq!(store.allocate(key("C"), 1).await, Err(WriteError::Exists("C".into())));
        let before = disk.counts().sectors_written;
        let error = store.set(key("BIG"), &vec![1; 2 << 20]).await.unwrap_err();
        assert!(error.to_string().contains("not enough memory"), "{error}");
        let plenty = Fat::open(disk.clone(), 8 << 20).await.unwrap();
        assert_eq!(plenty.set(key("BIG"), &vec![1; usize::from(SECTORS) * 512 - 100]).await, Err(WriteError::NoSpace("BIG".into())));
        assert_eq!(disk.counts().sectors_written, before, "what does not fit changes nothing");
        disk.fail(Operation::Write, 1, Fault::Error);
        assert!(store.set(key("E"), b"5").await.is_err());
        assert_eq!(store.exists(key("E")).await, Ok(None), "what is on the device counts");
        store.remove(Key::ROOT).await.unwrap();
        assert_eq!(store.list(Key::ROOT).await, Ok(Vec::new()));
    });
}

#[test]
fn a_stream_needs_little_memory_and_notices_changes() {
    Simulation::new(1).block_on(async {
        let disk = disk(&formatted()).await;
        let value: Vec<u8> = (0..900_000).map(|index| (index / 9) as u8).collect();
        Fat::open(disk.clone(), 4 << 20).await.unwrap().set(key("BIG"), &value).await.unwrap();
        let store = Fat::open(disk.clone(), 400 << 10).await.unwrap();
        let mut reader = store.read(key("BIG")).await.unwrap();
        let mut back = vec![0; value.len()];
        reader.read_exact(&mut back).await.unwrap();
        assert!(back == value);
        let mut reader = store.read(key("BIG")).await.unwrap();
        reader.read_exact(&mut back[..10]).await.unwrap();
        store.set(key("BIG2"), b"").await.unwrap();
        assert_eq!(reader.read(&mut back).await, Err(ReadError::Changed("BIG".into())));
    });
}

/// A volume is filled to its last cluster but one, which embedded-sdmmc keeps, and never beyond: there may be something else. What is removed is free.
#[test]
fn a_volume_is_filled_and_emptied_and_nothing_behind_it_touched() {
    Simulation::new(1).block_on(async {
        // Its table has more entries than there are clusters, and the device more sectors than the volume.
        let mut image = formatted();
        image[19..21].copy_from_slice(&(SECTORS - 100).to_le_bytes());
        let behind = (usize::from(SECTORS) - 100) * 512;
        image[behind..].fill(0x5a);
        let disk = disk(&image).await;
        let store = Fat::open(disk.clone(), 8 << 20).await.unwrap();
        let clusters = usize::from(SECTORS - 100 - 1 - TABLE - 32);
        store.set(key("A"), &vec![1; 1000 * 512]).await.unwrap();
        store.set(key("B"), &vec![2; (clusters - 1100) * 512]).await.unwrap();
        assert_eq!(store.set(key("C"), &vec![3; 100 * 512]).await, Err(WriteError::NoSpace("C".into())));
        store.set(key("C"), &vec![3; 99 * 512]).await.unwrap();
        assert_eq!(store.set(key("D"), &[4; 512]).await, Err(WriteError::NoSpace("D".into())));
        store.rename(key("A"), key("E")).await.unwrap();
        store.remove(key("E")).await.unwrap();
        store.set(key("D"), &vec![4; 1000 * 512]).await.unwrap();
        for (name, value, count) in [("B", 2, clusters - 1100), ("C", 3, 99), ("D", 4, 1000)] {
            assert!(store.get(key(name)).await.unwrap() == vec![value; count * 512], "{name}");
        }
        disk.read(0, &mut image).await.unwrap();
        assert!(image[behind..].iter().all(|byte| *byte == 0x5a));
        assert!(image[512 + 2 * (clusters + 2)..][..100].iter().all(|byte| *byte == 0), "what the table says of no cluster stays");
        store.remove(Key::ROOT).await.unwrap();
        disk.read(0, &mut image).await.unwrap();
        assert!(image[516..512 * 25].iter().all(|byte| *byte == 0), "no cluster is in use");
    });
}

#[test]
fn what_is_no_volume_is_refused() {
    Simulation::new(1).block_on(async {
        for (at, byte, reason) in [
            (510, 0, "not that of a FAT volume"),
            (12, 4, "not that of a FAT volume"),
            (13, 0, "make no sense"),
            (14, 0, "make no sense"),
            (16, 0, "make no sense"),
            (16, 3, "make no sense"),
            (22, 0, "make no sense"),
            (20, 0xff, "cut short"),
            (20, 0, "cut short"),
            (22, 1, "more clusters"),
            // No root of a fixed size, and the size of the table where a FAT32 has it.
            (18, 0, "too few clusters for a FAT32"),
            (36, TABLE as u8, "too few clusters for a FAT32"),
        ] {
            let mut image = formatted();
            image[at] = byte;
            match (at, byte) {
                (20, 0) => image[19] = 50,
                // The place of a FAT32's own number.
                (22, 0) => image[38] = 0,
                (36, _) => (image[22], image[38]) = (0, 0),
                _ => {}
            }
            let error = Fat::open(disk(&image).await, 1 << 20).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let large = Ram::new("disk", 4096, 1000).unwrap();
        assert!(Fat::open(large, 1 << 20).await.unwrap_err().to_string().contains("sectors of 4096 bytes"));
    });
}

/// A directory that leads to itself has no end.
#[test]
fn circles_of_directories_end() {
    Simulation::new(1).block_on(async {
        let disk = disk(&formatted()).await;
        let whole = store(&disk).await;
        for name in ["D/B", "D/E/F", "G"] {
            whole.set(key(name), &[2; 600]).await.unwrap();
        }
        whole.remove(key("D/E")).await.unwrap();
        assert_eq!(whole.exists(key("D/E")).await, Ok(None));
        whole.set(key("D/E/F"), &[2; 600]).await.unwrap();
        // The first cluster of E, in the entry of E in D, becomes that of D.
        let mut image = vec![0; usize::from(SECTORS) * 512];
        disk.read(0, &mut image).await.unwrap();
        let entry = |name: &[u8; 11]| image.windows(11).position(|window| window == name).unwrap();
        let (outer, inner) = (entry(b"D          "), entry(b"E          "));
        for at in 26..28 {
            disk.damage(((inner + at) / 512) as u64, (inner + at) % 512, &[image[outer + at]]);
        }
        let circle = store(&disk).await;
        assert_eq!(circle.exists(key("D/E/E/E/B")).await, Ok(Some(Kind::Value)));
        for error in
            [circle.last_modified(Key::ROOT).await.unwrap_err().to_string(), circle.remove(key("D")).await.unwrap_err().to_string()]
        {
            assert!(error.contains("D/E is a directory that is found in two places"), "{error}");
        }
        assert_eq!(circle.exists(key("D/B")).await, Ok(Some(Kind::Value)), "nothing is removed of what cannot be removed whole");
        assert_eq!(circle.get(key("G")).await.unwrap(), [2; 600]);
    });
}

/// Neither a size that nothing has nor a directory whose clusters lead in a circle makes an operation take memory or time without bound.
#[test]
fn sizes_and_chains_that_cannot_be_are_errors() {
    Simulation::new(1).block_on(async {
        let disk = disk(&formatted()).await;
        let whole = store(&disk).await;
        whole.set(key("A"), &[1; 600]).await.unwrap();
        whole.set(key("E/1"), b"3").await.unwrap();
        // A sector takes 16 entries, so that the directory's last has no end.
        for number in 0..14 {
            whole.set(key(&std::format!("D/{number}")), &[2; 10]).await.unwrap();
        }
        let mut image = vec![0; usize::from(SECTORS) * 512];
        disk.read(0, &mut image).await.unwrap();
        let entry = |name: &[u8; 11]| image.windows(11).position(|window| window == name).unwrap();
        let size = entry(b"A          ") + 28;
        disk.damage((size / 512) as u64, size % 512, &[0xff; 4]);
        let cluster = usize::from(u16::from_le_bytes([image[entry(b"D          ") + 26], image[entry(b"D          ") + 27]]));
        let link = 512 + 2 * cluster;
        disk.damage((link / 512) as u64, link % 512, &(cluster as u16).to_le_bytes());
        // E has its end in its only cluster, which leads to itself all the same.
        let link = |name: &[u8; 11]| 512 + 2 * usize::from(u16::from_le_bytes([image[entry(name) + 26], image[entry(name) + 27]]));
        let at = link(b"E          ");
        disk.damage((at / 512) as u64, at % 512, &((at as u16 - 512) / 2).to_le_bytes());
        assert_eq!(store(&disk).await.remove(key("E/1")).await, Ok(()));
        let damaged = store(&disk).await;
        assert!(damaged.size(key("A")).await.unwrap_err().to_string().contains("larger than the volume"), "before memory is taken for it");
        assert!(damaged.get(key("A")).await.unwrap_err().to_string().contains("larger than the volume"));
        let endless = damaged.list(key("D")).await.unwrap_err().to_string();
        assert!(endless.contains("more entries than there can be"), "{endless}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever the tables and the directories say, every operation ends, with a value or an error.
    #[test]
    fn damaged_volumes_are_errors_or_read(
        changes in proptest::collection::vec((0_usize..5, 0_usize..512, any::<u8>()), 1..12),
        is_fat32 in any::<bool>(),
    ) {
        Simulation::new(1).block_on(async move {
            let disk = if is_fat32 { fat32().await } else { disk(&formatted()).await };
            let whole = store(&disk).await;
            whole.set(key("A"), &[1; 3000]).await.unwrap();
            whole.set(key("D/B"), &[2; 600]).await.unwrap();
            let root = u64::from(RESERVED + 2 * FAT32_TABLE);
            // What says where things are, the table, the root directory and the one below it.
            let sectors = if is_fat32 { [0, 1, u64::from(RESERVED), root, root + 7] } else { [0, 0, 1, 25, 63] };
            for (place, offset, byte) in changes {
                // Of the first sector, what is in use.
                disk.damage(sectors[place], if place == 0 { offset % 64 } else { offset }, &[byte]);
            }
            if let Ok(store) = Fat::open(disk, 1 << 20).await {
                let _ = (store.get(key("A")).await, store.get(key("D/B")).await, store.list(key("D")).await, store.last_modified(Key::ROOT).await);
                let _ = (store.set(key("D/C"), &[3; 2000]).await, store.remove(key("A")).await, store.set(key("E"), &[4; 10]).await);
                let _ = (store.rename(key("D/B"), key("F")).await, store.remove(key("D")).await, store.remove(Key::ROOT).await);
            }
        });
    }
}
