//! Console lines: the LOG session takes a line at a time, so text is gathered until its line ends.

/// Bytes of the longest line that is passed on whole; a longer one is broken.
const LONGEST: usize = 512;

/// The line that is being written.
#[derive(Debug)]
pub(crate) struct LineBuffer {
    line: [u8; LONGEST],
    length: usize,
}

impl LineBuffer {
    pub(crate) const fn new() -> Self {
        Self { line: [0; LONGEST], length: 0 }
    }

    /// Adds `bytes`, and passes each line that ends to `log`, without its line feed.
    pub(crate) fn write(&mut self, bytes: &[u8], mut log: impl FnMut(&[u8])) {
        for &byte in bytes {
            if byte == b'\n' {
                log(&self.line[..self.length]);
                self.length = 0;
                continue;
            }
            if self.length == LONGEST {
                self.flush(&mut log);
            }
            self.line[self.length] = byte;
            self.length += 1;
        }
    }

    /// Passes on a line that has begun and not ended.
    pub(crate) fn flush(&mut self, mut log: impl FnMut(&[u8])) {
        if self.length > 0 {
            log(&self.line[..self.length]);
            self.length = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut buffer, mut lines) = (LineBuffer::new(), Vec::new());
        for piece in pieces {
            buffer.write(piece, |line| lines.push(line.to_vec()));
        }
        buffer.flush(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn lines_are_gathered_and_passed_on_one_by_one() {
        assert_eq!(lines(&[b"one ", b"line\nand a", b"nother\n\nlast"]), [&b"one line"[..], b"and another", b"", b"last"]);
        assert_eq!(lines(&[b"", b"x\n"]), [b"x"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_broken_and_nothing_of_it_lost() {
        let long = [b'x'; 2 * LONGEST + 1];
        assert_eq!(lines(&[&long, b"\n"]), [&long[..LONGEST], &long[..LONGEST], b"x"]);
        assert_eq!(lines(&[&long[..LONGEST], b"\n"]), [&long[..LONGEST]]);
    }
}
