//! What an image tells the entry code of itself.

use core::ffi::c_void;

use crate::fault::Fault;

/// What a target does about faults.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Handlers {
    /// Prints a fault and ends the image, on the fault stack, in the ring that the image runs in. It may use any code that needs no heap.
    pub report: extern "C" fn(&Fault) -> !,
    /// Ends the image in ring 0 when the report faults too: naked, in general registers, with the stack pointer on the page of ring 0.
    pub last_words: unsafe extern "C" fn() -> !,
}

/// What the linker knows of an image, for the entry code: the symbols that its `image.ld` defines; and where it goes on.
#[repr(C)]
pub struct Program {
    /// `fogbow_text_start`.
    pub start: *const u8,
    /// `fogbow_text_end`.
    pub code_end: *const u8,
    /// `fogbow_stack_guard`.
    pub guard: *const u8,
    /// `fogbow_stack_bottom`.
    pub stack: *const u8,
    /// `fogbow_stack_top`.
    pub stack_end: *const u8,
    /// `fogbow_end`.
    pub end: *const u8,
    /// Where the image goes on in ring 3, on its stack and under its own page tables.
    pub main: extern "C" fn() -> !,
    /// The first code in ring 3: gets what [`enter`](crate::entry::enter) got and this program. Everything that it mapped may be written and executed.
    pub prepare: unsafe extern "C" fn(*mut c_void, &Program) -> !,
    /// What the target does about faults.
    pub handlers: Handlers,
}

// SAFETY: nothing is ever read or written through the pointers: they are addresses.
unsafe impl Sync for Program {}

/// Defines the static `$name`, the [`Program`] of the image whose crate this is in. For the `image!` macros of the targets.
///
/// The addresses are the symbols that the target's `image.ld` defines.
#[macro_export]
macro_rules! program {
    { $name:ident, main: $main:path, prepare: $prepare:path, handlers: $handlers:path $(,)? } => {
        // SAFETY (of the names): `image.ld` defines these symbols; they are only ever taken the address of.
        unsafe extern "C" {
            static fogbow_text_start: u8;
            static fogbow_text_end: u8;
            static fogbow_stack_guard: u8;
            static fogbow_stack_bottom: u8;
            static fogbow_stack_top: u8;
            static fogbow_end: u8;
        }

        static $name: $crate::program::Program = $crate::program::Program {
            start: &raw const fogbow_text_start,
            code_end: &raw const fogbow_text_end,
            guard: &raw const fogbow_stack_guard,
            stack: &raw const fogbow_stack_bottom,
            stack_end: &raw const fogbow_stack_top,
            end: &raw const fogbow_end,
            main: $main,
            prepare: $prepare,
            handlers: $handlers,
        };
    };
}
