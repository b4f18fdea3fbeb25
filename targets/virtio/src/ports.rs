//! The ports that an image uses, and the instructions for them.

use core::arch::asm;
use core::ops::Range;

/// The first serial port of a PC.
pub const SERIAL: u16 = 0x3f8;

/// The interval timer (Intel 8254): its counters, then its control.
pub const TIMER: u16 = 0x40;

/// The commands of the keyboard controller (Intel 8042), which restarts a PC.
pub const KEYBOARD: u16 = 0x64;

/// Index and data of the real-time clock (Motorola MC146818).
pub const REAL_TIME_CLOCK: u16 = 0x70;

/// The commands of the two interrupt controllers of old (Intel 8259); their masks are at the next port.
pub const INTERRUPT_CONTROLLERS: [u16; 2] = [0x20, 0xa0];

/// QEMU's `isa-debug-exit`, at the address that its users give it by custom (`iobase=0xf4,iosize=0x04`).
pub const DEBUG_EXIT: u16 = 0xf4;

/// Address and data of PCI's configuration space (PCI Local Bus Specification 3.0, section 3.2.2.3.2).
pub const PCI_ADDRESS: u16 = 0xcf8;

/// See [`PCI_ADDRESS`].
pub const PCI_DATA: u16 = 0xcfc;

/// The ports that ring 3 may use: all of a PC's own devices, which an image has for itself.
pub const ALLOWED: Range<u16> = 0..0x1000;

/// Reads a byte.
///
/// # Safety
/// Reading `port` is sound: its device changes no memory that the program relies on.
#[must_use]
pub unsafe fn read(port: u16) -> u8 {
    let value;
    // SAFETY: passed on to the caller; the instruction touches no flags and no stack.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
    value
}

/// Writes a byte.
///
/// # Safety
/// As [`read`], for writing `value`.
pub unsafe fn write(port: u16, value: u8) {
    // SAFETY: passed on to the caller; the instruction touches no flags and no stack.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Reads 16 bits.
///
/// # Safety
/// As [`read`].
#[must_use]
pub unsafe fn read16(port: u16) -> u16 {
    let value;
    // SAFETY: passed on to the caller; the instruction touches no flags and no stack.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nostack, preserves_flags)) };
    value
}

/// Writes 16 bits.
///
/// # Safety
/// As [`read`], for writing `value`.
pub unsafe fn write16(port: u16, value: u16) {
    // SAFETY: passed on to the caller; the instruction touches no flags and no stack.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// Reads 32 bits.
///
/// # Safety
/// As [`read`].
#[must_use]
pub unsafe fn read32(port: u16) -> u32 {
    let value;
    // SAFETY: passed on to the caller; the instruction touches no flags and no stack.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) };
    value
}

/// Writes 32 bits.
///
/// # Safety
/// As [`read`], for writing `value`.
pub unsafe fn write32(port: u16, value: u32) {
    // SAFETY: passed on to the caller; the instruction touches no flags and no stack.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}
