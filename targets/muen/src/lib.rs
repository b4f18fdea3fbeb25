//! The muen target: a subject of the Muen separation kernel.
//!
//! A subject begins in ring 0 of 64-bit mode and stays there: Muen has made its page tables, with the rights that the image's segments ask for, and
//! keeps them from it. The image brings its own descriptors and reports its own faults. It reaches others through shared memory alone ([`fogbow_muen_interface`]
//! says how): the console is the debug log, a network device a pair of channels, the clock what the kernel and the time subject publish. Channels
//! belong to other subjects as much as to this one, and nothing that they say is believed before it is checked.
//!
//! Nothing tells an image that a frame has come: it looks at its channels until its turn is over, which costs nothing that anybody else could have
//! had, for Muen gives every subject its turns by a fixed plan.
//!
//! Sources: ABI note 4, subject information 04 and 05, as of `bindings/muen` of Solo5 0.12.1.
//!
//! Limits: no block devices: Muen's bindings of Solo5 have none. Time stands still within a turn of the subject, but for a nanosecond at each look. How
//! the image ended is in the debug log alone, as Muen has no place for it.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod boot;
mod console;
mod entry;
mod net;
mod platform;
mod power;

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
    pub use fogbow_x86::program;
}

use fogbow_solo5::manifest::DeviceKind;

/// Takes the network device `name` of the manifest.
///
/// # Errors
/// [`DeviceError`] when there is no such device, when it is taken, or when the subject has no channels for it.
pub fn net(name: &str) -> Result<Net, DeviceError> {
    let guest = platform::guest().ok_or(DeviceError::NotStarted)?;
    Net::new(guest, guest.devices.take(DeviceKind::Net, name)?).ok_or(DeviceError::NotStarted)
}

/// Makes the crate it is in an image for Muen: entry code, allocator, panic handler, notes and manifest.
///
/// `start` is an `async fn() -> Result<(), fogbow::StartError>`. The crate is `#![no_std]` and `#![no_main]`, and linked with this crate's `image.ld`.
///
/// ```text
/// fogbow_muen::image! { image: IMAGE, devices: [net "service"], start: start }
/// ```
#[macro_export]
macro_rules! image {
    { image: $image:expr, devices: [$($kind:ident $name:literal),* $(,)?], start: $start:path $(,)? } => {
        $crate::private::fogbow_solo5::guest! {
            target: Muen, version: 4, devices: [$($kind $name),*], heap: FOGBOW_HEAP, panic: $crate::private::end_after_panic,
        }

        const _: () = {
            use $crate::private::fogbow_solo5::manifest::DeclaredDevice;
            use $crate::private::{HANDLERS, core, prepare, program, run};

            const DEVICES: &[DeclaredDevice] = &[$(DeclaredDevice::$kind($name)),*];

            program! { PROGRAM, main: main, prepare: prepare, handlers: HANDLERS }

            // Muen jumps here with the address of the boot information in RDI, which `prepare` wants too, and a stack at the end of memory, which is
            // left to the heap.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".text.fogbow.entry")]
            unsafe extern "C" fn _start() -> ! {
                core::arch::naked_asm!(
                    "lea rsp, [rip + fogbow_stack_top]",
                    "xor ebp, ebp",
                    "lea rsi, [rip + {program}]",
                    "call {prepare}",
                    "ud2",
                    program = sym PROGRAM,
                    prepare = sym prepare,
                )
            }

            extern "C" fn main() -> ! {
                // SAFETY: `prepare` calls this once, as the main function of `PROGRAM`; the devices are those of the manifest.
                unsafe { run(&FOGBOW_HEAP, DEVICES, &$image, $start) }
            }
        };
    };
}
