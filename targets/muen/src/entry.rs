//! From Muen's jump to the image's own code, and what the image does about faults.

use core::ffi::c_void;

use fogbow::console::write_to;
use fogbow_muen_interface::boot::{self, BootInfo, INFO_SIZE};
use fogbow_muen_interface::sinfo::{self, Sinfo};
use fogbow_x86::entry;
use fogbow_x86::fault::{Fault, Report};
use fogbow_x86::layout::Layout;
use fogbow_x86::program::{Handlers, Program};
use fogbow_x86::shared::Shared;

use crate::{console, power};

/// What the image does about faults.
pub const HANDLERS: Handlers = Handlers { report, last_words };

/// What the image knows when its main function begins. All of it lies in memory that does not change.
pub(crate) struct Boot {
    pub(crate) layout: Layout,
    pub(crate) sinfo: Sinfo<'static>,
    pub(crate) command_line: &'static [u8],
    /// Where memory ends.
    pub(crate) memory_end: u64,
}

/// What [`prepare`] found out; `None` before.
pub(crate) fn boot() -> Option<&'static Boot> {
    // SAFETY: written once, by `prepare`, before any code that reads it runs but the fault handler, which reads it when nothing writes any more.
    unsafe { (*BOOT.get()).as_ref() }
}

static BOOT: Shared<Option<Boot>> = Shared::new(None);

/// Prints a fault and ends the image.
extern "C" fn report(fault: &Fault) -> ! {
    console::take_over();
    let layout = boot().map(|boot| &boot.layout);
    write_to(&mut console::write, format_args!("{}\n", Report { fault, layout }));
    power::end(fogbow::status::ABORT)
}

/// The end when that faults. The console may be what faulted: nothing is said.
#[unsafe(naked)]
unsafe extern "C" fn last_words() -> ! {
    core::arch::naked_asm!("2:", "cli", "hlt", "jmp 2b")
}

/// The first Rust code: takes faults over, reads what Muen says, and goes on in the image's main function.
///
/// # Safety
/// Called once, by the entry code, on the image's stack, with the address of the boot information and a true [`Program`].
pub unsafe extern "C" fn prepare(info: *mut c_void, program: &Program) -> ! {
    // SAFETY: a subject begins in ring 0 of 64-bit mode, with interrupts off; Muen has mapped the image with the rights of its segments.
    unsafe { entry::install(program.handlers) };
    // SAFETY: Muen maps the subject information there in every subject, and nobody writes to it.
    let sinfo = unsafe { &*core::ptr::with_exposed_provenance::<[u8; sinfo::SIZE]>(boot::SINFO as usize) };
    let sinfo = match Sinfo::read(sinfo) {
        Ok(sinfo) => sinfo,
        Err(error) => {
            console::begin_anyhow();
            write_to(&mut console::write, format_args!("cannot start: {error}\n"));
            power::end(fogbow::status::ABORT)
        }
    };
    console::begin(&sinfo);
    // SAFETY: Muen passes the address of a page with the boot information, and nobody writes to it.
    let page = unsafe { &*info.cast_const().cast::<[u8; INFO_SIZE]>() };
    let info_address = info.addr() as u64;
    let info = BootInfo::read(page);
    let heap = info.free(program.end.addr() as u64);
    let layout = Layout::under_other_tables(program, info_address..info_address + INFO_SIZE as u64, heap);
    let boot = Boot { layout, sinfo, command_line: boot::command_line(page), memory_end: info.memory_end };
    // SAFETY: nothing has read it yet, and there is one thread.
    unsafe { *BOOT.get() = Some(boot) };
    (program.main)()
}
