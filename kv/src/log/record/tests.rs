use proptest::prelude::*;

use super::*;

const ID: u64 = 7;
const SECTOR: usize = 512;

/// A record of four sectors.
fn record(sequence: u64, byte: u8) -> Vec<u8> {
    let payload: Vec<u8> = (0..1300_u32).map(|index| byte.wrapping_add(index as u8)).collect();
    encode(ID, SECTOR, sequence, &payload)
}

/// Changes a sector, and puts its own checksum right again.
fn forge(log: &mut [u8], index: usize, change: impl FnOnce(&mut [u8])) {
    let sector = &mut log[index * SECTOR..][..SECTOR];
    change(sector);
    let sum = checksum(ID, &sector[8..]);
    sector[..8].copy_from_slice(&sum.to_le_bytes());
}

proptest! {
    /// Any one sector may be damaged; with two gone, the record is not there; nothing else passes for it.
    #[test]
    fn one_damaged_sector_is_made_again(payload in prop::collection::vec(any::<u8>(), 0..4000), sequence: u64, damage: u8, two: bool) {
        let mut log = encode(ID, SECTOR, sequence, &payload);
        log.extend_from_slice(&[0; SECTOR]);
        let count = log.len() / SECTOR - 1;
        prop_assert_eq!(decode(ID, SECTOR, sequence, &log).map(|found| found.payload), Some(payload.clone()));
        prop_assert_eq!(decode(ID, SECTOR, sequence.wrapping_add(1), &log), None);
        prop_assert_eq!(decode(ID + 1, SECTOR, sequence, &log), None);
        let first = usize::from(damage) % count;
        log[first * SECTOR + usize::from(damage)] ^= 0x10;
        if two {
            log[(first + 1) % count * SECTOR + 3] ^= 1;
            prop_assert_eq!(decode(ID, SECTOR, sequence, &log), None);
        } else {
            let found = decode(ID, SECTOR, sequence, &log).unwrap();
            prop_assert_eq!((found.payload, found.repaired), (payload, Some(first)));
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_record(bytes in prop::collection::vec(any::<u8>(), 0..2000), sequence: u64) {
        prop_assert_eq!(decode(ID, SECTOR, sequence, &bytes), None);
    }
}

/// A sector that is intact and does not belong there is like one that is damaged: left by a torn write of the same number, or of another place.
#[test]
fn a_sector_of_another_record_or_place_is_made_again() {
    let (whole, torn) = (record(5, 1), record(5, 2));
    let payload = decode(ID, SECTOR, 5, &whole).unwrap().payload;
    for index in 0..4 {
        let former = &record(4, 1);
        for (other, from) in [(&torn, index), (former, index), (&whole, (index + 1) % 4), (&whole, (index + 3) % 4)] {
            let mut log = whole.clone();
            log[index * SECTOR..][..SECTOR].copy_from_slice(&other[from * SECTOR..][..SECTOR]);
            let found = decode(ID, SECTOR, 5, &log).unwrap_or_else(|| panic!("sector {index}"));
            assert_eq!((found.payload, found.repaired), (payload.clone(), Some(index)));
        }
    }
}

/// Though the checksum of every sector is right.
#[test]
fn what_does_not_belong_together_is_no_record() {
    let whole = record(5, 1);
    let all = |change: &dyn Fn(&mut [u8])| {
        let mut log = whole.clone();
        (0..4).for_each(|index| forge(&mut log, index, change));
        decode(ID, SECTOR, 5, &log)
    };
    assert!(all(&|_| ()).is_some());
    for count in [0_u16, 1, 2, 3, 5, u16::MAX] {
        assert_eq!(all(&|sector| sector[26..28].copy_from_slice(&count.to_le_bytes())), None, "{count} sectors");
    }
    for length in [0, 1299, 1301, 1440, 1441, u32::MAX] {
        assert_eq!(all(&|sector| sector[28..32].copy_from_slice(&length.to_le_bytes())), None, "{length} bytes");
    }
    let mut log = whole.clone();
    forge(&mut log, 1, |sector| sector[HEADER] ^= 1);
    assert_eq!(decode(ID, SECTOR, 5, &log), None, "other contents");
}

/// A record is where the log has room for all of it, though the last of its sectors could be made again.
#[test]
fn what_leaves_the_log_is_no_record() {
    let whole = record(5, 1);
    for missing in 1..=whole.len() {
        assert_eq!(decode(ID, SECTOR, 5, &whole[..whole.len() - missing]), None, "{missing} bytes");
    }
}
