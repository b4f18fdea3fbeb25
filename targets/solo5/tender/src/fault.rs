//! A guest's fault, told in one line on standard error and by status 255.
//!
//! The handler runs in the process that the guest has taken over: on a stack of its own, since the guest's may be what faulted; without
//! thread-local storage, since FS is the guest's by then; and with nothing but the two system calls that a sandbox allows it.
//!
//! For tenders whose guests run in the tender's own process.

use core::ffi::{c_int, c_void};
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::sync::OnceLock;

use rustix::mm::{MapFlags, ProtFlags};

use crate::elf::{PAGE_SIZE, Segment};
use crate::options::ABORT_STATUS;

/// Bytes of the handler's stack: the kernel's frame with the largest vector state (some 12 KiB) and the handler's own.
const STACK_SIZE: usize = 64 * 1024;
/// The signals that a fault of the guest becomes.
const FAULTS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// Where the page begins that the guest's stack stands upon; 0 when there is none. Written once, before the guest starts.
static STACK_GUARD: AtomicU64 = AtomicU64::new(0);
/// The tender's name, for the message.
static PROGRAM: OnceLock<&str> = OnceLock::new();

/// Catches the faults of the guest, which is to run on the calling thread, from here on. `program` is the tender's name, for the message; `stack_guard` is
/// where the page begins that the guest's stack stands upon, if there is one.
///
/// # Errors
/// What the host says when it refuses the handler's stack or the handler.
pub fn install(program: &'static str, stack_guard: Option<u64>) -> io::Result<()> {
    PROGRAM.get_or_init(|| program);
    STACK_GUARD.store(stack_guard.unwrap_or_default(), Ordering::Relaxed);
    set_signal_stack()?;
    for signal in FAULTS {
        // SAFETY: all-zero bytes are a valid sigaction: no flags, no mask, the default action.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and keeps to what the module's comment says.
        if unsafe { libc::sigaction(signal, &raw const action, core::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The page below a stack that stands upon read-only memory: the last one of a segment that cannot be written, with memory of no segment above it, as
/// Fogbow's linker script puts it. Images laid out otherwise have none.
#[must_use]
pub fn stack_guard(segments: &[Segment]) -> Option<u64> {
    let below_a_gap = segments.windows(2).filter(|pair| pair[0].pages.end < pair[1].pages.start).map(|pair| &pair[0]);
    below_a_gap.filter(|segment| !segment.protection.write).map(|segment| segment.pages.end - PAGE_SIZE).next_back()
}

fn set_signal_stack() -> io::Result<()> {
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: without MAP_FIXED the mapping replaces nothing.
    let stack = unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), STACK_SIZE, rights, MapFlags::PRIVATE) }?;
    let signal_stack = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: STACK_SIZE };
    // SAFETY: the stack is a mapping of that size which is never unmapped nor used for anything else.
    let result = unsafe { libc::sigaltstack(&raw const signal_stack, core::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle(signal: c_int, information: *const libc::siginfo_t, context: *const c_void) {
    // SAFETY: the kernel hands an SA_SIGINFO handler a siginfo_t and a ucontext_t that are valid until it returns, which it does not.
    let (information, context) = unsafe { (&*information, &*context.cast::<libc::ucontext_t>()) };
    // SAFETY: for the signals handled here si_addr is filled in; where it is not, it is some number and no more is done with it than print it.
    let address = unsafe { information.si_addr() }.addr();
    let registers = &context.uc_mcontext.gregs;
    let register = |index: c_int| registers[index as usize].cast_unsigned();
    let fault = Fault {
        signal,
        sent: information.si_code <= 0,
        trap: register(libc::REG_TRAPNO),
        error_code: register(libc::REG_ERR),
        address,
        instruction: register(libc::REG_RIP),
        stack: register(libc::REG_RSP),
        stack_guard: STACK_GUARD.load(Ordering::Relaxed),
    };
    let mut line = Line::new();
    // A line that does not fit is cut, which is better than none.
    let _ = writeln!(line, "{}: {fault}", PROGRAM.get().unwrap_or(&"tender"));
    // SAFETY: descriptor 2 is never closed by this process; if it was not open to begin with, writing fails and harms nothing.
    let standard_error = unsafe { std::os::fd::BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
    // Nothing can be done about a message that cannot be written.
    let _ = rustix::io::write(standard_error, line.as_bytes());
    exit_group(ABORT_STATUS)
}

/// Ends the process without a word to the C library, whose state is behind a thread pointer that the guest has changed.
fn exit_group(status: i32) -> ! {
    // SAFETY: exit_group ends the process; nothing runs after it.
    unsafe {
        core::arch::asm!("syscall", "ud2", in("rax") libc::SYS_exit_group, in("rdi") status, options(noreturn));
    }
}

/// What the processor and the kernel say of a fault.
struct Fault {
    signal: c_int,
    /// By another process, with kill(2).
    sent: bool,
    trap: u64,
    error_code: u64,
    address: usize,
    instruction: u64,
    stack: u64,
    /// The page that the stack stands upon; 0 if there is none.
    stack_guard: u64,
}

impl Fault {
    /// Whether a page fault is the stack's, grown into its guard: code touches every page on the way down, so that the stack pointer is near.
    fn is_stack_overflow(&self) -> bool {
        let address = self.address as u64;
        self.stack_guard != 0
            && (self.stack_guard..self.stack_guard + PAGE_SIZE).contains(&address)
            && address.abs_diff(self.stack) <= 2 * PAGE_SIZE
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The processor's exception for a page fault (Intel SDM volume 3, 6.15).
        const PAGE_FAULT: u64 = 14;
        /// Bits of its error code.
        const WRITE: u64 = 1 << 1;
        const INSTRUCTION_FETCH: u64 = 1 << 4;
        formatter.write_str("guest fault: ")?;
        let name = match self.signal {
            libc::SIGSEGV if !self.sent && self.trap == PAGE_FAULT => {
                let access = match self.error_code {
                    code if code & INSTRUCTION_FETCH != 0 => "executing",
                    code if code & WRITE != 0 => "writing to",
                    _ => "reading from",
                };
                if self.is_stack_overflow() {
                    formatter.write_str("stack overflow: ")?;
                }
                write!(formatter, "page fault {access} address {:#x}", self.address)?;
                ""
            }
            libc::SIGSEGV => "general protection fault (SIGSEGV)",
            libc::SIGBUS => "memory access error (SIGBUS)",
            libc::SIGILL => "invalid instruction (SIGILL)",
            libc::SIGFPE => "arithmetic error (SIGFPE)",
            _ => "breakpoint or debug trap (SIGTRAP)",
        };
        formatter.write_str(name)?;
        if self.sent {
            formatter.write_str(" sent by another process")?;
        }
        write!(formatter, ", rip {:#x}, rsp {:#x}", self.instruction, self.stack)
    }
}

/// A line of text without a heap.
struct Line {
    bytes: [u8; 256],
    length: usize,
}

impl Line {
    fn new() -> Self {
        Self { bytes: [0; 256], length: 0 }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}
