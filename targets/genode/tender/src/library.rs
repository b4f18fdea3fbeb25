//! The functions of `solo5.lib.so`, over the host's descriptors.
//!
//! They behave as `bindings/genode` of Solo5 0.6.9 does, with what that asks of an image: a wait whose deadline is not in the future sees no frame, and a
//! frame is signalled when it arrives, not while it waits. What is undefined there (an empty console line, a name or handle that the manifest does not have)
//! ends the image here, with a message.

use core::ffi::{CStr, c_char, c_int};
use core::ops::Range;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fogbow_tender::attach::Attached;
use fogbow_tender::manifest::{DeviceKind, Manifest, Properties};
use fogbow_tender::options::ABORT_STATUS;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use crate::PROGRAM;

/// `solo5_result_t`.
const OK: c_int = 0;
const AGAIN: c_int = 1;
const INVALID: c_int = 2;
const UNSPECIFIED: c_int = 3;

/// A wait as short as this is none: the host's timers are coarser (Linux: 50 µs of slack).
const SHORTEST_WAIT: Duration = Duration::from_micros(20);

/// `struct solo5_start_info`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct StartInfo {
    command_line: *const c_char,
    heap_start: usize,
    heap_size: usize,
}

// SAFETY: the command line is never written nor freed.
unsafe impl Send for StartInfo {}

impl StartInfo {
    /// `command_line` ends with a zero.
    pub(crate) fn new(command_line: Vec<u8>, heap: Range<usize>) -> Self {
        Self { command_line: command_line.leak().as_ptr().cast(), heap_start: heap.start, heap_size: heap.len() }
    }
}

/// What stands behind the functions.
#[derive(Debug)]
pub(crate) struct Library {
    manifest: Manifest,
    devices: Vec<Attached>,
    events: OwnedFd,
    start: Instant,
}

static LIBRARY: OnceLock<Library> = OnceLock::new();

/// Makes this the library of the process.
pub(crate) fn install(library: Library) {
    LIBRARY.get_or_init(|| library);
}

fn library() -> &'static Library {
    LIBRARY.get().unwrap_or_else(|| undefined("a call before the library is there"))
}

/// The address of the function of this name.
pub(crate) fn address(name: &str) -> Option<u64> {
    let address = match name {
        "solo5_exit" => solo5_exit as *const (),
        "solo5_abort" => solo5_abort as *const (),
        "solo5_console_write" => solo5_console_write as *const (),
        "solo5_clock_monotonic" => solo5_clock_monotonic as *const (),
        "solo5_clock_wall" => solo5_clock_wall as *const (),
        "solo5_yield" => solo5_yield as *const (),
        "solo5_net_acquire" => solo5_net_acquire as *const (),
        "solo5_net_read" => solo5_net_read as *const (),
        "solo5_net_write" => solo5_net_write as *const (),
        "solo5_block_acquire" => solo5_block_acquire as *const (),
        "solo5_block_read" => solo5_block_read as *const (),
        "solo5_block_write" => solo5_block_write as *const (),
        "solo5_set_tls_base" => solo5_set_tls_base as *const (),
        // Of Genode's ld.lib.so.
        "memcpy" => libc::memcpy as *const (),
        "memmove" => libc::memmove as *const (),
        "memset" => libc::memset as *const (),
        _ => return None,
    };
    Some(address.expose_provenance() as u64)
}

impl Library {
    pub(crate) fn new(manifest: Manifest, devices: Vec<Attached>) -> io::Result<Self> {
        let events = epoll::create(CreateFlags::CLOEXEC)?;
        for (handle, device) in (1..).zip(&devices) {
            if matches!(device.properties, Properties::Net { .. }) {
                epoll::add(&events, &device.descriptor, EventData::new_u64(handle), EventFlags::IN | EventFlags::ET)?;
            }
        }
        Ok(Self { manifest, devices, events, start: Instant::now() })
    }

    /// Microseconds of the Timer session.
    fn microseconds(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wait(&self, deadline: u64) -> u64 {
        let mut events: Vec<Event> = Vec::with_capacity(16);
        loop {
            let rest = Duration::from_micros((deadline / 1000).saturating_sub(self.microseconds()));
            if rest.is_zero() {
                return 0;
            }
            let timeout = if rest <= SHORTEST_WAIT { Duration::ZERO } else { rest };
            let timeout = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
            // An interrupted wait is an early one.
            let _ = epoll::wait(&self.events, spare_capacity(&mut events), Some(&timeout));
            let ready = events.iter().fold(0, |ready, event| ready | 1 << (event.data.u64() & 63));
            if ready != 0 || rest <= SHORTEST_WAIT {
                return ready;
            }
        }
    }

    fn acquire(&self, name: *const c_char, kind: DeviceKind) -> (u64, Properties) {
        // SAFETY: the image passes a C string.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let index = self.manifest.position(&name, kind);
        let device = index.and_then(|index| Some((index as u64 + 1, self.devices.get(index)?.properties)));
        device.unwrap_or_else(|| undefined(&format!("{kind} device '{name}' is acquired, and the manifest declares {}", self.manifest)))
    }

    fn descriptor(&self, handle: u64, kind: DeviceKind) -> BorrowedFd<'_> {
        let index = usize::try_from(handle).ok().and_then(|handle| handle.checked_sub(1));
        let declared = index.filter(|index| self.manifest.devices().get(*index).is_some_and(|device| device.kind == kind));
        match declared.and_then(|index| self.devices.get(index)) {
            Some(device) => device.descriptor.as_fd(),
            None => undefined(&format!("handle {handle} is used, and no {kind} device of the manifest has it")),
        }
    }

