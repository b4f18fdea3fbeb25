//! Records of the log: one for each commit, which is on the device as a whole or not at all.
//!
//! A record is a run of sectors, each with a header that says whose it is, and the last of them is the exclusive or of the others: whatever single
//! sector is damaged later can be told and made again. A write that a power cut tore lacks two sectors or more, or can be completed: both are allowed
//! for a commit that was not acknowledged.

use alloc::vec;
use alloc::vec::Vec;

use super::layout::{checksum, u16_at, u32_at, u64_at};

/// Bytes at the start of each sector: checksum of the rest, sequence number, checksum of the payload, index, sectors, length of the payload.
pub(crate) const HEADER: usize = 32;

/// The longest payload that fits into `bytes` of the log.
pub(crate) const fn capacity(bytes: usize, sector: usize) -> usize {
    (bytes / sector).saturating_sub(1).saturating_mul(sector - HEADER)
}

/// Bytes that a record takes in the log.
pub(crate) fn size(payload: usize, sector: usize) -> usize {
    (payload.div_ceil(sector - HEADER).max(1) + 1) * sector
}

/// The sectors of a record.
pub(crate) fn encode(id: u64, sector: usize, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; size(payload.len(), sector)];
    let count = bytes.len() / sector;
    let mut parity = vec![0; sector - HEADER];
    for (part, into) in payload.chunks(sector - HEADER).zip(bytes.chunks_exact_mut(sector)) {
        into[HEADER..HEADER + part.len()].copy_from_slice(part);
        exclusive_or(&mut parity, part);
    }
    let last = bytes.len() - sector;
    bytes[last + HEADER..].copy_from_slice(&parity);
    let identity = checksum(id, payload);
    for (index, into) in bytes.chunks_exact_mut(sector).enumerate() {
        into[8..16].copy_from_slice(&sequence.to_le_bytes());
        into[16..24].copy_from_slice(&identity.to_le_bytes());
        into[24..26].copy_from_slice(&(index as u16).to_le_bytes());
        into[26..28].copy_from_slice(&(count as u16).to_le_bytes());
        into[28..32].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        let sum = checksum(id, &into[8..]);
        into[..8].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// A record that was found in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) payload: Vec<u8>,
    /// The bytes it takes in the log.
    pub(crate) size: usize,
    /// The sector that had to be made again from the others.
    pub(crate) repaired: Option<usize>,
}

/// The record with number `sequence` at the start of `log`, if it is there.
pub(crate) fn decode(id: u64, sector: usize, sequence: u64, log: &[u8]) -> Option<Record> {
    // Either of the first two says what to look for: the other may be damaged, or be left of a write of this number that a power cut tore.
    (0..2).find_map(|index| assemble(id, sector, sequence, index, log))
}

/// The record that the sector `known` belongs to.
fn assemble(id: u64, sector: usize, sequence: u64, known: usize, log: &[u8]) -> Option<Record> {
    let at = |index: usize| log.get(index.checked_mul(sector)?..)?.get(..sector);
    let header = |index: usize| at(index).and_then(|bytes| Header::read(id, sequence, index, bytes));
    let known = header(known)?;
    let length = known.length as usize;
    let count = usize::from(known.count);
    if count.checked_mul(sector)? > log.len() || size(length, sector) != count * sector {
        return None;
    }
    let mut missing = (0..count).filter(|&index| header(index) != Some(known));
    let repaired = missing.next();
    if missing.next().is_some() {
        return None;
    }
    let mut payload = Vec::with_capacity((count - 1) * (sector - HEADER));
    for index in 0..count - 1 {
        if repaired == Some(index) {
            let mut part = vec![0; sector - HEADER];
            (0..count).filter(|&other| other != index).filter_map(at).for_each(|other| exclusive_or(&mut part, &other[HEADER..]));
            payload.extend_from_slice(&part);
        } else {
            payload.extend_from_slice(&at(index)?[HEADER..]);
        }
    }
    payload.truncate(length);
    (checksum(id, &payload) == known.identity).then_some(Record { payload, size: count * sector, repaired })
}

/// Whether a sector of the log belongs to a record after number `sequence`.
pub(crate) fn is_later(id: u64, sequence: u64, bytes: &[u8]) -> bool {
    u64_at(bytes, 8).is_some_and(|found| found > sequence) && u64_at(bytes, 0) == Some(checksum(id, &bytes[8..]))
}

/// What the sectors of a record have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Header {
    identity: u64,
    count: u16,
    length: u32,
}

impl Header {
    fn read(id: u64, sequence: u64, index: usize, bytes: &[u8]) -> Option<Self> {
        let intact = u64_at(bytes, 0)? == checksum(id, &bytes[8..]);
        let header = Self { identity: u64_at(bytes, 16)?, count: u16_at(bytes, 26)?, length: u32_at(bytes, 28)? };
        (intact && u64_at(bytes, 8)? == sequence && usize::from(u16_at(bytes, 24)?) == index).then_some(header)
    }
}

fn exclusive_or(into: &mut [u8], from: &[u8]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into ^= from);
}

#[cfg(test)]
mod tests;
