//! The example block, over layers.
#![no_std]
#![forbid(unsafe_code)]

pub use block::{Error, start};
