//! Start of day: from the library's start information to `fogbow::run`, and the end after a panic.

use alloc::ffi::CString;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::Future;
use core::panic::PanicInfo;

use fogbow::heap::Heap;
use fogbow::{Image, StartError, arguments, status};
use fogbow_solo5::device::Devices;
use fogbow_solo5::layout::COMMAND_LINE_SIZE;
use fogbow_solo5::manifest::{DeclaredDevice, Device, DeviceKind, Manifest, Properties, Unusable};

use crate::library::{self, StartInfo};
use crate::platform::{self, Genode, Guest};

/// Network devices are signalled by a bit of an `int`, whose highest bit is its sign: `Net_device::_handle_signal` of `bindings/genode`.
const MAX_NET_HANDLE: u64 = 30;

/// Runs the image to its end and gives its status.
///
/// # Safety
/// Called once, by `solo5_app_main`, with what the library passed. `heap` has no memory yet, and is the allocator; `devices` are those of the image's manifest.
pub unsafe fn run<S, F>(info: *const StartInfo, heap: &'static Heap, devices: &[DeclaredDevice], image: &Image, start: S) -> i32
where
    S: FnOnce() -> F,
    F: Future<Output = Result<(), StartError>> + 'static,
{
    // SAFETY: the library passes the address of its start information.
    let info = unsafe { info.read() };
    // SAFETY: the library gives this memory to the image for good and uses it for nothing else.
    unsafe { heap.claim(core::ptr::with_exposed_provenance_mut(info.heap_start), info.heap_size) };
    // SAFETY: the library keeps the command line, terminated, as long as the image runs.
    let line = unsafe { command_line(&info) };
    // SAFETY: the caller promises that these are the manifest's.
    let manifest = unsafe { acquire_all(devices) };
    let platform = Genode::new(platform::register(Guest::new(Devices::new(manifest))), heap, info.heap_size);
    let status = fogbow::run(Rc::new(platform), image, arguments::split(&line), start);
    platform::flush_console();
    status.into()
}

/// # Safety
/// The command line is null or a C string.
unsafe fn command_line(info: &StartInfo) -> String {
    if info.command_line.is_null() {
        return String::new();
    }
    let byte = |index| {
        // SAFETY: every byte up to the terminator is there, and no byte beyond it is asked for.
        unsafe { info.command_line.cast::<u8>().add(index).read() }
    };
    // `CStr` would import strlen, which Genode's linker does not offer.
    let bytes: Vec<u8> = (0..COMMAND_LINE_SIZE).map(byte).take_while(|byte| *byte != 0).collect();
    fogbow_solo5::layout::command_line(&bytes)
}

/// What the sessions turned out to be, which the library has opened by now.
///
/// # Safety
/// The devices are those of the manifest.
pub(crate) unsafe fn acquire_all(devices: &[DeclaredDevice]) -> Manifest {
    let acquired = (1u8..).zip(devices).map(|(handle, declared)| {
        // SAFETY: passed on to the caller.
        let properties = unsafe { acquire(declared, handle) };
        Device { name: declared.name().into(), handle, kind: declared.kind(), properties, host_descriptor: -1 }
    });
    Manifest::from_devices(acquired.collect::<Vec<_>>())
}

/// # Safety
/// The device is one of the manifest.
unsafe fn acquire(device: &DeclaredDevice, handle: u8) -> Result<Properties, Unusable> {
    let name = CString::new(device.name()).map_err(|_| Unusable::NotAttached)?;
    let (given, properties) = match device.kind() {
        DeviceKind::Net => {
            // SAFETY: the caller promises that the manifest has this device.
            let (given, info) = unsafe { library::net_acquire(&name) }.ok_or(Unusable::NotAttached)?;
            if given > MAX_NET_HANDLE {
                return Err(Unusable::NotAttached);
            }
            (given, Properties::net(info.mac, u16::try_from(info.mtu).unwrap_or(u16::MAX), false)?)
        }
        DeviceKind::Block => {
            // SAFETY: as above.
            let (given, info) = unsafe { library::block_acquire(&name) }.ok_or(Unusable::NotAttached)?;
            (given, Properties::block(info.capacity, u16::try_from(info.block_size).unwrap_or(0), None, false)?)
        }
    };
    // The library's handle is the place in the manifest, and is used as an index there: no other may go back to it.
    if given == u64::from(handle) { Ok(properties) } else { Err(Unusable::NotAttached) }
}

/// Ends the image after a panic: a message on the console, and [`status::ABORT`].
pub fn end_after_panic(panic: &PanicInfo<'_>) -> ! {
    fogbow_solo5::panic::report(panic, &mut platform::write_console);
    platform::flush_console();
    library::exit(status::ABORT)
}
