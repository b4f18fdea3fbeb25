//! PCI: configuration space, the functions in it, and where their registers are (PCI Local Bus Specification 3.0, chapter 6; PCI Express 2.0, section 7.2.2).
//!
//! What functions say of themselves is input: lists are followed for as long as they can be, and addresses are used where devices may lie alone.
//! Base addresses are taken as the firmware set them; where there is none that does, those that are wanted are given a place.
//! Limits: bridges without bus numbers are not given any; registers behind port numbers (I/O bars) are not used.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::ports;
use crate::window::Window;

pub(crate) mod transport;

/// A function of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Function {
    bus: u8,
    /// 0 to 31.
    device: u8,
    /// 0 to 7.
    function: u8,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

impl FromStr for Function {
    type Err = ();

    /// Reads `BUS:DEVICE.FUNCTION`, as `lspci` writes it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (bus, rest) = text.split_once(':').ok_or(())?;
        let (device, function) = rest.split_once('.').ok_or(())?;
        let number = |text: &str, limit: u8| u8::from_str_radix(text, 16).ok().filter(|number| *number <= limit).ok_or(());
        Ok(Self { bus: number(bus, u8::MAX)?, device: number(device, 31)?, function: number(function, 7)? })
    }
}

/// Offsets in configuration space (section 6.1), in units of 32 bits.
const ID: u8 = 0x00;
const COMMAND: u8 = 0x04;
const HEADER: u8 = 0x0c;
const BARS: u8 = 0x10;
const BUSES: u8 = 0x18;
const SUBSYSTEM: u8 = 0x2c;
const CAPABILITIES: u8 = 0x34;
const INTERRUPT: u8 = 0x3c;

/// Bits of the command: registers in memory are there; the device may use memory by itself; it does not raise its interrupt line.
const MEMORY: u32 = 1 << 1;
const MASTER: u32 = 1 << 2;
const NO_LINE: u32 = 1 << 10;

/// There is a list of capabilities (in the status, the upper half of the command).
const HAS_CAPABILITIES: u32 = 1 << 20;

/// More capabilities than fit are a circle.
const MOST_CAPABILITIES: usize = 48;

/// Access to configuration space.
pub(crate) trait Configuration {
    /// The 32 bits at `offset`, a multiple of four: ones where there is no such function.
    fn read(&self, function: Function, offset: u8) -> u32;
    fn write(&self, function: Function, offset: u8, value: u32);
}

/// By two ports, as every PC has it (section 3.2.2.3.2 of the specification).
pub(crate) struct Ports;

impl Ports {
    fn select(function: Function, offset: u8) {
        let Function { bus, device, function } = function;
        let address = 1 << 31 | u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8 | u32::from(offset & 0xfc);
        // SAFETY: the port is the host bridge's or nothing, neither of which changes memory.
        unsafe { ports::write32(ports::PCI_ADDRESS, address) };
    }
}

impl Configuration for Ports {
    fn read(&self, function: Function, offset: u8) -> u32 {
        Self::select(function, offset);
        // SAFETY: as in `select`.
        unsafe { ports::read32(ports::PCI_DATA) }
    }

    fn write(&self, function: Function, offset: u8, value: u32) {
        Self::select(function, offset);
        // SAFETY: as in `select`; what devices do to memory from then on is for those who write here to know.
        unsafe { ports::write32(ports::PCI_DATA, value) };
    }
}

/// By memory (PCI Express: ECAM).
pub(crate) struct Ecam {
    /// The registers of bus `first` and those that follow.
    pub(crate) window: Window,
    pub(crate) first: u8,
}

impl Ecam {
    fn at(&self, function: Function, offset: u8) -> usize {
        let Function { bus, device, function } = function;
        let Some(bus) = bus.checked_sub(self.first) else { return usize::MAX };
        usize::from(bus) << 20 | usize::from(device) << 15 | usize::from(function) << 12 | usize::from(offset & 0xfc)
    }
}

impl Configuration for Ecam {
    fn read(&self, function: Function, offset: u8) -> u32 {
        self.window.read32(self.at(function, offset))
    }

    fn write(&self, function: Function, offset: u8, value: u32) {
        self.window.write32(self.at(function, offset), value);
    }
}

/// The functions on bus `first` and on those behind its bridges, in the order of their numbers.
pub(crate) fn functions(configuration: &dyn Configuration, first: u8) -> Vec<Function> {
    let mut found = Vec::new();
    let mut seen = [false; 256];
    let mut buses = alloc::vec![first];
    while let Some(bus) = buses.pop() {
        if core::mem::replace(&mut seen[usize::from(bus)], true) {
            continue;
        }
        for device in 0..32 {
            let mut functions = 0..8;
            while let Some(number) = functions.next() {
                let function = Function { bus, device, function: number };
                if configuration.read(function, ID) as u16 == u16::MAX {
                    if number == 0 {
                        break;
                    }
                    continue;
                }
                let header = configuration.read(function, HEADER) >> 16;
                if number == 0 && header & 0x80 == 0 {
                    functions = 0..0;
                }
                if header & 0x7f == 1 {
                    buses.push((configuration.read(function, BUSES) >> 8) as u8);
                } else {
                    found.push(function);
                }
            }
        }
    }
    found.sort_unstable();
    found
}

