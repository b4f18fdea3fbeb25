//! Log messages: what the [`log`] macros write goes to the console, filtered by source, and to whoever [subscribes](Subscription).
//!
//! The filter is MirageOS's syntax, given at boot as `--logs` or `-l`: `*:info,net.direct:debug`. Each part is `SOURCE:LEVEL`, where a source is
//! a module path, with dots or double colons, and stands for everything below it; `*` stands for everything, and so does a part without a
//! source. The longest source that matches decides.
//!
//! A message goes into a ring of fixed size first. The executor offers it to the console between two rounds, a bounded piece at a time, which takes
//! what it has room for; when messages come faster than that, the oldest are lost, and the console tells how many. So neither a storm of messages
//! nor a console that nobody reads holds up tasks. [`println!`](crate::println) stays in order with messages: it writes them first, and waits for the
//! console.
//!
//! The ring keeps what has been written, and messages of level `info` and worse that did not pass the filter: [`dump`] writes all of them when
//! the image panics.
//!
//! Limits: a message is cut off after [`LONGEST`] bytes. A target that cannot tell whether its console has room waits for a host that does not
//! read it: genode, and spt and hvt under other tenders than ours.

use core::fmt;
use core::str::FromStr;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::console::format_into;
use crate::current;

mod filter;
mod journal;
mod subscription;

pub use filter::{Filter, FilterError};
pub use journal::LONGEST;
pub(crate) use journal::{Journal, Progress};
pub use subscription::{Message, Subscription};

/// What the ring keeps although it does not pass the filter.
const KEPT: LevelFilter = LevelFilter::Info;

/// Whether the levels of messages are in colour on the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal alone.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A text that is no [`Colour`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColourError;

impl fmt::Display for ColourError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write auto, always or never")
    }
}

impl core::error::Error for ColourError {}

impl FromStr for Colour {
    type Err = ColourError;

    fn from_str(text: &str) -> Result<Self, ColourError> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(ColourError),
        }
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let (level, source) = (metadata.level(), metadata.target());
        current::get().is_some_and(|runtime| {
            level <= KEPT || level <= runtime.journal.filter.level_of(source) || runtime.journal.subscribers.want(level, source)
        })
    }

    fn log(&self, record: &Record<'_>) {
        let Some(runtime) = current::get() else { return };
        let (level, source) = (record.level(), record.target());
        let is_printed = level <= runtime.journal.filter.level_of(source);
        if is_printed || level <= KEPT {
            // Formatted before the ring is touched: what is formatted may log as well.
            let mut buffer = [0; LONGEST];
            let text = format_into(&mut buffer, format_args!("{source}: {}", record.args()));
            runtime.journal.push(runtime.platform.monotonic(), level, is_printed, text);
        }
        runtime.journal.subscribers.tell(record, &*runtime.platform);
    }

    fn flush(&self) {
        if let Some(runtime) = current::get() {
            runtime.journal.flush(&*runtime.platform);
        }
    }
}

/// Makes the `log` macros reach the current runtime, with messages that `filter` lets pass.
fn install(filter: &Filter) {
    static LOGGER: Logger = Logger;
    // A second runtime in one process finds the logger installed already: the same one.
    let _ = log::set_logger(&LOGGER);
    // With several runtimes in one process the one that lets through most decides here; each one's own filter decides in the logger.
    log::set_max_level(log::max_level().max(filter.greatest()).max(KEPT));
}

/// Writes the last messages, printed or not, oldest first, through `write`: for panic and fault handlers. Allocates nothing. Nothing is written
/// when there are none, and when the ring itself was in use.
pub fn dump(write: &mut dyn FnMut(&[u8])) {
    if let Some(runtime) = current::get() {
        runtime.journal.dump(write);
    }
}

/// The sequence of ECMA-48 that begins the colour of a level.
fn colour_of(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug => "\x1b[34m",
        Level::Trace => "\x1b[2m",
    }
}

#[cfg(test)]
mod tests;
