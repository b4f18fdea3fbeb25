//! What images share that start in ring 0 of an x86-64 processor.
//!
//! - [`descriptors`]: segments, the task state segment, gates;
//! - [`entry`]: from ring 0 to the image's own code in ring 3, and back for a moment when something faults; a target that stays in ring 0, under page
//!   tables that another made, takes [`entry::install`] alone;
//! - [`mod@program`]: what an image tells the entry code of itself;
//! - [`mod@fault`]: what the processor says about a fault, in words;
//! - [`layout`] and [`paging`]: where everything lies in memory, and page tables that say what may be done with it.
//! - [`shared`]: what start-up code leaves for the image.
//!
//! The library knows no hypervisor: a target brings its first instructions, its console and its end. Limits: one processor; 512 GiB of memory.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod descriptors;
pub mod entry;
pub mod fault;
pub mod layout;
pub mod paging;
pub mod program;
pub mod shared;
