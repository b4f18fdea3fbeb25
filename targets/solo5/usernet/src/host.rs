//! The host's side: which address of the host's world an address of the guest's stands for, and sockets to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{DNS, GATEWAY, PREFIX_LENGTH};

/// The port of DNS (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;
/// Where the host's name servers are listed, resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where a packet from the guest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To this address of the host's world.
    To(SocketAddr),
    /// Nowhere, and the guest may be told so.
    Refused,
    /// Nowhere, without an answer: no single host has this address.
    Ignored,
}

/// How the guest's addresses lead to the host's world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    /// The guest may not open connections of its own.
    pub(crate) restrict: bool,
    /// The name server that answers at [`DNS`]; the first of resolv.conf unless given.
    pub(crate) resolver: Option<SocketAddr>,
}

impl Routes {
    /// Where packets to `remote` go.
    pub(crate) fn route(&self, remote: SocketAddrV4) -> Route {
        let address = *remote.ip();
        if remote.port() == 0 || address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback() {
            return Route::Ignored;
        }
        if self.restrict {
            return Route::Refused;
        }
        match address {
            GATEWAY => Route::To(SocketAddr::from((Ipv4Addr::LOCALHOST, remote.port()))),
            DNS if remote.port() == DNS_PORT => Route::To(self.resolver.unwrap_or_else(first_name_server)),
            _ if is_inside(address) => Route::Refused,
            _ => Route::To(remote.into()),
        }
    }
}

/// Starts a connection to `address` without waiting for it.
pub(crate) fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// A UDP socket that exchanges datagrams with `address` alone.
pub(crate) fn connect_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = if address.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    Ok(socket)
}

fn is_inside(address: Ipv4Addr) -> bool {
    let mask = u32::MAX << (u32::BITS - u32::from(PREFIX_LENGTH));
    u32::from(address) & mask == u32::from(GATEWAY) & mask
}

/// The host's first name server, read anew each time since the host may change networks.
fn first_name_server() -> SocketAddr {
    let configured = std::fs::read_to_string(RESOLV_CONF).ok().and_then(|text| parse_resolv_conf(&text));
    // What resolv.conf(5) says of a file that names none.
    SocketAddr::new(configured.unwrap_or(Ipv4Addr::LOCALHOST.into()), DNS_PORT)
}

fn parse_resolv_conf(text: &str) -> Option<IpAddr> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(routes: &Routes, remote: &str) -> Route {
        routes.route(remote.parse().expect("test address"))
    }

    fn to(address: &str) -> Route {
        Route::To(address.parse().expect("test address"))
    }

    #[test]
    fn addresses_lead_where_the_table_says() {
        let routes = Routes { restrict: false, resolver: Some("127.0.0.53:5300".parse().expect("test address")) };
        assert_eq!(route(&routes, "10.0.2.2:80"), to("127.0.0.1:80"));
        assert_eq!(route(&routes, "10.0.2.3:53"), to("127.0.0.53:5300"));
        assert_eq!(route(&routes, "192.0.2.1:443"), to("192.0.2.1:443"));
        for refused in ["10.0.2.3:80", "10.0.2.15:1", "10.0.2.77:1"] {
            assert_eq!(route(&routes, refused), Route::Refused, "{refused}");
        }
        for ignored in ["10.0.2.2:0", "127.0.0.1:1", "0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1"] {
            assert_eq!(route(&routes, ignored), Route::Ignored, "{ignored}");
        }
    }

    #[test]
    fn a_restricted_guest_gets_nowhere() {
        let routes = Routes { restrict: true, resolver: None };
        for remote in ["10.0.2.2:80", "10.0.2.3:53", "192.0.2.1:443"] {
            assert_eq!(route(&routes, remote), Route::Refused, "{remote}");
        }
    }

    #[test]
    fn the_first_readable_name_server_counts() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n";
        assert_eq!(parse_resolv_conf(text), Some(Ipv4Addr::new(192, 0, 2, 1).into()));
        assert_eq!(parse_resolv_conf("nameserver\n"), None);
    }
}
