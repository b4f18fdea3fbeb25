//! Entropy of the processor: its random instructions and the jitter of its clock.
//!
//! RDSEED gives the conditioned output of a physical noise source, RDRAND that of a generator keyed by it (128 bits of security); both are drawn wherever
//! CPUID has them. At the start the low bits of the time stamp counter over a few hundred short pieces of work are added, as in Whirlwind RNG (Ayer, 2014).

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};
use core::cell::Cell;

use super::{Collect, Occasion, REFRESH_BYTES, START_BYTES, Source};

/// Pieces of work whose time is taken at the start.
const JITTER_SAMPLES: usize = 256;

/// How often an instruction that gives nothing is asked again. Intel advises 10 for RDRAND and leaves RDSEED open; under load of other
/// cores RDSEED needs more.
const RETRIES: usize = 100;

/// The processor as a source of entropy: what it can do is asked once, since CPUID costs microseconds in a virtual machine.
#[derive(Debug, Default)]
pub struct Processor {
    instructions: Cell<Option<Instructions>>,
}

impl Processor {
    /// The processor, not asked yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { instructions: Cell::new(None) }
    }

    /// Gives what the processor has: from each random instruction as much as `occasion` wants, and jitter at the start.
    ///
    /// An instruction that is not there, does not answer or repeats itself gives nothing.
    pub fn gather(&self, occasion: Occasion, collect: &mut Collect<'_>) {
        let instructions = self.instructions.get().unwrap_or_else(Instructions::detect);
        self.instructions.set(Some(instructions));
        let mut words = [0; START_BYTES];
        let words = match occasion {
            Occasion::Start => &mut words[..],
            Occasion::Refresh => &mut words[..REFRESH_BYTES],
        };
        if instructions.rdseed && draw(rdseed, words) {
            collect(Source::Rdseed, words);
        }
        if instructions.rdrand && draw(rdrand, words) {
            collect(Source::Rdrand, words);
        }
        match occasion {
            Occasion::Start => collect(Source::Jitter, &jitter()),
            Occasion::Refresh => collect(Source::Jitter, &time_stamp().to_le_bytes()),
        }
        // What was given is the generator's alone.
        words.fill(0);
        core::hint::black_box(words);
    }
}

/// The random instructions that this processor has.
#[derive(Clone, Copy, Debug)]
struct Instructions {
    rdrand: bool,
    rdseed: bool,
}

impl Instructions {
    /// Asks CPUID (Intel SDM volume 2A, CPUID: leaf 1, ECX bit 30; leaf 7, EBX bit 18).
    fn detect() -> Self {
        let leaves = __cpuid(0).eax;
        Self { rdrand: leaves >= 1 && __cpuid(1).ecx & 1 << 30 != 0, rdseed: leaves >= 7 && __cpuid_count(7, 0).ebx & 1 << 18 != 0 }
    }
}

/// Fills `words` from `instruction`; true when it gave all of them.
fn draw(instruction: fn() -> Option<u64>, words: &mut [u8]) -> bool {
    let mut former = u64::MAX;
    for bytes in words.as_chunks_mut::<8>().0 {
        // Broken instructions repeat themselves: AMD's families 15h and 16h gave all ones after a suspend. A working one does once in
        // 2^64 draws.
        match (0..RETRIES).find_map(|_| instruction()) {
            Some(word) if word != former => {
                *bytes = word.to_le_bytes();
                former = word;
            }
            _ => return false,
        }
    }
    true
}

fn rdrand() -> Option<u64> {
    let (word, given): (u64, u8);
    // SAFETY: the caller saw in CPUID that the instruction exists; it touches no memory.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) word, out(reg_byte) given, options(nomem, nostack)) };
    (given == 1).then_some(word)
}

fn rdseed() -> Option<u64> {
    let (word, given): (u64, u8);
    // SAFETY: the caller saw in CPUID that the instruction exists; it touches no memory.
    unsafe { asm!("rdseed {}", "setc {}", out(reg) word, out(reg_byte) given, options(nomem, nostack)) };
    (given == 1).then_some(word)
}

/// The low bits of the time stamp counter, between pieces of work whose length and memory accesses depend on the counter itself, and the whole counter.
fn jitter() -> [u8; JITTER_SAMPLES + 8] {
    let mut samples = [0u8; JITTER_SAMPLES + 8];
    for index in 0..JITTER_SAMPLES {
        let now = time_stamp();
        samples[index] ^= now as u8;
        let mut turns = now & 15;
        while turns > 0 {
            let place = core::hint::black_box(now.wrapping_mul(turns) as usize % JITTER_SAMPLES);
            samples[place] = samples[place].rotate_left(3) ^ time_stamp() as u8;
            turns -= 1;
        }
    }
    samples[JITTER_SAMPLES..].copy_from_slice(&time_stamp().to_le_bytes());
    samples
}

fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and no target of this project runs where it is forbidden.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn gather(occasion: Occasion) -> Vec<(Source, Vec<u8>)> {
        let mut given = Vec::new();
        Processor::new().gather(occasion, &mut |source, bytes| given.push((source, bytes.to_vec())));
        given
    }

    #[test]
    fn every_gathering_differs_and_gives_what_the_occasion_wants() {
        let instructions = Instructions::detect();
        for (occasion, length) in [(Occasion::Start, START_BYTES), (Occasion::Refresh, REFRESH_BYTES)] {
            let (first, second) = (gather(occasion), gather(occasion));
            assert_eq!(first.len(), 1 + usize::from(instructions.rdrand) + usize::from(instructions.rdseed));
            for ((source, left), (same, right)) in first.iter().zip(&second) {
                assert_eq!(source, same);
                assert_ne!(left, right);
                assert!(!source.is_full_strength() || left.len() == length, "{source:?}");
            }
        }
    }

    #[test]
    fn an_instruction_that_repeats_itself_or_gives_nothing_does_not_count() {
        let mut words = [0; START_BYTES];
        assert!(!draw(|| Some(7), &mut words));
        assert!(!draw(|| Some(u64::MAX), &mut words));
        assert!(!draw(|| None, &mut words));
        assert!(draw(|| Some(time_stamp()), &mut words));
    }
}
