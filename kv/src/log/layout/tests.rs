use fogbow_block::Durability;
use proptest::prelude::*;

use super::*;

fn info(sector_size: usize, bytes: u64) -> BlockInfo {
    BlockInfo { sector_size, sectors: bytes / sector_size as u64, read_only: false, durability: Durability::Host }
}

fn superblock(geometry: Geometry) -> Superblock {
    Superblock {
        geometry,
        id: 1,
        generation: 4,
        root: None,
        level: 0,
        sequence: 1,
        half: 0,
        map_checksum: 0,
        next_object: 1,
        leaves: 0,
        branches: 0,
    }
}

fn emit(superblock: Superblock) -> [u8; 512] {
    let mut bytes = [0; 512];
    superblock.emit(&mut bytes);
    bytes
}

proptest! {
    /// A superblock is read as it was written, in its own places alone, and not with any bit of it changed.
    #[test]
    fn superblocks_are_read_as_written(numbers: [u64; 3], counts in [0..1_u64 << 63, 0..1 << 63, 0..1 << 63], half in 0_usize..2, level in 0_u16..32, bit in 0..SUPERBLOCK * 8) {
        let info = info(512, 512 << 20);
        let ([id, page, map_checksum], [generation, sequence, next_object]) = (numbers, counts);
        let root = (page != 0).then_some(NodeRef { page, checksum: id });
        let (leaves, branches) = (sequence, page);
        let geometry = Geometry::of(info).unwrap();
        let superblock =
            Superblock { geometry, id, generation, root, level, sequence, half, map_checksum, next_object, leaves, branches };
        let mut bytes = emit(superblock);
        for place in 0..SUPERBLOCKS {
            let expected = if Superblock::places(generation).contains(&place) { Ok(superblock) } else { Err(FormatError::Inconsistent) };
            prop_assert_eq!(Superblock::parse(&bytes, place, info), expected);
        }
        let smaller = BlockInfo { sectors: info.sectors - 8, ..info };
        prop_assert_eq!(Superblock::parse(&bytes, Superblock::places(generation)[0], smaller), Err(FormatError::Inconsistent));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Superblock::parse(&bytes, Superblock::places(generation)[0], info), Err(FormatError::NotAStore));
    }
}

#[test]
fn devices_are_divided_as_documented() {
    for (sector, bytes, page, half_pages) in [
        (512, 256 << 10, 4096, 4),
        (512, 4 << 20, 4096, 4),
        (512, 8 << 20, 4096, 8),
        (4096, 8 << 20, 4096, 8),
        (512, 1 << 40, 4096, 512),
        (8192, 512 << 10, 8192, 4),
        (32768, 2 << 20, 32768, 4),
        (32768, 1 << 40, 32768, 64),
    ] {
        let pages = bytes / page as u64;
        assert_eq!(
            Geometry::of(info(sector, bytes)),
            Ok(Geometry { page, sector, pages, half_pages }),
            "{bytes} bytes in sectors of {sector}"
        );
    }
    let too_small = FormatError::TooSmall { least: 64 * 4096, bytes: 252 << 10 };
    assert_eq!(Geometry::of(info(512, 252 << 10)), Err(too_small));
    for sector in [768, 5120, 65536] {
        assert_eq!(Geometry::of(info(sector, 1 << 30)), Err(FormatError::SectorSize(sector)));
    }
}

/// A superblock with a right checksum that says what cannot be, for this device or for any.
#[test]
fn superblocks_that_cannot_be_are_refused() {
    let device = info(512, 512 << 20);
    let geometry = Geometry::of(device).unwrap();
    let whole = superblock(geometry);
    let parse = |superblock| Superblock::parse(&emit(superblock), 0, device);
    assert_eq!(parse(whole), Ok(whole));
    let smallest = Geometry { pages: MIN_PAGES, half_pages: 4, ..geometry };
    for possible in [Geometry { sector: 4096, ..geometry }, Geometry { pages: 10_000, ..geometry }, smallest] {
        assert_eq!(parse(superblock(possible)).map(|found| found.geometry), Ok(possible));
    }
    for impossible in [
        Geometry { page: 0, ..geometry },
        Geometry { page: 2048, ..geometry },
        Geometry { page: 8192, ..geometry },
        Geometry { page: 65536, ..geometry },
        Geometry { sector: 0, ..geometry },
        Geometry { sector: 32, ..geometry },
        Geometry { sector: 1536, ..geometry },
        Geometry { sector: 8192, ..geometry },
        Geometry { pages: MIN_PAGES - 1, ..smallest },
        Geometry { pages: 131_073, ..geometry },
        Geometry { pages: u64::MAX, ..geometry },
        Geometry { half_pages: 0, ..geometry },
        Geometry { half_pages: 3, ..geometry },
        Geometry { half_pages: 513, ..geometry },
        Geometry { half_pages: u64::from(u32::MAX), ..geometry },
        // The log and the map leave nothing for values.
        Geometry { pages: 500, half_pages: 247, ..geometry },
    ] {
        assert_eq!(parse(superblock(impossible)), Err(FormatError::Inconsistent), "{impossible:?}");
    }
    for impossible in [
        Superblock { half: 2, ..whole },
        Superblock { level: 32, ..whole },
        Superblock { level: u16::MAX, ..whole },
        Superblock { generation: u64::MAX - 3, ..whole },
        Superblock { sequence: u64::MAX, ..whole },
        Superblock { next_object: 1 << 63, ..whole },
    ] {
        assert_eq!(parse(impossible), Err(FormatError::Inconsistent), "{impossible:?}");
    }
}

/// A checksum alone does not make it one, nor a version that is known in another format.
#[test]
fn what_begins_otherwise_is_no_superblock() {
    let device = info(512, 512 << 20);
    for byte in 0..12 {
        let mut bytes = emit(superblock(Geometry::of(device).unwrap()));
        bytes[byte] ^= 1;
        let sum = checksum(0, &bytes[..SUPERBLOCK - 8]);
        bytes[SUPERBLOCK - 8..SUPERBLOCK].copy_from_slice(&sum.to_le_bytes());
        let found = Superblock::parse(&bytes, 0, device);
        match byte {
            0..8 => assert_eq!(found, Err(FormatError::NotAStore)),
            _ => assert!(matches!(found, Err(FormatError::Version(_))), "{found:?}"),
        }
    }
}
