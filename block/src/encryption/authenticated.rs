//! Sectors that are encrypted and authenticated.
//!
//! A sector is eight of the device's, and a ninth behind them holds its seal: the nonce (24 bytes) and the tag (16) of XChaCha20-Poly1305, whose
//! associated data is the sector's number. The device's first sector is the header: the magic, the version, and a seal over them, which tells a wrong key.
//!
//! ```text
//! header | data 0 (8 sectors) | seal 0 | data 1 (8 sectors) | seal 1 | ...
//! ```

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};

use super::PIECE;
use crate::{Block, BlockError, BlockInfo, Cause, Operation, check};

/// What the header begins with.
const MAGIC: &[u8; 16] = b"fogbow sealed\0\0\0";
/// The version of the layout.
const VERSION: u32 = 1;

/// The device's sectors in a sector, and with its seal.
const DATA: u64 = 8;
const GROUP: u64 = DATA + 1;

const NONCE: usize = 24;
const TAG: usize = 16;

/// Bytes of the header before its seal: magic and version, which are the seal's associated data.
const HEADER: usize = 20;

/// A device whose sectors are sealed: eight times as large as the underlying device's, which loses a ninth of its room.
///
/// Limits: a sector that a power cut leaves half written reads as [`Cause::NotAuthentic`] until it is written again, not as old or new. Putting back an
/// old sector with its old seal is not noticed. [`format`](Self::format) writes the whole device. Discarding does nothing.
pub struct Authenticated<B> {
    device: B,
    info: BlockInfo,
    cipher: XChaCha20Poly1305,
}

/// Why a device cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be read or written.
    Device(BlockError),
    /// It has not been formatted for this.
    NotFormatted,
    /// It was formatted by another version.
    Version(u32),
    /// The key is another, or the header was tampered with.
    Key,
    /// It has fewer than ten sectors.
    TooSmall,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::NotFormatted => f.write_str("the device was never formatted for authenticated encryption: format it, which erases it"),
            Self::Version(version) => {
                write!(f, "the device has version {version} of the layout, and only {VERSION} is known: open it with a newer image")
            }
            Self::Key => f.write_str("the key is not the one that the device was formatted with, or its header was tampered with"),
            Self::TooSmall => f.write_str("the device is too small: it needs ten sectors"),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<BlockError> for OpenError {
    fn from(error: BlockError) -> Self {
        Self::Device(error)
    }
}

impl<B: fmt::Debug> fmt::Debug for Authenticated<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticated").field("device", &self.device).field("info", &self.info).finish_non_exhaustive()
    }
}

