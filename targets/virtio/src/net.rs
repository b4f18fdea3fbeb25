//! Network devices (virtio 1.2, section 5.1).
//!
//! Frames are used where the device put them and written where it takes them from: buffers are slots of equal size in a row, and a frame that takes
//! several lies in one piece all the same: with a TCP segment of 64 KiB, put together by the host (`VIRTIO_NET_F_GUEST_TSO4`), nothing is copied. Receive buffers are posted as soon as their frame has been looked at, and the device is told in batches;
//! sent ones are taken back when room is short, so that neither way costs an interrupt while there is work.
//!
//! Limits: one pair of queues; no control queue, so that all multicast frames that the host lets through arrive; the link's state is not looked at.

use virtio_spec::net::F;

use fogbow_net::frame::{FrameDevice, FrameInfo, LARGEST_PACKET, MacAddress, Offload};

use crate::guest::Guest;
use crate::queue::Queue;
use crate::transport::{Setup, SetupError, Transport};

mod receive;
mod transmit;

pub use receive::Receiver;
pub use transmit::Transmitter;

/// Bytes of the header before each frame (`struct virtio_net_hdr`, section 5.1.6).
const HEADER: usize = 12;

/// Bytes of a slot, where frames may take several: an Ethernet frame and its header in one.
const SLOT: usize = 2048;

/// Where the MTU stands in the configuration, which begins with the hardware address (section 5.1.4).
const MTU_FIELD: usize = 10;

/// The MTU of a device that does not say.
const MTU: usize = 1500;

/// The least MTU that IPv4 works with (RFC 791, section 3.2).
const LEAST_MTU: usize = 68;

/// Frames of the largest size that must fit each way before segments are put together and cut by the device.
const LARGE_FRAMES: usize = 2;

/// The part of the heap that a device's buffers may take, each way.
const BUDGET: usize = 16;

/// Queues (section 5.1.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// What is agreed on with a device.
#[derive(Clone, Copy, Debug)]
struct Terms {
    info: FrameInfo,
    /// A frame may lie in several buffers.
    merges: bool,
    /// Bytes of a slot, and the most slots, each way.
    slot: usize,
    slots: usize,
}

/// A network device.
pub struct Net {
    guest: &'static Guest,
    terms: Terms,
    receive: Queue,
    transmit: Queue,
}

fn bits(feature: F) -> u64 {
    feature.bits().to_ne() as u64
}

impl Net {
    pub(crate) fn new(guest: &'static Guest, transport: &'static dyn Transport) -> Result<Self, SetupError> {
        let budget = guest.heap_size / BUDGET;
        let mut setup = Setup::new(transport, |offered| wanted(offered, budget))?;
        let terms = terms(&setup, budget)?;
        let (receive, transmit) = (setup.queue(RECEIVE)?, setup.queue(TRANSMIT)?);
        guest.add(setup.finish());
        Ok(Self { guest, terms, receive, transmit })
    }
}

/// The features that are wanted of those `offered`, for buffers of `budget` bytes each way.
fn wanted(offered: u64, budget: usize) -> u64 {
    let merges = bits(F::MRG_RXBUF);
    let received = bits(F::GUEST_CSUM | F::GUEST_TSO4);
    let sent = bits(F::CSUM | F::HOST_TSO4);
    let mut wanted = bits(F::MAC | F::MTU | F::GUEST_CSUM | F::CSUM) | merges;
    let has_memory = budget / SLOT >= LARGE_FRAMES * slots_for(LARGEST_PACKET);
    // Without merging, each buffer would have to hold the largest frame.
    if has_memory && offered & (received | merges) == received | merges {
        wanted |= received;
    }
    if has_memory && offered & sent == sent {
        wanted |= sent;
    }
    wanted
}

/// Slots that the largest frame with an IP packet of `packet` bytes takes.
const fn slots_for(packet: usize) -> usize {
    // The Ethernet header and a VLAN tag.
    (HEADER + 18 + packet).div_ceil(SLOT)
}

fn terms(setup: &Setup, budget: usize) -> Result<Terms, SetupError> {
    if !setup.has(bits(F::MAC)) {
        return Err(SetupError::Nonsense("it has no hardware address"));
    }
    let (mac, mtu) = setup.configuration(|device| {
        let mtu = setup.has(bits(F::MTU)).then(|| usize::from(device.configuration16(MTU_FIELD)));
        (MacAddress(core::array::from_fn(|offset| device.configuration8(offset))), mtu.unwrap_or(MTU))
    })?;
    if mtu < LEAST_MTU {
        return Err(SetupError::Nonsense("its MTU is too small for IPv4"));
    }
    let whole = |feature| if setup.has(bits(feature)) && mtu < LARGEST_PACKET { LARGEST_PACKET } else { 0 };
    let offload = Offload { checksum: setup.has(bits(F::CSUM)), segmentation: whole(F::HOST_TSO4), reassembly: whole(F::GUEST_TSO4) };
    let info = FrameInfo { mac, mtu, offload };
    let merges = setup.has(bits(F::MRG_RXBUF));
    let slot = if merges { SLOT } else { (HEADER + info.largest_received()).next_multiple_of(64).max(SLOT) };
    let largest = HEADER + info.largest_received().max(info.largest_sent());
    Ok(Terms { info, merges, slot, slots: (budget / slot).max(2 * largest.div_ceil(slot)) })
}

impl FrameDevice for Net {
    type Receiver = Receiver;
    type Transmitter = Transmitter;

    fn info(&self) -> FrameInfo {
        self.terms.info
    }

    fn split(self) -> (Receiver, Transmitter) {
        let Self { guest, terms, receive, transmit } = self;
        let watch = guest.watch(receive.ring());
        (Receiver::new(receive, &terms, guest, watch), Transmitter::new(transmit, &terms, guest))
    }
}
