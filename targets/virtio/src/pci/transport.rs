//! Virtio over PCI (virtio 1.2, section 4.1), by the registers of modern devices alone.

use super::Access;
use crate::interrupts::Interrupt;
use crate::queue::{Doorbell, Ring};
use crate::transport::{SetupError, Transport};
use crate::window::Window;

/// `VIRTIO_PCI_VENDOR`.
const VENDOR: u16 = 0x1af4;

/// Device numbers: 0x1040 and the kind of device; before, those of transitional and legacy devices, whose kind the subsystem says (section 4.1.2.1).
const MODERN: u16 = 0x1040;
const FIRST: u16 = 0x1000;
const LAST: u16 = 0x107f;

/// The vendor's own capability.
const VENDOR_SPECIFIC: u8 = 0x09;

/// What a capability is of (section 4.1.4).
const COMMON_REGISTERS: u8 = 1;
const NOTIFY_REGISTERS: u8 = 2;
const INTERRUPT_REGISTERS: u8 = 3;
const DEVICE_REGISTERS: u8 = 4;

/// Registers of the common configuration (section 4.1.4.3).
const DEVICE_FEATURE_SELECT: usize = 0x00;
const DEVICE_FEATURE: usize = 0x04;
const DRIVER_FEATURE_SELECT: usize = 0x08;
const DRIVER_FEATURE: usize = 0x0c;
const CONFIGURATION_VECTOR: usize = 0x10;
const STATUS: usize = 0x14;
const GENERATION: usize = 0x15;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_SIZE: usize = 0x18;
const QUEUE_VECTOR: usize = 0x1a;
const QUEUE_ENABLE: usize = 0x1c;
const QUEUE_NOTIFY_OFFSET: usize = 0x1e;
const QUEUE_PARTS: [usize; 3] = [0x20, 0x28, 0x30];
const COMMON_SIZE: u64 = 0x38;

/// No interrupt (`VIRTIO_MSI_NO_VECTOR`).
const NO_VECTOR: u16 = 0xffff;

/// A virtio device on PCI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    common: Window,
    notify: Window,
    notify_multiplier: u32,
    interrupt_status: Window,
    configuration: Option<Window>,
    /// Messages that it may send: of the queues, and of changes.
    messages: u16,
    line: u8,
}

/// The kind of virtio device that a function is; `None` if it is none.
pub(crate) fn kind(access: &Access<'_>) -> Option<u16> {
    match access.identity() {
        (VENDOR, device @ MODERN..=LAST, _) => Some(device - MODERN),
        (VENDOR, FIRST..MODERN, subsystem) => Some(subsystem),
        _ => None,
    }
}

impl Device {
    /// Finds the registers of the virtio device at `access`, and turns it and its interrupts on.
    pub(crate) fn new(access: &Access<'_>, messages: (u64, [u32; 2])) -> Result<Self, SetupError> {
        let mut is_modern = false;
        let mut find = |kind: u8, length: u64| {
            access.capabilities(VENDOR_SPECIFIC).find_map(|at| {
                let [first, bar, offset, room] = [0, 4, 8, 12].map(|offset| access.read(at.wrapping_add(offset)));
                if (first >> 24) as u8 != kind {
                    return None;
                }
                is_modern = true;
                let length = if length == 0 { room.into() } else { length };
                let window = access.registers(bar as u8, offset.into(), length).filter(|_| length <= room.into())?;
                Some((window, access.read(at.wrapping_add(16))))
            })
        };
        let common = find(COMMON_REGISTERS, COMMON_SIZE);
        let notify = find(NOTIFY_REGISTERS, 0);
        let status = find(INTERRUPT_REGISTERS, 1);
        let configuration = find(DEVICE_REGISTERS, 0);
        let ((common, _), (notify, notify_multiplier), (interrupt_status, _)) = match (common, notify, status) {
            (Some(common), Some(notify), Some(status)) => (common, notify, status),
            _ if is_modern => return Err(SetupError::OutOfReach),
            _ => return Err(SetupError::Legacy),
        };
        access.enable(true);
        let messages = access.message_interrupts(messages);
        access.enable(messages == 0);
        let configuration = configuration.map(|(window, _)| window);
        Ok(Self { common, notify, notify_multiplier, interrupt_status, configuration, messages, line: access.line() })
    }

    /// How it interrupts.
    pub(crate) fn interrupt(&self) -> Interrupt {
        if self.messages > 0 { Interrupt::Message } else { Interrupt::Line { status: self.interrupt_status, line: self.line.into() } }
    }

    fn select(&self, queue: u16) {
        self.common.write16(QUEUE_SELECT, queue);
    }
}

impl Transport for Device {
    fn status(&self) -> u8 {
        self.common.read8(STATUS)
    }

    fn set_status(&self, status: u8) {
        self.common.write8(STATUS, status);
    }

    fn features(&self) -> u64 {
        let word = |index| {
            self.common.write32(DEVICE_FEATURE_SELECT, index);
            u64::from(self.common.read32(DEVICE_FEATURE))
        };
        word(0) | word(1) << 32
    }

    fn accept(&self, features: u64) {
        for (index, word) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.common.write32(DRIVER_FEATURE_SELECT, index);
            self.common.write32(DRIVER_FEATURE, word);
        }
    }

    fn queue_size(&self, index: u16) -> u16 {
        self.select(index);
        self.common.read16(QUEUE_SIZE)
    }

    fn attach(&self, index: u16, ring: &Ring) -> Option<Doorbell> {
        if self.messages > 0 {
            // A device that cannot have it tells of no changes, as one with a single message.
            self.common.write16(CONFIGURATION_VECTOR, if self.messages > 1 { 1 } else { NO_VECTOR });
        }
        self.select(index);
        self.common.write16(QUEUE_SIZE, ring.size());
        for (at, address) in QUEUE_PARTS.into_iter().zip(ring.addresses()) {
            self.common.write64(at, address);
        }
        if self.messages > 0 {
            // The device answers with no vector if it cannot have this one.
            self.common.write16(QUEUE_VECTOR, 0);
            if self.common.read16(QUEUE_VECTOR) != 0 {
                return None;
            }
        }
        let offset = u64::from(self.common.read16(QUEUE_NOTIFY_OFFSET)) * u64::from(self.notify_multiplier);
        let bell = self.notify.part(offset, 2)?;
        self.common.write16(QUEUE_ENABLE, 1);
        Some(Doorbell::Half(bell, index))
    }

    fn configuration8(&self, offset: usize) -> u8 {
        self.configuration.map_or(u8::MAX, |window| window.read8(offset))
    }

    fn configuration16(&self, offset: usize) -> u16 {
        self.configuration.map_or(u16::MAX, |window| window.read16(offset))
    }

    fn configuration32(&self, offset: usize) -> u32 {
        self.configuration.map_or(u32::MAX, |window| window.read32(offset))
    }

    fn generation(&self) -> u32 {
        self.common.read8(GENERATION).into()
    }
}
