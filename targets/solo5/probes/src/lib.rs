//! Deliberate violations, to see that a target stops them.
//!
//! Each function does what no correct image does. Where the target keeps its promises, the processor refuses and the image ends with a
//! fault; a function that returns has found a hole. All are safe to call by design: what they touch is the program's own and unused by
//! anything else, and each access is one machine instruction that the compiler knows nothing of, so that there is no undefined behaviour
//! on the Rust side of a hole either.
//!
//! Limits: x86-64 only. For images; in an ordinary process they raise the signals that they raise there.
#![no_std]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::hint::black_box;

/// The machine code of `ret`, which a call survives wherever it is allowed to execute.
const RETURN: u8 = 0xc3;

/// The words that [`write_rodata`] and [`execute_data`] touch: one in read-only, one in writable memory.
static CONSTANT: u64 = 0x0123_4567_89ab_cdef;
#[unsafe(link_section = ".data")]
static VARIABLE: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(RETURN as u64);

// The word that `write_text` touches: behind a return, so that nothing executes it.
global_asm!(".pushsection .text.fogbow.probes, \"ax\", @progbits", "fogbow_probes_text: ret", "nop", ".popsection");

unsafe extern "C" {
    safe fn fogbow_probes_text();
}

/// Writes to the program's code.
pub fn write_text() {
    write(fogbow_probes_text as *const () as usize + 1, 0x90);
}

/// Writes to a constant of the program: the byte that is there already.
pub fn write_rodata() {
    write(black_box(&raw const CONSTANT) as usize, CONSTANT.to_le_bytes()[0]);
}

/// Calls machine code in the program's variables.
pub fn execute_data() {
    execute(black_box(VARIABLE.as_ptr()).cast());
}

/// Calls machine code on the heap.
pub fn execute_heap() {
    let code = black_box(Box::new([RETURN; 16]));
    execute(code.as_ptr());
}

/// Calls machine code on the stack.
pub fn execute_stack() {
    let code = black_box([RETURN; 16]);
    execute(code.as_ptr());
}

/// Reads the first page of the address space, where a null pointer and its fields are.
pub fn read_page_zero() {
    // SAFETY: the instruction faults, which ends the image, or reads a byte that nobody looks at.
    unsafe { asm!("mov {value}, byte ptr [{address}]", address = in(reg) 8usize, value = out(reg_byte) _, options(nostack, readonly)) };
}

/// Writes to the first page of the address space.
pub fn write_page_zero() {
    write(8, 0);
}

/// Uses more stack than there is, in frames of half a kilobyte.
pub fn overflow_stack() {
    black_box(descend(black_box(0)));
}

/// Uses more stack than there is in one frame, whose far end is far below the guard.
pub fn overflow_stack_at_once() {
    let mut frame = black_box([0u8; 4 << 20]);
    black_box(&mut frame);
}

/// Divides by zero.
pub fn divide_by_zero() {
    // SAFETY: the instruction faults, which ends the image, or changes two registers.
    unsafe { asm!("div {zero:e}", zero = in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _, options(nostack, nomem)) };
}

/// Executes an instruction that does not exist.
pub fn invalid_instruction() {
    // SAFETY: the instruction faults, which ends the image, or does nothing.
    unsafe { asm!("ud2", options(nostack, nomem)) };
}

/// Halts the processor, which only privileged code may.
pub fn privileged_instruction() {
    // SAFETY: the instruction faults, which ends the image, or waits for an interrupt.
    unsafe { asm!("hlt", options(nostack, nomem)) };
}

/// Takes memory until there is none.
pub fn exhaust_memory() {
    let mut taken: Vec<Vec<u8>> = Vec::new();
    loop {
        taken.push(black_box(Vec::with_capacity(64 * 1024)));
    }
}

/// Panics.
pub fn panic() {
    panic!("a deliberate panic");
}

fn write(address: usize, value: u8) {
    // SAFETY: the instruction faults, which ends the image, or writes a byte that the callers chose for nothing to depend on it.
    unsafe { asm!("mov byte ptr [{address}], {value}", address = in(reg) address, value = in(reg_byte) value, options(nostack)) };
}

/// Calls the `ret` at `code`.
fn execute(code: *const u8) {
    // SAFETY: the call faults, which ends the image, or returns at once; the registers are those that any function may change.
    unsafe { asm!("call {code}", code = in(reg) code, clobber_abi("C")) };
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "the point of it")]
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    descend(black_box(depth + 1)) + frame[63]
}
