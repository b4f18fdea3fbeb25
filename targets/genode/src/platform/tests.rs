use super::*;
use alloc::string::String;

/// A library in memory, for the thread that tests.
pub(crate) mod library {
    use core::ffi::{CStr, c_char, c_int};
    use std::cell::RefCell;
    use std::string::String;
    use std::vec::Vec;

    use crate::library::{BlockInfo, NetInfo};

    #[derive(Default)]
    pub(crate) struct State {
        pub(crate) now: u64,
        pub(crate) deadlines: Vec<u64>,
        pub(crate) ready: u64,
        pub(crate) lines: Vec<Vec<u8>>,
        pub(crate) acquired: Vec<String>,
    }

    std::thread_local! {
        pub(crate) static STATE: RefCell<State> = RefCell::default();
    }

    pub(crate) fn with<R>(use_state: impl FnOnce(&mut State) -> R) -> R {
        STATE.with_borrow_mut(use_state)
    }

    pub(crate) fn solo5_exit(status: c_int) -> ! {
        panic!("the image ends with status {status}")
    }

    pub(crate) fn solo5_clock_monotonic() -> u64 {
        with(|state| state.now)
    }

    pub(crate) fn solo5_clock_wall() -> u64 {
        with(|state| state.now)
    }

    pub(crate) unsafe fn solo5_yield(deadline: u64, ready: *mut u64) {
        with(|state| {
            assert!(deadline / 1000 > state.now / 1000, "a deadline that is not in the future: {deadline} at {}", state.now);
            state.deadlines.push(deadline);
            state.now = deadline / 1000 * 1000;
            // SAFETY: the caller of this module's functions passes valid pointers, as the real ones do.
            unsafe { *ready = core::mem::take(&mut state.ready) };
        });
    }

    pub(crate) unsafe fn solo5_console_write(text: *const u8, size: usize) {
        // SAFETY: as above.
        let text = unsafe { core::slice::from_raw_parts(text, size) };
        assert!(text.iter().any(|byte| !matches!(byte, 0 | b'\n')), "the library looks for the end of an empty line before its beginning");
        with(|state| state.lines.push(text.to_vec()));
    }

    pub(crate) unsafe fn solo5_net_acquire(name: *const c_char, handle: *mut u64, info: *mut NetInfo) -> c_int {
        // SAFETY: as above.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
        // SAFETY: as above.
        unsafe {
            *handle = if name == "elsewhere" { 40 } else { 1 };
            *info = NetInfo { mac: [2, 0, 0, 0, 0, 1], mtu: 1500 };
        }
        with(|state| state.acquired.push(name));
        0
    }

    pub(crate) unsafe fn solo5_net_write(_handle: u64, _frame: *const u8, _size: usize) -> c_int {
        1
    }

    pub(crate) unsafe fn solo5_net_read(_handle: u64, _into: *mut u8, size: usize, length: *mut usize) -> c_int {
        // SAFETY: as above. More than there is room for.
        unsafe { *length = size + 1 };
        0
    }

    pub(crate) unsafe fn solo5_block_acquire(_name: *const c_char, handle: *mut u64, info: *mut BlockInfo) -> c_int {
        // SAFETY: as above.
        unsafe {
            *handle = 1;
            *info = BlockInfo { capacity: 1000, block_size: 512 };
        }
        0
    }

    pub(crate) unsafe fn solo5_block_write(_handle: u64, _offset: u64, _data: *const u8, _size: usize) -> c_int {
        3
    }

    pub(crate) unsafe fn solo5_block_read(_handle: u64, _offset: u64, _into: *mut u8, _size: usize) -> c_int {
        3
    }
}

use library::with;

fn platform() -> Genode {
    let guest = std::boxed::Box::leak(std::boxed::Box::new(Guest::new(Devices::new(Default::default()))));
    Genode::new(guest, std::boxed::Box::leak(std::boxed::Box::new(Heap::new())), 0)
}

#[test]
fn a_deadline_is_in_the_future_whatever_is_asked_for() {
    let platform = platform();
    for (now, wait) in [
        (999, Wait::Poll),
        (5_000_001, Wait::Until(Instant::from_nanos(0))),
        (5_000_999, Wait::Until(Instant::from_nanos(5_000_999))),
        (5_000_000, Wait::Until(Instant::from_nanos(5_000_001))),
    ] {
        with(|state| state.now = now);
        // The library in memory refuses any other.
        platform.wait(wait);
    }
}

#[test]
fn a_wait_ends_no_earlier_than_its_deadline_and_a_long_one_begins_anew() {
    let platform = platform();
    let deadline = Instant::from_nanos(3 * LONGEST_WAIT + 1);
    platform.wait(Wait::Until(deadline));
    assert!(platform.monotonic() >= deadline);
    assert!(with(|state| state.deadlines.len()) >= 3);
    with(|state| state.ready = 2);
    platform.wait(Wait::Forever);
    assert!(platform.monotonic() < Instant::from_nanos(5 * LONGEST_WAIT), "a frame ends a wait for ever");
}

#[test]
fn blank_lines_reach_the_library_as_a_space() {
    for line in [&b""[..], b"\0", b"\n\n", b"x"] {
        crate::library::log(line);
    }
    assert_eq!(with(|state| state.lines.clone()), [b" ", b" ", b" ", b"x"]);
}

#[test]
fn lengths_that_the_library_gives_are_no_more_than_there_is_room_for() {
    // SAFETY: the library in memory knows every handle.
    assert_eq!(unsafe { crate::library::net_read(1, &mut [0; 60]) }, Some(60));
}

#[test]
fn a_device_that_the_library_knows_by_another_handle_is_unusable() {
    use fogbow_solo5::manifest::{DeclaredDevice, DeviceKind, Unusable};
    let devices = [DeclaredDevice::net("service"), DeclaredDevice::net("elsewhere"), DeclaredDevice::block("disk")];
    // SAFETY: the library in memory knows every name.
    let devices = Devices::new(unsafe { crate::boot::acquire_all(&devices) });
    assert_eq!(devices.take(DeviceKind::Net, "service").map(|device| device.handle), Ok(1));
    assert!(devices.take(DeviceKind::Net, "elsewhere").is_err());
    assert!(devices.take(DeviceKind::Net, "undeclared").is_err());
    assert_eq!(devices.manifest().devices()[2].properties, Err(Unusable::Capacity(1000)));
    assert_eq!(with(|state| state.acquired.clone()), [String::from("service"), "elsewhere".into()], "no other name reaches the library");
}
