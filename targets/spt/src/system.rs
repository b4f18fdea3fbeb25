//! The system calls that the tender's filter allows, and no others.
//!
//! The filter kills the process on any other call, and on these with other first arguments than the tender gave out: `write` to the
//! console and to net devices, `read` from net devices, `pread64` and `pwrite64` on block devices with the length of one sector and an
//! offset within the device (Fogbow's tender takes more of both, and `fdatasync`, where its manifest says so), `epoll_pwait` and `timerfd_settime` on the tender's own descriptors, `clock_gettime` of two clocks,
//! `exit_group`. Numbers: Linux's `arch/x86/entry/syscalls/syscall_64.tbl`.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};
use core::fmt;
use core::mem::MaybeUninit;

use fogbow::counter::Reading;

const READ: usize = 0;
const WRITE: usize = 1;
const PREAD64: usize = 17;
const PWRITE64: usize = 18;
const FDATASYNC: usize = 75;
const CLOCK_GETTIME: usize = 228;
const EXIT_GROUP: usize = 231;
const EPOLL_PWAIT: usize = 281;
const TIMERFD_SETTIME: usize = 286;

/// The console: the host's standard output.
pub const CONSOLE: Descriptor = Descriptor(1);

/// `TFD_TIMER_ABSTIME` of Linux's `timerfd.h`: the time is a moment of the clock, not a duration.
const ABSOLUTE: usize = 1;

/// A file descriptor of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub i32);

/// Why a system call failed: a number of Linux's `errno.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(pub i32);

impl Error {
    /// `EINTR`: a signal came in between; try again.
    pub const INTERRUPTED: Self = Self(4);
    /// `EAGAIN`: nothing to read, or no room to write, now.
    pub const AGAIN: Self = Self(11);
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {} of the host", self.0)
    }
}

impl core::error::Error for Error {}

/// A clock of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// `CLOCK_REALTIME`.
    Wall = 0,
    /// `CLOCK_MONOTONIC`.
    Monotonic = 1,
}

/// `struct timespec` on x86-64.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct TimeSpec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct itimerspec`.
#[repr(C)]
struct TimerSpec {
    interval: TimeSpec,
    value: TimeSpec,
}

/// `struct epoll_event`, which is packed on x86-64.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed)]
pub struct Event {
    /// What happened, as flags.
    pub flags: u32,
    /// What the tender registered with the descriptor.
    pub data: u64,
}

/// Reads what is there, at most `into.len()` bytes; from a net device one frame.
///
/// # Errors
/// [`Error::AGAIN`] when there is nothing to read; never [`Error::INTERRUPTED`].
pub fn read(from: Descriptor, into: &mut [u8]) -> Result<usize, Error> {
    // SAFETY: the kernel writes at most `into.len()` bytes to `into`.
    unsafe { retry(READ, from.argument(), into.as_mut_ptr().expose_provenance(), into.len(), 0) }
}

/// Writes `bytes`, perhaps not all; to a net device one frame.
///
/// # Errors
/// [`Error::AGAIN`] when there is no room now; never [`Error::INTERRUPTED`].
pub fn write(to: Descriptor, bytes: &[u8]) -> Result<usize, Error> {
    // SAFETY: the kernel reads at most `bytes.len()` bytes from `bytes`.
    unsafe { retry(WRITE, to.argument(), bytes.as_ptr().expose_provenance(), bytes.len(), 0) }
}

/// Reads at `offset` of a block device; the filter demands that `into` is one sector within it, or as much as the manifest offers.
///
/// # Errors
/// As the host gives them; never [`Error::INTERRUPTED`].
pub fn read_at(from: Descriptor, into: &mut [u8], offset: u64) -> Result<usize, Error> {
    // SAFETY: the kernel writes at most `into.len()` bytes to `into`.
    unsafe { retry(PREAD64, from.argument(), into.as_mut_ptr().expose_provenance(), into.len(), offset as usize) }
}

/// Writes at `offset` of a block device; the filter demands that `bytes` is one sector within it, or as much as the manifest offers.
///
/// # Errors
/// As the host gives them; never [`Error::INTERRUPTED`].
pub fn write_at(to: Descriptor, bytes: &[u8], offset: u64) -> Result<usize, Error> {
    // SAFETY: the kernel reads at most `bytes.len()` bytes from `bytes`.
    unsafe { retry(PWRITE64, to.argument(), bytes.as_ptr().expose_provenance(), bytes.len(), offset as usize) }
}

/// Waits until what was written to a block device is on stable storage. The filter allows it where the manifest offers it.
///
/// # Errors
/// As the host gives them; never [`Error::INTERRUPTED`].
pub fn sync_data(of: Descriptor) -> Result<(), Error> {
    // SAFETY: the call touches no memory.
    unsafe { retry(FDATASYNC, of.argument(), 0, 0, 0) }.map(|_| ())
}

/// Reads a clock: nanoseconds since its start.
#[must_use]
pub fn clock(clock: Clock) -> u64 {
    let mut time = TimeSpec::default();
    // SAFETY: the kernel writes one `struct timespec` to `time`. The call cannot fail: both clocks exist and the address is good.
    let _ = unsafe { call(CLOCK_GETTIME, clock as usize, (&raw mut time).expose_provenance(), 0, 0, 0) };
    // Neither is negative before the year 1970.
    time.seconds.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(time.nanoseconds.cast_unsigned())
}

