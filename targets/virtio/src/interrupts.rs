//! Interrupts of devices: messages to the local interrupt controller (MSI-X) where a device has them, else its line through an I/O interrupt controller
//! (Intel 82093AA).
//!
//! All devices share one vector each way: an interrupt ends a halt, and whoever halted looks at all queues that somebody waits for. A line stays raised
//! until the device's interrupt status is read, which ring 3 does after the halt, and which alone ends the interrupt: until then no other of its class
//! comes, so that a raised line does not interrupt for ever.

use alloc::vec::Vec;

use crate::apic;
use crate::window::Window;

/// How a device interrupts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interrupt {
    /// By messages, which need nothing more.
    Message,
    /// By a line that is raised until `status` has been read.
    Line { status: Window, line: u32 },
    /// By raising a line, until what the register at `at` in `status` shows has been written to the next one.
    Edge { status: Window, at: usize, line: u32 },
}

/// An I/O interrupt controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Controller {
    pub(crate) registers: Window,
    /// The line that is its first.
    pub(crate) first: u32,
}

/// Registers of a controller in memory (section 3.1), and those behind them (section 3.2).
const SELECT: usize = 0x00;
const DATA: usize = 0x10;
const VERSION: u32 = 0x01;
const ENTRIES: u32 = 0x10;

/// An entry's line is active low (section 3.2.4).
pub(crate) const ACTIVE_LOW: u32 = 1 << 13;

/// An entry interrupts for as long as its line is raised.
const LEVEL: u32 = 1 << 15;

impl Controller {
    fn read(self, register: u32) -> u32 {
        self.registers.write32(SELECT, register);
        self.registers.read32(DATA)
    }

    fn write(self, register: u32, value: u32) {
        self.registers.write32(SELECT, register);
        self.registers.write32(DATA, value);
    }

    /// Lets `line` interrupt by `vector`, with the flags of an entry; false when it is none of this controller's.
    pub(crate) fn lead(self, line: u32, vector: usize, flags: u32) -> bool {
        let Some(entry) = self.entry(line) else { return false };
        self.write(entry + 1, apic::id() << 24);
        self.write(entry, vector as u32 | flags);
        true
    }

    /// The entry of `line`, if it is one of this controller's.
    fn entry(self, line: u32) -> Option<u32> {
        let index = line.checked_sub(self.first)?;
        (index <= self.read(VERSION) >> 16 & 0xff).then_some(ENTRIES + 2 * index)
    }
}

/// Something about the device has changed (virtio 1.2, sections 4.1.4.5 and 4.2.2).
const CHANGE: u32 = 1 << 1;

/// What has to be done after each halt, for the devices that interrupt by lines.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<Interrupt>);

impl Lines {
    /// Lets a device interrupt. False when none of the controllers has its line.
    pub(crate) fn add(&mut self, interrupt: Interrupt, controllers: &[Controller]) -> bool {
        let (line, trigger) = match interrupt {
            Interrupt::Message => return true,
            // What a function says whose line nobody has led anywhere (PCI Local Bus Specification 3.0, section 6.2.4); line 0 is the timer's.
            Interrupt::Line { line: 0 | 255, .. } => return false,
            Interrupt::Line { line, .. } => (line, LEVEL),
            Interrupt::Edge { line, .. } => (line, 0),
        };
        let leads = controllers.iter().any(|controller| controller.lead(line, apic::LINE_VECTOR, trigger));
        if leads {
            self.0.push(interrupt);
        }
        leads
    }

    /// Tells the devices that their interrupts have been seen. What they do from here on interrupts again. True when something about one has changed.
    pub(crate) fn acknowledge(&self) -> bool {
        let mut shown = 0;
        for interrupt in &self.0 {
            match *interrupt {
                Interrupt::Message => {}
                Interrupt::Line { status, .. } => shown |= u32::from(status.read8(0)),
                Interrupt::Edge { status, at, .. } => {
                    let seen = status.read32(at);
                    status.write32(at + 4, seen);
                    shown |= seen;
                }
            }
        }
        if !self.0.is_empty() {
            apic::end_of_interrupt();
        }
        shown & CHANGE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::tests::memory;

    #[test]
    fn a_line_that_leads_nowhere_is_refused() {
        let controller = Controller { registers: memory(0x20), first: 0 };
        for line in [0, 255] {
            assert!(!Lines::default().add(Interrupt::Line { status: memory(4), line }, &[controller]));
        }
        assert!(!Lines::default().add(Interrupt::Line { status: memory(4), line: 11 }, &[]));
    }
}