/// A function's registers in memory, made from its configuration space.
pub(crate) struct Access<'a> {
    pub(crate) configuration: &'a dyn Configuration,
    pub(crate) function: Function,
    /// The registers at an address, if devices may lie there.
    pub(crate) window: &'a dyn Fn(u64, u64) -> Option<Window>,
    /// A free place for as many bytes, if the firmware left that to the image.
    pub(crate) place: &'a dyn Fn(u64) -> Option<u64>,
}

impl Access<'_> {
    fn read(&self, offset: u8) -> u32 {
        self.configuration.read(self.function, offset)
    }

    /// Vendor, device, and the subsystem's device.
    pub(crate) fn identity(&self) -> (u16, u16, u16) {
        let (id, subsystem) = (self.read(ID), self.read(SUBSYSTEM));
        (id as u16, (id >> 16) as u16, (subsystem >> 16) as u16)
    }

    /// The offsets of the capabilities of kind `kind`, in the order of the list.
    fn capabilities(&self, kind: u8) -> impl Iterator<Item = u8> {
        let has = self.read(COMMAND) & HAS_CAPABILITIES != 0;
        let first = if has { self.read(CAPABILITIES) as u8 & 0xfc } else { 0 };
        let next = |at: &u8| Some((self.read(*at) >> 8) as u8 & 0xfc).filter(|next| *next >= 0x40);
        let all = core::iter::successors(Some(first).filter(|first| *first >= 0x40), next).take(MOST_CAPABILITIES);
        all.filter(move |at| self.read(*at) as u8 == kind)
    }

    /// The `length` bytes of registers at `offset` of base address `bar`.
    fn registers(&self, bar: u8, offset: u64, length: u64) -> Option<Window> {
        let at = BARS + 4 * bar.min(5);
        let low = self.read(at);
        // Bit 0: ports; bits 1 and 2: the width of the address.
        let address = match (bar, low & 7) {
            (0..=5, 0) => u64::from(low & !0xf),
            (0..=4, 4) => u64::from(low & !0xf) | u64::from(self.read(at + 4)) << 32,
            _ => return None,
        };
        let address = if address == 0 { self.assign(at)? } else { address };
        (self.window)(address.checked_add(offset)?, length)
    }

    /// Gives the base address at `at` a place below 4 GiB (section 6.2.5.1): the bits of it that stay zero are its size.
    fn assign(&self, at: u8) -> Option<u64> {
        self.configuration.write(self.function, at, u32::MAX);
        let size = (self.read(at) & !0xf).wrapping_neg();
        let address = (self.place)(size.into()).and_then(|address| u32::try_from(address).ok());
        self.configuration.write(self.function, at, address.unwrap_or(0));
        address.map(u64::from)
    }

    /// Lets the function answer at its addresses and use memory, with its interrupt line or without.
    pub(crate) fn enable(&self, line: bool) {
        let command = self.read(COMMAND) & 0xffff & !NO_LINE | MEMORY | MASTER | if line { 0 } else { NO_LINE };
        self.configuration.write(self.function, COMMAND, command);
    }

    /// The number of its interrupt line, as the firmware wrote it down.
    pub(crate) fn line(&self) -> u8 {
        self.read(INTERRUPT) as u8
    }

    /// Turns message-signalled interrupts on (MSI-X, section 6.8.2), with the first entries of the table as given: an address, and values for as many
    /// entries as there are. Gives how many it has set.
    pub(crate) fn message_interrupts(&self, (address, values): (u64, [u32; 2])) -> u16 {
        const MSI_X: u8 = 0x11;
        const ENABLED: u32 = 1 << 31;
        const MASKED: u32 = 1 << 30;
        const ENTRY: usize = 16;
        let Some(at) = self.capabilities(MSI_X).next() else { return 0 };
        let (control, place) = (self.read(at), self.read(at.wrapping_add(4)));
        // The table's size less one is in the control's lowest eleven bits.
        let count = values.len().min((control >> 16 & 0x7ff) as usize + 1);
        let Some(table) = self.registers(place as u8 & 7, (place & !7).into(), (count * ENTRY) as u64) else { return 0 };
        for (entry, value) in values.into_iter().take(count).enumerate() {
            table.write64(entry * ENTRY, address);
            table.write32(entry * ENTRY + 8, value);
            table.write32(entry * ENTRY + 12, 0);
        }
        self.configuration.write(self.function, at, control & !MASKED | ENABLED);
        count as u16
    }
}

#[cfg(test)]
pub(crate) mod tests;
