//! What PCI and memory-mapped devices have in common, and how a device is brought up (virtio 1.2, section 3.1).

use alloc::vec::Vec;
use core::fmt;

use virtio_spec::{DeviceStatus, F};

use crate::queue::{Doorbell, LARGEST, Queue, Ring};

/// How often a device is asked whether it has been reset: real ones take some milliseconds, and a look takes a tenth of a microsecond or more.
const LOOKS: u32 = 1_000_000;

/// The way to a device's registers.
pub(crate) trait Transport: Sync {
    fn status(&self) -> u8;
    fn set_status(&self, status: u8);
    /// What the device offers.
    fn features(&self) -> u64;
    /// What the driver takes of it.
    fn accept(&self, features: u64);
    /// The most entries that queue `index` can have; 0 where there is no such queue.
    fn queue_size(&self, index: u16) -> u16;
    /// Tells the device where queue `index` lies; its interrupts are the image's one device interrupt. Gives its bell, unless the device refuses.
    fn attach(&self, index: u16, ring: &Ring) -> Option<Doorbell>;
    /// A field of the device's own configuration, which is read at its own width, 64 bits as two fields (sections 4.1.3.1 and 4.2.2.2).
    fn configuration8(&self, offset: usize) -> u8;
    fn configuration16(&self, offset: usize) -> u16;
    fn configuration32(&self, offset: usize) -> u32;
    /// A number that changes when the configuration does.
    fn generation(&self) -> u32;
}

/// Why a device cannot be brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// It does not come out of its reset.
    NoReset,
    /// It speaks the protocol that was there before virtio 1.0 alone.
    Legacy,
    /// It does not work with the features that this driver knows.
    Refused,
    /// A queue that every device of its kind has is missing, or cannot be set up.
    Queue(u16),
    /// What it says of itself makes no sense.
    Nonsense(&'static str),
    /// Its registers lie where the image cannot reach them.
    OutOfReach,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReset => f.write_str("it does not come out of its reset"),
            Self::Legacy => {
                f.write_str("it is a legacy device, from before virtio 1.0: let it be a modern or transitional one ")?;
                f.write_str("(QEMU: disable-modern=off, on microvm -global virtio-mmio.force-legacy=off)")
            }
            Self::Refused => f.write_str("it wants features that this driver does not have (QEMU: leave iommu_platform=on out)"),
            Self::Queue(index) => write!(f, "its queue {index} cannot be set up"),
            Self::Nonsense(what) => write!(f, "it says nonsense of itself: {what}"),
            Self::OutOfReach => {
                f.write_str(
                    "its registers lie where this image does not reach: the firmware gave them no address, or one beyond 128 TiB, ",
                )?;
                f.write_str("or one far from those of the other devices")
            }
        }
    }
}

impl core::error::Error for SetupError {}

/// A device under construction: reset, its features agreed on.
pub(crate) struct Setup {
    transport: &'static dyn Transport,
    features: u64,
    rings: Vec<&'static Ring>,
}

impl Setup {
    /// Resets the device and agrees on those features that it offers of which `choose` gives those that are wanted.
    pub(crate) fn new(transport: &'static dyn Transport, choose: impl FnOnce(u64) -> u64) -> Result<Self, SetupError> {
        transport.set_status(0);
        if !(0..LOOKS).any(|_| transport.status() == 0) {
            return Err(SetupError::NoReset);
        }
        let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(status.bits());
        let offered = transport.features();
        let needed = F::VERSION_1.bits().to_ne() as u64;
        if offered & needed == 0 {
            transport.set_status((status | DeviceStatus::FAILED).bits());
            return Err(SetupError::Legacy);
        }
        let general = F::EVENT_IDX.bits().to_ne() as u64;
        let features = offered & (choose(offered) | general) | needed;
        transport.accept(features);
        transport.set_status((status | DeviceStatus::FEATURES_OK).bits());
        if transport.status() & DeviceStatus::FEATURES_OK.bits() == 0 {
            transport.set_status((status | DeviceStatus::FAILED).bits());
            return Err(SetupError::Refused);
        }
        Ok(Self { transport, features, rings: Vec::new() })
    }

    pub(crate) fn has(&self, feature: u64) -> bool {
        self.features & feature == feature
    }

    /// Sets up queue `index`, as large as the device allows, up to [`LARGEST`].
    pub(crate) fn queue(&mut self, index: u16) -> Result<Queue, SetupError> {
        let error = SetupError::Queue(index);
        let size = self.transport.queue_size(index).min(LARGEST);
        // The largest power of two in it.
        let size = size.checked_ilog2().map(|exponent| 1 << exponent).ok_or(error)?;
        let has_events = self.has(F::EVENT_IDX.bits().to_ne() as u64);
        let queue = Queue::new(size, has_events, |ring| self.transport.attach(index, ring).ok_or(error))?;
        self.rings.push(queue.ring());
        Ok(queue)
    }

    /// What `read` makes of the device's configuration, all of one moment.
    pub(crate) fn configuration<T>(&self, read: impl Fn(&dyn Transport) -> T) -> Result<T, SetupError> {
        for _ in 0..LOOKS {
            let before = self.transport.generation();
            let fields = read(self.transport);
            if self.transport.generation() == before {
                return Ok(fields);
            }
        }
        Err(SetupError::Nonsense("its configuration changes all the time"))
    }

    /// Lets the device begin. It is looked at again when something about it changes.
    pub(crate) fn finish(self) -> Running {
        let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK;
        self.transport.set_status(status.bits());
        Running { transport: self.transport, rings: self.rings }
    }
}

/// A device that has begun.
#[must_use = "its queues are told of its end through the guest's list of devices"]
pub(crate) struct Running {
    transport: &'static dyn Transport,
    rings: Vec<&'static Ring>,
}

impl Running {
    /// Tells the queues if the device cannot go on. It is not reset: what its buffers held is lost either way, and a device that fails once may again.
    pub(crate) fn look(&self) {
        if self.transport.status() & DeviceStatus::DEVICE_NEEDS_RESET.bits() != 0 {
            self.rings.iter().for_each(|ring| ring.give_up());
        }
    }
}

#[cfg(test)]
mod tests;