    /// True when a transfer is of whole sectors within the device.
    fn is_within(&self, handle: u64, offset: u64, size: usize) -> bool {
        let device = usize::try_from(handle).ok().and_then(|handle| self.devices.get(handle.checked_sub(1)?));
        let Some(Properties::Block { capacity, block_size, .. }) = device.map(|device| device.properties) else { return false };
        let is_aligned = offset.is_multiple_of(block_size.into()) && (size as u64).is_multiple_of(block_size.into());
        is_aligned && offset.checked_add(size as u64).is_some_and(|end| end <= capacity)
    }
}

/// Ends the image for a call whose outcome the library leaves open.
fn undefined(what: &str) -> ! {
    eprintln!("{}: the image's call is undefined on Genode: {what}", PROGRAM.name);
    std::process::exit(ABORT_STATUS)
}

extern "C" fn solo5_exit(status: c_int) -> ! {
    std::process::exit(status)
}

extern "C" fn solo5_abort() -> ! {
    std::process::exit(ABORT_STATUS)
}

extern "C" fn solo5_set_tls_base(_base: usize) -> c_int {
    UNSPECIFIED
}

extern "C" fn solo5_clock_monotonic() -> u64 {
    library().microseconds() * 1000
}

extern "C" fn solo5_clock_wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

unsafe extern "C" fn solo5_yield(deadline: u64, ready_set: *mut u64) {
    let ready = library().wait(deadline);
    if ready != 0 && !ready_set.is_null() {
        // SAFETY: the image passes null or a set of its own.
        unsafe { ready_set.write(ready) };
    }
}

unsafe extern "C" fn solo5_console_write(text: *const u8, size: usize) {
    // SAFETY: the image passes its text, which of an empty one need not be an address.
    let text = if size == 0 { &[] } else { unsafe { core::slice::from_raw_parts(text, size) } };
    let Some(end) = text.iter().rposition(|byte| !matches!(byte, 0 | b'\n')) else { undefined("an empty line is written to the console") };
    let line = [&text[..=end], b"\n"].concat();
    let mut rest = &line[..];
    while !rest.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), rest) {
            Ok(count) => rest = &rest[count..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // Nobody reads: a LOG session does not tell either.
            Err(_) => return,
        }
    }
}

unsafe extern "C" fn solo5_net_acquire(name: *const c_char, handle: *mut u64, info: *mut NetInfo) -> c_int {
    let (number, properties) = library().acquire(name, DeviceKind::Net);
    let Properties::Net { mac, .. } = properties else { return INVALID };
    // SAFETY: the image passes places of its own for both. The MTU is what `bindings/genode` takes every network's to be.
    unsafe {
        handle.write(number);
        info.write(NetInfo { mac, mtu: 1500 });
    }
    OK
}

unsafe extern "C" fn solo5_net_read(handle: u64, into: *mut u8, size: usize, length: *mut usize) -> c_int {
    // SAFETY: the image passes a buffer and a place of its own.
    let (into, length) = unsafe { (core::slice::from_raw_parts_mut(into, size), &mut *length) };
    match rustix::io::read(library().descriptor(handle, DeviceKind::Net), into) {
        // A tap gives no empty frame.
        Ok(0) => {
            eprintln!("{}: a network device of this image is gone: what was behind it on the host has ended", PROGRAM.name);
            std::process::exit(1)
        }
        Ok(count) => {
            *length = count;
            OK
        }
        Err(_) => AGAIN,
    }
}

unsafe extern "C" fn solo5_net_write(handle: u64, frame: *const u8, size: usize) -> c_int {
    // SAFETY: the image passes a frame of its own.
    let frame = unsafe { core::slice::from_raw_parts(frame, size) };
    match rustix::io::write(library().descriptor(handle, DeviceKind::Net), frame) {
        Ok(_) => OK,
        Err(_) => AGAIN,
    }
}

unsafe extern "C" fn solo5_block_acquire(name: *const c_char, handle: *mut u64, info: *mut BlockInfo) -> c_int {
    let (number, properties) = library().acquire(name, DeviceKind::Block);
    let Properties::Block { capacity, block_size, .. } = properties else { return INVALID };
    // SAFETY: the image passes places of its own for both.
    unsafe {
        handle.write(number);
        info.write(BlockInfo { capacity, block_size: block_size.into() });
    }
    OK
}

unsafe extern "C" fn solo5_block_read(handle: u64, offset: u64, into: *mut u8, size: usize) -> c_int {
    // SAFETY: the image passes a buffer of its own.
    let into = unsafe { core::slice::from_raw_parts_mut(into, size) };
    let descriptor = library().descriptor(handle, DeviceKind::Block);
    if !library().is_within(handle, offset, size) {
        return INVALID;
    }
    if rustix::io::pread(descriptor, into, offset) == Ok(size) { OK } else { UNSPECIFIED }
}

unsafe extern "C" fn solo5_block_write(handle: u64, offset: u64, data: *const u8, size: usize) -> c_int {
    // SAFETY: the image passes data of its own.
    let data = unsafe { core::slice::from_raw_parts(data, size) };
    let descriptor = library().descriptor(handle, DeviceKind::Block);
    if !library().is_within(handle, offset, size) {
        return INVALID;
    }
    if rustix::io::pwrite(descriptor, data, offset) == Ok(size) { OK } else { UNSPECIFIED }
}

/// `struct solo5_net_info`.
#[repr(C)]
struct NetInfo {
    mac: [u8; 6],
    mtu: usize,
}

/// `struct solo5_block_info`.
#[repr(C)]
struct BlockInfo {
    capacity: u64,
    block_size: u64,
}
