//! Network devices: through the ring that the tender shares with the image where it offers one, by a hypercall per frame otherwise.
//!
//! Under Fogbow's own tender frames have virtio's header, by which the host cuts and puts together segments and completes checksums; under Solo5's
//! they are plain.

use alloc::boxed::Box;
use alloc::vec;
use core::task::{Context, Poll};

use fogbow_net::frame::virtio::Framing;
use fogbow_net::frame::{Checksums, Finish, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter};
use fogbow_solo5::manifest::Device;

use crate::hypercall;
use crate::platform::Guest;

/// The part of the heap that a device's buffers on the ring may take, each way, and how many bytes at most: of the largest frames the fewest buffers
/// are enough.
const BUDGET: (usize, usize) = (16, 256 * 1024);

/// How often the ring's room is looked at, 50 µs apart after the first few, before a frame is given up: the tender is stuck then.
const LOOKS_FOR_ROOM: u32 = 2000;

/// Looks for room that follow each other at once.
const QUICK_LOOKS: u32 = 1000;

/// A network device of the tender's.
pub struct Net {
    info: FrameInfo,
    framing: Framing,
    handle: u8,
    guest: &'static Guest,
}

impl Net {
    /// `None` when `device` is no usable network device.
    pub(crate) fn new(guest: &'static Guest, device: &Device) -> Option<Self> {
        let (info, framing) = device.properties.ok()?.frames()?;
        Some(Self { info, framing, handle: device.handle, guest })
    }
}

impl FrameDevice for Net {
    type Receiver = Receiver;
    type Transmitter = Transmitter;

    fn info(&self) -> FrameInfo {
        self.info
    }

    fn split(self) -> (Receiver, Transmitter) {
        let Self { info, framing, handle, guest } = self;
        let size = framing.header() + info.largest_received();
        let buffer = || vec![0; size].into_boxed_slice();
        let index = guest.frames().map(|mut frames| frames.add(handle, size, (guest.heap_size / BUDGET.0).min(BUDGET.1)));
        let source = index.map_or_else(|| Source::Hypercalls(buffer()), Source::Ring);
        (Receiver { handle, guest, framing, source }, Transmitter { handle, guest, framing, index, buffer: buffer() })
    }
}

/// The half of a [`Net`] that takes frames from the wire.
pub struct Receiver {
    handle: u8,
    guest: &'static Guest,
    framing: Framing,
    source: Source,
}

/// Where frames come from.
enum Source {
    /// A hypercall for each, into this buffer.
    Hypercalls(Box<[u8]>),
    /// The ring, where the device has this index.
    Ring(usize),
}

impl FrameReceiver for Receiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R> {
        match &mut self.source {
            Source::Hypercalls(buffer) => match hypercall::net_read(self.handle.into(), buffer) {
                Ok(Some(length)) => {
                    let (frame, checksums) = self.framing.open(buffer.get_mut(..length)?);
                    Some(consume(frame, checksums))
                }
                // Nothing waits, or the tender has lost the interface: either way it says when that changes.
                Ok(None) | Err(_) => {
                    self.guest.readiness.clear(self.handle);
                    None
                }
            },
            Source::Ring(index) => {
                let framing = self.framing;
                receive_from_ring(self.guest, *index, |given| {
                    let (frame, checksums) = framing.open(given);
                    consume(frame, checksums)
                })
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Source::Ring(index) = self.source {
            self.guest.collect();
            if self.guest.frames().is_some_and(|mut frames| frames.may_hold(index)) {
                return Poll::Ready(());
            }
            self.guest.readiness.clear(self.handle);
        }
        self.guest.readiness.poll(self.handle, context)
    }
}

fn receive_from_ring<R>(guest: &'static Guest, index: usize, consume: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
    guest.collect();
    let (arrived, doorbell) = guest.frames()?.receive(index);
    if doorbell {
        hypercall::ring_doorbell();
    }
    let arrived = arrived?;
    // SAFETY: the buffer is this function's until it is given back below. The lock is not held, since `consume` may send.
    let result = consume(unsafe { arrived.buffer.bytes(arrived.length) });
    guest.frames()?.give_back(index, arrived);
    Some(result)
}

/// The half of a [`Net`] that puts frames on the wire. Without a ring each goes out at once.
pub struct Transmitter {
    handle: u8,
    guest: &'static Guest,
    framing: Framing,
    /// The device's index on the ring.
    index: Option<usize>,
    /// For frames that go by hypercall, and for those that are lost.
    buffer: Box<[u8]>,
}

impl FrameTransmitter for Transmitter {
    /// On a full ring this waits for the tender, whose thread works on it: nothing else would tell when there is room again.
    fn has_room(&mut self) -> bool {
        let Some(index) = self.index else { return true };
        for look in 0..LOOKS_FOR_ROOM {
            let Some(mut frames) = self.guest.frames() else { return false };
            if frames.out_buffer(index).is_some() {
                return true;
            }
            if frames.is_broken() {
                return false;
            }
            drop(frames);
            if look == 0 {
                self.flush();
            } else if look < QUICK_LOOKS {
                core::hint::spin_loop();
            } else {
                self.guest.nap();
            }
        }
        false
    }

    fn transmit<R>(&mut self, length: usize, finish: Finish, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let (length, limit) = (self.framing.header() + length, self.buffer.len());
        assert!(length <= limit, "a frame of {length} bytes with its header does not fit into the device's buffer of {limit}");
        let Some(index) = self.index else {
            let buffer = &mut self.buffer[..length];
            let result = fill(self.framing.begin(buffer, finish));
            // A frame that the tender refuses is lost, as on a wire.
            let _ = hypercall::net_write(self.handle.into(), buffer);
            return result;
        };
        let buffer = if self.has_room() { self.guest.frames().and_then(|mut frames| frames.out_buffer(index)) } else { None };
        let Some(buffer) = buffer else { return fill(self.framing.begin(&mut self.buffer[..length], finish)) };
        // SAFETY: the buffer is this transmitter's until it is sent. The lock is not held, since `fill` is code of others.
        let result = fill(self.framing.begin(unsafe { buffer.bytes(length) }, finish));
        if let Some(mut frames) = self.guest.frames() {
            frames.send(index, length);
        }
        result
    }

    fn flush(&mut self) {
        if self.guest.frames().is_some_and(|mut frames| frames.publish()) {
            hypercall::ring_doorbell();
        }
    }
}
