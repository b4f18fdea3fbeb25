//! The whole of what a target must supply.

use crate::current;
use crate::entropy::{Collect, Occasion};
use crate::time::{Instant, WallTime};

/// How long [`Platform::wait`] may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: look at the devices and return.
    Poll,
    /// Until a device is ready, or until this instant at the latest. An instant in the past means [`Wait::Poll`].
    Until(Instant),
    /// Until a device is ready.
    Forever,
}

/// Memory of the image, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All memory that the host gave to the image, its code included.
    pub total: usize,
    /// The part of it that the heap may use.
    pub heap: usize,
    /// Bytes of the heap that are allocated now.
    pub used: usize,
    /// The most that `used` has been.
    pub peak: usize,
    /// Blocks that are allocated now.
    pub blocks: usize,
    /// Blocks that have ever been allocated.
    pub allocations: u64,
    /// Holes between blocks: many small ones let a large allocation fail although their sum would do.
    pub holes: usize,
    /// The size of the last allocation that the heap had no room for, in bytes; 0 when it always had.
    pub refused: usize,
}

impl core::fmt::Display for Memory {
    /// The heap in a line: `1200 of 15000 KiB of heap in 340 blocks (peak 2048 KiB)`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let kib = |bytes: usize| bytes.div_ceil(1024);
        write!(f, "{} of {} KiB of heap in {} blocks (peak {} KiB)", kib(self.used), kib(self.heap), self.blocks, kib(self.peak))
    }
}

/// How much memory the image has and how much of it is used; all zero where the target cannot tell.
///
/// # Panics
/// When no runtime is running.
#[must_use]
pub fn memory() -> Memory {
    current::with(|runtime| runtime.platform.memory())
}

/// As [`memory`], for the last message of an image, which may have no runtime yet.
#[must_use]
pub fn memory_if_running() -> Option<Memory> {
    current::get().map(|runtime| runtime.platform.memory())
}

/// The generator has no seed: no full-strength [source](crate::entropy::Source) has given enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntropyError;

impl core::fmt::Display for EntropyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the random generator has no seed: give the machine RDSEED, RDRAND or a random device")
    }
}

impl core::error::Error for EntropyError {}

/// What a target supplies to the runtime. A new target is an implementation of this trait, its devices, its entry code and its linker script.
///
/// # Safety
/// Without the crate's feature `hosted`, the runtime keeps its state in one place for the whole image. The implementor promises that then the
/// image has one thread of execution, and that no interrupt or fault handler calls into the runtime.
pub unsafe trait Platform {
    /// The monotonic clock: nanoseconds since an arbitrary start, never going back.
    fn monotonic(&self) -> Instant;

    /// The wall clock: nanoseconds since 1970-01-01T00:00:00 UTC, as well as the host knows it.
    fn wall(&self) -> WallTime;

    /// Writes bytes to the console, all of them, in order.
    fn write_console(&self, bytes: &[u8]);

    /// Whether the console is a terminal that a person looks at, as well as the target can tell.
    fn console_is_terminal(&self) -> bool {
        false
    }

    /// Writes as many of `bytes` to the console, from the first on, as it takes without making the image wait for whoever reads it, and gives how many
    /// that were. Log messages go this way. A target that cannot tell writes them all.
    fn offer_console(&self, bytes: &[u8]) -> usize {
        self.write_console(bytes);
        bytes.len()
    }

    /// Waits as `wait` says, then wakes the tasks that wait for the devices which became ready.
    fn wait(&self, wait: Wait);

    /// Gives entropy of every source that the target has to `collect`, piece by piece, as much as `occasion` wants.
    ///
    /// Called at the first draw from the image's generator, and then at draws that come more than a few milliseconds after the last call; never
    /// in an image that draws nothing. A source that has nothing now is left out: it is asked again. Do not draw random bytes here.
    ///
    /// On x86-64, what the processor has is [`Processor::gather`](crate::entropy::Processor::gather).
    fn entropy(&self, occasion: Occasion, collect: &mut Collect<'_>);

    /// How much memory there is and how much is used.
    fn memory(&self) -> Memory;

    /// Starts the machine, and the image with it, anew; returns where the target cannot do that.
    fn restart(&self) {}

    /// Ends the image at once with `status`.
    fn exit(&self, status: u8) -> !;
}
