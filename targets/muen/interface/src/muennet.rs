//! muennet: Ethernet frames through a pair of channels, one for each direction. Source: `bindings/muen/muen-net.c` of Solo5 0.12.1.
//!
//! A writer never waits for a reader: a frame that is not taken in time is lost, as on a wire.

use core::fmt;

use crate::channel::{Reader, Received, Shared, TooSmall, Writer};

/// `MUENNET_PROTO`.
pub const PROTOCOL: u64 = 0x7ade_5c54_9b08_e814;

/// Bytes of the longest frame: `PACKET_SIZE`.
pub const FRAME_SIZE: usize = 1514;

/// Bytes of the largest payload of a frame.
pub const MTU: u16 = 1500;

/// Bytes of an element: `struct net_msg`, a frame and its length.
pub const ELEMENT_SIZE: usize = FRAME_SIZE + 2;

/// Bytes of one channel as Muen's tools make it.
pub const CHANNEL_SIZE: u64 = 0x10_0000;

/// The end of a device's channel into the subject, after the device's name.
pub const IN: &str = "|in";

/// The end of a device's channel out of the subject.
pub const OUT: &str = "|out";

/// How many elements that are no frame are passed over at a time.
pub const PASSED_OVER: usize = 64;

/// A frame, or a part of the shared memory that says it is one.
pub struct Frame {
    bytes: [u8; ELEMENT_SIZE],
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Frame")
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

impl Frame {
    /// An empty frame.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; ELEMENT_SIZE] }
    }

    /// Room for a frame's bytes.
    pub const fn bytes_mut(&mut self) -> &mut [u8; FRAME_SIZE] {
        match self.bytes.first_chunk_mut() {
            Some(bytes) => bytes,
            // An element is two bytes longer than a frame.
            None => unreachable!(),
        }
    }
}

/// The end that takes frames.
#[derive(Debug)]
pub struct FrameReader {
    reader: Reader,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameReader {
    /// A reader that has seen nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { reader: Reader::new(PROTOCOL, ELEMENT_SIZE) }
    }

    /// Whether there is something to take.
    pub fn is_pending<S: Shared>(&mut self, shared: &S) -> bool {
        self.reader.is_pending(shared)
    }

    /// Takes the next frame into `frame` and gives its bytes, or `None` when there is none. What was overwritten before it was taken and what is
    /// longer than a frame can be is passed over, [`PASSED_OVER`] of them at a time, so that no writer holds the reader up for ever.
    pub fn receive<'a, S: Shared>(&mut self, shared: &S, frame: &'a mut Frame) -> Option<&'a mut [u8]> {
        for _ in 0..PASSED_OVER {
            let received = self.reader.read(shared, |element| {
                let mut length = [0; 2];
                element.get(FRAME_SIZE, &mut length);
                let length = usize::from(u16::from_le_bytes(length));
                if length <= FRAME_SIZE {
                    element.get(0, &mut frame.bytes[..length]);
                }
                length
            });
            match received {
                Received::Element(length) if length <= FRAME_SIZE => return frame.bytes.get_mut(..length),
                Received::Element(_) | Received::Overrun => {}
                Received::Nothing | Received::Inactive => return None,
            }
        }
        None
    }
}

/// The end that sends frames.
#[derive(Debug)]
pub struct FrameWriter {
    writer: Writer,
}

impl FrameWriter {
    /// Begins the channel anew, as of `epoch`.
    ///
    /// # Errors
    /// [`TooSmall`] when not even one frame fits.
    pub fn new<S: Shared>(shared: &S, epoch: u64) -> Result<Self, TooSmall> {
        Ok(Self { writer: Writer::new(shared, PROTOCOL, ELEMENT_SIZE, epoch)? })
    }

