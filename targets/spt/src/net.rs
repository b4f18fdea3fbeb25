//! Network devices: one system call per frame, from and to a buffer of the device's own.
//!
//! Under Fogbow's own tender frames have virtio's header, by which the host cuts and puts together segments and completes checksums; under Solo5's
//! they are plain.

use alloc::boxed::Box;
use alloc::vec;
use core::task::{Context, Poll};

use fogbow_net::frame::virtio::Framing;
use fogbow_net::frame::{Checksums, Finish, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter};
use fogbow_solo5::manifest::Device;

use crate::platform::{self, Guest};
use crate::system::{self, Descriptor};

/// A network device of the tender's.
#[derive(Debug)]
pub struct Net {
    info: FrameInfo,
    framing: Framing,
    handle: u8,
    descriptor: Descriptor,
    guest: &'static Guest,
}

impl Net {
    /// `None` when `device` is no usable network device.
    pub(crate) fn new(guest: &'static Guest, device: &Device) -> Option<Self> {
        let (info, framing) = device.properties.ok()?.frames()?;
        Some(Self { info, framing, handle: device.handle, descriptor: Descriptor(device.host_descriptor), guest })
    }

    fn buffer(&self, frame: usize) -> Box<[u8]> {
        vec![0; self.framing.header() + frame].into_boxed_slice()
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
        let Self { info, framing, handle, descriptor, guest } = self;
        let receiver = Receiver { descriptor, handle, guest, framing, buffer: self.buffer(info.largest_received()) };
        (receiver, Transmitter { descriptor, framing, buffer: self.buffer(info.largest_sent()) })
    }
}

/// The half of a [`Net`] that takes frames from the wire.
#[derive(Debug)]
pub struct Receiver {
    descriptor: Descriptor,
    handle: u8,
    guest: &'static Guest,
    framing: Framing,
    buffer: Box<[u8]>,
}

impl FrameReceiver for Receiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R> {
        match system::read(self.descriptor, &mut self.buffer) {
            // A tap gives no empty frame: the network's process behind the descriptor has ended, and the descriptor stays ready for ever.
            Ok(0) => platform::network_is_gone(),
            Ok(length) => {
                let (frame, checksums) = self.framing.open(self.buffer.get_mut(..length)?);
                Some(consume(frame, checksums))
            }
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
    framing: Framing,
    buffer: Box<[u8]>,
}

impl FrameTransmitter for Transmitter {
    fn has_room(&mut self) -> bool {
        true
    }

    fn transmit<R>(&mut self, length: usize, finish: Finish, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let (whole, limit) = (self.framing.header() + length, self.buffer.len());
        assert!(whole <= limit, "a frame of {length} bytes does not fit into the device's buffer of {limit}");
        let buffer = &mut self.buffer[..whole];
        let result = fill(self.framing.begin(buffer, finish));
        // A frame that the host does not take is lost, as on a wire.
        let _ = system::write(self.descriptor, buffer);
        result
    }

    fn flush(&mut self) {}
}
