//! The text of `--net:NAME=user,...` after the word `user`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use thiserror::Error;

/// Forwarded ports that may be named: they travel to the network's process as descriptors in one message, for which Linux allows 253
/// (`SCM_MAX_FD`, unix(7)).
pub const MAX_FORWARDS: usize = 128;

/// The smallest MTU: what every IPv4 host must accept (RFC 791, section 3.1).
pub const MIN_MTU: usize = 576;
/// The largest MTU: the largest multiple of eight for which packet and Ethernet header stay below 64 KiB.
pub const MAX_MTU: usize = 65520;
/// The MTU unless told otherwise: Ethernet's (RFC 894).
pub const DEFAULT_MTU: usize = 1500;

/// What the user asked of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Ports of the host that lead to the guest, in the order given.
    pub forwards: Vec<Forward>,
    /// The largest IP packet on the link, in bytes, Ethernet header not counted.
    pub mtu: usize,
    /// Whether the guest is kept from opening connections of its own; forwarded ports still work.
    pub restrict: bool,
}

/// A transport protocol that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One `hostfwd=`: a port of the host that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: Protocol,
    /// Where the host listens. Port 0 lets the host choose one; [`crate::Spawned::forwards`] tells which.
    pub host: SocketAddrV4,
    /// The guest's port.
    pub guest_port: u16,
}

/// Why an option text was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// A key that does not exist, or a key without `=`.
    #[error(
        "user network: unknown option {0:?}; accepted are hostfwd=[tcp:|udp:][HOSTADDR:]HOSTPORT:GUESTPORT, mtu=BYTES and restrict=on|off"
    )]
    UnknownOption(String),
    /// A `hostfwd` of another shape.
    #[error(
        "user network: cannot read hostfwd={text:?}: {reason}; write hostfwd=[tcp:|udp:][HOSTADDR:]HOSTPORT:GUESTPORT, for example hostfwd=8080:80 or hostfwd=udp:127.0.0.1:5353:53"
    )]
    Forward {
        /// The text after `hostfwd=`.
        text: String,
        /// Which part of it is wrong, and why.
        reason: String,
    },
    /// The same port of the host twice.
    #[error("user network: hostfwd={0:?} takes a host address and port that an earlier hostfwd already took; choose another host port")]
    DuplicateForward(String),
    /// More forwards than [`MAX_FORWARDS`].
    #[error("user network: more than {MAX_FORWARDS} hostfwd options; leave some out")]
    TooManyForwards,
    /// An MTU that is no number or out of range.
    #[error("user network: mtu={0:?} is not a number of bytes from {MIN_MTU} to {MAX_MTU}")]
    Mtu(String),
    /// A `restrict` that is neither on nor off.
    #[error("user network: restrict={0:?} is neither on nor off")]
    Restrict(String),
}

impl Default for Options {
    fn default() -> Self {
        Options { forwards: Vec::new(), mtu: DEFAULT_MTU, restrict: false }
    }
}

impl Options {
    /// Reads options separated by commas: any number of `hostfwd=[tcp:|udp:][HOSTADDR:]HOSTPORT:GUESTPORT`, `mtu=BYTES`, `restrict=on|off`.
    ///
    /// The protocol is TCP unless named and the host address 127.0.0.1, so that nothing is open to other machines unless asked for (`0.0.0.0`).
    /// Empty text is the default network, and one comma may stand in front (what is left of `user,hostfwd=...` after the word `user`).
    ///
    /// # Errors
    /// [`ParseError`] names the part that was not understood and what is accepted.
    ///
    /// ```
    /// use fogbow_usernet::{Options, Protocol};
    /// let options = Options::parse("hostfwd=8080:80,hostfwd=udp:127.0.0.1:5353:53")?;
    /// assert_eq!(options.forwards[0].host.to_string(), "127.0.0.1:8080");
    /// assert_eq!(options.forwards[1].protocol, Protocol::Udp);
    /// # Ok::<(), fogbow_usernet::ParseError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut options = Options::default();
        let text = text.strip_prefix(',').unwrap_or(text);
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("hostfwd", value)) => options.add_forward(value)?,
                Some(("mtu", value)) => options.mtu = parse_mtu(value)?,
                Some(("restrict", "on")) => options.restrict = true,
                Some(("restrict", "off")) => options.restrict = false,
                Some(("restrict", value)) => return Err(ParseError::Restrict(value.into())),
                _ => return Err(ParseError::UnknownOption(part.into())),
            }
        }
        Ok(options)
    }

    fn add_forward(&mut self, text: &str) -> Result<(), ParseError> {
        let forward: Forward = text.parse()?;
        let taken = |other: &Forward| other.protocol == forward.protocol && other.host == forward.host;
        if forward.host.port() != 0 && self.forwards.iter().any(taken) {
            return Err(ParseError::DuplicateForward(text.into()));
        }
        if self.forwards.len() == MAX_FORWARDS {
            return Err(ParseError::TooManyForwards);
        }
        self.forwards.push(forward);
        Ok(())
    }
}

