//! What a block device says of itself (virtio 1.2, section 5.2.4).

use virtio_spec::blk::F;

use super::requests::LONGEST;
use crate::transport::SetupError;

/// Bytes in the sector that requests and limits are counted in, whatever the device's own.
pub(super) const UNIT: u64 = 512;

/// The limits of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) sector_size: usize,
    pub(super) sectors: u64,
    /// The most bytes of data in a request: whole sectors.
    pub(super) longest: usize,
    /// The most units of 512 bytes in a request to discard or to zero; `None` where the device does not.
    pub(super) discarded: Option<u32>,
    pub(super) zeroed: Option<u32>,
}

impl Limits {
    /// Reads the configuration of a device, by fields of 32 bits, with the features that `has` knows.
    pub(super) fn read(word: &dyn Fn(usize) -> u32, has: &dyn Fn(F) -> bool) -> Result<Self, SetupError> {
        let capacity = u64::from(word(0)) | u64::from(word(4)) << 32;
        let sector_size = if has(F::BLK_SIZE) { word(20) as usize } else { UNIT as usize };
        if !sector_size.is_power_of_two() || !(UNIT as usize..=LONGEST).contains(&sector_size) {
            return Err(SetupError::Nonsense("its sector size is no power of two, or none that can be used"));
        }
        if capacity > u64::MAX / UNIT / 2 {
            return Err(SetupError::Nonsense("it is larger than 2^63 bytes"));
        }
        let most = if has(F::SIZE_MAX) { (word(8) as usize).min(LONGEST) } else { LONGEST };
        let longest = most / sector_size * sector_size;
        if longest == 0 {
            return Err(SetupError::Nonsense("its requests hold less than a sector"));
        }
        let per_sector = (sector_size as u64 / UNIT) as u32;
        let cleared = |feature, at| has(feature).then(|| word(at) / per_sector * per_sector).filter(|most| *most > 0);
        let (discarded, zeroed) = (cleared(F::DISCARD, 36), cleared(F::WRITE_ZEROES, 48));
        Ok(Self { sector_size, sectors: capacity / u64::from(per_sector), longest, discarded, zeroed })
    }
}

/// A range for a request to discard or to zero (`struct virtio_blk_discard_write_zeroes`), in units of 512 bytes. What is zeroed may be given up (`unmap`).
pub(super) fn range(first: u64, count: u32, may_unmap: bool) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..12].copy_from_slice(&count.to_le_bytes());
    bytes[12] = may_unmap.into();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A configuration with these fields, in which nothing else is looked at.
    fn configuration(words: &[(usize, u32)]) -> impl Fn(usize) -> u32 {
        move |field| words.iter().find(|(at, _)| *at == field).expect("a field of 32 bits that is offered").1
    }

    #[test]
    fn what_is_offered_is_read() {
        let bare = Limits::read(&configuration(&[(0, 1001), (4, 1)]), &|_| false).unwrap();
        assert_eq!(bare, Limits { sector_size: 512, sectors: (1 << 32) + 1001, longest: LONGEST, discarded: None, zeroed: None });
        let fields = [(0, 1001), (4, 1), (8, 5000), (20, 4096), (36, 1000), (48, 7)];
        let all = Limits::read(&configuration(&fields), &|_| true).unwrap();
        assert_eq!(all, Limits { sector_size: 4096, sectors: ((1 << 32) + 1001) / 8, longest: 4096, discarded: Some(1000), zeroed: None });
    }

    proptest! {
        #[test]
        fn whatever_a_device_says_its_limits_make_sense(words in prop::array::uniform15(prop_oneof![any::<u32>(), 0_u32..20, (0_u32..32).prop_map(|bit| 1 << bit)]), features: u64) {
            if let Ok(limits) = Limits::read(&|at| words[at / 4], &|feature: F| features & feature.bits().to_ne() as u64 != 0) {
                prop_assert!(limits.longest.is_multiple_of(limits.sector_size) && (1..=LONGEST).contains(&limits.longest));
                prop_assert!(limits.sectors.checked_mul(limits.sector_size as u64).is_some());
            }
        }
    }
}
