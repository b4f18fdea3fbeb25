//! What a direct stack can be told, and the limits it keeps.

use alloc::string::{String, ToString};
use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

use fogbow::StartError;
use fogbow::arguments::{self, Argument, ArgumentError, YesNo};
use fogbow::platform;
use fogbow::time::Duration;

/// The boot arguments of a direct stack; with several stacks in an image each has a prefix of its own.
pub const ARGUMENTS: &[Argument] = &[
    Argument::new::<Ipv4Cidr>("ipv4", "the stack's IPv4 address and prefix length, such as 10.0.0.2/24")
        .valued("ADDRESS/LENGTH")
        .required(),
    Argument::new::<YesNo>(
        "ipv4-probe",
        "yes asks the network for 4 to 7 seconds whether another host has the address, and ends the image if one has",
    )
    .valued("YES|NO")
    .default("no"),
    Argument::new::<Ipv4Addr>("ipv4-gateway", "the router to addresses outside of the own network, such as 10.0.0.1").valued("ADDRESS"),
    Argument::new::<usize>(
        "tcp-buffer",
        "bytes buffered per TCP connection and direction at most, 2048 to 1048576; grows from 4096 to the most when left out",
    )
    .valued("BYTES"),
    Argument::new::<usize>("tcp-memory", "bytes that TCP connections may use together, from 65536; half of the free memory when left out")
        .valued("BYTES"),
    Argument::new::<usize>("max-connections", "TCP connections served at once at most; as many as memory allows when left out")
        .valued("NUMBER"),
];

/// The smallest and the largest buffer of a connection that can be asked for, in bytes. Less than 2048 cannot hold a segment of plain Ethernet; more
/// than 1 MiB no longer helps any path this stack has been measured on.
const TCP_BUFFER_LIMITS: core::ops::RangeInclusive<usize> = 2048..=1024 * 1024;
/// What connections may use together at least and at most, in bytes: two dozen of the smallest, and as much as a 64-bit machine has.
const TCP_MEMORY_LIMITS: core::ops::RangeInclusive<usize> = 65536..=1 << 40;
/// What connections buffer when nothing is said: a page of text at least, and the most that can be asked for.
const TCP_BUFFER_AUTOMATIC: (usize, usize) = (4096, 1024 * 1024);
/// Places for connections that a server which can choose whom to end leaves to new ones at most.
const MOST_KEPT_FREE: usize = 64;
/// What buffers may use where the target cannot tell how much memory there is: an ordinary process.
const TCP_MEMORY_UNKNOWN: usize = 256 * 1024 * 1024;

/// An address of the stack with the length of its network's prefix, written `10.0.0.2/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Cidr {
    /// The stack's own address.
    pub address: Ipv4Addr,
    /// How many leading bits of the address name its network, 0 to 32.
    pub prefix_length: u8,
}

impl Ipv4Cidr {
    /// Whether `other` is in the same network, so that frames reach it without a router.
    #[must_use]
    pub fn contains(&self, other: Ipv4Addr) -> bool {
        (self.address.to_bits() ^ other.to_bits()) & self.mask() == 0
    }

    /// The address that reaches every host of the network; none where the network has at most two addresses (RFC 3021).
    #[must_use]
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        (self.prefix_length < 31).then(|| Ipv4Addr::from_bits(self.address.to_bits() | !self.mask()))
    }

    fn mask(&self) -> u32 {
        u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(self.prefix_length))).unwrap_or(0)
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

/// A text that is no address with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4CidrError;

impl fmt::Display for Ipv4CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write an IPv4 address and a prefix length from 0 to 32, such as 10.0.0.2/24")
    }
}

impl core::error::Error for Ipv4CidrError {}

impl FromStr for Ipv4Cidr {
    type Err = Ipv4CidrError;

    fn from_str(text: &str) -> Result<Self, Ipv4CidrError> {
        let (address, length) = text.split_once('/').ok_or(Ipv4CidrError)?;
        let address = address.parse().map_err(|_| Ipv4CidrError)?;
        let prefix_length = length.parse().map_err(|_| Ipv4CidrError)?;
        if prefix_length > 32 { Err(Ipv4CidrError) } else { Ok(Self { address, prefix_length }) }
    }
}

/// How a connection reacts to lost segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// Send as much as the peer's window allows: only for a link that is the image's own, such as a tap to the host.
    None,
    /// RFC 5681: share the path with others.
    Reno,
    /// RFC 9438: share it as most hosts do today, and use long fast paths better.
    #[default]
    Cubic,
}

