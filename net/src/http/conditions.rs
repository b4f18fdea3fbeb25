//! What a conditional or a range request wants of a value (RFC 9110, sections 13 and 14).

use core::ops::Range;

use super::{Method, Request};

/// What a request wants of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it.
    All,
    /// Nothing: the client has it.
    Nothing,
    /// A part of it, not empty.
    Range(Range<u64>),
    /// A part that it does not have.
    Unsatisfiable,
}

/// What `request` wants of a value of `size` bytes whose entity tag is `tag`.
pub(super) fn wanted(request: &Request<'_>, tag: &[u8], size: u64) -> Wanted {
    let (mut none_match, mut if_range, mut range) = (None, None, None);
    for (name, value) in request.head.fields {
        match name.len() {
            5 if name.eq_ignore_ascii_case(b"range") => range = Some(value),
            8 if name.eq_ignore_ascii_case(b"if-range") => if_range = Some(value),
            13 if name.eq_ignore_ascii_case(b"if-none-match") => none_match = Some(value),
            _ => {}
        }
    }
    if none_match.is_some_and(|tags| has_tag(tags, tag)) {
        return Wanted::Nothing;
    }
    match range {
        Some(range) if request.method() == Method::Get && if_range.is_none_or(|given| given == tag) => parse_range(range, size),
        _ => Wanted::All,
    }
}

/// True when a list of entity tags has `tag`, weak or strong (RFC 9110, section 13.1.2).
fn has_tag(tags: &[u8], tag: &[u8]) -> bool {
    tags == b"*" || tags.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|given| given.strip_prefix(b"W/").unwrap_or(given) == tag)
}

/// Reads a range of bytes. What is no single range of bytes is ignored, as the specification allows.
fn parse_range(text: &[u8], size: u64) -> Wanted {
    let parsed = str::from_utf8(text).ok().and_then(|text| text.strip_prefix("bytes=")?.trim().split_once('-'));
    let Some((first, last)) = parsed else {
        return Wanted::All;
    };
    let range = match (number(first), number(last)) {
        (None, Some(length)) if first.is_empty() => size.saturating_sub(length)..size,
        (Some(first), None) if last.is_empty() => first..size,
        (Some(first), Some(last)) if first <= last => first..size.min(last.saturating_add(1)),
        _ => return Wanted::All,
    };
    if range.is_empty() { Wanted::Unsatisfiable } else { Wanted::Range(range) }
}

/// Digits alone, not even a sign; a number too large to count to is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_value() {
        for (text, wanted) in [
            ("bytes=0-0", Wanted::Range(0..1)),
            ("bytes=2-", Wanted::Range(2..10)),
            ("bytes=-3", Wanted::Range(7..10)),
            ("bytes=-30", Wanted::Range(0..10)),
            ("bytes=5-99999999999999999999999", Wanted::Range(5..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=3-2", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("bytes=-", Wanted::All),
            ("lines=0-1", Wanted::All),
        ] {
            assert_eq!(parse_range(text.as_bytes(), 10), wanted, "{text}");
        }
        assert_eq!(parse_range(b"bytes=0-", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn tags_are_compared_weakly() {
        assert!(has_tag(b"\"x\", W/\"a\"", b"\"a\""));
        assert!(has_tag(b"*", b"\"a\""));
        assert!(!has_tag(b"\"ab\"", b"\"a\""));
    }
}
