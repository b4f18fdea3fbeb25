//! A tap interface as a frame device.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use fogbow_net::frame::virtio::Framing;
use fogbow_net::{Checksums, Finish, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter};

use crate::reactor::{Direction, Watched};

/// A descriptor that gives and takes one Ethernet frame per system call.
pub struct Net {
    info: FrameInfo,
    framing: Framing,
    descriptor: Rc<Watched<OwnedFd>>,
}

impl Net {
    pub(crate) fn new(descriptor: OwnedFd, info: FrameInfo, framing: Framing) -> io::Result<Self> {
        Ok(Self { info, framing, descriptor: Rc::new(Watched::new(descriptor)?) })
    }
}

impl FrameDevice for Net {
    type Receiver = NetReceiver;
    type Transmitter = NetTransmitter;

    fn info(&self) -> FrameInfo {
        self.info
    }

    fn split(self) -> (NetReceiver, NetTransmitter) {
        let Self { info, framing, descriptor } = self;
        let buffer = |frame| vec![0; framing.header() + frame];
        (
            NetReceiver { descriptor: Rc::clone(&descriptor), framing, buffer: buffer(info.largest_received()) },
            NetTransmitter { descriptor, framing, buffer: buffer(info.largest_sent()) },
        )
    }
}

/// The half of a [`Net`] that reads frames.
pub struct NetReceiver {
    descriptor: Rc<Watched<OwnedFd>>,
    framing: Framing,
    buffer: Vec<u8>,
}

impl FrameReceiver for NetReceiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R> {
        match rustix::io::read(self.descriptor.io(), &mut self.buffer[..]) {
            Ok(length) if length > 0 => {
                let (frame, checksums) = self.framing.open(&mut self.buffer[..length]);
                Some(consume(frame, checksums))
            }
            // Nothing waits, or the interface is down: in either case the next event tells.
            _ => {
                self.descriptor.clear_ready(Direction::Read);
                None
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.descriptor.poll_ready(Direction::Read, context)
    }
}

/// The half of a [`Net`] that writes frames.
pub struct NetTransmitter {
    descriptor: Rc<Watched<OwnedFd>>,
    framing: Framing,
    buffer: Vec<u8>,
}

impl FrameTransmitter for NetTransmitter {
    fn has_room(&mut self) -> bool {
        true
    }

    fn transmit<R>(&mut self, length: usize, finish: Finish, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let buffer = &mut self.buffer[..self.framing.header() + length];
        let result = fill(self.framing.begin(buffer, finish));
        // A tap that takes no frame loses it, as a wire does.
        let _ = rustix::io::write(self.descriptor.io(), buffer);
        result
    }

    fn flush(&mut self) {}
}
