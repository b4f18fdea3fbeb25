//! What the guests of the Solo5 family share, in pure Rust against the public ABI of Solo5 v0.12.1 (its headers `elf_abi.h` and
//! `mft_abi.h`).
//!
//! A target such as `fogbow-spt` adds its entry code, its [`Platform`](fogbow::Platform) and its devices; everything else is here: the
//! notes by which a tender knows an image ([`notes`]), the devices it asks for and got ([`manifest`]), who waits for them ([`ready`]),
//! block devices ([`block`]), the layout of memory ([`layout`] and `image.ld`), the memory functions ([`memory`]) and the last message
//! ([`mod@panic`]).
//!
//! Principles:
//! - The library is inert: it defines no symbol, no panic handler and no allocator, so that it is compiled and tested as any other. What an
//!   image must have once is put into the image's own crate by [`guest!`].
//! - What a tender says is input: it is checked before it is used, and a wrong answer is an error with a reason, never a panic.
//!
//! Limits: x86-64 only; one thread.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod block;
pub mod device;
mod image;
pub mod layout;
pub mod manifest;
pub mod memory;
pub mod notes;
pub mod panic;
pub mod ready;

pub use device::DeviceError;

#[doc(hidden)]
pub use fogbow;
