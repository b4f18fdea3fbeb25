//! NAME: prints a greeting.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::boxed::Box;
use core::error::Error;

use fogbow::println;
use fogbow_kv::{Key, ReadOnly};

// The arguments that unikernel.toml declares, as a struct.
fogbow::arguments!();

/// Prints the greeting that is in `texts`, to the one whom `--name` names.
///
/// # Errors
/// What ends the image: its message goes to the console.
pub async fn start(texts: impl ReadOnly) -> Result<(), Box<dyn Error>> {
    let name = Arguments::read()?.name;
    let greeting = texts.get(Key::new("greeting.txt")?).await?;
    println!("{}, {name}!", core::str::from_utf8(greeting.as_ref())?.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::Arguments;
    use fogbow::simulation::Simulation;
    use fogbow_kv::{Key, Memory, ReadWrite};

    #[test]
    fn greets_by_name() {
        let simulation = Simulation::new(1).with_arguments(&[Arguments::GROUP], ["--name=Ada"]);
        let outcome = simulation.block_on(async {
            let texts = Memory::new();
            texts.set(Key::new("greeting.txt").unwrap(), b"Good morning\n").await.unwrap();
            super::start(texts).await.map_err(|error| error.to_string())
        });
        assert_eq!(outcome, Ok(()));
        assert_eq!(simulation.console(), "Good morning, Ada!\n");
    }
}
