//! Log messages: what the [`log`] macros write goes to the console, filtered by source.
//!
//! The filter is MirageOS's syntax, given at boot as `--logs` or `-l`: `*:info,fogbow_net::direct:debug`. Each part is `SOURCE:LEVEL`, where a
//! source is a module path and stands for everything below it; `*` stands for everything, and so does a part without a source. The longest
//! source that matches decides.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use log::{LevelFilter, Log, Metadata, Record};

use crate::{console, current, time};

/// Which messages pass. By default those of level `warn` and worse do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    everything: LevelFilter,
    /// Few: whoever asks looks at all of them.
    sources: Vec<(String, LevelFilter)>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { everything: LevelFilter::Warn, sources: Vec::new() }
    }
}

/// A part of a filter that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is no log filter: write SOURCE:LEVEL or *:LEVEL, where LEVEL is one of off, error, warning, info, debug, trace",
            self.0
        )
    }
}

impl core::error::Error for FilterError {}

impl Filter {
    /// Reads a filter such as `*:info,fogbow_net::direct:debug`.
    ///
    /// # Errors
    /// [`FilterError`] with the part that is wrong.
    ///
    /// ```
    /// use fogbow::log::LevelFilter;
    /// use fogbow::logs::Filter;
    /// let filter = Filter::parse("*:info,fogbow_net:debug")?;
    /// assert_eq!(filter.level_of("fogbow_net::http"), LevelFilter::Debug);
    /// assert_eq!(filter.level_of("fogbow_network"), LevelFilter::Info);
    /// # Ok::<(), fogbow::logs::FilterError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (source, level) = part.rsplit_once(':').unwrap_or(("*", part));
            let level = level_from(level).ok_or_else(|| FilterError(part.to_string()))?;
            match source {
                "*" => filter.everything = level,
                "" => return Err(FilterError(part.to_string())),
                _ => filter.sources.push((source.to_string(), level)),
            }
        }
        Ok(filter)
    }

    /// The least important level that passes for messages of `source`.
    #[must_use]
    pub fn level_of(&self, source: &str) -> LevelFilter {
        let matching = self.sources.iter().filter(|(prefix, _)| is_at_or_below(source, prefix));
        matching.max_by_key(|(prefix, _)| prefix.len()).map_or(self.everything, |(_, level)| *level)
    }

    /// The least important level that passes for any source.
    fn greatest(&self) -> LevelFilter {
        self.sources.iter().map(|(_, level)| *level).fold(self.everything, Ord::max)
    }
}

fn level_from(text: &str) -> Option<LevelFilter> {
    match text {
        "off" | "quiet" => Some(LevelFilter::Off),
        "warning" => Some(LevelFilter::Warn),
        _ => text.parse().ok(),
    }
}

fn is_at_or_below(source: &str, prefix: &str) -> bool {
    source.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        current::get().is_some_and(|runtime| metadata.level() <= runtime.log_filter.level_of(metadata.target()))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let now = time::now().as_nanos();
            let (seconds, micros) = (now / 1_000_000_000, now / 1000 % 1_000_000);
            console::write_fmt(format_args!("[{seconds:5}.{micros:06}] {:5} {}: {}\n", record.level(), record.target(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// Makes the `log` macros reach the console of the current runtime.
pub(crate) fn install(filter: &Filter) {
    static LOGGER: Logger = Logger;
    // A second runtime in one process finds the logger installed already: the same one.
    let _ = log::set_logger(&LOGGER);
    // With several runtimes in one process the one that lets through most decides here; each one's own filter decides in the logger.
    log::set_max_level(log::max_level().max(filter.greatest()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_matching_source_decides() {
        let filter = Filter::parse("a::b:error,a:trace,warning").unwrap();
        assert_eq!(filter.level_of("a"), LevelFilter::Trace);
        assert_eq!(filter.level_of("a::c"), LevelFilter::Trace);
        assert_eq!(filter.level_of("a::b::c"), LevelFilter::Error);
        assert_eq!(filter.level_of("ab"), LevelFilter::Warn);
    }

    #[test]
    fn a_bad_part_is_named() {
        let error = Filter::parse("*:info,net:loud").unwrap_err();
        assert!(error.to_string().contains("'net:loud'"), "{error}");
        assert!(Filter::parse(":info").is_err());
    }
}
