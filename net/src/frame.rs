//! The frame device: what moves Ethernet frames between an image and the wire.
//!
//! A device is split into a receiver and a transmitter, as its queues are, so that a stack can answer a frame while it still looks at it in
//! place. Frames begin at the Ethernet header and end before the frame check sequence.

use core::fmt;
use core::task::{Context, Poll};

/// The Ethernet header that frames carry besides their MTU's worth of payload, in bytes (IEEE 802.3: two addresses and a type).
pub const ETHERNET_HEADER: usize = 14;

/// An Ethernet hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// The device's own address.
    pub mac: MacAddress,
    /// The largest payload of a frame in bytes, Ethernet header not counted: 1500 on plain Ethernet.
    pub mtu: usize,
}

/// A network device that carries Ethernet frames.
pub trait FrameDevice: 'static {
    /// The half that takes frames from the wire.
    type Receiver: FrameReceiver;
    /// The half that puts frames on the wire.
    type Transmitter: FrameTransmitter;

    /// The device's address and limits, which do not change.
    fn info(&self) -> FrameInfo;

    /// Splits the device into its halves.
    fn split(self) -> (Self::Receiver, Self::Transmitter);
}

/// The half of a [`FrameDevice`] that takes frames from the wire.
pub trait FrameReceiver: 'static {
    /// Takes the next frame that has arrived and hands it to `consume`, in place where the device's memory allows. `None` when no frame waits.
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8]) -> R) -> Option<R>;

    /// Ready when a frame may be waiting; otherwise the task is woken when that is so. Ready too often is allowed, too seldom is not.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// The half of a [`FrameDevice`] that puts frames on the wire.
pub trait FrameTransmitter: 'static {
    /// True when the device can take another frame now.
    fn has_room(&mut self) -> bool;

    /// Sends a frame of `length` bytes, which `fill` writes; the bytes it is given have unspecified contents. The device may hold the frame back until
    /// [`flush`](Self::flush). When the device has no room after all the frame is lost, as on a wire.
    ///
    /// # Panics
    /// When `length` is more than the device's MTU and the Ethernet header together.
    fn transmit<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R;

    /// Puts all frames held back on the wire.
    fn flush(&mut self);
}
