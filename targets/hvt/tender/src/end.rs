//! How the tender ends: with one line on standard error, and a status.
//!
//! Once the sandbox is closed, the runtime's own way out (flushing, freeing, unmapping) takes system calls that are no longer allowed.
//! So every end after that point goes straight to the kernel, and what a message takes of the heap is reserved before.

use core::fmt::Display;
use std::io;

use fogbow_tender::options::ERROR_STATUS;

use crate::PROGRAM;

/// Ends the process with this status, at once. Statuses are taken modulo 256, as by `exit(3)`.
pub(crate) fn now(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Ends the process with a message and [`ERROR_STATUS`].
pub(crate) fn with_error(error: &dyn Display) -> ! {
    now(PROGRAM.fail(error))
}

/// Has the calling thread's part of the heap ready for a message, so that writing one asks the host for no memory: the sandbox does
/// not allow that.
pub(crate) fn reserve_for_messages() {
    /// Many times what the longest message takes, and less than the C library maps on its own.
    const RESERVE: usize = 32 << 10;
    drop(core::hint::black_box(Vec::<u8>::with_capacity(RESERVE)));
}

/// Makes SIGINT and SIGTERM end the process with a message and [`ERROR_STATUS`], as Solo5's tenders do.
///
/// # Errors
/// The host's.
pub(crate) fn on_signals() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: an all-zero `sigaction` is a valid one: no flags, an empty mask, the default handler.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        action.sa_sigaction = end_on_signal as extern "C" fn(libc::c_int) as usize;
        // SAFETY: both pointers are valid or null; the handler makes no call that is unsafe in a signal handler.
        if unsafe { libc::sigaction(signal, &action, core::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn end_on_signal(signal: libc::c_int) {
    let message: &[u8] = match signal {
        libc::SIGINT => b"fogbow-hvt-tender: Exiting on signal 2 (interrupt)\n",
        _ => b"fogbow-hvt-tender: Exiting on signal 15 (terminate)\n",
    };
    // SAFETY: the buffer is valid; `write` and `_exit` may be called from signal handlers.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
        libc::_exit(ERROR_STATUS);
    }
}
