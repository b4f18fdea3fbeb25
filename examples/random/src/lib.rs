//! Random: prints random bytes, drawn in each of the ways that there are.
//!
//! `cargo xtask run random --target spt -- --lines=2`; with `--prng insecure` before the `--`, the image has no Fortuna.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use core::fmt::Write as _;

use fogbow::{StartError, println, random};
use rand_core::Rng;

fogbow::arguments!();

/// Prints `--lines` lines of 32 bytes from each: the runtime's own function, its generator as a value, and the crate `getrandom`, as other crates use it.
///
/// # Errors
/// When the machine has no entropy.
pub async fn start() -> Result<(), StartError> {
    let Arguments { lines } = Arguments::read()?;
    // Waits on a machine whose entropy comes late; everything after it is sure to have some.
    let mut generator = random::seeded().await;
    for _ in 0..lines {
        let mut bytes = [0; 32];
        random::fill(&mut bytes).map_err(|error| StartError::new("random", error))?;
        println!("function   {}", hex(&bytes));
        generator.fill_bytes(&mut bytes);
        println!("generator  {}", hex(&bytes));
        getrandom::fill(&mut bytes).map_err(|error| StartError::new("getrandom", error))?;
        println!("getrandom  {}", hex(&bytes));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use fogbow::simulation::Simulation;

    #[test]
    fn prints_what_it_is_asked_for_and_follows_the_seed_of_a_simulation() {
        let console = |seed| {
            let simulation = Simulation::new(seed).with_arguments(&[Arguments::GROUP], ["--lines=2"]);
            assert_eq!(simulation.block_on(super::start()), Ok(()));
            simulation.console()
        };
        let (first, again, other) = (console(1), console(1), console(2));
        assert_eq!(first.lines().count(), 6);
        // In a test `getrandom` draws from the host.
        let own = |console: &str| {
            console.lines().filter(|line| !line.starts_with("getrandom")).fold(super::String::new(), |all, line| all + line)
        };
        assert_eq!(own(&first), own(&again));
        assert_ne!(own(&first), own(&other));
    }
}
