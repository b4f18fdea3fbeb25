//! The link to the guest: one Ethernet frame is one message on a non-blocking socket.
//!
//! A frame that the full socket refuses is held back, and while one is held TCP stops sending, so that nothing is lost on the way to a slow guest.
//! Packets that cannot wait (replies, UDP) queue up behind it, up to a bound, and are dropped beyond, as on a real link.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

use crate::frame::Reply;
use crate::{ETHERNET_HEADER, GATEWAY_MAC};

/// Frames held back while the socket is full.
const MAX_HELD: usize = 64;

/// The link, and what is known of the guest at its other end.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    mtu: usize,
    guest: Option<EthernetAddress>,
    outgoing: Vec<u8>,
    held: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

/// What reading the link gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A frame of so many bytes.
    Frame(usize),
    /// An oversized frame, or news of the other end; there may be more.
    Nothing,
    /// An empty message, or the other end is closed: the wait tells them apart.
    Empty,
    /// No more for now.
    WouldBlock,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd, mtu: usize) -> Self {
        let outgoing = vec![0; ETHERNET_HEADER + mtu];
        Link { socket, mtu, guest: None, outgoing, held: VecDeque::with_capacity(MAX_HELD), spare: Vec::new() }
    }

    /// Bytes of the largest frame, and one more so that a larger one is noticed.
    pub(crate) fn receive_buffer(&self) -> Vec<u8> {
        vec![0; ETHERNET_HEADER + self.mtu + 1]
    }

    /// Reads one frame into `buffer`, which [`Link::receive_buffer`] made.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => Ok(Received::Empty),
            Ok((length, _)) if length >= buffer.len() => Ok(Received::Nothing),
            Ok((length, _)) => Ok(Received::Frame(length)),
            Err(Errno::AGAIN) => Ok(Received::WouldBlock),
            // A reset says that the guest left frames unread; what it sent can still be read.
            Err(Errno::INTR | Errno::CONNRESET) => Ok(Received::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the guest's Ethernet address is known, so that packets can be sent to it.
    pub(crate) fn knows_guest(&self) -> bool {
        self.guest.is_some()
    }

    /// Remembers the guest's Ethernet address; tells whether it was not known before.
    pub(crate) fn learn_guest(&mut self, address: EthernetAddress) -> bool {
        self.guest.replace(address).is_none()
    }

    /// Whether frames wait for the socket to become writable.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.held.is_empty()
    }

    /// Sends a reply, or holds it back, or drops it if too much is held already or it exceeds the MTU.
    pub(crate) fn send(&mut self, reply: &Reply<'_>) {
        if reply.len() <= self.mtu {
            self.send_packet(reply.protocol(), reply.len(), |packet| reply.emit(packet));
        }
    }

    /// Sends what is held back, as far as the socket takes it.
    pub(crate) fn flush(&mut self) {
        while let Some(frame) = self.held.pop_front() {
            if self.write(&frame) {
                self.spare.push(frame);
            } else {
                self.held.push_front(frame);
                break;
            }
        }
    }

    /// This link as smoltcp's device, with `packet`, if any, as what it receives next.
    pub(crate) fn device<'a>(&'a mut self, packet: Option<&'a [u8]>) -> Device<'a> {
        Device { link: self, packet }
    }

    fn send_packet<R>(&mut self, protocol: EthernetProtocol, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let end = (ETHERNET_HEADER + length).min(outgoing.len());
        let mut frame = EthernetFrame::new_unchecked(&mut outgoing[..end]);
        frame.set_dst_addr(self.guest.unwrap_or(EthernetAddress::BROADCAST));
        frame.set_src_addr(EthernetAddress(GATEWAY_MAC));
        frame.set_ethertype(protocol);
        let result = fill(frame.payload_mut());
        if (self.is_blocked() || !self.write(&outgoing[..end])) && self.held.len() < MAX_HELD {
            let mut held = self.spare.pop().unwrap_or_default();
            held.clear();
            held.extend_from_slice(&outgoing[..end]);
            self.held.push_back(held);
        }
        self.outgoing = outgoing;
        result
    }

    /// Writes one frame; `false` if the socket is full. Any other failure loses the frame: a link that is gone shows on reading.
    fn write(&self, frame: &[u8]) -> bool {
        !matches!(rustix::net::send(&self.socket, frame, SendFlags::NOSIGNAL), Err(Errno::AGAIN))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The link as smoltcp sees it: a device for IP packets.
///
/// The Ethernet header is ours to add: there is one neighbour only, so smoltcp need not keep a table of them.
#[derive(Debug)]
pub(crate) struct Device<'a> {
    link: &'a mut Link,
    packet: Option<&'a [u8]>,
}

/// The right to send one packet.
#[derive(Debug)]
pub(crate) struct SendToken<'a>(&'a mut Link);

/// One packet received.
#[derive(Debug)]
pub(crate) struct ReceiveToken<'a>(&'a [u8]);

impl phy::Device for Device<'_> {
    type RxToken<'a>
        = ReceiveToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = SendToken<'a>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(ReceiveToken<'_>, SendToken<'_>)> {
        self.packet.take().map(|packet| (ReceiveToken(packet), SendToken(self.link)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<SendToken<'_>> {
        (!self.link.is_blocked()).then_some(SendToken(self.link))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.link.mtu;
        capabilities
    }
}

impl phy::TxToken for SendToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        self.0.send_packet(EthernetProtocol::Ipv4, length, fill)
    }
}

impl phy::RxToken for ReceiveToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}
