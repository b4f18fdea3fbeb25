//! The ports that an image uses, and the instructions for them.

use core::arch::asm;
use core::ops::Range;

/// The first serial port of a PC.
pub const SERIAL: u16 = 0x3f8;

/// The interval timer (Intel 8254): its counters, then its control.
pub const TIMER: u16 = 0x40;

/// Index and data of the real-time clock (Motorola MC146818).
pub const REAL_TIME_CLOCK: u16 = 0x70;

/// The commands of the two interrupt controllers of old (Intel 8259); their masks are at the next port.
pub const INTERRUPT_CONTROLLERS: [u16; 2] = [0x20, 0xa0];

/// QEMU's `isa-debug-exit`, at the address that its users give it by custom (`iobase=0xf4,iosize=0x04`).
pub const DEBUG_EXIT: u16 = 0xf4;

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

/// Writes 16 bits.
///
/// # Safety
/// As [`read`], for writing `value`.
pub unsafe fn write16(port: u16, value: u16) {
    // SAFETY: passed on to the caller; the instruction touches no flags and no stack.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}
