//! The console: the first serial port (16550, or what a monitor makes of it). Where there is none, reads give ones, and nothing waits.

use crate::ports::{SERIAL, read, write};

/// Registers, from the port's base (National Semiconductor PC16550D, table II).
const DATA: u16 = 0;
const INTERRUPTS: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;

/// The transmitter takes a byte.
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// How often the transmitter is looked at before a byte goes out regardless: a real port at 115200 baud takes 87 µs for one, some hundred looks.
const LOOKS: u32 = 100_000;

/// Sets the port up: 115200 baud, 8 data bits, no parity, one stop bit; no interrupts.
pub(crate) fn set_up() {
    let settings = [
        (INTERRUPTS, 0),
        // With the top bit, the first two registers are the divisor of 115200 baud.
        (LINE_CONTROL, 0x80),
        (DATA, 1),
        (INTERRUPTS, 0),
        (LINE_CONTROL, 3),
        (FIFO_CONTROL, 7),
        (MODEM_CONTROL, 3),
    ];
    for (register, value) in settings {
        // SAFETY: the port is a serial port or nothing, neither of which changes memory.
        unsafe { write(SERIAL + register, value) };
    }
}

/// Bytes that an empty transmitter takes at once: its FIFO (PC16550D, section 8.3).
const FIFO: usize = 16;

/// Writes bytes, all of them, in order.
pub(crate) fn puts(bytes: &[u8]) {
    for byte in bytes {
        let mut looks = LOOKS;
        while !is_empty() && looks > 0 {
            looks -= 1;
        }
        put(*byte);
    }
}

/// Writes as many bytes as the port takes without waiting, and gives how many those were.
pub(crate) fn offer(bytes: &[u8]) -> usize {
    let mut taken = 0;
    for piece in bytes.chunks(FIFO) {
        if !is_empty() {
            break;
        }
        piece.iter().copied().for_each(put);
        taken += piece.len();
    }
    taken
}

/// Whether all that was written has left the FIFO.
fn is_empty() -> bool {
    // SAFETY: the port is a serial port or nothing, neither of which changes memory.
    unsafe { read(SERIAL + LINE_STATUS) & TRANSMITTER_EMPTY != 0 }
}

fn put(byte: u8) {
    // SAFETY: as in `is_empty`.
    unsafe { write(SERIAL + DATA, byte) }
}
