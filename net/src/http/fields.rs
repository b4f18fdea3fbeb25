//! Header fields, found in the text of a head when they are asked for: most requests are served without looking at most of them.

use alloc::vec::Vec;

use super::framing::{is_field_value, is_token};

/// The header fields of a head that has been checked: lines `name: value` that end in CR LF.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields behind the request line of `head`.
    pub(super) fn after_first_line(head: &'a [u8]) -> Self {
        Self(memchr::memchr(b'\n', head).map_or(&[], |end| &head[end + 1..]))
    }

    /// The value of the first field called `name`, in whatever case.
    pub(super) fn get(mut self, name: &str) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| found.eq_ignore_ascii_case(name.as_bytes()).then_some(value))
    }
}

/// Adds a field to the text of a head. Bytes that a value must not have, such as line ends, become spaces, so that no value can forge another field.
///
/// # Panics
/// In debug builds, when `name` is no token (RFC 9110, section 5.6.2).
pub(super) fn append_field(fields: &mut Vec<u8>, name: &str, value: &[u8]) {
    debug_assert!(!name.is_empty() && name.bytes().all(is_token), "the name of a header field is no token: {name:?}");
    fields.extend_from_slice(name.as_bytes());
    fields.extend_from_slice(b": ");
    let start = fields.len();
    fields.extend_from_slice(value);
    for byte in &mut fields[start..] {
        if !is_field_value(*byte) {
            *byte = b' ';
        }
    }
    fields.extend_from_slice(b"\r\n");
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr::memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    }
}
