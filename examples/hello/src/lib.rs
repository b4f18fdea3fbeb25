//! Hello: the smallest application. It prints a line and ends.
//!
//! `cargo xtask run hello --target spt`
#![no_std]
#![forbid(unsafe_code)]

use fogbow::StartError;

/// Greets, and ends in success.
///
/// # Errors
/// None.
pub async fn start() -> Result<(), StartError> {
    fogbow::println!("Hello from Fogbow!");
    Ok(())
}

#[cfg(test)]
mod tests {
    use fogbow::simulation::Simulation;

    #[test]
    fn says_hello() {
        let simulation = Simulation::new(1);
        assert_eq!(simulation.block_on(super::start()), Ok(()));
        assert_eq!(simulation.console(), "Hello from Fogbow!\n");
    }
}
