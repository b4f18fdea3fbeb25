//! The console: bytes to the host, in order, all of them.

use core::fmt::{self, Write};

use crate::current;

/// Bytes that are gathered before they go to the host in one call; a longer line takes several.
const CHUNK: usize = 256;

/// Writes bytes to the console. Before the image has started there is no console and they are dropped.
pub fn write(bytes: &[u8]) {
    if let Some(runtime) = current::get() {
        runtime.journal.flush(&*runtime.platform);
        runtime.platform.write_console(bytes);
    }
}

/// Writes formatted text to the console: what [`print!`](crate::print) and [`println!`](crate::println) do.
pub fn write_fmt(arguments: fmt::Arguments<'_>) {
    if let Some(runtime) = current::get() {
        runtime.journal.flush(&*runtime.platform);
        write_to(&mut |bytes| runtime.platform.write_console(bytes), arguments);
    }
}

/// Formats `text` and passes it to `sink` in pieces, so that a line is one call to the host; works without a heap and without a runtime, for panic and
/// fault handlers too.
pub fn write_to(sink: &mut dyn FnMut(&[u8]), text: fmt::Arguments<'_>) {
    let mut writer = Writer { buffer: &mut [0; CHUNK], length: 0, sink: Some(sink) };
    // The writer itself never fails; a `Display` that says it failed has written what it could.
    let _ = fmt::write(&mut writer, text);
    writer.flush();
}

/// Formats `text` into `buffer`, as much of it as there is room for, and gives that: the last character is whole.
pub fn format_into<'a>(buffer: &'a mut [u8], text: fmt::Arguments<'_>) -> &'a mut [u8] {
    let mut writer = Writer { buffer, length: 0, sink: None };
    // An error is the cut's, or as in `write_to`.
    let _ = fmt::write(&mut writer, text);
    let Writer { buffer, length, .. } = writer;
    &mut buffer[..length]
}

/// Takes bytes that have been formatted.
type Sink<'a> = dyn FnMut(&[u8]) + 'a;

/// The one way that text goes into bytes: each type of writer costs every image half a kilobyte.
struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
    /// Takes the buffer when it is full; without one, text is cut off there.
    sink: Option<&'a mut Sink<'a>>,
}

impl Writer<'_> {
    fn flush(&mut self) {
        if let (Some(sink), 1..) = (&mut self.sink, self.length) {
            sink(&self.buffer[..self.length]);
            self.length = 0;
        }
    }
}

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        loop {
            let room = &mut self.buffer[self.length..];
            let mut taken = rest.len().min(room.len());
            let is_cut = taken < rest.len() && self.sink.is_none();
            if is_cut {
                taken = text.floor_char_boundary(taken);
            }
            let (now, later) = rest.split_at(taken);
            room[..taken].copy_from_slice(now);
            self.length += taken;
            rest = later;
            if is_cut {
                // Nothing after a cut: a shorter piece must not follow a longer one that is missing.
                return Err(fmt::Error);
            }
            if rest.is_empty() {
                return Ok(());
            }
            self.flush();
        }
    }
}

/// Prints formatted text on the image's console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::write_fmt(::core::format_args!($($argument)*)) };
}

/// Prints formatted text and a line feed on the image's console.
#[macro_export]
macro_rules! println {
    () => { $crate::console::write(b"\n") };
    ($($argument:tt)*) => { $crate::console::write_fmt(::core::format_args!("{}\n", ::core::format_args!($($argument)*))) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn a_line_is_one_call_and_a_long_one_arrives_whole() {
        let mut calls: Vec<Vec<u8>> = Vec::new();
        write_to(&mut |bytes| calls.push(bytes.to_vec()), format_args!("{} + {} = {}", 1, 2, 3));
        assert_eq!(calls, [b"1 + 2 = 3"]);

        let long: String = (0..1000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        let mut all = Vec::new();
        write_to(&mut |bytes| all.extend_from_slice(bytes), format_args!("<{long}>"));
        assert_eq!(String::from_utf8(all).unwrap(), std::format!("<{long}>"));
    }

    #[test]
    fn text_is_cut_at_a_character_and_nothing_follows_the_cut() {
        assert_eq!(format_into(&mut [0; 4], format_args!("a{}b{}", '\u{e9}', '\u{e9}')), "a\u{e9}b".as_bytes());
        assert_eq!(format_into(&mut [0; 4], format_args!("abc{}d", '\u{e9}')), b"abc");
        assert_eq!(format_into(&mut [], format_args!("a")), b"");
    }
}
