//! What a device with [`Offload`](super::Offload) does, in software: for devices in memory.

use alloc::vec::Vec;

use super::{ETHERNET_HEADER, Finish, TCP_CHECKSUM};

/// Where TCP has its sequence number and its flags (RFC 9293, section 3.1), and IPv4 its length, identification and checksum (RFC 791, section 3.1).
const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const IP_LENGTH: usize = 2;
const IP_IDENTIFICATION: usize = 4;
const IP_CHECKSUM: usize = 10;
/// FIN and PSH, which belong to the last segment alone.
const LAST_ONLY: u8 = 0x09;

/// Does what `finish` says with `frame`, and gives each frame that comes of it to `send`.
pub(crate) fn apply(frame: &mut [u8], finish: Finish, mut send: impl FnMut(&[u8])) {
    match finish {
        Finish::Nothing => send(frame),
        Finish::Checksum { start, field } => {
            complete(frame, start, field);
            send(frame);
        }
        Finish::Segments { start, headers, payload } => {
            let (head, data) = frame.split_at(headers);
            let chunks = data.chunks(payload);
            let last = chunks.len() - 1;
            for (index, chunk) in chunks.enumerate() {
                let mut segment = Vec::from(head);
                segment.extend_from_slice(chunk);
                cut(&mut segment, (start, headers, payload), data.len(), index);
                if index < last {
                    segment[start + TCP_FLAGS] &= !LAST_ONLY;
                }
                complete(&mut segment, start, start + TCP_CHECKSUM);
                send(&segment);
            }
        }
    }
}

/// Makes of the headers of a frame with `whole` bytes of payload those of its segment number `index`.
fn cut(segment: &mut [u8], (start, headers, payload): (usize, usize, usize), whole: usize, index: usize) {
    let ip = ETHERNET_HEADER;
    let length = (segment.len() - ip) as u16;
    segment[ip + IP_LENGTH..][..2].copy_from_slice(&length.to_be_bytes());
    let identification = number(&segment[ip + IP_IDENTIFICATION..]).wrapping_add(index as u16);
    segment[ip + IP_IDENTIFICATION..][..2].copy_from_slice(&identification.to_be_bytes());
    segment[ip + IP_CHECKSUM..][..2].fill(0);
    let sum = !sum(&segment[ip..start]);
    segment[ip + IP_CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
    let sequence = &mut segment[start + TCP_SEQUENCE..][..4];
    let first = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
    sequence.copy_from_slice(&first.wrapping_add((index * payload) as u32).to_be_bytes());
    // The pseudo-header's sum counts the length of the TCP segment, which is a shorter one now.
    let missing = whole - (segment.len() - headers);
    let field = &mut segment[start + TCP_CHECKSUM..][..2];
    let sum = u32::from(u16::from_be_bytes([field[0], field[1]])) + u32::from(!(missing as u16));
    field.copy_from_slice(&fold(sum).to_be_bytes());
}

fn complete(frame: &mut [u8], start: usize, field: usize) {
    let sum = !sum(&frame[start..]);
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

fn number(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// The sum of RFC 1071, not complemented.
fn sum(bytes: &[u8]) -> u16 {
    fold(bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low))).sum())
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
