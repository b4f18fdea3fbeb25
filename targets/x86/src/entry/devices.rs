//! The service by which ring 3 has pages of devices mapped that lie beyond 4 GiB.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use super::{RING0, Ring0};
use crate::descriptors::Gate;
use crate::paging::devices::map as map_page;

/// The service's vector.
const VECTOR: usize = 53;

/// The gate of the service, for [`set_gate`](super::set_gate).
#[must_use]
pub fn gate() -> (usize, Gate) {
    (VECTOR, Gate::new(service as *const () as u64, 3))
}

/// Maps the page around the address in RSI; the answer is in RAX.
#[unsafe(naked)]
unsafe extern "C" fn service() {
    naked_asm!(
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "mov rdi, cr3",
        "lea rdx, [rip + {ring0} + {spare}]",
        "call {map_page}",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "iretq",
        ring0 = sym RING0,
        spare = const offset_of!(Ring0, spare),
        map_page = sym map_page,
    )
}

/// Maps the page of 2 MiB around `address` to itself, as [`paging::devices::map`](crate::paging::devices::map) does. True when it is mapped.
///
/// # Safety
/// [`gate`] is set, and [`start`](super::start) has run.
#[must_use]
pub unsafe fn map(address: u64) -> bool {
    let mapped: u64;
    // SAFETY: the service changes RAX alone; no memory that the program has is mapped otherwise than before.
    unsafe { asm!("int {vector}", vector = const VECTOR, in("rsi") address, lateout("rax") mapped, options(nostack)) };
    mapped as u32 == 1
}
