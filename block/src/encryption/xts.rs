//! AES-XTS: as many bytes on the disk as in the sectors.

use alloc::vec::Vec;
use core::fmt;

use aes::Aes256;
use aes::cipher::KeyInit;
use xts_mode::{Xts128, get_tweak_default};

use super::PIECE;
use crate::{Block, BlockError, BlockInfo, check};

/// A device whose sectors are encrypted.
///
/// Limits: nothing is authenticated; a sector that was never written reads as noise.
pub struct Xts<B> {
    device: B,
    cipher: Xts128<Aes256>,
}

/// The two halves of a key are equal, which IEEE 1619 and FIPS 140 forbid: such a key keeps nothing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XtsKeyError;

impl fmt::Display for XtsKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the two halves of an XTS key must differ: draw 64 random bytes")
    }
}

impl core::error::Error for XtsKeyError {}

impl<B: fmt::Debug> fmt::Debug for Xts<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xts").field("device", &self.device).finish_non_exhaustive()
    }
}

impl<B: Block> Xts<B> {
    /// The sectors of `device` under `key`: two keys of AES-256, for the data and for the tweak.
    ///
    /// # Errors
    /// [`XtsKeyError`].
    pub fn new(device: B, key: &[u8; 64]) -> Result<Self, XtsKeyError> {
        let (data, tweak) = key.split_at(32);
        if data == tweak {
            return Err(XtsKeyError);
        }
        let cipher = |key| Aes256::new_from_slice(key).map_err(|_| XtsKeyError);
        Ok(Self { device, cipher: Xts128::new(cipher(data)?, cipher(tweak)?) })
    }

    fn piece_size(&self) -> usize {
        PIECE.max(self.info().sector_size)
    }
}

impl<B: Block> Block for Xts<B> {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn info(&self) -> BlockInfo {
        self.device.info()
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        self.device.read_vectored(sector, into).await?;
        let sectors = into.iter_mut().flat_map(|buffer| buffer.chunks_exact_mut(self.info().sector_size));
        for (number, data) in (sector..).zip(sectors) {
            self.cipher.decrypt_sector(data, get_tweak_default(number.into()));
        }
        Ok(())
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        check::write(self, sector, data)?;
        let size = self.info().sector_size;
        let mut at = sector;
        let mut encrypted = Vec::new();
        for piece in data.iter().flat_map(|buffer| buffer.chunks(self.piece_size())) {
            encrypted.clear();
            encrypted.extend_from_slice(piece);
            for (number, data) in (at..).zip(encrypted.chunks_exact_mut(size)) {
                self.cipher.encrypt_sector(data, get_tweak_default(number.into()));
            }
            self.device.write(at, &encrypted).await?;
            at += (piece.len() / size) as u64;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        self.device.flush().await
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        self.device.discard(sector, sectors).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, Ram};
    use alloc::rc::Rc;
    use core::cell::RefCell;
    use fogbow::simulation::Simulation;
    use std::vec;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// A device of 2^41 sectors that remembers one.
    struct Far(RefCell<(u64, Vec<u8>)>);

    impl Block for Far {
        fn name(&self) -> &str {
            "far"
        }

        fn info(&self) -> BlockInfo {
            BlockInfo { sector_size: 512, sectors: 1 << 41, read_only: false, durability: Durability::Image }
        }

        async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
            assert_eq!(self.0.borrow().0, sector);
            into[0].copy_from_slice(&self.0.borrow().1);
            Ok(())
        }

        async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
            *self.0.borrow_mut() = (sector, data.concat());
            Ok(())
        }

        async fn flush(&self) -> Result<(), BlockError> {
            Ok(())
        }