impl<B: Block> Authenticated<B> {
    /// Opens a device that has been formatted with this key.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(device: B, key: &[u8; 32]) -> Result<Self, OpenError> {
        let sealed = Self::new(device, key)?;
        let mut header = vec![0; sealed.device.info().sector_size];
        sealed.device.read(0, &mut header).await?;
        let [a, b, c, d] = [16, 17, 18, 19].map(|at| header[at]);
        match u32::from_le_bytes([a, b, c, d]) {
            _ if !header.starts_with(MAGIC) => Err(OpenError::NotFormatted),
            VERSION => {
                let (text, seal) = header.split_at(HEADER);
                sealed.unseal(text, &mut [], seal).then_some(sealed).ok_or(OpenError::Key)
            }
            version => Err(OpenError::Version(version)),
        }
    }

    /// Erases `device` and seals every sector of it, all zeros. The header comes last: what was interrupted is not formatted.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn format(device: B, key: &[u8; 32]) -> Result<Self, OpenError> {
        let sealed = Self::new(device, key)?;
        let mut header = vec![0; sealed.device.info().sector_size];
        sealed.device.write(0, &header).await?;
        sealed.device.flush().await?;
        let zeros = vec![0; sealed.info.sector_size * sealed.groups_at_once()];
        let mut at = 0;
        while at < sealed.info.sectors {
            let count = (sealed.groups_at_once() as u64).min(sealed.info.sectors - at);
            sealed.write(at, &zeros[..count as usize * sealed.info.sector_size]).await?;
            at += count;
        }
        sealed.device.flush().await?;
        header[..16].copy_from_slice(MAGIC);
        header[16..20].copy_from_slice(&VERSION.to_le_bytes());
        let (text, seal) = header.split_at_mut(HEADER);
        sealed.seal(text, &mut [], seal).map_err(|cause| cause.of(&sealed.device, Operation::Write, 0, 0))?;
        sealed.device.write(0, &header).await?;
        sealed.device.flush().await?;
        Ok(sealed)
    }

    fn new(device: B, key: &[u8; 32]) -> Result<Self, OpenError> {
        let own = device.info();
        let sectors = own.sectors.saturating_sub(1) / GROUP;
        let info = BlockInfo { sector_size: own.sector_size * DATA as usize, sectors, ..own };
        match sectors {
            0 => Err(OpenError::TooSmall),
            _ => Ok(Self { device, info, cipher: XChaCha20Poly1305::new(key.into()) }),
        }
    }

    fn groups_at_once(&self) -> usize {
        (PIECE / self.info.sector_size).max(1)
    }

    /// Bytes that a sector and its seal take.
    fn group_size(&self) -> usize {
        self.device.info().sector_size * GROUP as usize
    }

    /// The sector of the device at which a sector begins.
    fn place(sector: u64) -> u64 {
        1 + sector * GROUP
    }

    fn seal(&self, associated: &[u8], data: &mut [u8], seal: &mut [u8]) -> Result<(), Cause> {
        let mut nonce = [0; NONCE];
        fogbow::random::fill(&mut nonce).map_err(|_| Cause::NoEntropy)?;
        let tag = self.cipher.encrypt_inout_detached(&XNonce::from(nonce), associated, data.into()).map_err(|_| Cause::Failed)?;
        seal[..NONCE].copy_from_slice(&nonce);
        seal[NONCE..NONCE + TAG].copy_from_slice(&tag);
        Ok(())
    }

    /// Decrypts; false when the data, its number or its seal are not what was written.
    fn unseal(&self, associated: &[u8], data: &mut [u8], seal: &[u8]) -> bool {
        let (mut nonce, mut tag) = ([0; NONCE], [0; TAG]);
        nonce.copy_from_slice(&seal[..NONCE]);
        tag.copy_from_slice(&seal[NONCE..NONCE + TAG]);
        self.cipher.decrypt_inout_detached(&XNonce::from(nonce), associated, data.into(), &Tag::from(tag)).is_ok()
    }

    async fn read_buffer(&self, sector: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let size = self.info.sector_size;
        let mut groups = Vec::new();
        let mut at = sector;
        for piece in into.chunks_mut(size * self.groups_at_once()) {
            groups.resize(piece.len() / size * self.group_size(), 0);
            self.device.read(Self::place(at), &mut groups).await?;
            for (group, plain) in groups.chunks_exact_mut(self.group_size()).zip(piece.chunks_exact_mut(size)) {
                let (data, seal) = group.split_at_mut(size);
                if !self.unseal(&at.to_le_bytes(), data, seal) {
                    return Err(Cause::NotAuthentic.of(self, Operation::Read, at, size as u64));
                }
                plain.copy_from_slice(data);
                at += 1;
            }
        }
        Ok(())
    }

    async fn write_buffer(&self, sector: u64, data: &[u8]) -> Result<(), BlockError> {
        let size = self.info.sector_size;
        let mut groups = Vec::new();
        let mut at = sector;
        for piece in data.chunks(size * self.groups_at_once()) {
            let first = at;
            groups.clear();
            groups.resize(piece.len() / size * self.group_size(), 0);
            for (group, plain) in groups.chunks_exact_mut(self.group_size()).zip(piece.chunks_exact(size)) {
                let (data, seal) = group.split_at_mut(size);
                data.copy_from_slice(plain);
                self.seal(&at.to_le_bytes(), data, seal).map_err(|cause| cause.of(self, Operation::Write, at, size as u64))?;
                at += 1;
            }
            self.device.write(Self::place(first), &groups).await?;
        }
        Ok(())
    }
}

impl<B: Block> Block for Authenticated<B> {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn info(&self) -> BlockInfo {
        self.info
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        check::read(self, sector, into)?;
        let mut at = sector;
        for buffer in into {
            self.read_buffer(at, buffer).await?;
            at += (buffer.len() / self.info.sector_size) as u64;
        }
        Ok(())
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        check::write(self, sector, data)?;
        let mut at = sector;
        for buffer in data {
            self.write_buffer(at, buffer).await?;
            at += (buffer.len() / self.info.sector_size) as u64;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        self.device.flush().await
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        // A seal that is gone would be an error for whoever reads the sector, not anything.
        check::discard(self, sector, sectors)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
