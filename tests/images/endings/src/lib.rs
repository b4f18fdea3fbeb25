//! Ends in the way that its argument says, with a hook that tells.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use core::future::pending;

use fogbow::arguments::{self, ArgumentError};
use fogbow::println;
use fogbow::task::yield_now;

/// Ends, or does not.
///
/// # Errors
/// When the argument cannot be read.
pub async fn start() -> Result<(), ArgumentError> {
    fogbow::at_exit(async { println!("the hook ran") });
    println!("started");
    match arguments::parse::<String>("end")?.as_str() {
        "shut-down" => fogbow::shut_down(),
        "restart" => fogbow::restart(),
        "busy" => loop {
            yield_now().await;
        },
        _ => {}
    }
    pending().await
}
