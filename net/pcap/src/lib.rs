//! The capture file format that tcpdump, Wireshark and their kin read: Ethernet frames with times in nanoseconds.
//!
//! The format is that of libpcap (`pcap-savefile(5)`; draft-ietf-opsawg-pcap), in little-endian byte order. Nothing here allocates or does any
//! input or output: [`HEADER`] begins a file, and each frame follows its [`record`]. [`Records`] reads what was written so.
//!
//! Limits: one link type, one byte order; files of other writers are refused.
#![no_std]
#![forbid(unsafe_code)]

/// The magic number of files with nanoseconds (`pcap-savefile(5)`).
const MAGIC: u32 = 0xa1b2_3c4d;
/// The magic number of files with microseconds (the same).
const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
/// The format's version, 2.4 since 1998.
const VERSION: [u16; 2] = [2, 4];
/// `LINKTYPE_ETHERNET` of the list of link types.
const ETHERNET: u32 = 1;
/// `MAXIMUM_SNAPLEN` of libpcap: frames are never longer.
const LONGEST: u32 = 262_144;
/// Bytes before each frame.
const RECORD: usize = 16;

/// What a file begins with.
pub const HEADER: [u8; 24] = header();

const fn header() -> [u8; 24] {
    let [a, b, c, d] = MAGIC.to_le_bytes();
    let ([e, f], [g, h]) = (VERSION[0].to_le_bytes(), VERSION[1].to_le_bytes());
    let [i, j, k, l] = LONGEST.to_le_bytes();
    let [m, n, o, p] = ETHERNET.to_le_bytes();
    [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0, i, j, k, l, m, n, o, p]
}

/// What stands before a frame of `length` bytes that was seen `time` nanoseconds after 1970.
#[must_use]
pub fn record(time: u64, length: usize) -> [u8; RECORD] {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    // The format's seconds end in 2106.
    let words = [(time / 1_000_000_000) as u32, (time % 1_000_000_000) as u32, length, length];
    let mut bytes = [0; RECORD];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The frames of a file with their times, in nanoseconds after 1970. It ends at the first record that is not whole.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    /// The nanoseconds of the unit of the times' second part.
    unit: u64,
}

impl<'a> Records<'a> {
    /// Reads a file of Ethernet frames that a machine of this byte order wrote, with nanoseconds or microseconds. `None` when it is not one.
    #[must_use]
    pub fn new(file: &'a [u8]) -> Option<Self> {
        let (header, rest) = file.split_first_chunk::<{ HEADER.len() }>()?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let unit = match word(0) {
            MAGIC => 1,
            MAGIC_MICROSECONDS => 1000,
            _ => return None,
        };
        (header[4..8] == HEADER[4..8] && word(20) == ETHERNET).then_some(Self { rest, unit })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (record, rest) = self.rest.split_first_chunk::<RECORD>()?;
        let word = |index: usize| u32::from_le_bytes([record[index], record[index + 1], record[index + 2], record[index + 3]]);
        let (frame, rest) = rest.split_at_checked(word(8) as usize)?;
        self.rest = rest;
        Some((u64::from(word(0)) * 1_000_000_000 + u64::from(word(4)) * self.unit, frame))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn the_header_is_that_of_libpcap() {
        let known = [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
        assert_eq!(HEADER, known);
        assert!(Records::new(&HEADER[1..]).is_none());
    }

    #[test]
    fn files_with_microseconds_are_read() {
        let mut file = HEADER.to_vec();
        file[..4].copy_from_slice(&[0xd4, 0xc3, 0xb2, 0xa1]);
        file.extend_from_slice(&[3, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 8, 9]);
        assert_eq!(Records::new(&file).unwrap().collect::<Vec<_>>(), [(3_000_007_000, &[8, 9][..])]);
        file[20] = 101;
        assert!(Records::new(&file).is_none(), "not of Ethernet frames");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frames in proptest::collection::vec((0..4_000_000_000_000_000_000_u64, proptest::collection::vec(any::<u8>(), 0..200)), 0..20)) {
            let mut file = HEADER.to_vec();
            for (time, frame) in &frames {
                file.extend_from_slice(&record(*time, frame.len()));
                file.extend_from_slice(frame);
            }
            let read: Vec<_> = Records::new(&file).unwrap().map(|(time, frame)| (time, frame.to_vec())).collect();
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = HEADER.to_vec();
            file.extend_from_slice(&bytes);
            let _ = Records::new(&file).unwrap().count();
        }
    }
}
