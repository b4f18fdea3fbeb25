//! Randomness: the image's one generator, from which everything in it draws.
//!
//! It is Fortuna (Ferguson, Schneier, Kohno, *Cryptography Engineering*, chapter 9) over ChaCha20 and SHA-256: seeded at the first draw from the
//! target's [`entropy`](crate::entropy), fed again as long as it is drawn from, and rekeyed after every request, so that a key that leaks later tells
//! nothing of what was drawn before. Each draw fails rather than fall back to something weaker while no full-strength source has seeded it; [`seeded`]
//! waits instead.
//!
//! [`fill`] and [`next_u64`] draw from it, [`Random`] is it as [`rand_core`]'s traits want it, and in an image the crate `getrandom` (0.3, 0.4) draws from
//! it as well: a second generator cannot be there, since the linker refuses a second backend. The crate's feature `insecure-prng`
//! (`cargo xtask build --prng insecure`) puts a small fast generator in its place, for images that use randomness but keep no secrets.
//!
//! Limits: an image that is copied while it runs, its memory included, goes on with the same numbers in both copies until the next reseed: 100 ms of
//! drawing at most. Two starts of the same image never draw the same.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;
use core::fmt;

#[cfg(any(test, not(feature = "insecure-prng")))]
use rand_core::TryCryptoRng;
use rand_core::TryRng;
use zeroize::Zeroizing;

use crate::current;
use crate::entropy::{Moments, Occasion, START_BYTES, Source};
use crate::platform::{EntropyError, Platform};
use crate::time::{self, Duration, Instant};

// The tests here are Fortuna's, whatever the features.
#[cfg(any(test, not(feature = "insecure-prng")))]
mod fortuna;
#[cfg(any(test, not(feature = "insecure-prng")))]
use fortuna::Fortuna as Engine;

#[cfg(feature = "insecure-prng")]
mod insecure;
#[cfg(all(feature = "insecure-prng", not(test)))]
use insecure::Insecure as Engine;

#[cfg(getrandom_backend = "custom")]
mod backend;

/// How often the target is asked for fresh entropy while the generator is drawn from: 32 times in the 100 ms between two reseeds, once for each pool.
const REFRESH_INTERVAL: Duration = Duration::from_micros(3125);

/// How many draws without a wait between them share one reading of the clock, which costs a tenth of a small draw on some targets.
const DRAWS_PER_READING: u32 = 16;

/// How often [`seeded`] asks again.
const SEED_INTERVAL: Duration = Duration::from_millis(10);

/// How often it does so in silence: for a second.
const SILENT_WAITS: u32 = 100;

/// Fills `into` with random bytes that nobody outside the image can predict.
///
/// # Errors
/// [`EntropyError`] when the generator has no seed yet; `into` is then as it was.
///
/// # Panics
/// When no runtime is running.
pub fn fill(into: &mut [u8]) -> Result<(), EntropyError> {
    current::with(|runtime| runtime.generator().fill(into))
}

/// Draws 64 random bits.
///
/// # Errors
/// As [`fill`].
pub fn next_u64() -> Result<u64, EntropyError> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Waits until the generator has a seed, which on most machines it has at once, and gives it.
///
/// On a machine without a full-strength source of entropy it waits for ever, and warns after a second; [`time::timeout`] limits that.
///
/// # Panics
/// When no runtime is running.
///
/// ```
/// # use fogbow::random;
/// use rand_core::Rng;
/// # fogbow::simulation::Simulation::new(1).block_on(async {
/// let mut random = random::seeded().await;
/// assert_ne!(random.next_u64(), random.next_u64());
/// # });
/// ```
pub async fn seeded() -> Random {
    let generator = current::with(|runtime| Rc::clone(runtime.generator()));
    let mut waits = 0_u32;
    while generator.fill(&mut []).is_err() {
        // A machine without any would be waited for in silence.
        if waits == SILENT_WAITS {
            log::warn!("waiting for entropy: give the machine RDRAND or a random device, if it has none");
        }
        waits = waits.saturating_add(1);
        time::sleep(SEED_INTERVAL).await;
    }
    Random(generator)
}

/// The image's generator, seeded: it never fails from then on. From [`seeded`]; a clone draws from the same generator.
#[derive(Clone)]
pub struct Random(Rc<Generator>);

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        let filled = self.0.fill(into);
        debug_assert_eq!(filled, Ok(()), "`seeded` alone makes a `Random`, and a seed is never lost");
        Ok(())
    }
}

#[cfg(any(test, not(feature = "insecure-prng")))]
impl TryCryptoRng for Random {}

