//! The header that virtio's network devices put before each frame, and Linux's taps where they are asked to (`IFF_VNET_HDR`): `struct virtio_net_hdr`
//! of Virtual I/O Device 1.2, section 5.1.6, without the field that counts merged buffers. Numbers are little-endian.

use super::{Checksums, Finish};

/// Bytes of the header.
pub const HEADER: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is to be completed.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the checksum has been verified.
const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_TCPV4`: a TCP segment over IPv4, to be cut.
const TCP_IPV4: u8 = 1;

/// The header of a frame that is sent.
#[must_use]
pub fn header(finish: Finish) -> [u8; HEADER] {
    // Frames are shorter than 2¹⁶ bytes but for the Ethernet header, and these positions lie in their headers.
    let low = |number: usize| (number as u16).to_le_bytes();
    let (kind, headers, payload, start, field) = match finish {
        Finish::Nothing => return [0; HEADER],
        Finish::Checksum { start, field } => (0, 0, 0, start, field - start),
        Finish::Segments { start, headers, payload } => (TCP_IPV4, headers, payload, start, super::TCP_CHECKSUM),
    };
    let ([a, b], [c, d], [e, f], [g, h]) = (low(headers), low(payload), low(start), low(field));
    [NEEDS_CHECKSUM, kind, a, b, c, d, e, f, g, h]
}

/// What the header of a frame that has arrived says of its checksums.
#[must_use]
pub fn checksums(header: &[u8; HEADER]) -> Checksums {
    if header[0] & (NEEDS_CHECKSUM | DATA_VALID) == 0 { Checksums::Unknown } else { Checksums::Verified }
}

/// How a device's buffers hold frames: each after a header, or alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The frame alone.
    Plain,
    /// The header, then the frame.
    Headed,
}

impl Framing {
    /// Bytes before each frame.
    #[must_use]
    pub const fn header(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Headed => HEADER,
        }
    }

    /// The frame in what a device gave, and what the device says of its checksums. The frame is empty when not even the header is whole.
    pub fn open(self, given: &mut [u8]) -> (&mut [u8], Checksums) {
        match self {
            Self::Plain => (given, Checksums::Unknown),
            Self::Headed => match given.split_first_chunk_mut() {
                Some((header, frame)) => (frame, checksums(header)),
                None => (&mut [], Checksums::Unknown),
            },
        }
    }

    /// The part of `buffer` for a frame that the device is to finish, once the header is written.
    ///
    /// # Panics
    /// When a header does not fit.
    pub fn begin(self, buffer: &mut [u8], finish: Finish) -> &mut [u8] {
        match self {
            Self::Plain => buffer,
            Self::Headed => {
                let (place, frame) = buffer.split_at_mut(HEADER);
                place.copy_from_slice(&header(finish));
                frame
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_standard() {
        assert_eq!(header(Finish::Nothing), [0; 10]);
        assert_eq!(header(Finish::Checksum { start: 34, field: 50 }), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0]);
        assert_eq!(header(Finish::Segments { start: 34, headers: 66, payload: 1448 }), [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0]);
    }

    #[test]
    fn only_what_the_device_vouches_for_is_not_verified() {
        for (flags, expected) in [(0, Checksums::Unknown), (1, Checksums::Verified), (2, Checksums::Verified), (4, Checksums::Unknown)] {
            assert_eq!(checksums(&[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]), expected);
        }
    }

    #[test]
    fn a_frame_is_where_it_was_put() {
        for framing in [Framing::Plain, Framing::Headed] {
            let mut buffer = [0xff; 30];
            framing.begin(&mut buffer, Finish::Checksum { start: 0, field: 1 }).fill(7);
            assert_eq!(framing.begin(&mut buffer, Finish::Nothing).len(), 30 - framing.header());
            assert_eq!(framing.open(&mut buffer), (&mut [7; 30][framing.header()..], Checksums::Unknown));
        }
        assert_eq!(Framing::Headed.open(&mut [0; 9]), (&mut [][..], Checksums::Unknown));
    }
}
