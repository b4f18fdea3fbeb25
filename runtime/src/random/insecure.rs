//! The generator of images that keep no secrets (`--prng insecure`): xoshiro256++, small and fast.
//!
//! Its numbers differ from start to start, but whoever sees a few of them knows all of them.

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{Generate, Seed};
use crate::entropy::Source;
use crate::time::Instant;

#[cfg_attr(test, allow(dead_code, reason = "the tests' images draw from Fortuna"))]
pub(super) struct Insecure(Xoshiro256PlusPlus);

impl Generate for Insecure {
    fn new(seed: &Seed) -> Self {
        let mut folded = [0u8; 32];
        for block in seed.bytes.chunks(folded.len()) {
            folded.iter_mut().zip(block).for_each(|(folded, byte)| *folded = folded.rotate_left(3) ^ byte);
        }
        Self(Xoshiro256PlusPlus::from_seed(folded))
    }

    fn add(&mut self, _: Source, _: &[u8]) {}

    fn fill(&mut self, _: Instant, into: &mut [u8]) {
        self.0.fill_bytes(into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_seed_counts() {
        let first = |seed: &[u8]| {
            let mut gathered = Seed::new(Instant::default(), 0);
            gathered.add(Source::Jitter, seed);
            let mut bytes = [0; 64];
            Insecure::new(&gathered).fill(Instant::default(), &mut bytes);
            bytes
        };
        let seed = [7; 100];
        assert_eq!(first(&seed), first(&seed));
        for at in 0..seed.len() {
            let mut other = seed;
            other[at] ^= 1;
            assert_ne!(first(&other), first(&seed), "byte {at}");
        }
    }
}
