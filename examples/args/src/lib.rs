//! Args: an argument of each kind, declared in `unikernel.toml` and read as a struct; and a log message of each level.
//!
//! `cargo xtask run args --target spt -- --times=2 --hello="wide world" --peer=10.0.0.1:514 --loud -l '*:debug'`
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use fogbow::arguments::ArgumentError;
use fogbow::{println, time};

// Makes the struct `Arguments` of what `unikernel.toml` declares.
fogbow::arguments!();

/// Greets as the arguments say.
///
/// # Errors
/// None in an image, which checks its arguments before it starts.
///
/// # Panics
/// When `--test-panic` asks for it.
pub async fn start() -> Result<(), ArgumentError> {
    let arguments = Arguments::read()?;
    log::debug!("arguments: {arguments:?}");
    let mut greeting = alloc::format!("Hello, {}!", arguments.hello);
    if arguments.loud {
        greeting.make_ascii_uppercase();
    }
    for number in 0..arguments.times {
        if let Some(pause) = arguments.pause.filter(|_| number > 0) {
            time::sleep(pause).await;
        }
        println!("{greeting}");
    }
    for peer in &arguments.peer {
        println!("Hello, {peer}!");
    }
    log::info!("greeted {} times", arguments.times);
    if arguments.times == 0 {
        log::warn!("nobody was greeted");
    }
    println!("args: {} edition", arguments.edition);
    assert!(!arguments.test_panic, "as --test-panic says");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogbow::simulation::Simulation;

    #[test]
    fn greets_as_it_is_told() {
        let words = ["--times=2", "--hello=wide world", "--pause=2s", "--loud", "--peer", "10.0.0.1:514", "--peer=[::1]:80"];
        let simulation = Simulation::new(1).with_arguments(&[Arguments::GROUP], words);
        assert_eq!(simulation.block_on(start()), Ok(()));
        assert_eq!(
            simulation.console(),
            "HELLO, WIDE WORLD!\nHELLO, WIDE WORLD!\nHello, 10.0.0.1:514!\nHello, [::1]:80!\nargs: plain edition\n"
        );
    }
}
