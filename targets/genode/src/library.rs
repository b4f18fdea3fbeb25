//! What `solo5.lib.so` offers: the functions of Solo5 0.6.9's `solo5.h` that an image here uses, each as a function that is safe to call.

use core::ffi::{CStr, c_char, c_int};

/// `struct solo5_start_info`: what the library passes to `solo5_app_main`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StartInfo {
    /// The command line, terminated by zero.
    pub(crate) command_line: *const c_char,
    /// Where the memory for the heap begins.
    pub(crate) heap_start: usize,
    /// Its size in bytes.
    pub(crate) heap_size: usize,
}

/// `struct solo5_net_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct NetInfo {
    /// `mac_address`.
    pub mac: [u8; 6],
    /// Bytes of the largest payload of a frame.
    pub mtu: usize,
}

/// `struct solo5_block_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct BlockInfo {
    /// Bytes.
    pub capacity: u64,
    /// Bytes of the smallest unit of a transfer.
    pub block_size: u64,
}

/// `SOLO5_R_OK` of `solo5_result_t`.
const OK: c_int = 0;

#[cfg(not(test))]
unsafe extern "C" {
    safe fn solo5_exit(status: c_int) -> !;
    safe fn solo5_clock_monotonic() -> u64;
    safe fn solo5_clock_wall() -> u64;
    fn solo5_yield(deadline: u64, ready: *mut u64);
    fn solo5_console_write(text: *const u8, size: usize);
    fn solo5_net_acquire(name: *const c_char, handle: *mut u64, info: *mut NetInfo) -> c_int;
    fn solo5_net_write(handle: u64, frame: *const u8, size: usize) -> c_int;
    fn solo5_net_read(handle: u64, into: *mut u8, size: usize, length: *mut usize) -> c_int;
    fn solo5_block_acquire(name: *const c_char, handle: *mut u64, info: *mut BlockInfo) -> c_int;
    fn solo5_block_write(handle: u64, offset: u64, data: *const u8, size: usize) -> c_int;
    fn solo5_block_read(handle: u64, offset: u64, into: *mut u8, size: usize) -> c_int;
}

#[cfg(test)]
use crate::platform::tests::library::*;

/// Ends the component.
pub fn exit(status: u8) -> ! {
    solo5_exit(status.into())
}

/// Nanoseconds of the monotonic clock, in steps of a microsecond.
#[must_use]
pub fn monotonic() -> u64 {
    solo5_clock_monotonic()
}

/// Nanoseconds since 1970, by the Rtc session that this opens at the first call.
#[must_use]
pub fn wall() -> u64 {
    solo5_clock_wall()
}

/// Waits until `deadline`, in nanoseconds of the monotonic clock, or until a network device has got a frame; gives the handles of those that have, a bit each.
///
/// A deadline that is not in the future returns at once, and no signal of a packet is seen.
#[must_use]
pub fn wait(deadline: u64) -> u64 {
    let mut ready = 0;
    // SAFETY: `ready` is valid for the duration of the call, which is all that the library uses it for.
    unsafe { solo5_yield(deadline, &raw mut ready) };
    ready
}

/// Writes a line to the LOG session, without its line feed. An empty line, which the library cannot write, becomes one of a single space.
pub fn log(line: &[u8]) {
    let is_blank = line.iter().all(|&byte| matches!(byte, 0 | b'\n'));
    let line = if is_blank { b" " } else { line };
    // SAFETY: the text is valid for the duration of the call, and has a byte that is neither zero nor a line feed, at which the library stops looking.
    unsafe { solo5_console_write(line.as_ptr(), line.len()) };
}

/// The handle and properties of a network device of the manifest. For a name that is not in the manifest the library's behaviour is undefined.
///
/// # Safety
/// The manifest has a network device of this name.
#[must_use]
pub unsafe fn net_acquire(name: &CStr) -> Option<(u64, NetInfo)> {
    let (mut handle, mut info) = (0, NetInfo::default());
    // SAFETY: all pointers are valid for the duration of the call; the caller promises that the device is in the manifest.
    let result = unsafe { solo5_net_acquire(name.as_ptr(), &raw mut handle, &raw mut info) };
    (result == OK).then_some((handle, info))
}

/// The next frame that has arrived, written into `into`; gives its length. A longer frame is cut.
///
/// # Safety
/// `handle` was given by [`net_acquire`].
pub unsafe fn net_read(handle: u64, into: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    // SAFETY: the buffer is valid for the duration of the call; the caller promises that the library knows the handle, which it uses as an index.
    let result = unsafe { solo5_net_read(handle, into.as_mut_ptr(), into.len(), &raw mut length) };
    (result == OK).then_some(length.min(into.len()))
}

/// Sends a frame; false when the library has no room for it now.
///
/// # Safety
/// `handle` was given by [`net_acquire`].
pub unsafe fn net_write(handle: u64, frame: &[u8]) -> bool {
    // SAFETY: as in [`net_read`].
    unsafe { solo5_net_write(handle, frame.as_ptr(), frame.len()) == OK }
}

/// The handle and properties of a block device of the manifest.
///
/// # Safety
/// The manifest has a block device of this name.
#[must_use]
pub unsafe fn block_acquire(name: &CStr) -> Option<(u64, BlockInfo)> {
    let (mut handle, mut info) = (0, BlockInfo::default());
    // SAFETY: as in [`net_acquire`].
    let result = unsafe { solo5_block_acquire(name.as_ptr(), &raw mut handle, &raw mut info) };
    (result == OK).then_some((handle, info))
}

/// Reads from byte `offset` on into `into`, both whole blocks; true when the device has done it.
///
/// # Safety
/// `handle` was given by [`block_acquire`].
pub unsafe fn block_read(handle: u64, offset: u64, into: &mut [u8]) -> bool {
    // SAFETY: as in [`net_read`].
    unsafe { solo5_block_read(handle, offset, into.as_mut_ptr(), into.len()) == OK }
}

/// Writes `data` at byte `offset`, both whole blocks; true when the device has done it.
///
/// # Safety
/// `handle` was given by [`block_acquire`].
pub unsafe fn block_write(handle: u64, offset: u64, data: &[u8]) -> bool {
    // SAFETY: as in [`net_read`].
    unsafe { solo5_block_write(handle, offset, data.as_ptr(), data.len()) == OK }
}
