//! Guest memory as the loader sees it.

use core::ops::Range;

/// A guest's memory: guest addresses `base..base + bytes.len()`.
///
/// The base is 0 where the tender maps all of the guest's memory (hvt), and higher where the host cannot map its first pages (spt).
/// All bytes must be zero when an image is loaded, as a fresh mapping is: the loader does not clear what an image leaves out.
#[derive(Debug)]
pub struct GuestMemory<'a> {
    base: u64,
    bytes: &'a mut [u8],
}

impl<'a> GuestMemory<'a> {
    /// Calls `bytes[0]` guest address `base`.
    #[must_use]
    pub fn new(base: u64, bytes: &'a mut [u8]) -> Self {
        Self { base, bytes }
    }

    /// The address past the last byte: what the guest is told as its memory size.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.base.saturating_add(self.bytes.len() as u64)
    }

    /// The bytes at these guest addresses, or `None` if any of them is outside.
    pub fn slice_mut(&mut self, addresses: Range<u64>) -> Option<&mut [u8]> {
        let start = usize::try_from(addresses.start.checked_sub(self.base)?).ok()?;
        let end = usize::try_from(addresses.end.checked_sub(self.base)?).ok()?;
        self.bytes.get_mut(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_outside_are_refused() {
        let mut bytes = [0; 16];
        let mut memory = GuestMemory::new(0x1000, &mut bytes);
        assert_eq!(memory.end(), 0x1010);
        assert_eq!(memory.slice_mut(0x1000..0x1010).map(|slice| slice.len()), Some(16));
        assert!(memory.slice_mut(0xfff..0x1001).is_none());
        assert!(memory.slice_mut(0x100f..0x1011).is_none());
        #[expect(clippy::reversed_empty_ranges, reason = "the reversed range is what is tested")]
        let reversed = 0x1002..0x1001;
        assert!(memory.slice_mut(reversed).is_none());
        assert!(memory.slice_mut(u64::MAX - 1..u64::MAX).is_none());
    }
}
