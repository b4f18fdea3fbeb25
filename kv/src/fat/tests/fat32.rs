//! What a FAT32 has and a FAT16 does not: an information sector, two tables here, numbers of clusters in two halves.

use super::*;

pub(super) const RESERVED: u32 = 4;
const FAT32_CLUSTERS: u32 = 65_600;
pub(super) const FAT32_TABLE: u32 = (FAT32_CLUSTERS + 2).div_ceil(128);

/// A FAT32 of one sector to a cluster, which says that its next free cluster is the last, and how many are free; 100 sectors behind it.
pub(super) async fn fat32() -> FaultDisk {
    let sectors = RESERVED + 2 * FAT32_TABLE + FAT32_CLUSTERS;
    let mut first = [0; 512];
    for (at, value) in [(11, 512_u16), (14, RESERVED as u16), (48, 1)] {
        first[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    for (at, value) in [(32, sectors), (36, FAT32_TABLE), (44, 2)] {
        first[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    (first[13], first[16], first[21], first[66]) = (1, 2, 0xf8, 0x29);
    first[82..90].copy_from_slice(b"FAT32   ");
    first[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut information = [0; 512];
    let fields = [(0, 0x4161_5252_u32), (484, 0x6141_7272), (488, FAT32_CLUSTERS - 1), (492, FAT32_CLUSTERS + 1), (508, 0xaa55_0000)];
    for (at, value) in fields {
        information[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let disk = FaultDisk::new(Ram::new("disk", 512, u64::from(sectors) + 100).unwrap(), 1);
    disk.write(0, &[first, information].concat()).await.unwrap();
    for table in [RESERVED, RESERVED + FAT32_TABLE] {
        let entries = [0x0fff_fff8_u32, 0x0fff_ffff, 0x0fff_ffff].map(u32::to_le_bytes);
        let mut sector = [0; 512];
        sector[..12].copy_from_slice(entries.as_flattened());
        disk.write(table.into(), &sector).await.unwrap();
    }
    disk.flush().await.unwrap();
    disk
}

/// The free clusters of a FAT32: what it says, and what its tables say.
async fn free_clusters(disk: &FaultDisk) -> (u32, [usize; 2]) {
    let mut information = [0; 512];
    disk.read(1, &mut information).await.unwrap();
    let mut counted = [0; 2];
    for (count, table) in counted.iter_mut().zip([RESERVED, RESERVED + FAT32_TABLE]) {
        let mut entries = vec![0; FAT32_TABLE as usize * 512];
        disk.read(table.into(), &mut entries).await.unwrap();
        *count = entries.chunks(4).take(FAT32_CLUSTERS as usize + 2).filter(|entry| **entry == [0; 4]).count();
    }
    (u32::from_le_bytes(information[488..492].try_into().unwrap()), counted)
}

#[test]
fn a_fat32_is_read_and_written_and_knows_its_free_clusters() {
    Simulation::new(1).block_on(async {
        let disk = fat32().await;
        let store = store(&disk).await;
        let value: Vec<u8> = (0..20_000).map(|index| (index / 9) as u8).collect();
        store.set(key("A/B"), &value).await.unwrap();
        store.set(key("A/C"), &value[..100]).await.unwrap();
        let again = Fat::open(fogbow_block::View::read_only(disk.clone()), 1 << 20).await.unwrap();
        let writes = disk.counts().writes;
        assert!(again.get(key("A/B")).await.unwrap() == value && again.get(key("A/C")).await.unwrap() == value[..100]);
        assert_eq!(disk.counts().writes, writes, "who reads writes nothing");
        let free = FAT32_CLUSTERS - 1 - 1 - 40 - 1;
        assert_eq!(free_clusters(&disk).await, (free, [free as usize; 2]));
        store.set(key("A/B"), &value[..600]).await.unwrap();
        assert_eq!(free_clusters(&disk).await, (free + 38, [free as usize + 38; 2]));
        store.set(key("A/B"), b"").await.unwrap();
        assert_eq!(free_clusters(&disk).await, (free + 40, [free as usize + 40; 2]));
        assert_eq!(store.get(key("A/B")).await, Ok(Vec::new()));
        store.remove(key("A")).await.unwrap();
        assert_eq!(free_clusters(&disk).await, (FAT32_CLUSTERS - 1, [FAT32_CLUSTERS as usize - 1; 2]));
        assert_eq!(store.list(Key::ROOT).await, Ok(Vec::new()));
        store.set(key("E"), b"").await.unwrap();
        assert_eq!(free_clusters(&disk).await.0, FAT32_CLUSTERS - 1, "what has no bytes has no cluster");
        store.remove(key("E")).await.unwrap();
        let mut behind = vec![0; 100 * 512];
        disk.read((RESERVED + 2 * FAT32_TABLE + FAT32_CLUSTERS).into(), &mut behind).await.unwrap();
        assert!(behind.iter().all(|byte| *byte == 0));
    });
}

/// Whatever a damaged FAT32 says of free clusters, there is no other number than a possible one, or none.
#[test]
fn a_fat32_that_counts_wrongly_says_that_it_does_not_know() {
    Simulation::new(1).block_on(async {
        for (former, expected) in [(0_u32, u32::MAX), (3, u32::MAX), (9, 4), (u32::MAX, u32::MAX), (u32::MAX - 1, u32::MAX)] {
            let disk = fat32().await;
            disk.damage(1, 488, &former.to_le_bytes());
            let store = store(&disk).await;
            store.set(key("A"), &[1; 2500]).await.unwrap();
            assert_eq!(free_clusters(&disk).await.0, expected, "{former}");
            store.remove(key("A")).await.unwrap();
            assert_eq!(free_clusters(&disk).await.1, [FAT32_CLUSTERS as usize - 1; 2]);
        }
    });
}

/// The upper four bits of an entry are not the volume's to change; numbers of clusters have two halves.
#[test]
fn entries_of_a_fat32_keep_what_is_reserved() {
    Simulation::new(1).block_on(async {
        let disk = fat32().await;
        let whole = store(&disk).await;
        // The next free cluster is the last, whose number has an upper half.
        whole.set(key("A"), &[1; 600]).await.unwrap();
        let root = u64::from(RESERVED + 2 * FAT32_TABLE);
        let mut sector = [0; 512];
        disk.read(root, &mut sector).await.unwrap();
        let cluster =
            u32::from(u16::from_le_bytes([sector[20], sector[21]])) << 16 | u32::from(u16::from_le_bytes([sector[26], sector[27]]));
        assert_eq!(cluster, FAT32_CLUSTERS + 1);
        let places = [RESERVED, RESERVED + FAT32_TABLE].map(|table| (u64::from(table + cluster / 128), cluster as usize % 128 * 4 + 3));
        for (sector, offset) in places {
            disk.damage(sector, offset, &[0xf0]);
        }
        let store = store(&disk).await;
        assert_eq!(store.get(key("A")).await.unwrap(), [1; 600]);
        store.remove(key("A")).await.unwrap();
        for (at, offset) in places {
            disk.read(at, &mut sector).await.unwrap();
            assert_eq!(sector[offset - 3..=offset], [0, 0, 0, 0xf0]);
        }
        assert_eq!(free_clusters(&disk).await, (FAT32_CLUSTERS - 1, [FAT32_CLUSTERS as usize - 2; 2]), "all but what is reserved is zero");
        disk.damage(1, 492, &(FAT32_CLUSTERS + 1).to_le_bytes());
        let store = self::store(&disk).await;
        store.set(key("A"), &[1; 600]).await.unwrap();
        store.set(key("A"), b"").await.unwrap();
        disk.read(root, &mut sector).await.unwrap();
        assert_eq!([20, 21, 26, 27].map(|at| sector[at]), [0; 4], "both halves of the number are gone");
        assert_eq!(free_clusters(&disk).await.0, FAT32_CLUSTERS - 1);
        // What is free already is not counted again.
        store.set(key("B"), b"1").await.unwrap();
        disk.read(root, &mut sector).await.unwrap();
        let cluster =
            u32::from(u16::from_le_bytes([sector[52], sector[53]])) << 16 | u32::from(u16::from_le_bytes([sector[58], sector[59]]));
        for table in [RESERVED, RESERVED + FAT32_TABLE] {
            disk.damage(u64::from(table + cluster / 128), cluster as usize % 128 * 4, &[0; 4]);
        }
        self::store(&disk).await.remove(key("B")).await.unwrap();
        assert_eq!(free_clusters(&disk).await.0, FAT32_CLUSTERS - 2);
        for (offset, bytes, reason) in
            [(40, [0x81, 0], "only one of its tables"), (48, [0, 0], "no information sector"), (48, [0xff; 2], "no information sector")]
        {
            let disk = fat32().await;
            disk.damage(0, offset, &bytes);
            let error = Fat::open(disk, 1 << 20).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        disk.damage(0, 44, &[0xff; 4]);
        assert!(Fat::open(disk, 1 << 20).await.unwrap_err().to_string().contains("the root directory begins at a cluster"));
    });
}

/// What would make embedded-sdmmc panic, or open something else, is an error.
#[test]
fn entries_that_cannot_be_are_errors() {
    Simulation::new(1).block_on(async {
        let disk = fat32().await;
        let whole = store(&disk).await;
        for name in ["A", "B", "C"] {
            whole.set(key(name), &[1; 2500]).await.unwrap();
        }
        let root = u64::from(RESERVED + 2 * FAT32_TABLE);
        // C gets the short name of A, and one of its own in the place of B.
        disk.damage(root, 32, &long_name("other", b"A          "));
        disk.damage(root, 64, b"A");
        let damaged = store(&disk).await;
        let error = damaged.get(key("other")).await.unwrap_err().to_string();
        assert!(error.contains("other is there twice"), "{error}");
        assert_eq!(damaged.get(key("A")).await.unwrap(), [1; 2500]);
        // The higher half of the first cluster of A.
        disk.damage(root, 20, &[0xff; 2]);
        let damaged = store(&disk).await;
        let error = damaged.get(key("A")).await.unwrap_err().to_string();
        assert!(error.contains("A begins at a cluster that there is not"), "{error}");
        assert!(damaged.set(key("A"), b"").await.is_err() && damaged.remove(key("A")).await.is_err());
    });
}
