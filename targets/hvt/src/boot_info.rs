//! What the tender hands to the entry code (`struct hvt_boot_info` in `hvt_abi.h`).

use core::ops::Range;

use fogbow_solo5::{layout, manifest};

/// The ring of network transfers is offered, or accepted (`HVT_FEATURE_RING_IO`).
const FEATURE_RING: u32 = 1 << 0;

/// The structure itself. A tender older than the ring leaves zeroes in the last three fields.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct BootInfo {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Where the image ends, as far as it was in the file. Not used: the linker knows more.
    pub(crate) image_end: u64,
    /// Ticks of the time stamp counter per second.
    pub(crate) counter_frequency: u64,
    /// The address of the command line, which ends with a zero byte.
    pub(crate) command_line: u64,
    /// The address of the manifest.
    pub(crate) manifest: u64,
    host_features: u32,
    guest_features: u32,
    ring: u64,
}

impl BootInfo {
    /// The addresses that the tender filled, given that this structure lies at `at`. The manifest is taken to be as long as it can be, but not
    /// to reach to `limit`.
    pub(crate) fn extent(&self, at: u64, limit: u64) -> Range<u64> {
        let manifest_end = self.manifest.saturating_add(manifest::MAX_SIZE as u64).min(limit.max(self.manifest));
        let end = (at + size_of::<Self>() as u64).max(manifest_end).max(self.command_line.saturating_add(layout::COMMAND_LINE_SIZE as u64));
        at.min(self.manifest).min(self.command_line)..end
    }

    /// The address of the ring, if the tender offers one.
    pub(crate) const fn ring(&self) -> Option<u64> {
        if self.host_features & FEATURE_RING != 0 && self.ring != 0 { Some(self.ring) } else { None }
    }

    /// The structure as the image hands it back: it accepts the ring if there is one.
    pub(crate) const fn accept(&mut self) {
        self.guest_features = if self.ring().is_some() { FEATURE_RING } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: BootInfo = BootInfo {
        memory: 2 << 20,
        image_end: 0,
        counter_frequency: 1,
        command_line: 0x1_0048 + 112,
        manifest: 0x1_0048,
        host_features: 0,
        guest_features: 0,
        ring: 0,
    };

    #[test]
    fn the_structure_lies_in_memory_as_the_abi_says() {
        assert_eq!(size_of::<BootInfo>(), 56);
        assert_eq!(core::mem::offset_of!(BootInfo, ring), 48);
    }

    #[test]
    fn everything_handed_over_is_within_the_extent() {
        assert_eq!(INFO.extent(0x1_0000, 0x10_0000), 0x1_0000..0x1_0048 + 112 + 8192);
        let far = BootInfo { manifest: u64::MAX, command_line: 5, ..INFO };
        assert_eq!(far.extent(0x1_0000, 0x10_0000), 5..u64::MAX);
    }

    #[test]
    fn the_ring_is_accepted_when_it_is_offered_and_there() {
        for (host_features, ring, expected) in [(0, 4096, None), (1, 0, None), (3, 4096, Some(4096))] {
            let mut info = BootInfo { host_features, ring, ..INFO };
            assert_eq!(info.ring(), expected);
            info.accept();
            assert_eq!(info.guest_features, u32::from(expected.is_some()));
        }
    }
}