/// How a direct stack behaves. Start from [`Config::new`] and change what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The stack's address and network.
    pub ipv4: Ipv4Cidr,
    /// The router to other networks, which must be in the stack's own; without one they cannot be reached.
    pub gateway: Option<Ipv4Addr>,
    /// TCP connections at most, of all kinds together. A connection request beyond that is dropped without an answer, so that the peer tries again.
    pub max_connections: usize,
    /// Memory for TCP connections in bytes. A request that would exceed it is dropped likewise.
    pub tcp_memory: usize,
    /// The least and the most that a connection buffers per direction, in bytes, rounded up to powers of two. Each is sure of the least; beyond that
    /// buffers take memory as they fill, and grow with the connection's rate while there is enough: by an eighth of what is left at most.
    pub tcp_buffer: (usize, usize),
    /// Connections of a listener that wait to be accepted, at most. While they are that many requests are dropped.
    pub backlog: usize,
    /// Connections in their handshake at most, all listeners together; no more than a quarter of `max_connections` when there are that many
    /// connections of all kinds. When they are that many, a new request is answered with a SYN cookie (RFC 4987, section 3.6): nothing is remembered of
    /// it, a flood of requests that are never completed locks nobody out, and connections that are made meanwhile lack window scaling, time stamps and
    /// selective acknowledgements.
    pub half_open: usize,
    /// How long a peer may take to complete its handshake.
    pub handshake_timeout: Duration,
    /// How long [`connect`](crate::Stack::connect) waits for an answer.
    pub connect_timeout: Duration,
    /// After how much silence a peer is asked whether it is still there.
    pub keep_alive: Duration,
    /// After how much silence, despite of questions or unacknowledged data, a connection fails. Must be longer than `keep_alive`.
    pub timeout: Duration,
    /// How long a connection that was dropped by the application may take to deliver what was written and to be closed by the peer.
    pub linger: Duration,
    /// How long the address pair of a connection that this end closed first stays reserved: twice the time that a segment can live (RFC 9293,
    /// section 3.6.1), as BSD and Linux take it.
    pub time_wait: Duration,
    /// Address pairs reserved like that at most; the oldest gives way. A record takes some 40 bytes.
    pub time_wait_records: usize,
    /// What a UDP socket can hold per direction, in bytes. Datagrams beyond that are dropped.
    pub udp_buffer: usize,
    /// How connections react to loss.
    pub congestion_control: CongestionControl,
    /// The shortest wait before a segment that is not acknowledged is repeated. RFC 6298, section 2.4, recommends a second; Linux waits 200 ms, and
    /// less makes copies of what peers acknowledge late.
    pub least_rto: Duration,
    /// Neighbours whose hardware addresses are remembered at most. A record takes some 60 bytes.
    pub neighbours: usize,
}

impl Config {
    /// A stack with the address `ipv4`, its limits chosen from the memory that is free now: TCP connections may use half of it, and at most as many
    /// connections are served as fit with the smallest buffers in half of that. A connection buffers between 4 KiB and 1 MiB per direction.
    ///
    /// # Panics
    /// When no runtime is running.
    #[must_use]
    pub fn new(ipv4: Ipv4Cidr) -> Self {
        let memory = platform::memory();
        let tcp_memory = match memory.heap.saturating_sub(memory.used) / 2 {
            0 => TCP_MEMORY_UNKNOWN,
            half => half,
        };
        let mut config = Self {
            ipv4,
            gateway: None,
            max_connections: 0,
            tcp_memory,
            tcp_buffer: TCP_BUFFER_AUTOMATIC,
            backlog: 1024,
            half_open: 0,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(45),
            timeout: Duration::from_secs(120),
            linger: Duration::from_secs(60),
            time_wait: Duration::from_secs(60),
            time_wait_records: (tcp_memory / 4096).clamp(64, 8192),
            udp_buffer: (tcp_memory / 128).clamp(4096, 128 * 1024),
            congestion_control: CongestionControl::Cubic,
            least_rto: Duration::from_millis(200),
            neighbours: (tcp_memory / 4096).clamp(256, 4096),
        };
        config.set_tcp_buffer(TCP_BUFFER_AUTOMATIC);
        config
    }

    /// Sets the buffers of a connection, and the number of connections to what fits with the least in half of the memory.
    pub fn set_tcp_buffer(&mut self, buffer: (usize, usize)) {
        self.tcp_buffer = buffer;
        self.set_max_connections(self.tcp_memory / 2 / crate::tcp::cost(buffer.0));
    }

    /// Sets the number of connections, and the same, 1024 at most, as the number of those in their handshake.
    pub fn set_max_connections(&mut self, connections: usize) {
        self.max_connections = connections;
        self.half_open = connections.clamp(1, 1024);
    }

    /// How many connections an application may hold while there is room for handshakes still.
    pub(super) fn capacity(&self) -> usize {
        let most = self.max_connections.min(self.tcp_memory / crate::tcp::cost(self.tcp_buffer.0));
        most.saturating_sub((most / 16).clamp(1, MOST_KEPT_FREE)).max(1)
    }

