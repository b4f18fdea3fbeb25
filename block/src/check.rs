//! The checks that every device makes before it begins a request: for those who implement [`Block`].

use crate::{Block, BlockError, BlockInfo, Cause, Operation};

/// Checks a read into `into` and gives its length in bytes.
///
/// # Errors
/// [`BlockError`], when a buffer is not of whole sectors or the range leaves the device.
pub fn read<B: Block + ?Sized>(device: &B, sector: u64, into: &[&mut [u8]]) -> Result<u64, BlockError> {
    buffers(device, Operation::Read, sector, into.iter().map(|buffer| buffer.len()))
}

/// Checks a write of `data` and gives its length in bytes.
///
/// # Errors
/// [`BlockError`], when a buffer is not of whole sectors, the range leaves the device, or the device is read-only.
pub fn write<B: Block + ?Sized>(device: &B, sector: u64, data: &[&[u8]]) -> Result<u64, BlockError> {
    buffers(device, Operation::Write, sector, data.iter().map(|buffer| buffer.len()))
}

/// Checks a discard and gives its length in bytes.
///
/// # Errors
/// [`BlockError`], when the range leaves the device or the device is read-only.
pub fn discard<B: Block + ?Sized>(device: &B, sector: u64, sectors: u64) -> Result<u64, BlockError> {
    let BlockInfo { sector_size, .. } = device.info();
    range(device, Operation::Discard, sector, sectors, sectors.saturating_mul(sector_size as u64))
}

/// Checks a write of zeros and gives its length in bytes.
///
/// # Errors
/// [`BlockError`], when the range leaves the device or the device is read-only.
pub fn write_zeroes<B: Block + ?Sized>(device: &B, sector: u64, sectors: u64) -> Result<u64, BlockError> {
    let BlockInfo { sector_size, .. } = device.info();
    range(device, Operation::Write, sector, sectors, sectors.saturating_mul(sector_size as u64))
}

fn buffers<B>(device: &B, operation: Operation, sector: u64, lengths: impl Iterator<Item = usize>) -> Result<u64, BlockError>
where
    B: Block + ?Sized,
{
    let BlockInfo { sector_size, .. } = device.info();
    let (mut length, mut is_whole) = (0_u64, true);
    for buffer in lengths {
        // Buffers may be the same memory many times over: their sum need not fit.
        length = length.saturating_add(buffer as u64);
        is_whole &= buffer.is_multiple_of(sector_size);
    }
    if !is_whole {
        return Err(Cause::NotWholeSectors { sector_size }.of(device, operation, sector, length));
    }
    range(device, operation, sector, length / sector_size as u64, length)
}

fn range<B: Block + ?Sized>(device: &B, operation: Operation, sector: u64, count: u64, length: u64) -> Result<u64, BlockError> {
    let BlockInfo { sectors, read_only, .. } = device.info();
    let cause = match sector.checked_add(count) {
        Some(end) if end <= sectors => match read_only && operation != Operation::Read {
            true => Cause::ReadOnly,
            false => return Ok(length),
        },
        _ => Cause::OutOfRange { sectors },
    };
    Err(cause.of(device, operation, sector, length))
}
