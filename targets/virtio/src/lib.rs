//! The virtio target: an image that QEMU starts by `-kernel` on the machines `pc`, `q35` and `microvm`, or another monitor that loads by PVH, or a loader
//! such as GRUB by multiboot.
//!
//! The loader starts the image in 32-bit protected mode (PVH: `xen/include/public/arch-x86/hvm/start_info.h` of Xen). The image goes to
//! 64-bit mode and, as on hvt, drops to ring 3 for good under page tables of its own (`fogbow-x86` says how). From there it reaches its devices
//! directly: the map of ports in the task state segment allows those that [`mod@ports`] names, which costs nothing where `IOPL` or a service in ring 0
//! would cost either all ports or a trap for each access; and the addresses of memory-mapped devices are mapped for it, readable and writable.
//!
//! Ring 3 cannot halt the processor, so one service does that: `int 48` turns interrupts on, halts, and comes back when one arrived. Interrupts are on
//! nowhere else. An image is therefore never interrupted in its own code: an interrupt does nothing but end the halt, and none is lost between the
//! last look at a device and the halt, as it stays pending in the interrupt controller until then.
//!
//! Limits: x86-64, one processor, memory in two pieces, one from the first MiB on and one from 4 GiB on; one pair of queues for each network device.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod acpi;
mod apic;
mod bind;
mod block;
mod boot;
mod button;
mod clock;
mod console;
mod entry;
mod firmware;
mod guest;
mod interrupts;
mod loader;
mod mmio;
mod net;
mod pci;
mod platform;
pub mod ports;
mod power;
mod queue;
mod random;
mod serial;
mod slots;
mod transport;
mod window;

pub use bind::DeviceError;
pub use block::BlockDevice;
pub use net::{Net, Receiver, Transmitter};
pub use transport::SetupError;

use fogbow_solo5::manifest::DeviceKind;

/// Takes the network device `name` of the manifest.
///
/// # Errors
/// [`DeviceError`] when there is no such device, when it is taken, or when the machine's cannot be used.
pub fn net(name: &str) -> Result<Net, DeviceError> {
    let guest = guest::guest().ok_or(DeviceError::NotStarted)?;
    let kind = DeviceKind::Net;
    let (transport, found) = guest.take(kind, name)?;
    Net::new(guest, transport).map_err(|error| DeviceError::unusable(kind, name, found.place, error))
}

#[doc(hidden)]
pub mod private {
    //! What [`image!`](crate::image) expands to.
    pub use crate::boot::{end_after_panic, run};
    pub use crate::entry::{HANDLERS, enter, prepare};
    pub use crate::loader::{multiboot::enter as enter_by_multiboot, pvh::EntryNote};
    pub use core;
    pub use fogbow;
    pub use fogbow_solo5;
    pub use fogbow_x86::program;
}

/// Takes the block device `name` of the manifest.
///
/// # Errors
/// As [`net()`].
pub fn block(name: &str) -> Result<BlockDevice, DeviceError> {
    let guest = guest::guest().ok_or(DeviceError::NotStarted)?;
    let kind = DeviceKind::Block;
    let (transport, found) = guest.take(kind, name)?;
    BlockDevice::new(guest, transport, name).map_err(|error| DeviceError::unusable(kind, name, found.place, error))
}

/// Makes the crate it is in an image for virtual machines: entry code, allocator, panic handler, the PVH note and the multiboot entry.
///
/// `start` is an `async fn() -> Result<(), fogbow::StartError>`. The crate is `#![no_std]` and `#![no_main]`, and linked with this crate's `image.ld`.
///
/// ```text
/// fogbow_virtio::image! { image: IMAGE, devices: [net "service"], start: start }
/// ```
#[macro_export]
macro_rules! image {
    { image: $image:expr, devices: [$($kind:ident $name:literal),* $(,)?], start: $start:path $(,)? } => {
        #[global_allocator]
        static FOGBOW_HEAP: $crate::private::fogbow::heap::Heap = $crate::private::fogbow::heap::Heap::new();

        #[panic_handler]
        fn panic(panic: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::private::end_after_panic(panic)
        }

        $crate::private::fogbow_solo5::memory_functions!();

        const _: () = {
            use $crate::private::{EntryNote, HANDLERS, core, enter, enter_by_multiboot, prepare, program, run};

            program! { PROGRAM, main: main, prepare: prepare, handlers: HANDLERS }

            #[used]
            #[unsafe(link_section = ".note.pvh")]
            static NOTE: EntryNote = EntryNote::new(_start);

            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".text.fogbow.entry")]
            unsafe extern "C" fn _start() -> ! {
                core::arch::naked_asm!(
                    ".code32",
                    "lea esi, [{program}]",
                    "jmp {enter}",
                    ".code64",
                    program = sym PROGRAM,
                    enter = sym enter,
                )
            }

            // Named by the header in `image.ld`.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            #[unsafe(link_section = ".text.fogbow.entry")]
            unsafe extern "C" fn _start_by_multiboot() -> ! {
                core::arch::naked_asm!(
                    ".code32",
                    "lea eax, [{start}]",
                    "lea ebp, [{program}]",
                    "jmp {enter}",
                    ".code64",
                    start = sym fogbow_text_start,
                    program = sym PROGRAM,
                    enter = sym enter_by_multiboot,
                )
            }

            extern "C" fn main() -> ! {
                use $crate::private::fogbow_solo5::manifest::DeclaredDevice;
                const DEVICES: &[DeclaredDevice] = &[$(DeclaredDevice::$kind($name)),*];
                // SAFETY: the entry code calls this once, as the main function of `PROGRAM`.
                unsafe { run(&FOGBOW_HEAP, &$image, DEVICES, $start) }
            }
        };
    };
}
