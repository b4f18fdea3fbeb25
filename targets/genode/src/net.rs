//! Network devices: a Nic session, whose frames the library copies from and to a buffer of the device's own.

use alloc::boxed::Box;
use alloc::vec;
use core::task::{Context, Poll};

use fogbow_net::frame::{Checksums, ETHERNET_HEADER, Finish, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter};
use fogbow_solo5::manifest::Device;

use crate::library;
use crate::platform::Guest;

/// Bytes of a VLAN tag (IEEE 802.1Q), which a frame may carry beyond its MTU.
const VLAN_TAG: usize = 4;

/// A network device of the manifest.
#[derive(Debug)]
pub struct Net {
    info: FrameInfo,
    handle: u8,
    guest: &'static Guest,
}

impl Net {
    /// `None` when `device` is no usable network device.
    pub(crate) fn new(guest: &'static Guest, device: &Device) -> Option<Self> {
        let (info, _) = device.properties.ok()?.frames()?;
        Some(Self { info, handle: device.handle, guest })
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
        let receiver = Receiver { handle: self.handle, guest: self.guest, buffer: self.buffer() };
        let transmitter = Transmitter { handle: self.handle, limit: self.info.mtu + ETHERNET_HEADER, buffer: self.buffer() };
        (receiver, transmitter)
    }
}

/// The half of a [`Net`] that takes frames from the wire.
///
/// The library signals a frame that arrives, not one that waits: the device counts as ready until it has been found empty.
#[derive(Debug)]
pub struct Receiver {
    handle: u8,
    guest: &'static Guest,
    buffer: Box<[u8]>,
}

impl FrameReceiver for Receiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R> {
        // SAFETY: a device's handle is the one that the library gave for it: see `boot`.
        match unsafe { library::net_read(self.handle.into(), &mut self.buffer) } {
            Some(length) => self.buffer.get_mut(..length).map(|frame| consume(frame, Checksums::Unknown)),
            None => {
                self.guest.readiness.clear(self.handle);
                None
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.guest.readiness.poll(self.handle, context)
    }
}

/// The half of a [`Net`] that puts frames on the wire. Each goes out at once; one that the session has no room for is lost.
#[derive(Debug)]
pub struct Transmitter {
    handle: u8,
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
        // A frame that the session does not take is lost, as on a wire.
        // SAFETY: as in `receive`.
        let _ = unsafe { library::net_write(self.handle.into(), frame) };
        result
    }

    fn flush(&mut self) {}
}
