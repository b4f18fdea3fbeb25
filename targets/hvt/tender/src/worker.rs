//! The thread that serves the network ring beside the guest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use vmm_sys_util::eventfd::EventFd;

use crate::devices::Devices;
use crate::ring::Consumer;
use crate::sandbox::{Filter, SandboxError};

/// How long the thread looks for more work before it asks to be kicked and sleeps: long enough for a guest that answers a frame to be
/// met awake, short against a scheduler's time slice.
const SPIN: Duration = Duration::from_micros(50);
/// Looks at the ring between two looks at the clock.
const LOOKS: u32 = 32;
/// How long the tender waits at the end for the last frames to leave.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// A running thread.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: &'static Shared,
}

/// Why the thread did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// The host gives no thread.
    #[error("cannot start the network ring's thread: {0}")]
    Thread(io::Error),
    /// The thread cannot be confined.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

#[derive(Debug)]
struct Shared {
    kick: EventFd,
    ending: AtomicBool,
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Debug)]
enum Stage {
    Starting,
    Refused(SandboxError),
    Running,
    Done,
}

impl Worker {
    /// Starts a thread that serves `ring`, woken by `kick`, and returns once it is confined by `filter`. `fail` ends the process: it is
    /// called when the ring cannot be served any longer.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub(crate) fn start(
        ring: Consumer<'static>,
        devices: &'static Devices,
        kick: EventFd,
        filter: Filter,
        fail: fn(&dyn core::fmt::Display) -> !,
    ) -> Result<Self, WorkerError> {
        let shared = Shared { kick, ending: AtomicBool::new(false), stage: Mutex::new(Stage::Starting), changed: Condvar::new() };
        let shared: &'static Shared = Box::leak(Box::new(shared));
        let body = move || {
            crate::end::reserve_for_messages();
            match filter.confine_this_thread() {
                Ok(()) => {
                    shared.enter(Stage::Running);
                    serve(ring, devices, shared, fail);
                }
                Err(error) => shared.enter(Stage::Refused(error)),
            }
        };
        thread::Builder::new().name("network ring".into()).spawn(body).map_err(WorkerError::Thread)?;
        let stage = shared.changed.wait_while(shared.stage(), |stage| matches!(stage, Stage::Starting));
        match core::mem::replace(&mut *stage.unwrap_or_else(PoisonError::into_inner), Stage::Running) {
            Stage::Refused(error) => Err(error.into()),
            _ => Ok(Self { shared }),
        }
    }

    /// Has the thread send what the guest submitted before it ended, and waits for that a while.
    pub(crate) fn finish(&self) {
        self.shared.ending.store(true, Ordering::Release);
        if self.shared.kick.write(1).is_ok() {
            // However the wait ends, the process ends next.
            drop(self.shared.changed.wait_timeout_while(self.shared.stage(), LAST_FRAMES, |stage| !matches!(stage, Stage::Done)));
        }
    }
}

impl Shared {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stage: Stage) {
        *self.stage() = stage;
        self.changed.notify_all();
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }
}

fn serve(mut ring: Consumer<'static>, devices: &Devices, shared: &Shared, fail: fn(&dyn core::fmt::Display) -> !) {
    loop {
        // Asked first: what was submitted before the end was asked for is then seen below.
        let ending = shared.is_ending();
        if !ending {
            wait_for_work(&ring, shared, fail);
        }
        if let Err(error) = ring.drain(devices) {
            fail(&error);
        }
        if ending {
            shared.enter(Stage::Done);
            // To leave a thread takes system calls that the sandbox does not allow. The process ends very soon.
            loop {
                thread::park();
            }
        }
    }
}

fn wait_for_work(ring: &Consumer<'_>, shared: &Shared, fail: fn(&dyn core::fmt::Display) -> !) {
    let begin = Instant::now();
    while begin.elapsed() < SPIN {
        for _ in 0..LOOKS {
            if ring.has_work() {
                return;
            }
            core::hint::spin_loop();
        }
    }
    ring.ask_for_kicks(true);
    if !ring.has_work() && !shared.is_ending() {
        match shared.kick.read() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => fail(&format_args!("the network ring's kicks: {error}")),
        }
    }
    ring.ask_for_kicks(false);
}
