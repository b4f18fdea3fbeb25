//! User-mode networking: a guest's frames become the host's own sockets.
//!
//! A tender that is given `--net:NAME=user,hostfwd=8080:80` connects its guest to this small network instead of a tap device. It needs neither
//! root nor any set-up of the host: to the host it looks like an ordinary program that opens and accepts connections.
//!
//! The addresses are those of QEMU's user network, so that a guest configured for one works on the other:
//!
//! | address | what answers there |
//! |---|---|
//! | [`GUEST`] 10.0.2.15 | the guest |
//! | [`GATEWAY`] 10.0.2.2 | the gateway; TCP and UDP sent to it reach the host's own loopback, 127.0.0.1 |
//! | [`DNS`] 10.0.2.3 | TCP and UDP port 53 reach the first name server of the host's `/etc/resolv.conf` |
//! | any other | TCP and UDP leave through the host's sockets |
//!
//! [`Options::parse`] has the options. With `restrict=on` the guest is kept from opening connections of its own: only forwarded ports reach it, and ARP and echo are answered.
//!
//! A tender's part is small: [`main_if_child`] first in `main`; [`spawn`] before the sandbox closes; then frames to and from [`Spawned::guest`].
//!
//! # How it works
//! - One Ethernet frame is one message on a socket pair. The network runs in a process of its own ([`spawn`]) at the other end, so that a tender
//!   may forbid its guest's process to open sockets. It ends when the tender's end closes.
//! - TCP ends here: smoltcp speaks it with the guest, the host's kernel with the outside, and bytes move between the two only as fast as the
//!   slower side takes them. Each connection has its own socket set, found by its addresses and ports in a hash table, and its own timer in a heap:
//!   the cost of a frame does not depend on how many connections are open.
//! - UDP and ICMP echo need no state but an address table and are answered directly on the wire formats.
//! - One thread, one epoll descriptor, no blocking call but the wait.
//!
//! # Limits
//! - IPv4 only; no DHCP (the guest takes its address from its arguments); one guest.
//! - IP fragments are dropped, and so are datagrams larger than the MTU.
//! - ICMP: echo to the gateway and to the DNS address is answered; nothing is forwarded, and unreachable UDP ports are silent.
//! - A connection to a forwarded port is accepted before the guest is asked, and reset if it refuses; before the guest's first frame it waits.
//! - At most [`MAX_TCP_FLOWS`] connections and [`MAX_UDP_FLOWS`] UDP associations; see those constants for what happens beyond.

#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

mod core;
mod flow;
mod frame;
mod host;
mod link;
mod listen;
mod network;
mod options;
mod ports;
mod process;
mod tcp;
mod timers;
mod udp;

pub use listen::{ListenError, Listener};
pub use network::Network;
pub use options::{DEFAULT_MTU, Forward, MAX_FORWARDS, MAX_MTU, MIN_MTU, Options, ParseError, Protocol};
pub use process::{Spawned, bind_all, link, main_if_child, spawn};

/// The guest's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The gateway's address. Connections to it reach the host's loopback; forwarded connections seem to come from it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server's address.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Bits of the network's prefix: the network is 10.0.2.0/24.
pub const PREFIX_LENGTH: u8 = 24;
/// The Ethernet address of the gateway and of everything behind it: QEMU's, 52:55 followed by the gateway's IPv4 address.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
/// Bytes of an Ethernet header, which the MTU does not count.
pub const ETHERNET_HEADER: usize = 14;

/// TCP connections that may be open at once. Beyond it the guest's SYNs go unanswered and the host's connections wait in their listener's backlog.
pub const MAX_TCP_FLOWS: usize = 1024;
/// UDP associations that may be open at once. Beyond it the one that was silent longest makes room.
pub const MAX_UDP_FLOWS: usize = 512;
