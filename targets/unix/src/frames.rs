//! A tap interface as a frame device.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use fogbow_net::frame::ETHERNET_HEADER;
use fogbow_net::{Checksums, Finish, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter};

use crate::reactor::{Direction, Watched};

/// A descriptor that gives and takes one Ethernet frame per system call.
pub struct Net {
    info: FrameInfo,
    descriptor: Rc<Watched<OwnedFd>>,
}

impl Net {
    pub(crate) fn new(descriptor: OwnedFd, info: FrameInfo) -> io::Result<Self> {
        Ok(Self { info, descriptor: Rc::new(Watched::new(descriptor)?) })
    }
}

impl FrameDevice for Net {
    type Receiver = NetReceiver;
    type Transmitter = NetTransmitter;

    fn info(&self) -> FrameInfo {
        self.info
    }

    fn split(self) -> (NetReceiver, NetTransmitter) {
        let length = self.info.mtu + ETHERNET_HEADER;
        (
            NetReceiver { descriptor: Rc::clone(&self.descriptor), frame: vec![0; length] },
            NetTransmitter { descriptor: self.descriptor, frame: vec![0; length] },
        )
    }
}

/// The half of a [`Net`] that reads frames.
pub struct NetReceiver {
    descriptor: Rc<Watched<OwnedFd>>,
    frame: Vec<u8>,
}

impl FrameReceiver for NetReceiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R> {
        match rustix::io::read(self.descriptor.io(), &mut self.frame[..]) {
            Ok(length) if length > 0 => Some(consume(&mut self.frame[..length], Checksums::Unknown)),
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
    frame: Vec<u8>,
}

impl FrameTransmitter for NetTransmitter {
    fn has_room(&mut self) -> bool {
        true
    }

    fn transmit<R>(&mut self, length: usize, _: Finish, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let frame = &mut self.frame[..length];
        let result = fill(frame);
        // A tap that takes no frame loses it, as a wire does.
        let _ = rustix::io::write(self.descriptor.io(), frame);
        result
    }

    fn flush(&mut self) {}
}
