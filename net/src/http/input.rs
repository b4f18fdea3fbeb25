//! What a connection has received and not used yet.

use alloc::vec;
use alloc::vec::Vec;

/// Bytes that a connection's buffer has at first: enough for what browsers send.
const BUFFER: usize = 1024;

/// Bytes kept free behind a head, for what comes of its body.
const BODY_BUFFER: usize = 512;

/// What has arrived and was not used yet.
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BUFFER], from: 0, to: 0 }
    }

    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// Skips empty lines before a request line (RFC 9112, section 2.2). False when more is needed to tell.
    pub(super) fn skip_empty_lines(&mut self) -> bool {
        while self.pending().starts_with(b"\r\n") {
            self.from += 2;
        }
        !matches!(self.pending(), b"" | b"\r")
    }

    /// Room for what arrives next, never none.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.from > 0 && (self.from == self.to || self.to == self.bytes.len()) {
            self.compact();
        }
        if self.to == self.bytes.len() {
            self.bytes.resize(2 * self.bytes.len(), 0);
        }
        &mut self.bytes[self.to..]
    }

    /// Sees to it that a body has a buffer behind a head of `length` bytes.
    pub(super) fn keep_free_behind(&mut self, length: usize) {
        if self.bytes.len() - (self.from + length) < BODY_BUFFER {
            self.compact();
            let least = length + BODY_BUFFER;
            if self.bytes.len() < least {
                self.bytes.resize(least, 0);
            }
        }
    }

    fn compact(&mut self) {
        self.bytes.copy_within(self.from..self.to, 0);
        self.to -= self.from;
        self.from = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_does_not_grow_while_its_requests_are_small() {
        let mut input = Input::new();
        for round in 0..10_000 {
            let room = input.room();
            let length = room.len().min(100 + round % 900);
            room[..length].fill(b'x');
            input.to += length;
            // A part of a request always stays behind.
            input.from = input.to - round % 50;
            if round % 3 == 0 {
                input.keep_free_behind(20.min(input.pending().len()));
            }
            assert!(input.pending().iter().all(|byte| *byte == b'x'));
        }
        assert_eq!(input.bytes.len(), BUFFER);
    }
}
