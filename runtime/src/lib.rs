//! Fogbow's runtime: what an image has once.
//!
//! An application reaches the services that exist once per image by plain calls: [`spawn`] and [`time::sleep`] (the executor), [`time::now`]
//! (the clocks), [`println!`] (the console), the [`log`] macros, [`arguments`](mod@arguments) and [`random`]. They are bound to the target's [`Platform`] when
//! the image starts ([`run`]); with the feature `hosted` they are bound to the thread that runs, so that two nodes with two clocks and two seeds
//! can live in one test process.
//!
//! Principles:
//! - one thread, cooperative tasks, no interrupts: an image only ever waits in one place, [`Platform::wait`];
//! - nothing here walks all tasks or all timers;
//! - no service fails silently: a panic, exhausted memory or an error from `start` ends the image with a message and a status.
//!
//! Limits: a [`Waker`](core::task::Waker) may be called only on the thread of its runtime.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(any(test, feature = "hosted"))]
extern crate std;

pub mod arguments;
pub mod console;
pub mod counter;
mod current;
pub mod entropy;
mod executor;
pub mod heap;
pub mod lock;
pub mod logs;
pub mod platform;
pub mod random;
#[cfg(any(test, feature = "hosted"))]
pub mod simulation;
mod start;
mod statistics;
pub mod task;
pub mod time;
mod timers;

pub use fogbow_macros::arguments;
pub use platform::Platform;
pub use start::{Image, StartError, run, status};
pub use statistics::{Statistics, statistics};
pub use task::{Task, at_exit, restart, shut_down, spawn};

/// The logging facade that the runtime's logger serves; see [`logs`].
pub use log;