/// The text that [`Options::parse`] reads back to the same options.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mtu={},restrict={}", self.mtu, if self.restrict { "on" } else { "off" })?;
        self.forwards.iter().try_for_each(|forward| write!(f, ",hostfwd={forward}"))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.protocol, self.host, self.guest_port)
    }
}

impl FromStr for Forward {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |reason: String| ParseError::Forward { text: text.into(), reason };
        let (protocol, rest) = match text.split_once(':') {
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("udp", rest)) => (Protocol::Udp, rest),
            _ => (Protocol::Tcp, text),
        };
        let parts: Vec<&str> = rest.split(':').collect();
        let (address, host_port, guest_port) = match parts[..] {
            [host_port, guest_port] => (Ipv4Addr::LOCALHOST, host_port, guest_port),
            [address, host_port, guest_port] => {
                let address = address.parse().map_err(|_| refuse(format!("{address:?} is neither tcp, udp nor an IPv4 address")))?;
                (address, host_port, guest_port)
            }
            [_] => return Err(refuse("the guest's port is missing".into())),
            _ => return Err(refuse("it has too many parts".into())),
        };
        let host_port = host_port.parse().map_err(|_| refuse(format!("host port {host_port:?} is not a number from 0 to 65535")))?;
        let guest_port = match guest_port.parse() {
            Ok(port) if port != 0 => port,
            _ => return Err(refuse(format!("guest port {guest_port:?} is not a number from 1 to 65535"))),
        };
        Ok(Forward { protocol, host: SocketAddrV4::new(address, host_port), guest_port })
    }
}

fn parse_mtu(value: &str) -> Result<usize, ParseError> {
    match value.parse() {
        Ok(mtu) if (MIN_MTU..=MAX_MTU).contains(&mtu) => Ok(mtu),
        _ => Err(ParseError::Mtu(value.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forward(protocol: Protocol, host: &str, guest_port: u16) -> Forward {
        Forward { protocol, host: host.parse().expect("test address"), guest_port }
    }

    #[test]
    fn reads_every_form_of_forward() {
        let options = Options::parse("hostfwd=8080:80,hostfwd=tcp:127.0.0.1:8081:81,hostfwd=udp:5353:53,hostfwd=0.0.0.0:1:2,mtu=9000")
            .expect("valid");
        assert_eq!(
            options.forwards,
            [
                forward(Protocol::Tcp, "127.0.0.1:8080", 80),
                forward(Protocol::Tcp, "127.0.0.1:8081", 81),
                forward(Protocol::Udp, "127.0.0.1:5353", 53),
                forward(Protocol::Tcp, "0.0.0.0:1", 2),
            ]
        );
        assert_eq!((options.mtu, options.restrict), (9000, false));
    }

    #[test]
    fn empty_text_and_a_leading_comma_are_fine() {
        assert_eq!(Options::parse(""), Ok(Options::default()));
        assert_eq!(Options::parse(",hostfwd=1:2"), Options::parse("hostfwd=1:2"));
    }

    #[test]
    fn errors_name_the_part_and_the_syntax() {
        for (text, part) in [
            ("hostfwd=8080", "guest's port is missing"),
            ("hostfwd=8080:0", "guest port \"0\""),
            ("hostfwd=99999:80", "host port \"99999\""),
            ("hostfwd=sctp:1:2", "\"sctp\" is neither"),
            ("hostfwd=tcp:1.2.3.4:5:6:7", "too many parts"),
            ("hostfwd=1:2,hostfwd=1:3", "\"1:3\""),
            ("hostfwd=1:2,", "unknown option \"\""),
            ("hostwd=1:2", "\"hostwd=1:2\""),
            ("mtu=12", "\"12\""),
            ("restrict=maybe", "\"maybe\""),
        ] {
            let message = Options::parse(text).expect_err(text).to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn the_number_of_forwards_is_bounded() {
        let text = (0..=MAX_FORWARDS).map(|n| format!("hostfwd={}:80", n + 1)).collect::<Vec<_>>().join(",");
        assert_eq!(Options::parse(&text), Err(ParseError::TooManyForwards));
    }

    prop_compose! {
        fn any_forward()(udp: bool, address: u32, host_port: u16, guest_port in 1..=u16::MAX) -> Forward {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            Forward { protocol, host: SocketAddrV4::new(address.into(), host_port), guest_port }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "([a-z]{0,7}=?)?[0-9a-z.:,= -]{0,40}") {
            let _ = Options::parse(&text);
        }

        #[test]
        fn display_and_parse_are_inverse(forward in any_forward(), mtu in MIN_MTU..=MAX_MTU, restrict: bool) {
            let options = Options { forwards: vec![forward], mtu, restrict };
            prop_assert_eq!(Options::parse(&options.to_string()), Ok(options));
        }
    }
}
