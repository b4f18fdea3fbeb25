//! The frame device: what moves Ethernet frames between an image and the wire.
//!
//! A device is split into a receiver and a transmitter, as its queues are, so that a stack can answer a frame while it still looks at it in
//! place. Frames begin at the Ethernet header and end before the frame check sequence.
//!
//! A device may offer to do a part of TCP's work ([`Offload`]): then frames are sent with what it is to [`Finish`], and arrive with what it says of
//! their [`Checksums`]. A device that offers nothing is asked for nothing.

#[cfg(any(test, feature = "simulation"))]
pub(crate) mod software;
pub mod virtio;

use core::fmt;
use core::task::{Context, Poll};

/// The Ethernet header that frames carry besides their MTU's worth of payload, in bytes (IEEE 802.3: two addresses and a type).
pub const ETHERNET_HEADER: usize = 14;

/// Where a TCP header has its checksum (RFC 9293, section 3.1).
pub(crate) const TCP_CHECKSUM: usize = 16;

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
    /// What the device can do besides.
    pub offload: Offload,
}

/// Bytes of a VLAN tag (IEEE 802.1Q), which a frame that arrives may carry beyond its MTU.
const VLAN_TAG: usize = 4;

impl FrameInfo {
    /// Bytes of the largest frame that can be sent.
    #[must_use]
    pub fn largest_sent(&self) -> usize {
        ETHERNET_HEADER + self.mtu.max(self.offload.segmentation)
    }

    /// Bytes of the largest frame that can arrive.
    #[must_use]
    pub fn largest_received(&self) -> usize {
        ETHERNET_HEADER + VLAN_TAG + self.mtu.max(self.offload.reassembly)
    }
}

/// The largest IPv4 packet in bytes: what its length field can say (RFC 791, section 3.1).
pub const LARGEST_PACKET: usize = 65_535;

/// What a device does for a stack beyond carrying whole frames of at most its MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// It completes the TCP and UDP checksums of frames that are sent with [`Finish::Checksum`].
    pub checksum: bool,
    /// The largest IP packet in bytes that it takes with [`Finish::Segments`] and cuts into TCP segments, its headers included: more than the MTU and
    /// at most [`LARGEST_PACKET`], or 0 when it cuts none. A device that does completes checksums too.
    pub segmentation: usize,
    /// The largest IP packet in bytes that may arrive, TCP segments that the device has put together: more than the MTU and at most
    /// [`LARGEST_PACKET`], or 0 when it puts none together.
    pub reassembly: usize,
}

impl Offload {
    /// Everything, to the largest packet.
    pub const FULL: Self = Self { checksum: true, segmentation: LARGEST_PACKET, reassembly: LARGEST_PACKET };
}

/// What a device is to do with a frame before it sends it. Positions are bytes from the beginning of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// Nothing: the frame is whole.
    #[default]
    Nothing,
    /// Sum what is from `start` to the frame's end, as the internet checksum does (RFC 1071), and put its complement to `field`. The field holds the
    /// sum of the pseudo-header, which is so taken in.
    Checksum {
        /// Where the TCP or UDP header begins.
        start: usize,
        /// Where the checksum is.
        field: usize,
    },
    /// Cut the one TCP segment over IPv4 that the frame holds into several, each with the frame's headers as becomes it and with its checksums.
    Segments {
        /// Where the TCP header begins.
        start: usize,
        /// Bytes of all headers together: where the payload begins.
        headers: usize,
        /// Bytes of payload in each segment; the last may have less.
        payload: usize,
    },
}

/// What a device says of the checksum in an arriving frame's TCP or UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checksums {
    /// Nothing: it has to be verified.
    Unknown,
    /// It was right; or the frame has been on no wire, and what the field holds means nothing.
    Verified,
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
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R>;

    /// Ready when a frame may be waiting; otherwise the task is woken when that is so. Ready too often is allowed, too seldom is not.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// The half of a [`FrameDevice`] that puts frames on the wire.
pub trait FrameTransmitter: 'static {
    /// True when the device can take another frame now.
    fn has_room(&mut self) -> bool;

    /// Sends a frame of `length` bytes, which `fill` writes; the bytes it is given have unspecified contents. The device does what `finish` says if
    /// that is what it offers ([`FrameInfo::offload`]); no other may be asked for. It may hold the frame back until [`flush`](Self::flush). When the
    /// device has no room after all the frame is lost, as on a wire.
    ///
    /// # Panics
    /// When `length` is more than the Ethernet header and the device's MTU, or the largest packet that it cuts, together.
    fn transmit<R>(&mut self, length: usize, finish: Finish, fill: impl FnOnce(&mut [u8]) -> R) -> R;

    /// Puts all frames held back on the wire.
    fn flush(&mut self);
}
