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
        let mut writer = ChunkWriter::new(|bytes| runtime.platform.write_console(bytes));
        // The writer itself never fails; a `Display` that says it failed has printed what it could.
        let _ = writer.write_fmt(arguments);
    }
}

/// Gathers formatted text and passes it on in chunks, so that a line is one call to the host; works without a heap and without a runtime, for
/// use by panic and fault handlers too. What is left is passed on when it is dropped.
pub struct ChunkWriter<F: FnMut(&[u8])> {
    chunk: [u8; CHUNK],
    length: usize,
    sink: F,
}

impl<F: FnMut(&[u8])> ChunkWriter<F> {
    /// A writer that passes its text to `sink`.
    pub const fn new(sink: F) -> Self {
        Self { chunk: [0; CHUNK], length: 0, sink }
    }

    fn flush(&mut self) {
        if self.length > 0 {
            (self.sink)(&self.chunk[..self.length]);
            self.length = 0;
        }
    }
}

impl<F: FnMut(&[u8])> Write for ChunkWriter<F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.length == CHUNK {
                self.flush();
            }
            let (now, later) = rest.split_at(rest.len().min(CHUNK - self.length));
            self.chunk[self.length..self.length + now.len()].copy_from_slice(now);
            self.length += now.len();
            rest = later;
        }
        Ok(())
    }
}

impl<F: FnMut(&[u8])> Drop for ChunkWriter<F> {
    fn drop(&mut self) {
        self.flush();
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
        let _ = write!(ChunkWriter::new(|bytes| calls.push(bytes.to_vec())), "{} + {} = {}", 1, 2, 3);
        assert_eq!(calls, [b"1 + 2 = 3"]);

        let long: String = (0..1000).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        let mut all = Vec::new();
        let _ = write!(ChunkWriter::new(|bytes| all.extend_from_slice(bytes)), "<{long}>");
        assert_eq!(String::from_utf8(all).unwrap(), std::format!("<{long}>"));
    }
}
