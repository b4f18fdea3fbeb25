//! What happens to frames on their way.

use fogbow::time::{self, Duration, Instant};

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
    pub(super) fn copies(&self) -> u32 {
        if chance(self.lost) { 0 } else { 1 + u32::from(chance(self.doubled)) }
    }

    /// Turns over a bit, if that is to happen.
    pub(super) fn corrupt(&self, frame: &mut [u8]) {
        if !frame.is_empty() && chance(self.corrupted) {
            let bit = draw() as usize % (frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// When a frame of `length` bytes arrives that is sent now over a link which is busy until `busy`.
    pub(super) fn arrival(&self, length: usize, busy: &mut Instant) -> Instant {
        let mut extra =
            if self.jitter.is_zero() { Duration::ZERO } else { Duration::from_nanos(draw() % (self.jitter.as_nanos() as u64 + 1)) };
        if chance(self.reordered) {
            extra += self.delay;
        }
        let sent = match self.rate {
            Some(rate) => {
                *busy = time::now().max(*busy) + Duration::from_nanos(length as u64 * 8 * 1_000_000_000 / rate.max(1));
                *busy
            }
            // Such a frame is there whatever the clock says.
            None if self.delay.is_zero() && extra.is_zero() => return Instant::default(),
            None => time::now(),
        };
        sent + self.delay + extra
    }
}

/// True in so many of a million cases.
fn chance(of_million: u32) -> bool {
    of_million > 0 && draw() % 1_000_000 < u64::from(of_million)
}

/// A draw of the node's randomness, which a simulated node always has.
fn draw() -> u64 {
    fogbow::random::next_u64().unwrap_or(0)
}
