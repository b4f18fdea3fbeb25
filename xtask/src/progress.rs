//! What the builder says while it works, on standard error: standard output carries results alone.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::time::Instant;

/// Where progress goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    quiet: bool,
    colour: bool,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { quiet, colour, started: Instant::now() }
    }

    /// Says what begins or has ended, in cargo's manner: a verb, and what it is done to.
    pub(crate) fn say(&self, verb: &str, what: impl Display) {
        if self.quiet {
            return;
        }
        if self.colour {
            eprintln!("\x1b[1;32m{verb:>12}\x1b[0m {what}");
        } else {
            eprintln!("{verb:>12} {what}");
        }
    }

    /// True when cargo's own progress is to be kept quiet too.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The time since the builder was started, such as `3.2 s`.
    pub(crate) fn elapsed(&self) -> String {
        format!("{:.1} s", self.started.elapsed().as_secs_f64())
    }
}

/// A size as a person reads it.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.2} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_readable() {
        assert_eq!([100, 1536, 3 << 20].map(super::size), ["100 B", "1.5 KiB", "3.00 MiB"]);
    }
}
