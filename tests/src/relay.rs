//! A bad wire between Linux's stack and an image: what happens to frames on it is drawn from a seed.
//!
//! ```text
//! the client's namespace                              the guest's namespace
//! Linux's TCP, 10.0.0.1 -- tap0 ===== relay ===== relay0 -- bridge0 -- tap0 -- tender or QEMU, 10.0.0.2
//! ```
//!
//! The relay is a thread that reads each frame from one tap and writes it to the other when the [`Impairment`] says, which is that of networks in
//! memory. Behind the bridge any program may hold the image's tap, with offload or without: what comes over the wire are plain frames.
//!
//! # Limits
//! What is drawn follows from the seed; when frames come, and so which of them fares how, does not.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use fogbow::time::{Duration, Instant};
use fogbow_net::Checksums;
use fogbow_net::simulation::{Impairment, Link};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::network::{Namespace, TAP};

/// The relay's end of the guest's side.
const RELAY: &str = "relay0";
const BRIDGE: &str = "bridge0";

/// Frames that wait at a tap to be read. The default (1,000) is less than a sender's window here holds, and what is lost is to be what was asked for.
const QUEUE: &str = "10000";

/// Frames that are read from one tap before the other has its turn.
const BATCH: usize = 64;

/// One part of a thousand.
const PER_MILLE: u32 = Impairment::PERCENT / 10;
/// A wire on which nothing happens but that a frame takes a millisecond, so that what is sent next comes before the answer.
const WIRE: Impairment =
    Impairment { lost: 0, doubled: 0, corrupted: 0, delay: Duration::from_millis(1), jitter: Duration::ZERO, reordered: 0, rate: None };

/// The name of the impairment that loses one frame of a thousand.
pub const LITTLE_LOSS: &str = "little_loss";

/// Impairments one by one, and all together, for tests that go through them.
pub const IMPAIRMENTS: [(&str, Impairment); 9] = [
    (LITTLE_LOSS, Impairment { lost: PER_MILLE, ..WIRE }),
    ("loss", Impairment { lost: 2 * Impairment::PERCENT, ..WIRE }),
    ("delay", Impairment { delay: Duration::from_millis(20), ..WIRE }),
    ("jitter", Impairment { jitter: Duration::from_millis(1), ..WIRE }),
    ("reordering", Impairment { reordered: 5 * Impairment::PERCENT, ..WIRE }),
    ("duplicates", Impairment { doubled: 10 * Impairment::PERCENT, ..WIRE }),
    ("corruption", Impairment { corrupted: Impairment::PERCENT, ..WIRE }),
    ("low_rate", Impairment { rate: Some(50_000_000), ..WIRE }),
    (
        "all_together",
        Impairment {
            lost: 5 * PER_MILLE,
            doubled: Impairment::PERCENT,
            corrupted: 5 * PER_MILLE,
            delay: Duration::from_millis(2),
            jitter: Duration::from_micros(200),
            reordered: Impairment::PERCENT,
            rate: Some(100_000_000),
        },
    ),
];

/// A network of two namespaces, with a bad wire between them. Ends when dropped.
#[derive(Debug)]
pub struct Relay {
    // Dropped first, so that the taps are closed before their namespaces go.
    wire: Running,
    client: Namespace,
    guest: Namespace,
}

/// The thread, and what is shared with it.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    impairment: Mutex<Impairment>,
    frames: AtomicU64,
    lost: AtomicU64,
    /// Readable when the relay is to end.
    end: OwnedFd,
}

impl Relay {
    /// Makes the network. Frames fare as `impairment` says.
    ///
    /// # Errors
    /// [`Skip`](crate::Skip) without the rights to make one, and what `ip` or the host says otherwise.
    pub fn new(impairment: Impairment, seed: u64) -> Result<Self> {
        let (client, guest) = (Namespace::new()?, Namespace::bridged(&[TAP, RELAY], BRIDGE)?);
        client.ip(&["link", "set", TAP, "txqueuelen", QUEUE])?;
        guest.ip(&["link", "set", RELAY, "txqueuelen", QUEUE])?;
        let taps = [client.open(TAP)?, guest.open(RELAY)?];
        let end = eventfd(0, EventfdFlags::CLOEXEC).context("making an event descriptor")?;
        let shared = Shared { impairment: Mutex::new(impairment), frames: AtomicU64::new(0), lost: AtomicU64::new(0), end };
        let shared = Arc::new(shared);
        let thread = std::thread::Builder::new().name("relay".into()).spawn({
            let shared = Arc::clone(&shared);
            move || relay(&taps, &shared, ChaCha8Rng::seed_from_u64(seed))
        })?;
        Ok(Self { wire: Running { shared, thread: Some(thread) }, client, guest })
    }

    /// Where Linux's stack is, at [`HOST`](crate::network::HOST).
    #[must_use]
    pub const fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where an image finds its tap.
    #[must_use]
    pub const fn guest(&self) -> &Namespace {
        &self.guest
    }

    /// Lets frames fare as `impairment` says from now on.
    pub fn impair(&self, impairment: Impairment) {
        *self.wire.shared.impairment.lock().unwrap_or_else(PoisonError::into_inner) = impairment;
    }

    /// How many frames have been sent so far, both ways together, lost ones included.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.wire.shared.frames.load(Ordering::Relaxed)
    }

    /// How many copies of frames have been lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.wire.shared.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An event descriptor always takes a 1.
        let _ = rustix::io::write(&self.shared.end, &1_u64.to_ne_bytes());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("the relay ended early: {error:#}"),
            Some(Err(panic)) if !std::thread::panicking() => std::panic::resume_unwind(panic),
            _ => {}
        }
    }
}

/// Relays frames until the end is called.
fn relay(taps: &[OwnedFd; 2], shared: &Shared, mut random: ChaCha8Rng) -> Result<()> {
    let (started, mut links, mut buffer) = (std::time::Instant::now(), [Link::default(), Link::default()], vec![0; 65536]);
    let now = || Instant::from_nanos(started.elapsed().as_nanos() as u64);
    loop {
        let next = links.iter().filter_map(Link::next_arrival).min();
        let timeout = next
            .map(|when| when.duration_since(now()))
            .map(|wait| Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() });
        let mut ready =
            [PollFd::new(&taps[0], PollFlags::IN), PollFd::new(&taps[1], PollFlags::IN), PollFd::new(&shared.end, PollFlags::IN)];
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for frames"),
        }
        if !ready[2].revents().is_empty() {
            return Ok(());
        }
        let impairment = *shared.impairment.lock().unwrap_or_else(PoisonError::into_inner);
        for (tap, link) in taps.iter().zip(&mut links) {
            for _ in 0..BATCH {
                let length = match rustix::io::read(tap, &mut buffer) {
                    Ok(length) => length,
                    Err(Errno::AGAIN | Errno::INTR) => break,
                    Err(error) => return Err(error).context("reading a frame"),
                };
                shared.frames.fetch_add(1, Ordering::Relaxed);
                link.send(&buffer[..length], Checksums::Unknown, &impairment, now(), &mut || random.next_u64());
            }
        }
        let now = now();
        for (link, tap) in links.iter_mut().zip(taps.iter().rev()) {
            while link.next_arrival().is_some_and(|when| when <= now) {
                let Some((frame, _)) = link.take() else { break };
                // What a tap has no room for is lost, as on any wire.
                let _ = rustix::io::write(tap, &frame);
                link.reuse(frame);
            }
        }
        shared.lost.store(links.iter().map(Link::lost).sum(), Ordering::Relaxed);
    }
}
