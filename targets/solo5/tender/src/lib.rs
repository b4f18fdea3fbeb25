//! What the tenders of the Solo5 family share: everything between a command line and a guest that is ready to run.
//!
//! A tender does, in this order:
//!
//! 1. [`Program::read`](program::Program::read) the command line;
//! 2. [`elf::Image::read`] the image's headers, [`elf::Image::require`] its target and ABI version, take its
//!    [`manifest`](elf::Image::manifest);
//! 3. [`attach::attach`] every device the manifest declares to what the command line names;
//! 4. [`elf::Image::load`] the segments into guest memory and give each page the rights its segment asks for;
//! 5. [`boot::place`] the manifest and the guest's own command line in low memory, and start the guest.
//!
//! Parsing stands apart from attaching, so that the builder can check an image and print its manifest with steps 2 and 4 alone.
//!
//! # Limits
//! x86-64 images for hosts running Linux. An image is hostile until checked: no byte of it can make this crate panic,
//! write outside the memory it was given, or allocate more than a few kilobytes.
//!
//! The formats are those of Solo5 0.12.1 (`elf_abi.h`, `mft_abi.h`). Where this loader is stricter than Solo5's, the item says so.

pub mod attach;
pub mod block;
pub mod boot;
pub mod console;
pub mod elf;
pub mod fault;
pub mod manifest;
pub mod memory;
pub mod net;
pub mod options;
pub mod program;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
