//! Two stacks, each with arguments of its own, and a syslog sink on the first.
#![no_std]
#![forbid(unsafe_code)]

use core::future::pending;

use fogbow::arguments::ArgumentError;
use fogbow::task::yield_now;
use fogbow_net::Stack;
use fogbow_net::syslog::{Origin, Syslog, Transport};

fogbow::arguments!();

/// Prints the address of each stack, writes a storm of log messages to the console if it is told to, sends one to the collector, and stays.
///
/// # Errors
/// None in an image, which checks its arguments before it starts.
pub async fn start(outside: impl Stack, inside: impl Stack) -> Result<(), ArgumentError> {
    let arguments = Arguments::read()?;
    let transport = if arguments.tcp { Transport::Tcp } else { Transport::Udp };
    fogbow::println!("services: public {:?}, private {:?}", outside.address(), inside.address());
    for number in 0..arguments.storm {
        log::warn!("message {number} of a storm");
        if number % 10 == 0 {
            yield_now().await;
        }
    }
    let sink = Syslog::new(outside, arguments.public_syslog, transport, Origin::new("guest", "services"));
    fogbow::spawn(sink.run()).detach();
    log::info!("a message from the image");
    pending().await
}
