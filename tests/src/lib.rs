//! What boots whole images and talks to them as a client would.
//!
//! Each test makes its own network namespace and tap, waits for events rather than for time, and ends only what it started. What cannot run on a
//! machine is [skipped](Skip) with the reason.
#![forbid(unsafe_code)]

pub mod attacker;
pub mod builder;
pub mod client;
pub mod faults;
pub mod guest;
pub mod measure;
pub mod monitor;
pub mod nested;
pub mod network;
pub mod relay;
pub mod script;
pub mod steady;
pub mod transfer;
pub mod trial;

/// Why a test cannot run on this machine; carried through [`anyhow::Error`].
#[derive(Clone, Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}
