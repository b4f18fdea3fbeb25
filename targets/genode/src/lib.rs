//! The genode target: a component of the Genode OS Framework, as a shared object against `solo5.lib.so`.
//!
//! Genode's dynamic linker loads the image and the library, which opens a session for each device of the image's manifest and calls
//! [`solo5_app_main`](image!). The image calls back into the library ([`library`]) and makes no system call of its own.
//!
//! Source of every constant: `solo5.h` and `bindings/genode` of Solo5 0.6.9, the last version with this target. What the library's behaviour asks of an image
//! is kept here: a wait's deadline is always in the future, a console line is never empty, network devices are drained at each
//! wake-up, and only devices of the manifest are asked for.
//!
//! Limits: the library signals network devices by a bit of an `int`, so a network device is one of the first 30 devices; its MTU is taken to be 1500.
//! A partial console line is held back until it ends or the image does. Nothing tells of a fault but Genode itself.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod block;
mod boot;
mod console;
pub mod library;
mod net;
mod platform;

pub use block::{BlockDevice, BlockSession};
pub use fogbow_solo5::DeviceError;
pub use net::{Net, Receiver, Transmitter};

#[doc(hidden)]
pub mod private {
    //! What [`image!`](crate::image) expands to.
    pub use crate::boot::{end_after_panic, run};
    pub use crate::library::StartInfo;
    pub use fogbow_solo5;
}

use fogbow_solo5::manifest::DeviceKind;

/// Takes the network device `name` of the manifest.
///
/// # Errors
/// [`DeviceError`] when there is no such device, when it is taken, or when its session cannot be used.
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
    BlockDevice::new(device, BlockSession::of(device)).ok_or(DeviceError::NotStarted)
}

/// Makes the crate it is in an image for Genode: `solo5_app_main`, allocator, panic handler and manifest.
///
/// `start` is an `async fn() -> Result<(), fogbow::StartError>`. The crate is `#![no_std]`, a `cdylib`, and linked with `image.ld` of this target.
///
/// ```text
/// fogbow_genode::image! { image: IMAGE, devices: [net "service", block "disk"], start: start }
/// ```
#[macro_export]
macro_rules! image {
    { image: $image:expr, devices: [$($kind:ident $name:literal),* $(,)?], start: $start:path $(,)? } => {
        #[global_allocator]
        static FOGBOW_HEAP: $crate::private::fogbow_solo5::fogbow::heap::Heap = $crate::private::fogbow_solo5::fogbow::heap::Heap::new();

        #[panic_handler]
        fn panic(panic: &::core::panic::PanicInfo<'_>) -> ! {
            $crate::private::end_after_panic(panic)
        }

        const FOGBOW_DEVICES: &[$crate::private::fogbow_solo5::manifest::DeclaredDevice] =
            &[$($crate::private::fogbow_solo5::manifest::DeclaredDevice::$kind($name)),*];

        /// What the library opens sessions for; it imports this name.
        #[unsafe(export_name = "__solo5_mft1_note")]
        #[unsafe(link_section = ".note.solo5.manifest")]
        pub static FOGBOW_MANIFEST: $crate::private::fogbow_solo5::notes::ManifestNote<{ FOGBOW_DEVICES.len() + 1 }> =
            $crate::private::fogbow_solo5::notes::ManifestNote::new(FOGBOW_DEVICES);

        $crate::private::fogbow_solo5::memory_functions!();

        /// What the library calls once it has opened the sessions; the result is the component's exit value.
        ///
        /// # Safety
        /// Called once, by the library, with its start information.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn solo5_app_main(start: *const $crate::private::StartInfo) -> i32 {
            // SAFETY: passed on to the caller.
            unsafe { $crate::private::run(start, &FOGBOW_HEAP, FOGBOW_DEVICES, &$image, $start) }
        }
    };
}
