//! From the tender's first instruction to the image's own code: what `fogbow-x86` needs to know of hvt, and what hvt does about faults.
//!
//! The way itself, from ring 0 to ring 3, is [`fogbow_x86::entry`]'s.

use core::arch::naked_asm;
use core::ffi::c_void;

use fogbow::console;
use fogbow_x86::entry::{self, Prepared};
use fogbow_x86::fault::{Fault, Report};
use fogbow_x86::layout::{Given, Layout};
use fogbow_x86::program::{Handlers, Program};
use fogbow_x86::shared::Shared;

use crate::boot_info::BootInfo;
use crate::hypercall::{self, Halt, Hypercall, PORTS, Puts};
use crate::ring::SharedRing;

/// What the image does about faults.
pub const HANDLERS: Handlers = Handlers { report, last_words };

/// What the image knows when its main function begins.
pub(crate) struct Boot {
    pub(crate) info: BootInfo,
    pub(crate) layout: Layout,
}

/// What [`prepare`] found out; `None` before.
pub(crate) fn boot() -> Option<&'static Boot> {
    // SAFETY: written once, by `prepare`, before any code that reads it runs; there is one thread.
    unsafe { (*BOOT.get()).as_ref() }
}

static BOOT: Shared<Option<Boot>> = Shared::new(None);

/// Prints a fault and ends the image.
extern "C" fn report(fault: &Fault) -> ! {
    let layout = boot().map(|boot| &boot.layout);
    console::write_to(&mut hypercall::puts, format_args!("{}\n", Report { fault, layout }));
    hypercall::halt(fogbow::status::ABORT)
}

/// The end when that faults.
#[unsafe(naked)]
unsafe extern "C" fn last_words() -> ! {
    naked_asm!(
        "lea rax, [rip + {last_words}]",
        "mov edx, {puts}",
        "out dx, eax",
        "lea rax, [rip + {halt_argument}]",
        "mov edx, {halt}",
        "2:",
        "out dx, eax",
        "jmp 2b",
        last_words = sym LAST_WORDS,
        puts = const PORTS.start + Hypercall::Puts as u16,
        halt_argument = sym HALT,
        halt = const PORTS.start + Hypercall::Halt as u16,
    )
}

static LAST_WORDS_TEXT: [u8; 40] = *b"fault: another fault while reporting it\n";
static LAST_WORDS: Shared<Puts> = Shared::new(Puts { data: LAST_WORDS_TEXT.as_ptr(), length: LAST_WORDS_TEXT.len() as u64 });
static HALT: Shared<Halt> = Shared::new(Halt { cookie: core::ptr::null(), status: fogbow::status::ABORT as i32 });

/// The first Rust code: lays memory out, and goes on in the image's main function.
///
/// # Safety
/// Called once, by the entry code, with the tender's boot information and a true [`Program`].
pub unsafe extern "C" fn prepare(info: *mut c_void, program: &Program) -> ! {
    // SAFETY: the page of ring 0 is free to change here.
    unsafe { entry::allow_ports(PORTS) };
    let info = info.cast::<BootInfo>();
    let info_address = info.addr() as u64;
    // SAFETY: the tender's structure is valid; the tables of the entry code allow to write it, which nothing else does.
    let info = unsafe {
        (*info).accept();
        *info
    };
    let given = Given {
        memory: info.memory,
        handed_over: info.extent(info_address, program.start.addr() as u64),
        shared: info.ring().map(|ring| ring..ring.saturating_add(size_of::<SharedRing>() as u64)),
        high: None,
        spare_tables: 0,
    };
    // SAFETY: this is the program's `prepare`, which runs once.
    match unsafe { entry::prepare(program, &given) } {
        Ok(Prepared { layout, root }) => {
            let stack_end = layout.stack.end;
            // SAFETY: nothing has read it yet; nothing on this stack is used again.
            unsafe {
                *BOOT.get() = Some(Boot { info, layout });
                entry::start(program, root, stack_end, &[])
            }
        }
        Err(error) => fail(&error),
    }
}

/// Ends an image that cannot start.
fn fail(error: &dyn core::fmt::Display) -> ! {
    console::write_to(&mut hypercall::puts, format_args!("cannot start: {error}\n"));
    hypercall::halt(fogbow::status::ABORT)
}
