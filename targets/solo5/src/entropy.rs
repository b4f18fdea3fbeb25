//! Entropy of the processor: its random instructions and the jitter of its clock, condensed.
//!
//! How good it is. RDSEED gives the conditioned output of a physical noise source, RDRAND that of a generator keyed by it (128 bits of
//! security); both are drawn wherever CPUID has them. So that a weakness planted or grown in them does not decide alone, the low bits of
//! the time stamp counter over a few hundred short pieces of work are mixed in always, as in Whirlwind RNG (Ayer, 2014). With RDSEED or
//! RDRAND the result is full-strength key material under the usual trust in the processor's maker. Jitter alone has no bound that could
//! be proven, least of all in a virtual machine: without either instruction there is an error instead.
//!
//! Samples are condensed by a chain of ChaCha20 keys: each block of 32 bytes is added to the key, and the key's first 32 bytes of output
//! are the next key. One block of uniform bits makes the key uniform and everything after it unpredictable as long as ChaCha20 is a
//! pseudo-random function; blocks that an attacker knows, before or after, cannot undo that. SHA-256 would do the same and take 13 KiB of
//! every image; ChaCha20 is there already for the runtime's generator.
//!
//! Limit: the host could always read the guest's memory; nothing here defends against it.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};

use fogbow::platform::EntropyError;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// 64-bit words drawn from each random instruction for every 32 bytes of output: twice as many as they would fill, since a generator of
/// 128 bits of security stands behind RDRAND.
const WORDS: usize = 8;
/// Pieces of work whose time is taken.
const JITTER_SAMPLES: usize = 256;
/// How often an instruction that gives nothing is asked again. Intel advises 10 for RDRAND and leaves RDSEED open; under load of other
/// cores RDSEED needs more.
const RETRIES: usize = 100;

/// Fills `into` with entropy of the processor.
///
/// # Errors
/// [`EntropyError`] when the processor has neither RDSEED nor RDRAND, or they do not work.
pub fn fill(into: &mut [u8]) -> Result<(), EntropyError> {
    let instructions = Instructions::detect();
    for chunk in into.chunks_mut(32) {
        let mut pool = Pool::new();
        let drawn = draw(instructions.rdseed, rdseed, &mut pool) | draw(instructions.rdrand, rdrand, &mut pool);
        if !drawn {
            return Err(EntropyError);
        }
        add_jitter(&mut pool);
        chunk.copy_from_slice(&pool.into_key()[..chunk.len()]);
    }
    Ok(())
}

/// A chain of ChaCha20 keys that samples go into; see the module's text.
struct Pool {
    key: [u8; 32],
}

impl Pool {
    const fn new() -> Self {
        Self { key: [0; 32] }
    }

    /// Adds samples, in blocks of 32 bytes.
    fn add(&mut self, samples: &[u8]) {
        for block in samples.chunks(32) {
            for (key, sample) in self.key.iter_mut().zip(block) {
                *key ^= sample;
            }
            ChaCha20Rng::from_seed(self.key).fill_bytes(&mut self.key);
        }
    }

    /// What has been condensed, as a key.
    const fn into_key(self) -> [u8; 32] {
        self.key
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

/// Adds [`WORDS`] words of `instruction`; true when it gave all of them.
fn draw(available: bool, instruction: fn() -> Option<u64>, pool: &mut Pool) -> bool {
    if !available {
        return false;
    }
    let mut words = [0; 8 * WORDS];
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
    pool.add(&words);
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

/// Adds the low bits of the time stamp counter, between pieces of work whose length and memory accesses depend on the counter itself.
fn add_jitter(pool: &mut Pool) {
    let mut samples = [0u8; JITTER_SAMPLES];
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
    pool.add(&samples);
    pool.add(&time_stamp().to_le_bytes());
}

fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and no tender of the family forbids it.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_draw_differs_and_fills_all_it_was_given() {
        let (mut first, mut second) = ([0; 80], [0; 80]);
        let instructions = Instructions::detect();
        let filled = fill(&mut first).and(fill(&mut second));
        if !instructions.rdrand && !instructions.rdseed {
            assert_eq!(filled, Err(EntropyError));
            return;
        }
        assert_eq!(filled, Ok(()));
        for (left, right) in first.chunks(16).zip(second.chunks(16)) {
            assert_ne!(left, right);
            assert_ne!(left, [0; 16]);
        }
    }

    #[test]
    fn every_bit_of_the_samples_counts() {
        let condense = |samples: &[u8]| {
            let mut pool = Pool::new();
            pool.add(samples);
            pool.into_key()
        };
        let samples = [7u8; 80];
        let keys: std::collections::BTreeSet<_> = (0..=samples.len() * 8)
            .map(|bit| {
                let mut changed = samples;
                if let Some(byte) = changed.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                condense(&changed)
            })
            .collect();
        assert_eq!(keys.len(), samples.len() * 8 + 1);
    }

    #[test]
    fn an_instruction_that_repeats_itself_or_gives_nothing_does_not_count() {
        let mut pool = Pool::new();
        assert!(!draw(true, || Some(7), &mut pool));
        assert!(!draw(true, || Some(u64::MAX), &mut pool));
        assert!(!draw(true, || None, &mut pool));
        assert!(!draw(false, || Some(7), &mut pool));
    }
}
