//! What happens to frames on their way.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use fogbow::time::{Duration, Instant};

use crate::frame::Checksums;

/// Frames that are on a link at most; more are lost, as in a switch.
const QUEUE: usize = 4096;

/// What happens to frames on their way. Chances are parts of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// The chance that a frame is lost.
    pub lost: u32,
    /// The chance that a frame arrives twice.
    pub doubled: u32,
    /// The chance that one bit of a frame arrives turned over.
    pub corrupted: u32,
    /// How long every frame takes.
    pub delay: Duration,
    /// A frame takes up to this much longer, each for itself, so that frames overtake each other.
    pub jitter: Duration,
    /// The chance that a frame takes the delay once more and so is overtaken by those after it.
    pub reordered: u32,
    /// Bits that a link carries each second; as many as come where it is `None`.
    pub rate: Option<u64>,
}

impl Impairment {
    /// One part of a hundred.
    pub const PERCENT: u32 = 10_000;

    /// Every frame is lost.
    pub const UNPLUGGED: Self = Self {
        lost: 100 * Self::PERCENT,
        doubled: 0,
        corrupted: 0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        reordered: 0,
        rate: None,
    };

    /// How many copies of a frame arrive.
    fn copies(&self, draw: &mut impl FnMut() -> u64) -> u32 {
        if chance(self.lost, draw) { 0 } else { 1 + u32::from(chance(self.doubled, draw)) }
    }

    /// Turns over a bit, if that is to happen.
    fn corrupt(&self, frame: &mut [u8], draw: &mut impl FnMut() -> u64) {
        if !frame.is_empty() && chance(self.corrupted, draw) {
            let bit = draw() as usize % (frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// When a frame of `length` bytes arrives that is sent `now` over a link which is busy until `busy`.
    fn arrival(&self, length: usize, now: Instant, busy: &mut Instant, draw: &mut impl FnMut() -> u64) -> Instant {
        let mut extra =
            if self.jitter.is_zero() { Duration::ZERO } else { Duration::from_nanos(draw() % (self.jitter.as_nanos() as u64 + 1)) };
        if chance(self.reordered, draw) {
            extra += self.delay;
        }
        let sent = match self.rate {
            Some(rate) => {
                *busy = now.max(*busy) + Duration::from_nanos(length as u64 * 8 * 1_000_000_000 / rate.max(1));
                *busy
            }
            // Such a frame is there whatever the clock says.
            None if self.delay.is_zero() && extra.is_zero() => return Instant::default(),
            None => now,
        };
        sent + self.delay + extra
    }
}

/// True in so many of a million cases.
fn chance(of_million: u32, draw: &mut impl FnMut() -> u64) -> bool {
    of_million > 0 && draw() % 1_000_000 < u64::from(of_million)
}

/// One way of a link: the frames that are on it, each to arrive when its [`Impairment`] says. The link has neither a clock nor randomness of its own,
/// so that it serves a simulation as well as a relay between networks that are there.
#[derive(Debug, Default)]
pub struct Link {
    /// Until when frames that were sent occupy it.
    busy: Instant,
    arriving: BinaryHeap<Reverse<(Instant, u64, Arriving)>>,
    /// Copies sent, which keeps the order of those that arrive at once.
    sent: u64,
    lost: u64,
    unused: Vec<Vec<u8>>,
}

/// A frame on its way, and what the device that sent it knows of its checksums.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arriving {
    frame: Vec<u8>,
    checksums: Checksums,
}

impl Link {
    /// Sends a frame at the time `now`, and says whether it will arrive. What becomes of it is decided by numbers from `draw`, which are to be spread
    /// evenly over 64 bits.
    pub fn send(
        &mut self,
        frame: &[u8],
        checksums: Checksums,
        impairment: &Impairment,
        now: Instant,
        draw: &mut impl FnMut() -> u64,
    ) -> bool {
        let (copies, before) = (impairment.copies(draw), self.sent);
        self.lost += u64::from(copies == 0);
        for _ in 0..copies {
            if self.arriving.len() >= QUEUE {
                self.lost += 1;
                continue;
            }
            let mut copy = self.unused.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(frame);
            impairment.corrupt(&mut copy, draw);
            let when = impairment.arrival(frame.len(), now, &mut self.busy, draw);
            self.arriving.push(Reverse((when, self.sent, Arriving { frame: copy, checksums })));
            self.sent += 1;
        }
        self.sent > before
    }

    /// When the next frame arrives; at the clock's start when it takes no time.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        self.arriving.peek().map(|Reverse((when, ..))| *when)
    }

    /// Takes the next frame, whether it has arrived or not.
    pub fn take(&mut self) -> Option<(Vec<u8>, Checksums)> {
        self.arriving.pop().map(|Reverse((.., Arriving { frame, checksums }))| (frame, checksums))
    }

    /// Takes back the memory of a frame, for one to come.
    pub fn reuse(&mut self, frame: Vec<u8>) {
        self.unused.push(frame);
    }

    /// How many copies of frames have been lost so far, on purpose or because too many were on their way.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}
