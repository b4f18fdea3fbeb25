//! Fortuna: a generator, and 32 pools of entropy that reseed it (*Cryptography Engineering*, chapter 9).
//!
//! The generator is ChaCha20 where the book has AES: each request is a keystream under a key of its own, whose first 32 bytes are the next key and never given out. Every key
//! therefore begins at block 0, and the book's running counter has no part. Pools are hashed with the book's SHA_d-256(m) = SHA-256(SHA-256(0^512 ‖ m)),
//! section 5.4.2. What was gathered at the start is hashed into the first key as the book's seed file is (9.6.2); everything later goes through the pools.

use alloc::boxed::Box;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::{Generate, Seed};
use crate::entropy::Source;
use crate::time::{Duration, Instant};

/// Pools (9.5.2): pool i takes part in every 2^i-th reseed, so that some pool outlasts an attacker who knows most of what goes in.
const POOLS: usize = 32;

/// `MinPoolSize` (9.5.5): bytes in pool 0, those that frame events included, before it is worth a reseed.
const MIN_POOL_SIZE: usize = 64;

/// The least time between two reseeds (9.5.5).
const RESEED_INTERVAL: Duration = Duration::from_millis(100);

/// The longest event (9.5.3.1).
const MAX_EVENT: usize = 32;

/// Bytes under one key at most (9.4.4).
const MAX_REQUEST: usize = 1 << 20;

type Key = [u8; 32];

pub(super) struct Fortuna {
    /// Keyed, and not drawn from yet. What it generates beyond a request lies here until the next key overwrites it, at the request's end.
    stream: ChaCha20Rng,
    /// A slice rather than an array, whose erasure would be code for each pool.
    pools: Box<[Pool]>,
    /// For each source the pool that its next event goes to.
    next_pool: [usize; Source::COUNT],
    reseeds: u64,
    last_reseed: Option<Instant>,
}

impl Generate for Fortuna {
    fn new(seed: &Seed) -> Self {
        let mut first = Self {
            stream: ChaCha20Rng::from_seed(Key::default()),
            pools: (0..POOLS).map(|_| Pool::new()).collect(),
            next_pool: [0; Source::COUNT],
            reseeds: 0,
            last_reseed: None,
        };
        first.rekey_with(&seed.bytes);
        first
    }

    fn add(&mut self, source: Source, bytes: &[u8]) {
        for event in bytes.chunks(MAX_EVENT) {
            let next = &mut self.next_pool[source as usize];
            let pool = &mut self.pools[*next];
            *next = (*next + 1) % POOLS;
            pool.add(&[source as u8, event.len() as u8]);
            pool.add(event);
        }
    }

    fn fill(&mut self, now: Instant, into: &mut [u8]) {
        let is_time = self.last_reseed.is_none_or(|last| now - last >= RESEED_INTERVAL);
        if is_time && self.pools[0].length >= MIN_POOL_SIZE {
            self.reseed();
            self.last_reseed = Some(now);
        }
        into.chunks_mut(MAX_REQUEST).for_each(|part| self.generate(part));
    }
}

impl Fortuna {
    /// The key becomes the hash of itself and of the pools whose turn it is.
    fn reseed(&mut self) {
        self.reseeds += 1;
        let turns = (self.reseeds.trailing_zeros() as usize + 1).min(POOLS);
        let mut seed = [Key::default(); POOLS];
        for (seed, pool) in seed.iter_mut().zip(&mut self.pools[..turns]) {
            *seed = pool.take();
        }
        self.rekey_with(seed[..turns].as_flattened());
        seed.zeroize();
    }

    fn rekey_with(&mut self, seed: &[u8]) {
        let mut hash = Pool::new();
        let mut key = self.stream.get_seed();
        hash.add(&key);
        hash.add(seed);
        key = hash.take();
        self.rekey(&mut key);
    }

    /// Fills `part` from one key, whose first bytes are the next key.
    fn generate(&mut self, part: &mut [u8]) {
        let mut key = Key::default();
        self.stream.fill_bytes(&mut key);
        self.stream.fill_bytes(part);
        self.rekey(&mut key);
    }

    /// Begins anew under `key`, which is erased.
    fn rekey(&mut self, key: &mut Key) {
        self.stream = ChaCha20Rng::from_seed(*key);
        key.zeroize();
    }
}

/// A running SHA_d-256.
struct Pool {
    hash: Sha256,
    length: usize,
}

impl Pool {
    fn new() -> Self {
        Self { hash: Sha256::new_with_prefix([0; 64]), length: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.length += bytes.len();
    }

    /// The hash of what was added, after which the pool is empty.
    fn take(&mut self) -> Key {
        let Self { hash, .. } = core::mem::replace(self, Self::new());
        Sha256::digest(hash.finalize()).into()
    }
}

#[cfg(test)]
mod tests;
