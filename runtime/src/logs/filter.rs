//! Which messages pass.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use log::LevelFilter;

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

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

impl From<LevelFilter> for Filter {
    /// Messages of every source, of this level and worse.
    fn from(everything: LevelFilter) -> Self {
        Self { everything, sources: Vec::new() }
    }
}

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
                _ => filter.sources.push((source.replace("::", "."), level)),
            }
        }
        Ok(filter)
    }

    /// The filter with another level for `source`, a module path.
    #[must_use]
    pub fn with(mut self, source: &str, level: LevelFilter) -> Self {
        self.sources.push((source.replace("::", "."), level));
        self
    }

    /// The least important level that passes for messages of `source`.
    #[must_use]
    pub fn level_of(&self, source: &str) -> LevelFilter {
        let matching = self.sources.iter().filter(|(prefix, _)| is_at_or_below(source, prefix));
        matching.max_by_key(|(prefix, _)| prefix.len()).map_or(self.everything, |(_, level)| *level)
    }

    /// The least important level that passes for any source.
    pub(super) fn greatest(&self) -> LevelFilter {
        self.sources.iter().map(|(_, level)| *level).fold(self.everything, Ord::max)
    }
}

fn level_from(text: &str) -> Option<LevelFilter> {
    match text {
        // What MirageOS calls `app` is printed here, not logged.
        "off" | "quiet" | "app" => Some(LevelFilter::Off),
        "warning" => Some(LevelFilter::Warn),
        _ => text.parse().ok(),
    }
}

/// Whether the module path `source` is `prefix`, whose parts are separated by dots, or below it. The project's own crates are found without the
/// `fogbow_` before their names too.
fn is_at_or_below(source: &str, prefix: &str) -> bool {
    let begins = |source: &str| {
        let mut parts = source.split("::");
        prefix.split('.').all(|part| parts.next() == Some(part))
    };
    begins(source) || source.strip_prefix("fogbow_").is_some_and(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_may_be_written_as_mirageos_does() {
        let filter = Filter::parse("net.tcp:info,*:quiet,app.x:debug").unwrap();
        assert_eq!(filter.level_of("fogbow_net::tcp::segment"), LevelFilter::Info);
        assert_eq!(filter.level_of("net::tcp"), LevelFilter::Info);
        assert_eq!(filter.level_of("fogbow_net::tcpip"), LevelFilter::Off);
        assert_eq!(filter.level_of("app::x"), LevelFilter::Debug);
    }

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
