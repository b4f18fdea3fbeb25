//! Device registers in memory.

/// A range of device registers. Reading beyond its end gives ones, as a bus does where nothing answers; writing there does nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    base: usize,
    length: usize,
}

impl Window {
    /// # Safety
    /// The `length` bytes from address `base` on are registers of a device, mapped readable and writable for ever, and do not go round the end of
    /// addresses; what a device does when they are used concerns no memory that the program has not given to it.
    pub(crate) const unsafe fn new(base: usize, length: usize) -> Self {
        Self { base, length }
    }

    /// The part of `length` bytes from `offset` on, if it lies within.
    pub(crate) fn part(self, offset: u64, length: u64) -> Option<Self> {
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        let fits = offset.checked_add(length).is_some_and(|end| end <= self.length);
        fits.then_some(Self { base: self.base.checked_add(offset)?, length })
    }

    /// Whether `T` lies at `offset` as a whole, aligned to itself.
    fn holds<T>(self, offset: usize) -> bool {
        let fits = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.length);
        fits && (self.base + offset).is_multiple_of(size_of::<T>())
    }

    fn read<T: Copy>(self, offset: usize) -> Option<T> {
        // SAFETY: the register lies within the window, which `new` was promised to be registers; `T` is a plain number.
        self.holds::<T>(offset).then(|| unsafe { core::ptr::with_exposed_provenance::<T>(self.base + offset).read_volatile() })
    }

    fn write<T: Copy>(self, offset: usize, value: T) {
        if self.holds::<T>(offset) {
            // SAFETY: as in `read`.
            unsafe { core::ptr::with_exposed_provenance_mut::<T>(self.base + offset).write_volatile(value) };
        }
    }

    pub(crate) fn read8(self, offset: usize) -> u8 {
        self.read(offset).unwrap_or(u8::MAX)
    }

    pub(crate) fn read16(self, offset: usize) -> u16 {
        self.read(offset).unwrap_or(u16::MAX)
    }

    pub(crate) fn read32(self, offset: usize) -> u32 {
        self.read(offset).unwrap_or(u32::MAX)
    }

    pub(crate) fn write8(self, offset: usize, value: u8) {
        self.write(offset, value);
    }

    pub(crate) fn write16(self, offset: usize, value: u16) {
        self.write(offset, value);
    }

    pub(crate) fn write32(self, offset: usize, value: u32) {
        self.write(offset, value);
    }

    /// 64 bits as two halves, the lower one first, as the specification wants them written (virtio 1.2, section 4.1.3.1).
    pub(crate) fn write64(self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::boxed::Box;
    use std::vec;

    /// A window onto memory of a test's own.
    pub(crate) fn memory(bytes: usize) -> Window {
        let memory = Box::leak(vec![0_u64; bytes.div_ceil(8)].into_boxed_slice());
        // SAFETY: the memory is never freed, and used through windows alone.
        unsafe { Window::new(memory.as_mut_ptr().expose_provenance(), bytes) }
    }

    #[test]
    fn nothing_beyond_a_window_is_touched() {
        let window = memory(16);
        let part = window.part(4, 8).unwrap();
        part.write32(0, 0x1234_5678);
        assert_eq!((part.read32(0), part.read16(2), part.read8(1)), (0x1234_5678, 0x1234, 0x56));
        for offset in [6, 8, usize::MAX - 1] {
            part.write32(offset, 7);
            assert_eq!(part.read32(offset), u32::MAX);
        }
        assert_eq!(window.read32(12), 0);
        part.write64(0, 0x1122_3344_5566_7788);
        assert_eq!((part.read32(0), part.read32(4)), (0x5566_7788, 0x1122_3344));
        // Registers of 8 and 16 bits may lie anywhere that suits them (section 4.1.4), for which a doorbell is an example.
        let bell = window.part(2, 2).unwrap();
        bell.write16(0, 0x0102);
        assert_eq!((window.read8(2), window.part(3, 1).unwrap().read8(0), bell.read32(0)), (2, 1, u32::MAX));
        assert_eq!(window.part(2, 8).unwrap().read32(0), u32::MAX, "it does not lie at a multiple of its size");
        assert!(window.part(8, 9).is_none() && window.part(u64::MAX - 3, 8).is_none());
    }
}
