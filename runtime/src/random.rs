//! Randomness: ChaCha20, keyed from the target's entropy at the first draw.
//!
//! Each draw fails rather than fall back to something weaker when the target has no entropy.
//! Limit: the generator is not yet fed again after its first key; see SPECIFICATION.md.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::current;
use crate::platform::{EntropyError, Platform};

pub(crate) struct Generator(ChaCha20Rng);

impl Generator {
    fn from_entropy(platform: &dyn Platform) -> Result<Self, EntropyError> {
        let mut seed = [0; 32];
        platform.entropy(&mut seed)?;
        Ok(Self(ChaCha20Rng::from_seed(seed)))
    }
}

/// Fills `into` with random bytes that nobody outside the image can predict.
///
/// # Errors
/// [`EntropyError`] when the target has no entropy to key the generator with.
///
/// # Panics
/// When no runtime is running.
pub fn fill(into: &mut [u8]) -> Result<(), EntropyError> {
    current::with(|runtime| {
        let mut generator = runtime.random.borrow_mut();
        if generator.is_none() {
            *generator = Some(Generator::from_entropy(&*runtime.platform)?);
        }
        if let Some(Generator(chacha)) = generator.as_mut() {
            chacha.fill_bytes(into);
        }
        Ok(())
    })
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
