//! A platform for tests: a virtual clock, a seed, and a console that can be read.
//!
//! Time stands still while tasks run and jumps to the next deadline when all of them wait, so that a run depends on its seed alone and takes no
//! real time. This is what applications test themselves on (`cargo test`), and what deterministic simulations stand on.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::arguments::{Arguments, Group, Request};
use crate::entropy::{Collect, Occasion, REFRESH_BYTES, START_BYTES, Source};
use crate::executor::Runtime;
use crate::platform::{Memory, Platform, Wait};
use crate::start;
use crate::time::{Duration, Instant, WallTime};

/// When simulated wall clocks start: 2026-01-01T00:00:00 UTC, in nanoseconds of Unix time.
const EPOCH: u64 = 1_767_225_600_000_000_000;

/// One simulated node: make it, then [`block_on`](Self::block_on) a future.
pub struct Simulation {
    platform: Rc<SimulatedPlatform>,
    arguments: RefCell<Arguments>,
}

impl Simulation {
    /// A node whose randomness follows from `seed`. Its monotonic clock starts at zero, its wall clock at 2026-01-01.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let platform = SimulatedPlatform {
            now: Cell::new(0),
            cost_of_poll: Cell::new(0),
            cost_of_reading: Cell::new(0),
            console_room: Cell::new(usize::MAX),
            has_entropy: Cell::new(true),
            entropy: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
            console: RefCell::new(Vec::new()),
        };
        Self { platform: Rc::new(platform), arguments: RefCell::new(Arguments::default()) }
    }

    /// Gives the node its arguments.
    ///
    /// # Panics
    /// When `words` do not match what `groups` declare.
    #[must_use]
    pub fn with_arguments<const N: usize>(self, groups: &[Group], words: [&str; N]) -> Self {
        match Arguments::read(groups, words) {
            Ok(Request::Start(arguments)) => drop(self.arguments.replace(arguments)),
            other => panic!("arguments of a simulation: {other:?}"),
        }
        self
    }

    /// Makes every look at the devices take `cost` of virtual time; zero otherwise.
    pub fn set_cost_of_poll(&self, cost: Duration) {
        self.platform.cost_of_poll.set(cost.as_nanos() as u64);
    }

    /// Makes every reading of the monotonic clock take `cost` of virtual time, for code that waits by looking at it; zero otherwise.
    pub fn set_cost_of_reading(&self, cost: Duration) {
        self.platform.cost_of_reading.set(cost.as_nanos() as u64);
    }

    /// Sets how many bytes of log messages the console takes until the next call of this; at first it takes all.
    pub fn set_console_room(&self, bytes: usize) {
        self.platform.console_room.set(bytes);
    }

    /// Sets whether the machine has a full-strength source of entropy, as it does at first: with its seed, what the generator draws follows from it.
    pub fn set_entropy(&self, has_entropy: bool) {
        self.platform.has_entropy.set(has_entropy);
    }

    /// Runs `future`, and the tasks that it spawns, until it ends.
    ///
    /// # Panics
    /// When every task waits for something that can no longer happen, or one of them [ends the image](crate::shut_down).
    pub fn block_on<F>(&self, future: F) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let arguments = self.arguments.take();
        let journal = start::journal(&arguments, &*self.platform);
        let output = Runtime::new(self.platform(), arguments, journal).block_on(future);
        output.expect("the image was ended before its future")
    }

    /// The node's platform.
    #[must_use]
    pub fn platform(&self) -> Rc<dyn Platform> {
        Rc::clone(&self.platform) as Rc<dyn Platform>
    }

    /// What the node has written to its console so far.
    #[must_use]
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&self.platform.console.borrow()).into_owned()
    }
}

struct SimulatedPlatform {
    now: Cell<u64>,
    cost_of_poll: Cell<u64>,
    cost_of_reading: Cell<u64>,
    console_room: Cell<usize>,
    has_entropy: Cell<bool>,
    entropy: RefCell<ChaCha8Rng>,
    console: RefCell<Vec<u8>>,
}

// SAFETY: the runtime is compiled with per-thread state wherever this module exists.
unsafe impl Platform for SimulatedPlatform {
    fn monotonic(&self) -> Instant {
        self.now.set(self.now.get() + self.cost_of_reading.get());
        Instant::from_nanos(self.now.get())
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_nanos(EPOCH + self.now.get())
    }

    fn write_console(&self, bytes: &[u8]) {
        self.console.borrow_mut().extend_from_slice(bytes);
    }

    fn offer_console(&self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.console_room.get());
        self.console_room.set(self.console_room.get() - taken);
        self.write_console(&bytes[..taken]);
        taken
    }

    fn wait(&self, wait: Wait) {
        match wait {
            Wait::Poll => self.now.set(self.now.get() + self.cost_of_poll.get()),
            Wait::Until(deadline) => self.now.set(self.now.get().max(deadline.as_nanos())),
            Wait::Forever => {
                panic!("deadlock: every task of this simulation waits, and no timer is pending")
            }
        }
    }

    fn entropy(&self, occasion: Occasion, collect: &mut Collect<'_>) {
        let mut bytes = [0; START_BYTES];
        let bytes = match occasion {
            Occasion::Start => &mut bytes[..],
            Occasion::Refresh => &mut bytes[..REFRESH_BYTES],
        };
        self.entropy.borrow_mut().fill_bytes(bytes);
        collect(if self.has_entropy.get() { Source::Host } else { Source::Jitter }, bytes);
    }

    fn memory(&self) -> Memory {
        Memory::default()
    }

    fn exit(&self, status: u8) -> ! {
        panic!("the simulated image ends with status {status}")
    }
}
