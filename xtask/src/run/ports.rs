//! Ports of the host.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use crate::manifest::Serves;

/// How many ports are tried.
const ATTEMPTS: u16 = 100;

/// True when nothing on the host has the port.
pub(super) fn is_free(port: u16, serves: Serves) -> bool {
    let tcp = !serves.tcp || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let udp = !serves.udp || UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    tcp && udp
}

/// A free port of the host for a port of the guest: the same one, or one above 8000 where that would need privilege (8080 for 80, 8443 for 443),
/// or the next free one after it.
pub(super) fn choose(guest: u16, serves: Serves, is_free: impl Fn(u16, Serves) -> bool) -> Option<u16> {
    let wanted = match guest {
        80 => 8080,
        0..1024 => 8000 + guest,
        _ => guest,
    };
    (wanted..=u16::MAX).take(ATTEMPTS.into()).find(|port| is_free(*port, serves))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Serves = Serves { tcp: true, udp: false, http: false };

    #[test]
    fn ports_need_no_privilege_and_are_free() {
        assert_eq!(choose(80, TCP, |_, _| true), Some(8080));
        assert_eq!(choose(443, TCP, |_, _| true), Some(8443));
        assert_eq!(choose(7, TCP, |_, _| true), Some(8007));
        assert_eq!(choose(9000, TCP, |port, _| port != 9000), Some(9001));
        assert_eq!(choose(65535, TCP, |_, _| false), None);
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port, TCP));
        drop(listener);
        assert!(is_free(port, TCP));
    }
}