    /// Sends a frame; what is longer than [`FRAME_SIZE`] is cut.
    pub fn send<S: Shared>(&mut self, shared: &S, frame: &[u8]) {
        let frame = &frame[..frame.len().min(FRAME_SIZE)];
        self.writer.write(shared, |element| {
            element.put(0, frame);
            // The length's word has the last two bytes of the longest frame in it.
            let mut end = [0; 4];
            let tail = frame.get(FRAME_SIZE - 2..).unwrap_or_default();
            end[..tail.len()].copy_from_slice(tail);
            end[2..].copy_from_slice(&(frame.len() as u16).to_le_bytes());
            element.put(FRAME_SIZE - 2, &end);
        });
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use core::sync::atomic::Ordering;

    use super::*;
    use crate::channel::tests::Fake;

    #[test]
    fn frames_of_every_length_pass() {
        let shared = Fake::new(64 + 3 * ELEMENT_SIZE);
        let (mut writer, mut reader, mut frame) = (FrameWriter::new(&shared, 7).unwrap(), FrameReader::new(), Frame::new());
        for length in 0..=FRAME_SIZE {
            let sent: std::vec::Vec<u8> = (0..length).map(|index| (index * 7 + length) as u8).collect();
            writer.send(&shared, &sent);
            assert!(reader.is_pending(&shared));
            assert_eq!(reader.receive(&shared, &mut frame).map(|frame| &*frame), Some(&*sent), "{length}");
            assert!(!reader.is_pending(&shared));
        }
        writer.send(&shared, &[1; FRAME_SIZE + 5]);
        assert_eq!(reader.receive(&shared, &mut frame).unwrap().len(), FRAME_SIZE);
    }

    /// A writer that has another element ready at each look at its counter, with one length at the first look at it and another from then on.
    struct Flickering {
        fake: Fake,
        lengths: Cell<[u16; 2]>,
        written: Cell<u64>,
    }

    impl Flickering {
        fn new(lengths: [u16; 2]) -> Self {
            let fake = Fake::new(64 + ELEMENT_SIZE);
            FrameWriter::new(&fake, 7).unwrap();
            Self { fake, lengths: Cell::new(lengths), written: Cell::new(0) }
        }
    }

    impl Shared for Flickering {
        fn header(&self, word: usize) -> u64 {
            match word {
                6 => self.written.get(),
                7 => {
                    self.written.set(self.written.get() + 1);
                    self.written.get()
                }
                _ => self.fake.header(word),
            }
        }

        fn set_header(&self, _: usize, _: u64) {
            panic!("a reader writes nothing");
        }

        fn data_words(&self) -> usize {
            self.fake.data_words()
        }

        fn data(&self, word: usize) -> u32 {
            if word != (FRAME_SIZE - 2) / 4 {
                return 0;
            }
            let [now, later] = self.lengths.get();
            self.lengths.set([later, later]);
            u32::from(now) << 16
        }

        fn set_data(&self, _: usize, _: u32) {
            panic!("a reader writes nothing");
        }

        fn fence(&self, _: Ordering) {}
    }

    #[test]
    fn a_length_is_looked_at_once() {
        let (mut reader, mut frame) = (FrameReader::new(), Frame::new());
        let length = reader.receive(&Flickering::new([60, u16::MAX]), &mut frame).map(|frame| frame.len());
        assert_eq!(length, Some(60));
    }

    #[test]
    fn no_writer_holds_a_reader_up() {
        let shared = Flickering::new([u16::MAX; 2]);
        let (mut reader, mut frame) = (FrameReader::new(), Frame::new());
        assert!(reader.receive(&shared, &mut frame).is_none());
        assert_eq!(shared.written.get(), PASSED_OVER as u64);
        assert!(reader.is_pending(&shared), "what waits is looked at again");
    }

    #[test]
    fn lengths_that_no_frame_has_are_passed_over() {
        let shared = Fake::new(64 + 4 * ELEMENT_SIZE);
        let (mut writer, mut reader, mut frame) = (FrameWriter::new(&shared, 7).unwrap(), FrameReader::new(), Frame::new());
        for byte in 1..=3 {
            writer.send(&shared, &[byte; 60]);
        }
        let length_word = (FRAME_SIZE - 2) / 4;
        for element in 0..2 {
            shared.store_data(element * ELEMENT_SIZE / 4 + length_word, 1515 << 16);
        }
        assert_eq!(reader.receive(&shared, &mut frame).unwrap(), [3; 60]);
        assert!(reader.receive(&shared, &mut frame).is_none());
    }
}
