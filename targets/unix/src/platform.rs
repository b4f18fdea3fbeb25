//! The process as a platform.

use std::io::{self, IsTerminal, Write};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use fogbow::Platform;
use fogbow::entropy::{Collect, Occasion, Processor, REFRESH_BYTES, START_BYTES, Source};
use fogbow::platform::{Memory, Wait};
use fogbow::time::{Instant, WallTime};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::reactor::Reactor;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What a pipe that has room at all takes without waiting (`PIPE_BUF` of Linux).
const CONSOLE_ROOM: usize = 4096;

/// A Linux process.
pub(crate) struct Unix {
    reactor: Rc<Reactor>,
    processor: Processor,
}

impl Unix {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { reactor: Reactor::install()?, processor: Processor::new() })
    }
}

// SAFETY: `fogbow` is compiled with its feature `hosted` for this crate, so it keeps its state per thread.
unsafe impl Platform for Unix {
    fn monotonic(&self) -> Instant {
        let now = clock_gettime(ClockId::Monotonic);
        Instant::from_nanos(now.tv_sec as u64 * NANOS_PER_SECOND + now.tv_nsec as u64)
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime::from_unix_nanos(since.as_nanos() as u64)
    }

    fn write_console(&self, bytes: &[u8]) {
        // When standard output is gone there is nobody left to tell.
        let mut output = io::stdout().lock();
        let _ = output.write_all(bytes).and_then(|()| output.flush());
    }

    fn console_is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    fn offer_console(&self, bytes: &[u8]) -> usize {
        let mut output = [PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::OUT)];
        match poll(&mut output, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => 0,
            // What is closed or broken takes everything, and loses it.
            _ => {
                let taken = bytes.len().min(CONSOLE_ROOM);
                self.write_console(&bytes[..taken]);
                taken
            }
        }
    }

    fn wait(&self, wait: Wait) {
        let nanos = match wait {
            Wait::Poll => 0,
            Wait::Until(deadline) => deadline.duration_since(self.monotonic()).as_nanos() as u64,
            Wait::Forever => return self.reactor.wait(None),
        };
        self.reactor.wait(Some(&Timespec { tv_sec: (nanos / NANOS_PER_SECOND) as i64, tv_nsec: (nanos % NANOS_PER_SECOND) as _ }));
    }

    fn entropy(&self, occasion: Occasion, collect: &mut Collect<'_>) {
        let mut bytes = [0; START_BYTES];
        let bytes = match occasion {
            Occasion::Start => &mut bytes[..],
            Occasion::Refresh => &mut bytes[..REFRESH_BYTES],
        };
        // Up to 256 bytes come whole or not at all (getrandom(2)); without them the processor is left, and they are asked for again.
        if getrandom(&mut *bytes, GetRandomFlags::empty()).is_ok() {
            collect(Source::Host, bytes);
        }
        self.processor.gather(occasion, collect);
    }

    /// The host's memory, and this process's resident part of it; the host's allocator keeps no further account.
    fn memory(&self) -> Memory {
        let info = rustix::system::sysinfo();
        let total = (info.totalram as usize).saturating_mul(info.mem_unit as usize);
        Memory { total, heap: total, used: resident(), ..Memory::default() }
    }

    fn exit(&self, status: u8) -> ! {
        std::process::exit(status.into())
    }
}

/// Resident memory of this process in bytes, from the second field of `/proc/self/statm` (proc(5)), which counts pages; 0 where it cannot be read.
fn resident() -> usize {
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<usize>().ok())
        .map_or(0, |pages| pages * rustix::param::page_size())
}
