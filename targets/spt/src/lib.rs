//! The spt target: an image that Solo5's spt tender, or Fogbow's own, runs as a sandboxed Linux process.
//!
//! The tender maps the image into its own process, attaches the devices, lets a seccomp filter forbid all system calls but a few, and
//! jumps to the image, which makes those few directly ([`system`]). Source of every constant: `spt_abi.h` of Solo5 v0.12.1 and Linux's
//! x86-64 system calls.
//!
//! How faults end: code and constants cannot be written, data, heap and stack cannot be executed, the lowest 64 KiB are not mapped, and
//! the stack stands upon read-only memory, so that its overflow is a fault as well. Each raises a signal on the host. Under Solo5's own
//! tender the process dies of it (SIGSEGV, SIGFPE, SIGILL) without a message; Fogbow's tender reports the fault and ends with status 255.
//!
//! Limits: the filter of Solo5's own tender allows one sector per call on block devices. The set of descriptors that the image waits on is fixed: while
//! frames wait on a device that is in use but whose task waits for something else, idling costs processor time.
#![no_std]

extern crate alloc;

mod block;
mod boot;
mod net;
mod platform;
pub mod system;

pub use block::{BlockDevice, File};
pub use fogbow_solo5::DeviceError;
pub use net::{Net, Receiver, Transmitter};

#[doc(hidden)]
pub mod private {
    //! What [`image!`](crate::image) expands to.
    pub use crate::boot::{BootInfo, end_after_panic, run};
    pub use fogbow_solo5;
}

use fogbow_solo5::manifest::DeviceKind;

/// Takes the network device `name` of the manifest.
///
/// # Errors
/// [`DeviceError`] when there is no such device, when it is taken, or when what the tender attached cannot be used.
pub fn net(name: &str) -> Result<Net, DeviceError> {
    let guest = platform::guest().ok_or(DeviceError::NotStarted)?;
    Net::new(guest, guest.devices.take(DeviceKind::Net, name)?).ok_or(DeviceError::NotStarted)
}

/// Takes the block device `name` of the manifest.
///
/// # Errors
/// As [`net`].
pub fn block(name: &str) -> Result<BlockDevice, DeviceError> {
    let guest = platform::guest().ok_or(DeviceError::NotStarted)?;
    let device = guest.devices.take(DeviceKind::Block, name)?;
    BlockDevice::new(device, File::of(device)).ok_or(DeviceError::NotStarted)
}

/// Makes the crate it is in an image for spt: entry code, allocator, panic handler, notes and manifest.
///
/// `start` is an `async fn() -> Result<(), fogbow::StartError>`. The crate is `#![no_std]` and `#![no_main]`, and linked with `image.ld` of
/// `fogbow-solo5`.
///
/// ```text
/// fogbow_spt::image! { image: IMAGE, devices: [net "service", block "disk"], start: start }
/// ```
#[macro_export]
macro_rules! image {
    { image: $image:expr, devices: [$($devices:tt)*], start: $start:path $(,)? } => {
        $crate::private::fogbow_solo5::guest! {
            target: Spt, version: 2, devices: [$($devices)*], heap: FOGBOW_HEAP, panic: $crate::private::end_after_panic,
        }

        // The tender jumps here with the address of its boot information in RDI, and a stack at the top of memory, which is left to the
        // heap. The image's own stack is aligned to 16 bytes, as the calling convention wants it before a call.
        ::core::arch::global_asm!(
            ".pushsection .text.fogbow.entry, \"ax\", @progbits",
            ".globl _start",
            ".type _start, @function",
            "_start:",
            "lea rsp, [rip + fogbow_stack_top]",
            "xor ebp, ebp",
            "call {main}",
            "ud2",
            ".size _start, . - _start",
            ".popsection",
            main = sym fogbow_main,
        );

        extern "C" fn fogbow_main(boot: *const $crate::private::BootInfo) -> ! {
            // SAFETY: this is called once, by the entry code, with what the tender passed to it.
            unsafe { $crate::private::run(boot, &FOGBOW_HEAP, &$image, $start) }
        }
    };
}
