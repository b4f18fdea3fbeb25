//! Network devices (virtio 1.2, section 5.1).
//!
//! Frames are used where the device put them and written where it takes them from: buffers are slots of equal size in a row, and a frame that takes
//! several lies in one piece all the same. Receive buffers are posted as soon as their frame has been looked at, and the device is told in batches;
//! sent ones are taken back when room is short, so that neither way costs an interrupt while there is work.
//!
//! Limits: one pair of queues; no control queue, so that all multicast frames that the host lets through arrive; the link's state is not looked at.

use virtio_spec::net::F;

use fogbow_net::frame::{FrameDevice, FrameInfo, MacAddress};

use crate::guest::Guest;
use crate::queue::Queue;
use crate::transport::{Setup, SetupError, Transport};

mod receive;
mod transmit;

pub use receive::Receiver;
pub use transmit::Transmitter;

/// Bytes of the header before each frame (`struct virtio_net_hdr`, section 5.1.6).
const HEADER: usize = 12;

/// Bytes of a VLAN tag (IEEE 802.1Q), which a frame may carry beyond its MTU.
const VLAN_TAG: usize = 4;

/// Bytes of a slot, where frames may take several: an Ethernet frame and its header in one.
const SLOT: usize = 2048;

/// The MTU of a device that does not say (section 5.1.4).
const MTU: usize = 1500;

/// The least MTU that IPv4 works with (RFC 791, section 3.2).
const LEAST_MTU: usize = 68;

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
    /// The largest frame in bytes, its header not counted, each way.
    largest_received: usize,
    largest_sent: usize,
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
    pub(crate) fn new(guest: &'static Guest, transport: &dyn Transport) -> Result<Self, SetupError> {
        let setup = Setup::new(transport, bits(F::MAC | F::MTU | F::MRG_RXBUF))?;
        let terms = terms(&setup, guest.heap_size)?;
        let (receive, transmit) = (setup.queue(RECEIVE)?, setup.queue(TRANSMIT)?);
        setup.finish();
        Ok(Self { guest, terms, receive, transmit })
    }
}

fn terms(setup: &Setup<'_>, heap: usize) -> Result<Terms, SetupError> {
    if !setup.has(bits(F::MAC)) {
        return Err(SetupError::Nonsense("it has no hardware address"));
    }
    let configuration: [u8; 12] = setup.configuration()?;
    let [a, b, c, d, e, f, .., low, high] = configuration;
    let mtu = if setup.has(bits(F::MTU)) { usize::from(u16::from_le_bytes([low, high])) } else { MTU };
    if mtu < LEAST_MTU {
        return Err(SetupError::Nonsense("its MTU is too small for IPv4"));
    }
    let info = FrameInfo { mac: MacAddress([a, b, c, d, e, f]), mtu };
    let merges = setup.has(bits(F::MRG_RXBUF));
    let largest = mtu + fogbow_net::frame::ETHERNET_HEADER + VLAN_TAG;
    let slot = if merges { SLOT } else { (HEADER + largest).next_multiple_of(64).max(SLOT) };
    let slots = (heap / BUDGET / slot).max(2 * (HEADER + largest).div_ceil(slot));
    Ok(Terms { info, merges, largest_received: largest, largest_sent: largest, slot, slots })
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
