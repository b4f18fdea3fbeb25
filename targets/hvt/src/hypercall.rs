//! The hypercalls of Solo5's hvt tender (`hvt_abi.h`): a 32-bit `out` of an argument's address to the port that names the call.
//!
//! Each wrapper keeps the argument on the caller's stack; the tender has read and written it when the instruction ends.
//! Limit: addresses of 32 bits. [`Layout`](fogbow_x86::layout::Layout) uses no memory beyond 4 GiB, so every reference in an image is such an address.

use core::arch::asm;
use core::fmt;

/// The ports that an image uses: from hypercall 0, which is none (`HVT_HYPERCALL_PIO_BASE`), to the ring's doorbell.
pub(crate) const PORTS: core::ops::Range<u16> = 0x500..DOORBELL + 4;

/// The port that wakes the tender's ring thread (`HVT_RING_KICK_PIO_BASE`).
const DOORBELL: u16 = 0x600;

/// The longest wait that a tender is asked for, in nanoseconds: what fits into its signed clocks.
pub(crate) const LONGEST_WAIT: u64 = i64::MAX as u64;

/// The calls (`enum hvt_hypercall`).
#[derive(Clone, Copy)]
#[repr(u16)]
pub(crate) enum Hypercall {
    WallTime = 1,
    Puts = 2,
    Poll = 3,
    BlockWrite = 4,
    BlockRead = 5,
    NetWrite = 6,
    NetRead = 7,
    Halt = 8,
    /// Fogbow's own tender's, where its manifest offers it.
    BlockFlush = 64,
    /// The same.
    ConsoleOffer = 65,
}

/// What [`Hypercall::Puts`] takes (`struct hvt_hc_puts`).
#[repr(C)]
pub(crate) struct Puts {
    pub(crate) data: *const u8,
    pub(crate) length: u64,
}

/// What [`Hypercall::ConsoleOffer`] takes and gives.
#[repr(C)]
struct ConsoleOffer {
    data: *const u8,
    length: u64,
    taken: u64,
}

/// What [`Hypercall::Halt`] takes (`struct hvt_hc_halt`).
#[repr(C)]
pub(crate) struct Halt {
    /// Where a tender finds registers to dump; null for nowhere.
    pub(crate) cookie: *const u8,
    pub(crate) status: i32,
}

/// What [`Hypercall::Poll`] takes and gives (`struct hvt_hc_poll`).
#[repr(C)]
struct Poll {
    timeout: u64,
    ready: u64,
    result: i32,
}

/// What the four device calls take and give (`struct hvt_hc_net_read` and `hvt_hc_net_write`).
#[repr(C)]
struct NetTransfer {
    device: u64,
    data: *mut u8,
    length: u64,
    result: i32,
}

/// What the block calls take and give (`struct hvt_hc_block_read` and `hvt_hc_block_write`).
#[repr(C)]
struct BlockTransfer {
    device: u64,
    offset: u64,
    data: *mut u8,
    length: u64,
    result: i32,
}

/// What [`Hypercall::BlockFlush`] takes and gives.
#[repr(C)]
struct BlockFlush {
    device: u64,
    result: i32,
}

/// The tender refused a transfer: anything but `SOLO5_R_OK` and `SOLO5_R_AGAIN` in Solo5's `solo5.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) result: i32,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the tender refused the transfer with result {}", self.result)
    }
}

/// `SOLO5_R_OK` in `solo5.h`: it was done.
pub(crate) const OK: i32 = 0;

/// `SOLO5_R_AGAIN` in `solo5.h`: nothing is there to be read now.
pub(crate) const AGAIN: i32 = 1;

/// Nanoseconds since 1970-01-01T00:00:00 UTC.
pub(crate) fn wall_time() -> u64 {
    let mut nanos = 0_u64;
    // SAFETY: `struct hvt_hc_walltime` is one 64-bit field, which the tender writes.
    unsafe { call(Hypercall::WallTime, &raw mut nanos) };
    nanos
}

/// Writes to the console.
pub(crate) fn puts(bytes: &[u8]) {
    let mut argument = Puts { data: bytes.as_ptr(), length: bytes.len() as u64 };
    // SAFETY: the tender reads the bytes, which the caller lends until then.
    unsafe { call(Hypercall::Puts, &raw mut argument) };
}

/// Writes to the console as many bytes as it has room for, and gives how many those were. Only a tender that offers it has this call.
pub(crate) fn console_offer(bytes: &[u8]) -> usize {
    let mut argument = ConsoleOffer { data: bytes.as_ptr(), length: bytes.len() as u64, taken: 0 };
    // SAFETY: the tender reads the bytes, which the caller lends until then, and writes nothing but the argument's own fields.
    unsafe { call(Hypercall::ConsoleOffer, &raw mut argument) };
    argument.taken as usize
}

/// Waits for a device to become ready, `timeout` nanoseconds at most; the set of devices that are, by their index in the manifest.
pub(crate) fn poll(timeout: u64) -> u64 {
    let mut argument = Poll { timeout: timeout.min(LONGEST_WAIT), ready: 0, result: 0 };
    // SAFETY: the tender writes nothing but the argument's own fields.
    unsafe { call(Hypercall::Poll, &raw mut argument) };
    argument.ready
}

