//! The hvt target: an image that Solo5's hvt tender, or Fogbow's own, runs as a small virtual machine.
//!
//! The tender loads the image into the machine's memory and starts it in ring 0 of 64-bit mode. The image builds page tables of its own, drops to
//! ring 3 for good (`fogbow-x86` says how) and asks the tender for everything by hypercalls; frames go through a ring of shared memory where the tender offers
//! one. Source of every constant: `hvt_abi.h` and `hvt_ring.h` of Solo5 v0.12.1.
//!
//! How faults end: code and constants cannot be written, nothing but code can be executed, the null page and a guard page under the stack cannot
//! be touched, and no privileged instruction works. Each fault ends the image with a message that names it and with status 255, on any host.
//!
//! Limits: x86-64, one processor, 4 GiB of memory at most; no interrupts; a hypercall on a block device blocks the image. The set of devices that the
//! image waits on is fixed: while frames wait on a device that is in use but whose task waits for something else, idling costs processor time.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod block;
mod boot;
mod boot_info;
mod entry;
mod frames;
mod hypercall;
mod net;
mod platform;
mod ring;

pub use block::{BlockDevice, Handle};
pub use fogbow_solo5::DeviceError;
pub use net::{Net, Receiver, Transmitter};

#[doc(hidden)]
pub mod private {
    //! What [`image!`](crate::image) expands to.
    pub use crate::boot::{end_after_panic, run};
    pub use crate::entry::{HANDLERS, prepare};
    pub use core;
    pub use fogbow;
    pub use fogbow_solo5;
    pub use fogbow_x86::entry::enter;
    pub use fogbow_x86::program;
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
    BlockDevice::new(device, Handle::of(device)).ok_or(DeviceError::NotStarted)
}

/// Makes the crate it is in an image for hvt: entry code, allocator, panic handler, notes and manifest.
///
/// `start` is an `async fn() -> Result<(), fogbow::StartError>`. The crate is `#![no_std]` and `#![no_main]`, and linked with `image.ld` of
/// `fogbow-solo5`.
///
/// ```text
/// fogbow_hvt::image! { image: IMAGE, devices: [net "service", block "disk"], start: start }
/// ```
#[macro_export]
macro_rules! image {
    { image: $image:expr, devices: [$($devices:tt)*], start: $start:path $(,)? } => {
        $crate::private::fogbow_solo5::guest! {
            target: Hvt, version: 2, devices: [$($devices)*], heap: FOGBOW_HEAP, panic: $crate::private::end_after_panic,
        }

        const _: () = {
            use $crate::private::{HANDLERS, core, enter, prepare, program, run};

            program! { PROGRAM, main: main, prepare: prepare, handlers: HANDLERS }

            // The tender jumps here with the address of its boot information in RDI, which `enter` wants too.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".text.fogbow.entry")]
            unsafe extern "C" fn _start() -> ! {
                core::arch::naked_asm!("lea rsi, [rip + {program}]", "jmp {enter}", program = sym PROGRAM, enter = sym enter)
            }

            extern "C" fn main() -> ! {
                // SAFETY: the entry code calls this once, as the main function of `PROGRAM`.
                unsafe { run(&FOGBOW_HEAP, &$image, $start) }
            }
        };
    };
}