    /// Reads the [`ARGUMENTS`], each with `prefix` before its name.
    ///
    /// # Errors
    /// With a message on the argument that is missing or cannot be understood.
    ///
    /// # Panics
    /// When no runtime is running.
    pub fn from_arguments(prefix: &str) -> Result<Self, StartError> {
        let name = |name: &str| alloc::format!("{prefix}{name}");
        let mut config = Self::new(arguments::parse(&name("ipv4"))?);
        config.gateway = arguments::parse_optional(&name("ipv4-gateway"))?;
        if let Some(memory) = bounded(&name("tcp-memory"), TCP_MEMORY_LIMITS)? {
            config.tcp_memory = memory;
            config.set_tcp_buffer(config.tcp_buffer);
        }
        if let Some(size) = bounded(&name("tcp-buffer"), TCP_BUFFER_LIMITS)? {
            config.set_tcp_buffer((size.min(TCP_BUFFER_AUTOMATIC.0), size));
        }
        if let Some(connections) = bounded(&name("max-connections"), 1..=1_000_000)? {
            config.set_max_connections(connections);
        }
        Ok(config)
    }

    /// What cannot work.
    pub(super) fn check(&self) -> Result<(), DirectError> {
        let Ipv4Cidr { address, prefix_length } = self.ipv4;
        if prefix_length > 32 || !is_host(address) || self.ipv4.broadcast() == Some(address) {
            return Err(DirectError::Address);
        }
        match self.gateway {
            Some(gateway) if !self.ipv4.contains(gateway) || !is_host(gateway) || gateway == address => Err(DirectError::Gateway),
            _ => Ok(()),
        }
    }
}

/// Whether `address` can be that of one host.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast())
}

/// The argument `name` as a number within `limits`.
fn bounded(name: &str, limits: core::ops::RangeInclusive<usize>) -> Result<Option<usize>, ArgumentError> {
    match arguments::parse_optional::<usize>(name)? {
        Some(value) if !limits.contains(&value) => Err(ArgumentError::Invalid {
            name: String::from(name),
            value: value.to_string(),
            reason: alloc::format!("must be between {} and {}", limits.start(), limits.end()),
        }),
        value => Ok(value),
    }
}

/// Why a direct stack cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectError {
    /// The address is not one of a host.
    Address,
    /// The gateway is not another host of the stack's own network.
    Gateway,
    /// Another host has the address.
    AddressInUse,
    /// The device's own address is not one of a single device.
    HardwareAddress,
    /// The device's frames are too short or longer than any Ethernet.
    Mtu,
    /// The target has no entropy: sequence numbers and hash tables would be predictable.
    Entropy,
}

impl fmt::Display for DirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "the IPv4 address is not one of a host: give an address such as 10.0.0.2/24",
            Self::Gateway => "the gateway is not another host of the stack's own network: check both addresses and the prefix length",
            Self::AddressInUse => "another host of the network has the IPv4 address: give this stack one of its own",
            Self::HardwareAddress => "the network device's hardware address is a group address: give the device one of its own",
            Self::Mtu => "the network device's MTU is not between 576 and 9000 bytes",
            Self::Entropy => "the target offers no entropy, which sequence numbers need: give the machine RDRAND or a random device",
        })
    }
}

impl core::error::Error for DirectError {}

#[cfg(test)]
mod tests {
    use super::*;
    use fogbow::arguments::Group;
    use fogbow::simulation::Simulation;

    const GROUP: Group = Group { prefix: "a-", arguments: ARGUMENTS };

    fn read<const N: usize>(words: [&str; N]) -> Result<Config, StartError> {
        Simulation::new(1).with_arguments(&[GROUP], words).block_on(async { Config::from_arguments("a-") })
    }

    #[test]
    fn arguments_make_a_config() {
        let config = read(["--a-ipv4=10.0.0.2/24", "--a-ipv4-gateway=10.0.0.1", "--a-tcp-buffer=8192", "--a-max-connections=50"]).unwrap();
        assert_eq!(config.ipv4.to_string(), "10.0.0.2/24");
        assert_eq!(config.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!((config.tcp_buffer, config.max_connections), ((4096, 8192), 50));
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn mistakes_in_arguments_are_named() {
        for (words, part) in [
            (["--a-ipv4=10.0.0.2/24", "--a-tcp-buffer=1"], "--a-tcp-buffer=1: must be between"),
            (["--a-ipv4=10.0.0.2/24", "--a-max-connections=0"], "--a-max-connections=0: must be between"),
        ] {
            let error = read(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn impossible_addresses_are_refused() {
        let check = |address: &str, gateway: Option<&str>| {
            let (address, gateway) = (address.parse().unwrap(), gateway.map(|gateway| gateway.parse().unwrap()));
            Simulation::new(1).block_on(async move { Config { gateway, ..Config::new(address) }.check() })
        };
        assert_eq!(check("10.0.0.2/24", Some("10.0.0.1")), Ok(()));
        assert_eq!(check("10.0.0.2/31", Some("10.0.0.3")), Ok(()));
        assert_eq!(check("0.0.0.0/24", None), Err(DirectError::Address));
        assert_eq!(check("224.0.0.1/24", None), Err(DirectError::Address));
        assert_eq!(check("10.0.0.255/24", None), Err(DirectError::Address));
        assert_eq!(check("10.0.0.2/24", Some("10.0.1.1")), Err(DirectError::Gateway));
        assert_eq!(check("10.0.0.2/24", Some("10.0.0.2")), Err(DirectError::Gateway));
    }
}