/// Reads a frame into `into`: its length, or `None` when no frame waits.
pub(crate) fn net_read(device: u32, into: &mut [u8]) -> Result<Option<usize>, Refused> {
    let mut argument = NetTransfer { device: device.into(), data: into.as_mut_ptr(), length: into.len() as u64, result: OK };
    // SAFETY: the tender writes into the buffer, whose length it is told and which is borrowed until then.
    unsafe { call(Hypercall::NetRead, &raw mut argument) };
    match argument.result {
        // A length beyond the buffer's would be the tender's lie; the frame is then as long as the buffer.
        OK => Ok(Some(usize::try_from(argument.length).unwrap_or(usize::MAX).min(into.len()))),
        AGAIN => Ok(None),
        result => Err(Refused { result }),
    }
}

/// Sends a frame.
pub(crate) fn net_write(device: u32, frame: &[u8]) -> Result<(), Refused> {
    let mut argument = NetTransfer { device: device.into(), data: frame.as_ptr().cast_mut(), length: frame.len() as u64, result: OK };
    // SAFETY: the tender only reads the frame, which is borrowed until then.
    unsafe { call(Hypercall::NetWrite, &raw mut argument) };
    done(argument.result)
}

/// Reads whole sectors from byte `offset` on.
pub(crate) fn block_read(device: u32, offset: u64, into: &mut [u8]) -> Result<(), Refused> {
    let data = into.as_mut_ptr();
    let mut argument = BlockTransfer { device: device.into(), offset, data, length: into.len() as u64, result: OK };
    // SAFETY: the tender writes into the buffer, whose length it is told and which is borrowed until then.
    unsafe { call(Hypercall::BlockRead, &raw mut argument) };
    done(argument.result)
}

/// Writes whole sectors from byte `offset` on.
pub(crate) fn block_write(device: u32, offset: u64, from: &[u8]) -> Result<(), Refused> {
    let data = from.as_ptr().cast_mut();
    let mut argument = BlockTransfer { device: device.into(), offset, data, length: from.len() as u64, result: OK };
    // SAFETY: the tender only reads the buffer, which is borrowed until then.
    unsafe { call(Hypercall::BlockWrite, &raw mut argument) };
    done(argument.result)
}

/// Waits until what was written to a block device is on stable storage. Only a tender that offers it has this call.
pub(crate) fn block_flush(device: u32) -> Result<(), Refused> {
    let mut argument = BlockFlush { device: device.into(), result: OK };
    // SAFETY: the tender writes nothing but the argument's own field.
    unsafe { call(Hypercall::BlockFlush, &raw mut argument) };
    done(argument.result)
}

/// Ends the image.
pub(crate) fn halt(status: u8) -> ! {
    let mut argument = Halt { cookie: core::ptr::null(), status: status.into() };
    loop {
        // SAFETY: without a cookie the tender touches nothing but the argument. It does not come back; if it did, it is asked again.
        unsafe { call(Hypercall::Halt, &raw mut argument) };
    }
}

/// Wakes the tender's ring thread.
pub(crate) fn ring_doorbell() {
    // SAFETY: the value 0 is the number of the only ring; the tender's thread then works on what the ring holds, which was published before.
    unsafe { out(DOORBELL, 0) };
}

const fn done(result: i32) -> Result<(), Refused> {
    match result {
        OK => Ok(()),
        result => Err(Refused { result }),
    }
}

/// Makes `call` with `argument`.
///
/// # Safety
/// `argument` is what the call takes, and what it points to is valid for what the call does.
unsafe fn call<T>(call: Hypercall, argument: *mut T) {
    let Ok(address) = u32::try_from(argument.addr()) else {
        // No memory lies there: see the module's header. The fault handler, whose own memory is the image's, says where it happened.
        // SAFETY: the invalid instruction ends the image.
        unsafe { asm!("ud2", options(noreturn)) }
    };
    // SAFETY: passed on to the caller.
    unsafe { out(PORTS.start + call as u16, address) };
}

/// Writes `value` to `port`, with everything in memory before it and nothing read ahead of it.
///
/// # Safety
/// The port is one of the tender's, and what it does with `value` is sound.
unsafe fn out(port: u16, value: u32) {
    // SAFETY: passed on to the caller. The instruction may read and write memory, touches no flags and no stack.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{offset_of, size_of};

    #[test]
    fn arguments_lie_in_memory_as_the_abi_says() {
        assert_eq!((size_of::<Puts>(), offset_of!(Puts, length)), (16, 8));
        assert_eq!((size_of::<Halt>(), offset_of!(Halt, status)), (16, 8));
        assert_eq!((size_of::<Poll>(), offset_of!(Poll, ready), offset_of!(Poll, result)), (24, 8, 16));
        assert_eq!((size_of::<NetTransfer>(), offset_of!(NetTransfer, result)), (32, 24));
        assert_eq!((size_of::<BlockTransfer>(), offset_of!(BlockTransfer, data), offset_of!(BlockTransfer, result)), (40, 16, 32));
    }
}
