//! The gateway's ports, from which forwarded connections seem to come.

use std::net::SocketAddrV4;

use crate::GATEWAY;
use crate::frame::FlowKey;

/// The first port used: below are the well-known ones (RFC 6335, section 6).
const FIRST: u16 = 1024;

/// Gives out the ports in turn, so that one is not used again while the guest may still remember it.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    cursor: u16,
}

impl Ports {
    /// A key for a flow between the guest's end `guest` and a port of the gateway for which `in_use` says no.
    ///
    /// There must be fewer flows than ports.
    pub(crate) fn take(&mut self, guest: SocketAddrV4, in_use: impl Fn(&FlowKey) -> bool) -> FlowKey {
        loop {
            self.cursor = self.cursor.checked_add(1).unwrap_or(FIRST).max(FIRST);
            let key = FlowKey { guest, remote: SocketAddrV4::new(GATEWAY, self.cursor) };
            if !in_use(&key) {
                return key;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_go_round_and_skip_those_in_use() {
        let guest = SocketAddrV4::new(crate::GUEST, 80);
        let mut ports = Ports { cursor: u16::MAX - 1 };
        let taken: Vec<u16> = (0..3).map(|_| ports.take(guest, |key| key.remote.port() == FIRST).remote.port()).collect();
        assert_eq!(taken, [u16::MAX, FIRST + 1, FIRST + 2]);
    }
}
