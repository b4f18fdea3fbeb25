//! The direct stack: Ethernet, ARP, IPv4, ICMP echo, UDP and TCP inside the image, over a [`FrameDevice`].
//!
//! It stands on smoltcp, used so that no packet walks over all sockets: the stack looks at each frame's addresses and ports, finds the flow that it
//! belongs to by a hash, and lets smoltcp process it with that flow's socket alone. Sockets come into being when a connection request arrives, and
//! everything that a peer can make the stack keep has a limit ([`Config`]).
//!
//! Principles:
//! - the work for a frame does not depend on how many connections there are, and nothing is allocated for it;
//! - no frame makes it panic: what is malformed is dropped;
//! - nothing is allocated for a peer before its segment's checksums have been verified.
//!
//! Limits: one IPv4 address, given at start; no IPv4 fragments, no options in IP headers that ask for anything, no loopback to the own address. TCP is
//! the stack's own, on smoltcp's wire formats; its limits are those of its module: no urgent data, no explicit congestion notification, no path MTU
//! discovery.

mod arp;
mod config;
mod cookies;
mod counters;
mod demultiplex;
mod device;
mod driver;
mod engine;
mod flow;
mod icmp;
mod listeners;
mod metrics;
mod neighbours;
mod tcp;
mod timers;
mod udp;

use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddr};

use fogbow::arguments::{self, YesNo};
use fogbow::{StartError, random, time};
use smoltcp::wire::EthernetAddress;

pub use config::{ARGUMENTS, Config, CongestionControl, DirectError, Ipv4Cidr, Ipv4CidrError};
pub use counters::{Cause, Drops, FlowCounters, Statistics};
pub use metrics::METRICS_TYPE;
pub use tcp::{ReadHalf, TcpListener, TcpStream, WriteHalf};
pub use udp::DirectUdpSocket;

use crate::frame::{FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter};
use crate::stack::{BindError, ConnectError, ListenError, Stack};
use engine::Engine;

/// A direct stack. Cloning gives another handle to the same one; when all handles, listeners and sockets are gone and the last connection has ended,
/// it stops and gives its device back.
#[derive(Clone)]
pub struct Direct(Handle);

impl Direct {
    /// Starts a stack over `device`. It announces its address to the neighbours, which Linux does not wait to be free either; see
    /// [`new_after_probe`](Self::new_after_probe).
    ///
    /// # Errors
    /// [`DirectError`] when the addresses or the device cannot be used.
    ///
    /// # Panics
    /// When no runtime is running.
    pub fn new<D: FrameDevice>(device: D, config: Config) -> Result<Self, DirectError> {
        let info = device.info();
        let (receiver, transmitter) = device.split();
        Self::start(info, receiver, transmitter, config)
    }

    /// Starts a stack over `device` after the network has been asked whether another host has the address (RFC 5227, section 2.1), which takes 4 to
    /// 7 seconds.
    ///
    /// # Errors
    /// [`DirectError::AddressInUse`] when one has, otherwise as [`new`](Self::new).
    ///
    /// # Panics
    /// When no runtime is running.
    pub async fn new_after_probe<D: FrameDevice>(device: D, config: Config) -> Result<Self, DirectError> {
        config.check()?;
        let info = device.info();
        let (mut receiver, mut transmitter) = device.split();
        arp::probe(&config.ipv4, EthernetAddress(info.mac.0), &mut receiver, &mut transmitter).await?;
        Self::start(info, receiver, transmitter, config)
    }

    fn start<R: FrameReceiver, T: FrameTransmitter>(
        info: FrameInfo,
        receiver: R,
        mut transmitter: T,
        config: Config,
    ) -> Result<Self, DirectError> {
        let mut random = [0; 3];
        for number in &mut random {
            *number = random::next_u64().map_err(|_| DirectError::Entropy)?;
        }
        log::info!("{} on {}, MTU {}, at most {} connections", config.ipv4, info.mac, info.mtu, config.max_connections);
        let engine = Engine::new(config, info, &mut transmitter, random, flow::instant(time::now()))?;
        let engine = Rc::new(RefCell::new(engine));
        let handle = Handle(Rc::clone(&engine));
        fogbow::spawn(driver::drive(engine, receiver, transmitter)).detach();
        Ok(Self(handle))
    }

    /// Starts a stack over `device` as the boot arguments say: the [`ARGUMENTS`], each with `prefix` before its name.
    ///
    /// # Errors
    /// With a message on the argument that is missing or wrong, or on the device.
    ///
    /// # Panics
    /// When no runtime is running.
    pub async fn from_arguments<D: FrameDevice>(device: D, prefix: &str) -> Result<Self, StartError> {
        let config = Config::from_arguments(prefix)?;
        let started = match arguments::parse::<YesNo>(&alloc::format!("{prefix}ipv4-probe"))? {
            YesNo(true) => Self::new_after_probe(device, config).await,
            YesNo(false) => Self::new(device, config),
        };
        started.map_err(|error| StartError::new("network", error))
    }

    /// What the stack has done and holds.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.0.with(|engine| Statistics {
            connections: engine.tcp_flows,
            handshakes: engine.half_open.len(),
            reserved: engine.time_wait.len(),
            neighbours: engine.neighbours.len(),
            tcp_memory: engine.pool.used(),
            ..engine.statistics
        })
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Direct").field(&self.statistics()).finish()
    }
}

impl Stack for Direct {
    type Listener = TcpListener;
    type Stream = TcpStream;
    type UdpSocket = DirectUdpSocket;

    fn address(&self) -> Option<Ipv4Addr> {
        Some(self.0.with(|engine| engine.config.ipv4.address))
    }

    fn listen(&self, port: u16) -> Result<TcpListener, ListenError> {
        TcpListener::new(self.0.clone(), port)
    }

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
        match remote {
            SocketAddr::V4(remote) => TcpStream::connect(self.0.clone(), remote).await,
            SocketAddr::V6(_) => Err(ConnectError::Unsupported),
        }
    }

    fn bind(&self, port: u16) -> Result<DirectUdpSocket, BindError> {
        DirectUdpSocket::bind(self.0.clone(), port)
    }
}

/// A reference to the engine that something outside of the driver holds.
#[derive(Clone)]
pub(crate) struct Handle(Rc<RefCell<Engine>>);

impl Handle {
    fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> R {
        work(&mut self.0.borrow_mut())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The other one left is the driver's.
        if Rc::strong_count(&self.0) == 2 {
            self.with(Engine::look_again);
        }
    }
}

#[cfg(test)]
mod tests;