        async fn discard(&self, _: u64, _: u64) -> Result<(), BlockError> {
            Ok(())
        }
    }

    /// IEEE 1619-2007, annex B, vectors 10 to 14: XTS-AES-256, data units of 512 bytes whose numbers have one to five bytes. The first 16 bytes and
    /// the last of each; OpenSSL 4.0.3 gives the same.
    #[test]
    fn encrypts_as_the_standard_says() {
        let vectors = [
            (0xff, "1c3b3a102f770386e4836c99e370cf9b", "c4f36ffda9fcea70b9c6e693e148c151"),
            (0xffff, "77a31251618a15e6b92d1d66dffe7b50", "94a4f9e27b42af8100cb9d59cef9645803"),
            (0xff_ffff, "e387aaa58ba483afa7e8eb469778317e", "2263a1eef52dd6888c309f5a7d712826"),
            (0xffff_ffff, "bf53d2dade78e822a4d949a9bc6766b0", "4c82f335abb152c4a93411373aaa8220"),
            (0xff_ffff_ffff, "64497e5a831e4a932c09be3e5393376d", "d609d273ad5b0d59631c531f6a0a57b9"),
        ];
        Simulation::new(1).block_on(async move {
            let mut key = bytes("2718281828459045235360287471352662497757247093699959574966967627");
            key.extend(bytes("3141592653589793238462643383279502884197169399375105820974944592"));
            let far = Rc::new(Far(RefCell::default()));
            let encrypted = Xts::new(Rc::clone(&far), key.as_slice().try_into().unwrap()).unwrap();
            let plain: Vec<u8> = (0..512).map(|index| index as u8).collect();
            for (sector, first, last) in vectors {
                encrypted.write(sector, &plain).await.unwrap();
                let (number, stored) = far.0.borrow().clone();
                assert_eq!((number, &stored[..16]), (sector, &bytes(first)[..]));
                assert!(stored.ends_with(&bytes(last)), "sector {sector}");
                let mut back = vec![0; 512];
                encrypted.read(sector, &mut back).await.unwrap();
                assert_eq!(back, plain);
            }
        });
    }

    #[test]
    fn equal_sectors_differ_on_the_disk_and_long_requests_come_back() {
        Simulation::new(1).block_on(async {
            let disk = Rc::new(Ram::new("disk", 512, 400).unwrap());
            assert_eq!(Xts::new(Rc::clone(&disk), &[7; 64]).unwrap_err(), XtsKeyError);
            let key: Vec<u8> = (0..64).collect();
            let encrypted = Xts::new(Rc::clone(&disk), key.as_slice().try_into().unwrap()).unwrap();
            let data = vec![9; 300 * 512];
            encrypted.write_vectored(3, &[&data[..100 * 512], &data[100 * 512..]]).await.unwrap();
            let mut stored = vec![0; 300 * 512];
            disk.read(3, &mut stored).await.unwrap();
            let mut sectors: Vec<&[u8]> = stored.chunks(512).collect();
            sectors.sort_unstable();
            sectors.dedup();
            assert_eq!(sectors.len(), 300);
            let (mut first, mut second) = (vec![0; 512], vec![0; 299 * 512]);
            encrypted.read_vectored(3, &mut [&mut first, &mut second]).await.unwrap();
            assert!([first, second].concat() == data);
        });
    }

    #[test]
    fn flushes_and_discards_are_passed_on_and_what_leaves_the_device_is_refused() {
        use crate::{Cause, fault::FaultDisk};
        Simulation::new(1).block_on(async {
            let disk = FaultDisk::new(Ram::new("disk", 512, 400).unwrap(), 1);
            let key: Vec<u8> = (0..64).collect();
            let encrypted = Xts::new(disk.clone(), key.as_slice().try_into().unwrap()).unwrap();
            encrypted.write(0, &[1; 512]).await.unwrap();
            encrypted.discard(1, 1).await.unwrap();
            encrypted.flush().await.unwrap();
            assert_eq!((disk.pending(), disk.counts().discards), (0, 1));
            assert_eq!(encrypted.read(399, &mut [0; 1024]).await.unwrap_err().cause, Cause::OutOfRange { sectors: 400 });
            let before = disk.counts().writes;
            // Longer than what is encrypted at a time: its beginning would fit.
            assert_eq!(encrypted.write(1, &vec![0; 400 * 512]).await.unwrap_err().cause, Cause::OutOfRange { sectors: 400 });
            let odd = encrypted.write_vectored(0, &[&[0; 512], &[0; 100]]).await.unwrap_err();
            assert_eq!((odd.cause, odd.length), (Cause::NotWholeSectors { sector_size: 512 }, 612));
            assert_eq!(disk.counts().writes, before, "what is refused writes nothing");
        });
    }
}