/// Ticks of the counter, a microsecond or less, within which the host reads its clock when nothing comes in between.
const QUICK: u64 = 2000;

/// Reads a clock and the time stamp counter at the same moment, as nearly as can be.
#[must_use]
pub fn clock_and_counter(clock: Clock) -> Reading {
    let read = || {
        let before = counter();
        let nanos = self::clock(clock);
        let took = counter().saturating_sub(before);
        (took, Reading { counter: before + took / 2, nanos })
    };
    // One that was interrupted in between says little: the quickest of three then.
    let first = read();
    if first.0 < QUICK {
        return first.1;
    }
    let [second, third] = [read(), read()];
    [second, third].into_iter().fold(first, |quickest, other| if other.0 < quickest.0 { other } else { quickest }).1
}

/// Reads the time stamp counter.
#[must_use]
pub fn counter() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC; Linux forbids it to a process only by PR_SET_TSC, which no tender of the family does.
    unsafe { _rdtsc() }
}

/// Whether the time stamp counter ticks at one rate, whatever the processor does (Intel SDM volume 3B, 19.17.1: CPUID leaf 8000_0007H, EDX bit 8).
#[must_use]
pub fn has_invariant_counter() -> bool {
    const LEAF: u32 = 0x8000_0007;
    __cpuid(0x8000_0000).eax >= LEAF && __cpuid(LEAF).edx & 1 << 8 != 0
}

/// Sets the timer to go off once when the monotonic clock shows `deadline` (nanoseconds), or never. Forgets that it went off before.
///
/// # Errors
/// As the host gives them.
pub fn set_timer(timer: Descriptor, deadline: Option<u64>) -> Result<(), Error> {
    // All zero means never, so the beginning of time is its first nanosecond.
    let nanoseconds = deadline.map_or(0, |deadline| deadline.max(1));
    let value = TimeSpec { seconds: (nanoseconds / 1_000_000_000).cast_signed(), nanoseconds: (nanoseconds % 1_000_000_000).cast_signed() };
    let spec = TimerSpec { interval: TimeSpec::default(), value };
    // SAFETY: the kernel reads one `struct itimerspec` from `spec`, and writes nothing, for the fourth argument is null.
    let result = unsafe { call(TIMERFD_SETTIME, timer.argument(), ABSOLUTE, (&raw const spec).expose_provenance(), 0, 0) };
    outcome(result).map(|_| ())
}

/// Waits until a descriptor of the set is ready or `milliseconds` have passed (-1: for ever), and gives what is ready.
///
/// # Errors
/// As the host gives them; never [`Error::INTERRUPTED`]: then the wait begins again.
pub fn wait(set: Descriptor, events: &mut [MaybeUninit<Event>], milliseconds: i32) -> Result<&[Event], Error> {
    loop {
        let (address, room) = (events.as_mut_ptr().expose_provenance(), events.len());
        // SAFETY: the kernel writes at most `events.len()` events to `events`; the signal mask is null.
        let result = unsafe { call(EPOLL_PWAIT, set.argument(), address, room, milliseconds as isize as usize, 0) };
        match outcome(result) {
            Err(Error::INTERRUPTED) => {}
            Err(error) => return Err(error),
            Ok(count) => {
                let given = &events[..count.min(room)];
                // SAFETY: the kernel has written the first `count` events.
                return Ok(unsafe { given.assume_init_ref() });
            }
        }
    }
}

/// Ends the process.
pub fn exit(status: u8) -> ! {
    loop {
        // SAFETY: the call does not return; if it did, it would be made again.
        let _ = unsafe { call(EXIT_GROUP, usize::from(status), 0, 0, 0, 0) };
    }
}

impl Descriptor {
    const fn argument(self) -> usize {
        self.0 as isize as usize
    }
}

fn outcome(result: isize) -> Result<usize, Error> {
    usize::try_from(result).map_err(|_| Error(result.wrapping_neg() as i32))
}

/// # Safety
/// As [`call`].
unsafe fn retry(number: usize, a: usize, b: usize, c: usize, d: usize) -> Result<usize, Error> {
    loop {
        // SAFETY: passed on to the caller, word by word.
        match outcome(unsafe { call(number, a, b, c, d, 0) }) {
            Err(Error::INTERRUPTED) => {}
            other => return other,
        }
    }
}

/// # Safety
/// What the kernel does for this call and these arguments keeps to memory that the caller may let it read or write; the addresses among
/// the arguments have their provenance exposed.
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result;
    // SAFETY: the kernel changes RAX, RCX and R11 alone and leaves the stack alone (System V ABI for x86-64, appendix A.2.1); the caller
    // answers for memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number.cast_signed() => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") 0,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_and_errors_have_their_numbers() {
        let (before, after) = (clock(Clock::Monotonic), clock(Clock::Monotonic));
        assert!(0 < before && before <= after);
        // 2020-01-01
        assert!(clock(Clock::Wall) > 1_577_836_800 * 1_000_000_000);
        assert_eq!(read(Descriptor(-1), &mut [0]), Err(Error(9)), "EBADF");
        assert_eq!(set_timer(Descriptor(-1), None), Err(Error(9)));
    }
}
