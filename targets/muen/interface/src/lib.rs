//! What a subject of the Muen separation kernel shares with others: its own side of it, and the other, which a program that plays Muen has.
//!
//! - [`sinfo`]: what Muen says about a subject: its name, its memory, its events;
//! - [`time`]: the scheduling information, and the time of day;
//! - [`channel`]: streams of elements through shared memory, with a writer at one end and any number of readers at the others;
//! - [`muennet`] and [`debuglog`]: what the elements of two kinds of channel are;
//! - [`boot`]: what the Solo5 family adds: where an image lies, and its boot information.
//!
//! Principles: the library is inert and allocates nothing. What Muen itself says (subject information, boot information) does not change while a
//! subject runs, and is parsed with every length checked. What another subject may write (channels, the time of day) may be anything at any moment:
//! each word is read once, by an atomic access, and checked on the copy.
//!
//! Sources: `bindings/muen` of Solo5 0.12.1, whose constants are named where they stand here; SHMStream version 2.
//!
//! Limits: x86-64, little-endian.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod boot;
pub mod channel;
pub mod debuglog;
pub mod muennet;
pub mod sinfo;
pub mod time;
