//! Fogbow's network.
//!
//! An application is written against [`Stack`]: TCP listeners and streams, UDP sockets, each an owned value that can move into a spawned task.
//! Two kinds of stack stand behind it: the direct stack ([`direct`]), which carries TCP/IP inside the image over a [`FrameDevice`], and the host's
//! sockets on the unix target. HTTP ([`http`]) and the syslog sink ([`syslog`]) run on any of them.
//!
//! Limits: IPv4 only.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(feature = "direct")]
pub mod direct;
#[cfg(feature = "edge-nal")]
pub mod edge;
pub mod frame;
#[cfg(feature = "http")]
pub mod http;
pub mod loopback;
mod serve;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod stack;
#[cfg(feature = "syslog")]
pub mod syslog;
#[cfg(feature = "direct")]
mod tcp;

pub use frame::{Checksums, Finish, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter, MacAddress, Offload};
pub use loopback::Loopback;
pub use serve::serve;
pub use stack::{AcceptError, BindError, ConnectError, ListenError, Listener, Stack, Stream, StreamError, UdpError, UdpSocket};
