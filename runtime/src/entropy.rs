//! Entropy: where an image's unpredictability comes from, and who collects it.
//!
//! A target offers what it has in [`Platform::entropy`](crate::Platform::entropy), each piece with its [`Source`]; the generator ([`random`](crate::random))
//! asks at its first draw and then every few milliseconds of drawing, never before: an image that draws nothing collects nothing, and starts no slower for it.
//! What the processor has, every target on x86-64 offers through [`Processor`]. The moments of wake-ups are noted by the runtime and collected with the
//! rest, and so are those at which the network takes frames.
//!
//! Which sources count. [`Source::is_full_strength`] ones alone can seed the generator; the others are mixed in, so that a full-strength source that is
//! weak or lies does not decide alone, but no bound can be proven for them, least of all in a virtual machine, so that they never count.
//!
//! Limit: the host could always read the guest's memory; nothing here defends against it.

use core::cell::Cell;

use crate::current;
use crate::time::Instant;

#[cfg(target_arch = "x86_64")]
mod processor;

#[cfg(target_arch = "x86_64")]
pub use processor::Processor;

/// Where a piece of entropy comes from. Each source feeds the generator's pools in a round of its own, so that none can crowd out another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The processor's conditioned noise (the instruction RDSEED).
    Rdseed = 0,
    /// The processor's generator (the instruction RDRAND).
    Rdrand = 1,
    /// How long short pieces of work take.
    Jitter = 2,
    /// When the image woke from a wait.
    WakeUp = 3,
    /// When a packet came.
    Packet = 4,
    /// The host's generator: `getrandom(2)` on unix.
    Host = 5,
    /// A random device of the machine, such as virtio-rng.
    Device = 6,
}

impl Source {
    /// How many there are.
    pub(crate) const COUNT: usize = 7;

    /// Whether the source's maker promises bits that nobody can tell from uniform ones. 64 bytes of one such source seed the generator.
    #[must_use]
    pub const fn is_full_strength(self) -> bool {
        match self {
            Self::Rdseed | Self::Rdrand | Self::Host | Self::Device => true,
            Self::Jitter | Self::WakeUp | Self::Packet => false,
        }
    }
}

/// Why the generator asks for entropy, and so how much of it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It has no seed: at least [`START_BYTES`] of every source, however long that takes.
    Start,
    /// It wants fresh entropy: [`REFRESH_BYTES`] of every source that has them at once.
    Refresh,
}

/// Bytes of each full-strength source that a start wants: twice as many as a key has, since a generator of 128 bits of security stands behind RDRAND.
pub const START_BYTES: usize = 64;

/// Bytes of each source that a refresh wants: the longest event that Fortuna takes whole (*Cryptography Engineering*, 9.5.3.1).
pub const REFRESH_BYTES: usize = 32;

/// Takes pieces of entropy; see [`Platform::entropy`](crate::Platform::entropy).
pub type Collect<'a> = dyn FnMut(Source, &[u8]) + 'a;

/// Notes that something happened at `moment`, which is hard to predict: for [`Source::WakeUp`] and [`Source::Packet`]; others are ignored. Costs a few
/// instructions: whoever notes has read the clock for purposes of its own. Without a runtime, nothing happens.
pub fn note(source: Source, moment: Instant) {
    if let Some(runtime) = current::get() {
        runtime.moments.note(source, moment.as_nanos());
    }
}

/// How many moments of `source` have been noted since the image started.
///
/// # Panics
/// When no runtime is running.
#[must_use]
pub fn noted(source: Source) -> u64 {
    current::with(|runtime| runtime.moments.noted(source))
}

/// Words that the moments of one source are kept in until the generator takes them.
const WORDS: usize = 16;

/// The moments of wake-ups and packets that the generator has not taken yet: no memory beyond this, and no link to the generator, which an image may not have.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    wake_ups: Folded,
    packets: Folded,
}

impl Moments {
    pub(crate) fn note(&self, source: Source, nanos: u64) {
        match source {
            Source::WakeUp => self.wake_ups.add(nanos),
            Source::Packet => self.packets.add(nanos),
            _ => {}
        }
    }

    pub(crate) fn noted(&self, source: Source) -> u64 {
        match source {
            Source::WakeUp => self.wake_ups.count.get(),
            Source::Packet => self.packets.count.get(),
            _ => 0,
        }
    }

    /// Gives everything to `collect`, and forgets it.
    pub(crate) fn take(&self, collect: &mut Collect<'_>) {
        self.wake_ups.take(|bytes| collect(Source::WakeUp, bytes));
        self.packets.take(|bytes| collect(Source::Packet, bytes));
    }
}

/// Any number of moments in a few words: each is added to one of the words in turn, which is turned before, so that the low bits of moments, where the
/// uncertainty is, come to lie at different places.
#[derive(Debug, Default)]
struct Folded {
    words: [Cell<u64>; WORDS],
    /// Moments ever added.
    count: Cell<u64>,
    /// Of them, those that have been taken.
    taken: Cell<u64>,
}

impl Folded {
    fn add(&self, nanos: u64) {
        let count = self.count.get();
        let word = &self.words[count as usize % WORDS];
        word.set(word.get().rotate_left(11) ^ nanos);
        self.count.set(count + 1);
    }

    fn take(&self, mut give: impl FnMut(&[u8])) {
        let (taken, count) = (self.taken.replace(self.count.get()), self.count.get());
        let first = taken.max(count.saturating_sub(WORDS as u64));
        (first..count).for_each(|moment| give(&self.words[moment as usize % WORDS].replace(0).to_le_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn take(moments: &Moments) -> Vec<(Source, Vec<u8>)> {
        let mut taken = Vec::new();
        moments.take(&mut |source, bytes| taken.push((source, bytes.to_vec())));
        taken
    }

    #[test]
    fn moments_are_given_once_with_their_source() {
        let moments = Moments::default();
        moments.note(Source::WakeUp, 5);
        moments.note(Source::Packet, 7);
        moments.note(Source::Rdrand, 9);
        assert_eq!(take(&moments), [(Source::WakeUp, 5u64.to_le_bytes().to_vec()), (Source::Packet, 7u64.to_le_bytes().to_vec())]);
        assert_eq!(take(&moments), []);
        moments.note(Source::Packet, 8);
        assert_eq!(take(&moments), [(Source::Packet, 8u64.to_le_bytes().to_vec())]);
        assert_eq!((moments.noted(Source::Packet), moments.noted(Source::Rdrand)), (2, 0));
    }

    #[test]
    fn each_of_many_moments_counts() {
        let with = |changed: usize| {
            let moments = Moments::default();
            (0..1000).for_each(|moment| moments.note(Source::Packet, moment as u64 * 1000 + u64::from(moment == changed)));
            take(&moments)
        };
        let unchanged = with(usize::MAX);
        assert_eq!(unchanged.len(), WORDS);
        for changed in 0..1000 {
            assert_ne!(with(changed), unchanged, "{changed}");
        }
    }
}
