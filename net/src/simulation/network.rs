//! Direct stacks at a switch.

use core::net::{Ipv4Addr, SocketAddr};

use super::Switch;
use crate::direct::{Config, Direct, Ipv4Cidr};
use crate::frame::Offload;

/// The MTU of plain Ethernet (IEEE 802.3).
const MTU: usize = 1500;

/// A network 10.0.0.0/24 of direct stacks.
#[derive(Clone, Default)]
pub struct Network(Switch);

impl Network {
    /// A network without stacks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The switch that joins the stacks.
    #[must_use]
    pub fn switch(&self) -> &Switch {
        &self.0
    }

    /// The address and `port` of the stack that is called `host`: 10.0.0.`host`.
    #[must_use]
    pub fn at(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from((Self::address(host), port))
    }

    /// A stack with the address 10.0.0.`host` and the limits of [`Config::new`].
    ///
    /// # Panics
    /// When `host` is 0 or 255, and when no runtime is running.
    #[must_use]
    pub fn stack(&self, host: u8) -> Direct {
        self.stack_with(Self::config(host))
    }

    /// What [`stack`](Self::stack) begins with, for tests that change a part of it.
    ///
    /// # Panics
    /// When no runtime is running.
    #[must_use]
    pub fn config(host: u8) -> Config {
        Config::new(Ipv4Cidr { address: Self::address(host), prefix_length: 24 })
    }

    /// A stack with the address and the limits of `config`.
    ///
    /// # Panics
    /// When the address is not one of a host, and when no runtime is running.
    #[must_use]
    pub fn stack_with(&self, config: Config) -> Direct {
        self.stack_offloading(config, Offload::default())
    }

    /// As [`stack_with`](Self::stack_with), over a device that offers `offload`.
    ///
    /// # Panics
    /// As it does.
    #[must_use]
    pub fn stack_offloading(&self, config: Config, offload: Offload) -> Direct {
        match Direct::new(self.0.device_with(MTU, offload), config) {
            Ok(stack) => stack,
            Err(error) => panic!("a stack at a switch in memory: {error}"),
        }
    }

    fn address(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, host)
    }
}
