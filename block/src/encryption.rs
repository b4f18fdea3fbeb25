//! Encryption of a device's sectors.
//!
//! [`Xts`] keeps sectors secret, and takes no room: AES-256 in XTS mode (IEEE 1619), sector by sector, as dm-crypt's `aes-xts-plain64` does on
//! sectors of 512 bytes. Who can write to the disk can put old contents back, move nothing, and turn 16 bytes into noise unnoticed.
//!
//! [`Authenticated`] makes every change by others an error, not data: each sector is sealed with XChaCha20-Poly1305, under its number and a nonce drawn for
//! each write, and its seal lies beside it. Who can write to the disk can still put a whole old sector back together with its old seal.
//!
//! Keys come from outside; both keep theirs in memory as long as they live, and clear it then.

mod authenticated;
mod xts;

pub use authenticated::{Authenticated, OpenError};
pub use xts::{Xts, XtsKeyError};

/// Bytes that are encrypted or decrypted at a time.
const PIECE: usize = 64 * 1024;
