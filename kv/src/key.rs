//! Keys: normalised paths.
//!
//! A key is segments joined by `/`. Its text has no empty segment, no `.` or `..`, no NUL, at most [`MAX_SEGMENT`] bytes in a segment and
//! [`MAX_KEY`] in all; slashes at either end are dropped when it is read. The key without segments is the root.

use core::fmt;

/// The longest segment of a key in bytes, as file names on Linux.
pub const MAX_SEGMENT: usize = 255;

/// The longest key in bytes, slashes included.
pub const MAX_KEY: usize = 1024;

/// A key of a store, borrowed from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    /// The key without segments: the dictionary of everything.
    pub const ROOT: Self = Self("");

    /// Reads a key.
    ///
    /// # Errors
    /// [`KeyError`] when the text is no key.
    ///
    /// ```
    /// use fogbow_kv::{Key, KeyError};
    /// assert_eq!(Key::new("/pages/index.html")?.as_str(), "pages/index.html");
    /// assert_eq!(Key::new("pages/../secret"), Err(KeyError::Relative));
    /// # Ok::<(), KeyError>(())
    /// ```
    pub fn new(text: &'a str) -> Result<Self, KeyError> {
        let text = text.trim_matches('/');
        if text.len() > MAX_KEY {
            return Err(KeyError::TooLong);
        }
        if text.is_empty() {
            return Ok(Self::ROOT);
        }
        for segment in text.split('/') {
            match segment {
                "" => return Err(KeyError::EmptySegment),
                "." | ".." => return Err(KeyError::Relative),
                _ if segment.len() > MAX_SEGMENT => return Err(KeyError::TooLong),
                _ if segment.contains('\0') => return Err(KeyError::Nul),
                _ => {}
            }
        }
        Ok(Self(text))
    }

    /// The key's text: its segments joined by `/`.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// True for the key without segments.
    #[must_use]
    pub const fn is_root(self) -> bool {
        self.0.is_empty()
    }

    /// The keys above this one, nearest first, the root left out.
    pub fn ancestors(self) -> impl Iterator<Item = Key<'a>> {
        self.0.rmatch_indices('/').map(move |(at, _)| Key(&self.0[..at]))
    }

    /// What is left of this key below `dictionary`; `None` when it does not lie below it.
    #[must_use]
    pub fn below(self, dictionary: Key<'_>) -> Option<&'a str> {
        if dictionary.is_root() { (!self.is_root()).then_some(self.0) } else { self.0.strip_prefix(dictionary.0)?.strip_prefix('/') }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Why text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Two slashes follow each other.
    EmptySegment,
    /// A segment is `.` or `..`.
    Relative,
    /// It contains a NUL.
    Nul,
    /// It is longer than [`MAX_KEY`], or a segment is longer than [`MAX_SEGMENT`].
    TooLong,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptySegment => f.write_str("a key has no empty segments: write a/b, not a//b"),
            Self::Relative => f.write_str("a key has no segments '.' or '..'"),
            Self::Nul => f.write_str("a key has no NUL characters"),
            Self::TooLong => write!(f, "a key has at most {MAX_KEY} bytes, {MAX_SEGMENT} in a segment"),
        }
    }
}

impl core::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    #[test]
    fn knows_its_relatives() {
        let key = Key::new("a/b/c").unwrap();
        assert_eq!(key.ancestors().map(Key::as_str).collect::<Vec<_>>(), ["a/b", "a"]);
        assert_eq!(key.below(Key::new("a").unwrap()), Some("b/c"));
        assert_eq!(Key::new("ab/c").unwrap().below(Key::new("a").unwrap()), None);
        assert_eq!(key.below(Key::ROOT), Some("a/b/c"));
        assert_eq!(key.below(key), None);
    }

    #[test]
    fn refuses_what_is_too_long() {
        assert_eq!(Key::new(&"x".repeat(MAX_SEGMENT + 1)), Err(KeyError::TooLong));
        assert_eq!(Key::new(&"x/".repeat(MAX_KEY)), Err(KeyError::TooLong));
        assert!(Key::new(&"x".repeat(MAX_SEGMENT)).is_ok());
    }

    proptest! {
        /// Reading a key's own text gives the same key, and no key climbs out of its store.
        #[test]
        fn reading_is_idempotent_and_confined(text in "[a./\0é]{0,20}") {
            if let Ok(key) = Key::new(&text) {
                prop_assert_eq!(Key::new(key.as_str()), Ok(key));
                prop_assert!(key.is_root() || key.as_str().split('/').all(|segment| !["", ".", ".."].contains(&segment)));
                let joined: String = key.to_string();
                prop_assert!(!joined.contains('\0'));
            }
        }
    }
}
