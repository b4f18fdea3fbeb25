//! The end: the last words of every guest of the Solo5 family on Muen, the event that the policy may have for it, and a halt.

use core::arch::asm;

use fogbow::console::write_to;
use fogbow_muen_interface::boot::{EXIT_EVENT, HALTED};

use crate::{console, entry};

/// Ends the subject. Muen has no place for a status: it is in the debug log.
pub(crate) fn end(status: u8) -> ! {
    console::end_line();
    // The words are those of Solo5's own guests (`solo5_exit`, `platform_exit`).
    write_to(&mut console::write, format_args!("Solo5: solo5_exit({status}) called\n{HALTED}\n"));
    if let Some(number) = entry::boot().and_then(|boot| boot.sinfo.event(EXIT_EVENT)) {
        // SAFETY: Muen takes the call as the event of this number, which is the subject's own; it changes no memory of it.
        unsafe { asm!("vmcall", in("rax") u64::from(number), options(nostack)) };
    }
    loop {
        // SAFETY: the processor halts for good, as interrupts are off.
        unsafe { asm!("cli", "hlt", options(nostack, nomem)) };
    }
}
