//! UDP through edge-nal's traits.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use edge_nal::io::ErrorType;
use edge_nal::{MulticastV4, MulticastV6, Readable, UdpReceive, UdpSend, UdpSplit, UdpSplitMulticast};

use super::Error;
use crate::stack::UdpSocket;

/// The longest datagram there can be: IPv4's 65,535 bytes less its header and UDP's.
const LONGEST_DATAGRAM: usize = 65_507;

/// A UDP socket.
pub struct Datagrams<U> {
    socket: U,
    /// The only peer it receives from.
    peer: Option<SocketAddr>,
    /// A datagram received before it was asked for.
    ahead: Option<(Vec<u8>, SocketAddr)>,
}

async fn receive<U: UdpSocket>(socket: &U, peer: Option<SocketAddr>, into: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
    loop {
        let (length, from) = socket.receive_from(into).await?;
        if peer.is_none_or(|peer| peer == from) {
            return Ok((length, from));
        }
    }
}

impl<U: UdpSocket> Datagrams<U> {
    pub(super) fn new(socket: U, peer: Option<SocketAddr>) -> Self {
        Self { socket, peer, ahead: None }
    }

    fn halves(&mut self) -> (ReceiveHalf<'_, U>, SendHalf<'_, U>) {
        (ReceiveHalf { socket: &self.socket, peer: self.peer, ahead: &mut self.ahead }, SendHalf(&self.socket))
    }
}

impl<U> ErrorType for Datagrams<U> {
    type Error = Error;
}

impl<U: UdpSocket> UdpReceive for Datagrams<U> {
    async fn receive(&mut self, into: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        self.halves().0.receive(into).await
    }
}

impl<U: UdpSocket> UdpSend for Datagrams<U> {
    async fn send(&mut self, remote: SocketAddr, data: &[u8]) -> Result<(), Error> {
        self.halves().1.send(remote, data).await
    }
}

impl<U: UdpSocket> Readable for Datagrams<U> {
    async fn readable(&mut self) -> Result<(), Error> {
        self.halves().0.readable().await
    }
}

impl<U: UdpSocket> UdpSplit for Datagrams<U> {
    type Receive<'a>
        = ReceiveHalf<'a, U>
    where
        Self: 'a;
    type Send<'a>
        = SendHalf<'a, U>
    where
        Self: 'a;

    fn split(&mut self) -> (ReceiveHalf<'_, U>, SendHalf<'_, U>) {
        self.halves()
    }
}

impl<U: UdpSocket> UdpSplitMulticast for Datagrams<U> {
    type MulticastV4<'a>
        = NoMulticast
    where
        Self: 'a;
    type MulticastV6<'a>
        = NoMulticast
    where
        Self: 'a;

    fn split_multicast(&mut self) -> (ReceiveHalf<'_, U>, SendHalf<'_, U>, NoMulticast, NoMulticast) {
        let (receive, send) = self.halves();
        (receive, send, NoMulticast, NoMulticast)
    }
}

/// The half of [`Datagrams`] that receives.
pub struct ReceiveHalf<'a, U> {
    socket: &'a U,
    peer: Option<SocketAddr>,
    ahead: &'a mut Option<(Vec<u8>, SocketAddr)>,
}

/// The half of [`Datagrams`] that sends.
pub struct SendHalf<'a, U>(&'a U);

impl<U> ErrorType for ReceiveHalf<'_, U> {
    type Error = Error;
}

impl<U> ErrorType for SendHalf<'_, U> {
    type Error = Error;
}

impl<U: UdpSocket> UdpReceive for ReceiveHalf<'_, U> {
    async fn receive(&mut self, into: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        match self.ahead.take() {
            Some((datagram, from)) => {
                let length = datagram.len().min(into.len());
                into[..length].copy_from_slice(&datagram[..length]);
                Ok((length, from))
            }
            None => receive(self.socket, self.peer, into).await,
        }
    }
}

impl<U: UdpSocket> Readable for ReceiveHalf<'_, U> {
    async fn readable(&mut self) -> Result<(), Error> {
        if self.ahead.is_none() {
            let mut datagram = vec![0; LONGEST_DATAGRAM];
            let (length, from) = receive(self.socket, self.peer, &mut datagram).await?;
            datagram.truncate(length);
            datagram.shrink_to_fit();
            *self.ahead = Some((datagram, from));
        }
        Ok(())
    }
}

impl<U: UdpSocket> UdpSend for SendHalf<'_, U> {
    async fn send(&mut self, remote: SocketAddr, data: &[u8]) -> Result<(), Error> {
        Ok(self.0.send_to(data, remote).await?)
    }
}

/// What stands where edge-nal asks for multicast: every call fails.
#[derive(Clone, Copy, Debug)]
pub struct NoMulticast;

impl ErrorType for NoMulticast {
    type Error = Error;
}

macro_rules! no_multicast {
    ($($type:ty $(where $bound:ident)?),+) => {$(
        impl $(<$bound>)? MulticastV4 for $type {
            async fn join_v4(&mut self, _: Ipv4Addr, _: Ipv4Addr) -> Result<(), Error> {
                Err(Error::UNSUPPORTED)
            }

            async fn leave_v4(&mut self, _: Ipv4Addr, _: Ipv4Addr) -> Result<(), Error> {
                Err(Error::UNSUPPORTED)
            }
        }

        impl $(<$bound>)? MulticastV6 for $type {
            async fn join_v6(&mut self, _: Ipv6Addr, _: u32) -> Result<(), Error> {
                Err(Error::UNSUPPORTED)
            }

            async fn leave_v6(&mut self, _: Ipv6Addr, _: u32) -> Result<(), Error> {
                Err(Error::UNSUPPORTED)
            }
        }
    )+};
}

no_multicast!(NoMulticast, Datagrams<U> where U);
