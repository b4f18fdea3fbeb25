//! The debug log: a channel of messages of 56 characters, in which a line may take several. Source: `bindings/muen/muen-console.c` of Solo5 0.12.1.

use crate::channel::{ElementReader, ElementWriter, Shared};

/// The channel's name among a subject's resources.
pub const NAME: &str = "debuglog";

/// `DEBUGLOG_PROTO`.
pub const PROTOCOL: u64 = 0xf007_8909_4b6f_70cf;

/// Bytes of an element: `struct log_msg`.
pub const ELEMENT_SIZE: usize = 64;

/// Characters of a message.
pub const CHARACTERS: usize = 56;

/// Bytes of the time before them.
const TIMESTAMP: usize = 8;

/// The message that is being written: it ends with a line feed or when it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    characters: [u8; CHARACTERS],
    length: usize,
}

impl Message {
    /// No character yet.
    pub const EMPTY: Self = Self { characters: [0; CHARACTERS], length: 0 };

    /// Adds a character; gives the message when that ends it, and begins another. Zeros and carriage returns are left out.
    pub fn push(&mut self, character: u8) -> Option<Self> {
        if matches!(character, 0 | b'\r') {
            return None;
        }
        // Never full here: a full message has been given away.
        self.characters[self.length] = character;
        self.length += 1;
        (self.length == CHARACTERS || character == b'\n').then(|| core::mem::replace(self, Self::EMPTY))
    }

    /// What has not been given away yet.
    pub fn take(&mut self) -> Option<Self> {
        (self.length > 0).then(|| core::mem::replace(self, Self::EMPTY))
    }

    /// Its characters.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.characters[..self.length]
    }

    /// Writes it, with the time stamp counter as `timestamp`.
    pub fn emit<S: Shared>(&self, timestamp: u64, element: &ElementWriter<'_, S>) {
        element.put(0, &timestamp.to_le_bytes());
        element.put(TIMESTAMP, &self.characters);
    }

    /// Reads a message that anybody may have written: all characters up to the first zero.
    pub fn read<S: Shared>(element: &ElementReader<'_, S>) -> Self {
        let mut message = Self::EMPTY;
        element.get(TIMESTAMP, &mut message.characters);
        message.length = message.characters.iter().position(|&byte| byte == 0).unwrap_or(CHARACTERS);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn messages(text: &[u8]) -> Vec<Vec<u8>> {
        let mut message = Message::EMPTY;
        let mut messages: Vec<_> = text.iter().filter_map(|&byte| message.push(byte)).collect();
        messages.extend(message.take());
        messages.iter().map(|message| message.text().to_vec()).collect()
    }

    /// `struct log_msg`: the time stamp, then the characters.
    #[test]
    fn a_message_is_laid_out_as_the_log_has_it() {
        use crate::channel::tests::Fake;
        use crate::channel::{HEADER_SIZE, Reader, Received, Writer};

        let shared = Fake::new(HEADER_SIZE + ELEMENT_SIZE);
        let mut writer = Writer::new(&shared, PROTOCOL, ELEMENT_SIZE, 1).unwrap();
        let mut message = Message::EMPTY;
        b"text".iter().for_each(|&byte| assert_eq!(message.push(byte), None));
        writer.write(&shared, |element| message.emit(0x0807_0605_0403_0201, element));
        let (mut bytes, mut reader) = ([0xff; ELEMENT_SIZE], Reader::new(PROTOCOL, ELEMENT_SIZE));
        let read = reader.read(&shared, |element| {
            element.get(0, &mut bytes);
            Message::read(element)
        });
        assert_eq!((&bytes[..16], read), (&b"\x01\x02\x03\x04\x05\x06\x07\x08text\0\0\0\0"[..], Received::Element(message)));
    }

    #[test]
    fn a_message_ends_with_its_line_or_when_it_is_full() {
        assert_eq!(messages(b"one\r\n\ntwo\0!"), [&b"one\n"[..], b"\n", b"two!"]);
        let long = [b'x'; 2 * CHARACTERS];
        assert_eq!(messages(&long), [&long[..CHARACTERS], &long[..CHARACTERS]]);
        assert_eq!(messages(&[&long[..CHARACTERS - 1], b"\n"].concat()).len(), 1);
        assert!(messages(b"\0\r").is_empty());
    }
}
