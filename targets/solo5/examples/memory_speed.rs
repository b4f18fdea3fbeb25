//! The memory functions beside those of the host's C library: nanoseconds per call, and how many times the C library's speed that is.
//!
//! `cargo run --release -p fogbow-solo5 --example memory_speed`

use std::ffi::c_void;
use std::hint::black_box;
use std::time::Instant;

use fogbow_solo5::memory;

unsafe extern "C" {
    fn memcpy(into: *mut c_void, from: *const c_void, length: usize) -> *mut c_void;
    fn memmove(into: *mut c_void, from: *const c_void, length: usize) -> *mut c_void;
    fn memset(into: *mut c_void, value: i32, length: usize) -> *mut c_void;
    fn memcmp(left: *const c_void, right: *const c_void, length: usize) -> i32;
}

/// Bytes on each side: the longest length and room for offsets.
const ROOM: usize = (1 << 20) + 64;
const LENGTHS: [usize; 18] = [1, 3, 8, 15, 16, 24, 40, 64, 65, 100, 200, 576, 1514, 2048, 4096, 16384, 65536, 1 << 20];

type Function = fn(*mut u8, *mut u8, usize);

fn main() {
    let (mut left, mut right) = (vec![1; ROOM], vec![1; ROOM]);
    let rows: [(&str, Function, Function); 4] = [
        ("copy", our_copy, host_copy),
        ("move", our_move, host_move),
        ("fill", our_fill, host_fill),
        ("compare", our_compare, host_compare),
    ];
    println!("{:>9} {:>9} {:>10} {:>10} {:>7}", "function", "bytes", "ours/ns", "libc/ns", "speed");
    for (name, ours, host) in rows {
        for length in LENGTHS {
            let (ours, host) = times(ours, host, &mut left, &mut right, length);
            println!("{name:>9} {length:>9} {ours:>10.2} {host:>10.2} {:>7.2}", host / ours);
        }
    }
}

/// The best of several interleaved rounds of each, so that a disturbance from outside hits neither alone.
fn times(ours: Function, host: Function, left: &mut [u8], right: &mut [u8], length: usize) -> (f64, f64) {
    (0..15).fold((f64::MAX, f64::MAX), |(a, b), _| (a.min(time(ours, left, right, length)), b.min(time(host, left, right, length))))
}

fn time(function: Function, left: &mut [u8], right: &mut [u8], length: usize) -> f64 {
    let calls = (2_000_000 / (length + 32)).max(20);
    let function = black_box(function);
    let start = Instant::now();
    for call in 0..calls {
        // Offsets change as those of real buffers do.
        let offset = call * 7 % 32;
        function(left[offset..].as_mut_ptr(), right[32 - offset..].as_mut_ptr(), black_box(length));
    }
    start.elapsed().as_nanos() as f64 / calls as f64
}

fn our_copy(into: *mut u8, from: *mut u8, length: usize) {
    // SAFETY: `time` passes places in two vectors with `length` bytes behind them, here and below.
    unsafe { memory::copy(into, from, length) };
}

fn host_copy(into: *mut u8, from: *mut u8, length: usize) {
    // SAFETY: as in `our_copy`.
    unsafe { memcpy(into.cast(), from.cast(), length) };
}

fn our_move(into: *mut u8, from: *mut u8, length: usize) {
    // SAFETY: as in `our_copy`.
    unsafe { memory::shift(into, from, length) };
}

fn host_move(into: *mut u8, from: *mut u8, length: usize) {
    // SAFETY: as in `our_copy`.
    unsafe { memmove(into.cast(), from.cast(), length) };
}

fn our_fill(into: *mut u8, _: *mut u8, length: usize) {
    // SAFETY: as in `our_copy`.
    unsafe { memory::fill(into, 1, length) };
}

fn host_fill(into: *mut u8, _: *mut u8, length: usize) {
    // SAFETY: as in `our_copy`.
    unsafe { memset(into.cast(), 1, length) };
}

fn our_compare(left: *mut u8, right: *mut u8, length: usize) {
    // SAFETY: as in `our_copy`.
    black_box(unsafe { memory::compare(left, right, length) });
}

fn host_compare(left: *mut u8, right: *mut u8, length: usize) {
    // SAFETY: as in `our_copy`.
    black_box(unsafe { memcmp(left.cast(), right.cast(), length) });
}