/// What makes random bytes from entropy.
trait Generate {
    /// An engine over `seed`, which holds everything that was gathered at the start.
    fn new(seed: &Seed) -> Self;

    /// Takes fresh entropy.
    fn add(&mut self, source: Source, bytes: &[u8]);

    /// Fills `into`, after mixing in what was added, if it is time for that.
    fn fill(&mut self, now: Instant, into: &mut [u8]);
}

/// The image's generator.
pub(crate) struct Generator {
    platform: Rc<dyn Platform>,
    moments: Rc<Moments>,
    state: RefCell<State>,
}

struct State {
    /// On the heap, where it stays: a move would leave a copy of the key behind.
    engine: Option<Box<Engine>>,
    next_refresh: Instant,
    reading: Reading,
}

/// The clock as a draw read it.
#[derive(Default)]
struct Reading {
    now: Instant,
    /// Wake-ups noted by then.
    wake_ups: u64,
    /// How many more draws may do with it while the image does not wait.
    draws_left: u32,
}

impl Generator {
    /// A generator that has not asked for entropy yet.
    pub(crate) fn new(platform: Rc<dyn Platform>, moments: Rc<Moments>) -> Self {
        Self {
            platform,
            moments,
            state: RefCell::new(State { engine: None, next_refresh: Instant::default(), reading: Reading::default() }),
        }
    }

    fn fill(&self, into: &mut [u8]) -> Result<(), EntropyError> {
        let mut state = self.state.borrow_mut();
        let State { engine, next_refresh, reading } = &mut *state;
        let now = self.now(reading);
        let engine = match engine {
            Some(engine) => {
                if now >= *next_refresh {
                    *next_refresh = now + REFRESH_INTERVAL;
                    self.moments.take(&mut |source, bytes| engine.add(source, bytes));
                    self.platform.entropy(Occasion::Refresh, &mut |source, bytes| engine.add(source, bytes));
                }
                engine
            }
            None => {
                *next_refresh = now + REFRESH_INTERVAL;
                engine.insert(Box::new(Engine::new(&self.seed(now)?)))
            }
        };
        engine.fill(now, into);
        Ok(())
    }

    /// The time of this draw, or of one of the few before it since the image last waited: near enough for intervals of milliseconds.
    fn now(&self, reading: &mut Reading) -> Instant {
        let wake_ups = self.moments.noted(Source::WakeUp);
        if reading.draws_left == 0 || reading.wake_ups != wake_ups {
            *reading = Reading { now: self.platform.monotonic(), wake_ups, draws_left: DRAWS_PER_READING };
        }
        reading.draws_left -= 1;
        reading.now
    }

    fn seed(&self, now: Instant) -> Result<Seed, EntropyError> {
        let mut seed = Seed::new(now, self.platform.wall().as_unix_nanos());
        self.moments.take(&mut |source, bytes| seed.add(source, bytes));
        self.platform.entropy(Occasion::Start, &mut |source, bytes| seed.add(source, bytes));
        if seed.is_enough() { Ok(seed) } else { Err(EntropyError) }
    }
}

/// What was gathered at the start, each piece after its source and its length.
struct Seed {
    bytes: Zeroizing<Vec<u8>>,
    given: [usize; Source::COUNT],
}

impl Seed {
    /// Room for all that a start gathers, so that no copy is left behind where the vector grew out of its place.
    const CAPACITY: usize = 2048;

    /// A seed with the two clocks alone: they are no entropy, but tell one start from another.
    fn new(monotonic: Instant, wall: u64) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::CAPACITY));
        bytes.extend_from_slice(&monotonic.as_nanos().to_le_bytes());
        bytes.extend_from_slice(&wall.to_le_bytes());
        Self { bytes, given: [0; Source::COUNT] }
    }

    fn add(&mut self, source: Source, bytes: &[u8]) {
        for bytes in bytes.chunks(u16::MAX.into()) {
            self.bytes.push(source as u8);
            self.bytes.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            self.bytes.extend_from_slice(bytes);
        }
        self.given[source as usize] += bytes.len();
    }

    /// Whether one full-strength source has given enough; without cryptographic strength anything will do.
    fn is_enough(&self) -> bool {
        if cfg!(all(feature = "insecure-prng", not(test))) {
            return true;
        }
        let full = [Source::Rdseed, Source::Rdrand, Source::Host, Source::Device];
        full.into_iter().any(|source| source.is_full_strength() && self.given[source as usize] >= START_BYTES)
    }
}

#[cfg(test)]
mod tests;
