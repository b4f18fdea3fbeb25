//! Virtio over registers in memory (virtio 1.2, section 4.2): what a machine without PCI has.

use crate::interrupts::Interrupt;
use crate::queue::{Doorbell, Ring};
use crate::transport::{SetupError, Transport};
use crate::window::Window;

/// Registers (table 4.1).
const MAGIC: usize = 0x000;
const VERSION: usize = 0x004;
const KIND: usize = 0x008;
const DEVICE_FEATURES: usize = 0x010;
const DEVICE_FEATURES_SELECT: usize = 0x014;
const DRIVER_FEATURES: usize = 0x020;
const DRIVER_FEATURES_SELECT: usize = 0x024;
const QUEUE_SELECT: usize = 0x030;
const QUEUE_SIZE_MAX: usize = 0x034;
const QUEUE_SIZE: usize = 0x038;
const QUEUE_READY: usize = 0x044;
const QUEUE_NOTIFY: usize = 0x050;
const INTERRUPT_STATUS: usize = 0x060;
const STATUS: usize = 0x070;
const QUEUE_PARTS: [usize; 3] = [0x080, 0x090, 0x0a0];
const GENERATION: usize = 0x0fc;
const CONFIGURATION: usize = 0x100;

/// Bytes of registers before the device's own configuration.
pub(crate) const SIZE: u64 = 0x100;

/// `virt`.
const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"virt");

/// The version of modern devices; legacy ones have 1.
const MODERN: u32 = 2;

/// A virtio device whose registers are in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    registers: Window,
    interrupt: u32,
}

/// The device at `registers` that raises `interrupt`, with the kind that it is; `None` if there is none.
pub(crate) fn find(registers: Window, interrupt: u32) -> Option<(u16, Result<Device, SetupError>)> {
    if registers.read32(MAGIC) != MAGIC_VALUE {
        return None;
    }
    let kind = u16::try_from(registers.read32(KIND)).ok().filter(|kind| *kind != 0)?;
    let is_modern = registers.read32(VERSION) == MODERN;
    Some((kind, if is_modern { Ok(Device { registers, interrupt }) } else { Err(SetupError::Legacy) }))
}

impl Device {
    /// How it interrupts.
    pub(crate) fn interrupt(&self) -> Interrupt {
        // Acknowledged in the next register.
        Interrupt::Edge { status: self.registers, at: INTERRUPT_STATUS, line: self.interrupt }
    }
}

impl Transport for Device {
    fn status(&self) -> u8 {
        self.registers.read32(STATUS) as u8
    }

    fn set_status(&self, status: u8) {
        self.registers.write32(STATUS, status.into());
    }

    fn features(&self) -> u64 {
        let word = |index| {
            self.registers.write32(DEVICE_FEATURES_SELECT, index);
            u64::from(self.registers.read32(DEVICE_FEATURES))
        };
        word(0) | word(1) << 32
    }

    fn accept(&self, features: u64) {
        for (index, word) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.registers.write32(DRIVER_FEATURES_SELECT, index);
            self.registers.write32(DRIVER_FEATURES, word);
        }
    }

    fn queue_size(&self, index: u16) -> u16 {
        self.registers.write32(QUEUE_SELECT, index.into());
        u16::try_from(self.registers.read32(QUEUE_SIZE_MAX)).unwrap_or(u16::MAX)
    }

    fn attach(&self, index: u16, ring: &Ring) -> Option<Doorbell> {
        self.registers.write32(QUEUE_SELECT, index.into());
        self.registers.write32(QUEUE_SIZE, ring.size().into());
        for (at, address) in QUEUE_PARTS.into_iter().zip(ring.addresses()) {
            self.registers.write64(at, address);
        }
        self.registers.write32(QUEUE_READY, 1);
        let bell = self.registers.part(QUEUE_NOTIFY as u64, 4)?;
        (self.registers.read32(QUEUE_READY) == 1).then_some(Doorbell::Word(bell, index.into()))
    }

    fn configuration8(&self, offset: usize) -> u8 {
        self.registers.read8(CONFIGURATION + offset)
    }

    fn configuration16(&self, offset: usize) -> u16 {
        self.registers.read16(CONFIGURATION + offset)
    }

    fn configuration32(&self, offset: usize) -> u32 {
        self.registers.read32(CONFIGURATION + offset)
    }

    fn generation(&self) -> u32 {
        self.registers.read32(GENERATION)
    }
}
