//! Which messages pass.

use alloc::borrow::ToOwned;
use alloc::string::String;
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
        let mut rest = Some(text);
        while let Some(text) = rest {
            let (part, later) = cut(text, text.bytes().position(|byte| byte == b','));
            rest = later;
            if part.is_empty() {
                continue;
            }
            let (source, level) = match cut(part, part.bytes().rposition(|byte| byte == b':')) {
                (source, Some(level)) => (source, level),
                (level, None) => ("*", level),
            };
            match (source, level_from(level)) {
                ("", _) | (_, None) => return Err(FilterError(part.to_owned())),
                ("*", Some(level)) => filter.everything = level,
                (_, Some(level)) => filter.sources.push((source.to_owned(), level)),
            }
        }
        Ok(filter)
    }

    /// The filter with another level for `source`, a module path.
    #[must_use]
    pub fn with(mut self, source: &str, level: LevelFilter) -> Self {
        self.sources.push((source.to_owned(), level));
        self
    }

    /// The least important level that passes for messages of `source`.
    #[must_use]
    pub fn level_of(&self, source: &str) -> LevelFilter {
        // The project's own crates are found without the `fogbow_` before their names too.
        let names = [source, source.strip_prefix("fogbow_").unwrap_or(source)];
        let mut longest = (0, self.everything);
        for (prefix, level) in &self.sources {
            for name in names {
                longest = match length_of_match(name, prefix) {
                    Some(length) if length >= longest.0 => (length, *level),
                    _ => longest,
                };
            }
        }
        longest.1
    }

    /// The least important level that passes for any source.
    pub(super) fn greatest(&self) -> LevelFilter {
        self.sources.iter().map(|(_, level)| *level).fold(self.everything, Ord::max)
    }
}

/// What lies before and after the character of one byte at `place`; all of `text` when there is none.
fn cut(text: &str, place: Option<usize>) -> (&str, Option<&str>) {
    match place {
        Some(place) => (text.get(..place).unwrap_or_default(), text.get(place + 1..)),
        None => (text, None),
    }
}

fn level_from(text: &str) -> Option<LevelFilter> {
    Some(match text {
        // What MirageOS calls `app` is printed here, not logged.
        "off" | "quiet" | "app" => LevelFilter::Off,
        "error" => LevelFilter::Error,
        "warning" | "warn" => LevelFilter::Warn,
        "info" => LevelFilter::Info,
        "debug" => LevelFilter::Debug,
        "trace" => LevelFilter::Trace,
        _ => return None,
    })
}

/// How much of `source`, a module path, `prefix` is, if `source` is that or below it.
fn length_of_match(source: &str, prefix: &str) -> Option<usize> {
    let mut rest = dotted(source);
    let mut length = 0;
    for byte in dotted(prefix) {
        if rest.next() != Some(byte) {
            return None;
        }
        length += 1;
    }
    matches!(rest.next(), None | Some(b'.')).then_some(length)
}

/// The bytes of a module path, with a dot for each double colon. Byte by byte, since to look for a text in a text brings six kilobytes into every image.
fn dotted(path: &str) -> impl Iterator<Item = u8> {
    let mut former = 0;
    path.bytes().filter_map(move |byte| {
        let is_second = (former, byte) == (b':', b':');
        former = byte;
        (!is_second).then_some(if byte == b':' { b'.' } else { byte })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

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
