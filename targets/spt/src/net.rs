//! Network devices: one system call per frame, from and to a buffer of the device's own.

use alloc::boxed::Box;
use alloc::vec;
use core::task::{Context, Poll};

use fogbow_net::frame::{Checksums, ETHERNET_HEADER, Finish, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter, Offload};
use fogbow_solo5::manifest::{Device, Properties};

use crate::platform::{self, Guest};
use crate::system::{self, Descriptor};

/// Bytes of a VLAN tag (IEEE 802.1Q), which a frame may carry beyond its MTU.
const VLAN_TAG: usize = 4;

/// A network device of the tender's.
#[derive(Debug)]
pub struct Net {
    info: FrameInfo,
    handle: u8,
    descriptor: Descriptor,
    guest: &'static Guest,
}

impl Net {
    /// `None` when `device` is no usable network device.
    pub(crate) fn new(guest: &'static Guest, device: &Device) -> Option<Self> {
        match device.properties {
            Ok(Properties::Net { mac, mtu }) => Some(Self {
                info: FrameInfo { mac, mtu: usize::from(mtu), offload: Offload::default() },
                handle: device.handle,
                descriptor: Descriptor(device.host_descriptor),
                guest,
            }),
            _ => None,
        }
    }

    fn buffer(&self) -> Box<[u8]> {
        vec![0; self.info.mtu + ETHERNET_HEADER + VLAN_TAG].into_boxed_slice()
    }
}

impl FrameDevice for Net {
    type Receiver = Receiver;
    type Transmitter = Transmitter;

    fn info(&self) -> FrameInfo {
        self.info
    }

    fn split(self) -> (Receiver, Transmitter) {
        self.guest.set_receiving(self.handle, true);
        let receiver = Receiver { descriptor: self.descriptor, handle: self.handle, guest: self.guest, buffer: self.buffer() };
        let transmitter = Transmitter { descriptor: self.descriptor, limit: self.info.mtu + ETHERNET_HEADER, buffer: self.buffer() };
        (receiver, transmitter)
    }
}

/// The half of a [`Net`] that takes frames from the wire.
#[derive(Debug)]
pub struct Receiver {
    descriptor: Descriptor,
    handle: u8,
    guest: &'static Guest,
    buffer: Box<[u8]>,
}

impl FrameReceiver for Receiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R> {
        match system::read(self.descriptor, &mut self.buffer) {
            // A tap gives no empty frame: the network's process behind the descriptor has ended, and the descriptor stays ready for ever.
            Ok(0) => platform::network_is_gone(),
            Ok(length) => self.buffer.get_mut(..length).map(|frame| consume(frame, Checksums::Unknown)),
            // Nothing waits, or the host has taken the interface away: either way the host says when that changes.
            Err(_) => {
                self.guest.readiness.clear(self.handle);
                None
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.guest.readiness.poll(self.handle, context)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.guest.set_receiving(self.handle, false);
    }
}

/// The half of a [`Net`] that puts frames on the wire. Each goes out at once; one that the host has no room for is lost.
#[derive(Debug)]
pub struct Transmitter {
    descriptor: Descriptor,
    limit: usize,
    buffer: Box<[u8]>,
}

impl FrameTransmitter for Transmitter {
    fn has_room(&mut self) -> bool {
        true
    }

    fn transmit<R>(&mut self, length: usize, _: Finish, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        assert!(length <= self.limit, "a frame of {length} bytes exceeds the device's {}", self.limit);
        let frame = &mut self.buffer[..length];
        let result = fill(frame);
        // A frame that the host does not take is lost, as on a wire.
        let _ = system::write(self.descriptor, frame);
        result
    }

    fn flush(&mut self) {}
}
