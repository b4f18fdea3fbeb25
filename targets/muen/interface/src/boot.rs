//! Where a subject of the Solo5 family finds things when it starts.
//!
//! It begins in ring 0 of 64-bit mode, at the entry point of its image, with RDI holding [`INFO`] and a stack at the end of its memory, under page tables that
//! it cannot change, without descriptor tables, with interrupts off. Source: `solo5_muen.lds` and `bindings/muen/muen-sinfo.c` of Solo5 0.12.1, the
//! component `unikernel` of Muen's policy.

use core::ops::Range;

/// Where the image begins: `TEXT_START`.
pub const IMAGE: u64 = 0x20_0000;

/// The boot information, a page that can only be read.
pub const INFO: u64 = 0x1000;

/// Bytes of it.
pub const INFO_SIZE: usize = 0x1000;

/// Where in it the command line begins: after `struct hvt_boot_info`.
pub const COMMAND_LINE: usize = 40;

/// Bytes of the longest command line, its terminator included.
pub const COMMAND_LINE_SIZE: usize = INFO_SIZE - COMMAND_LINE;

/// The subject information: `SINFO_ADDR`.
pub const SINFO: u64 = 0xe_0000_0000;

/// The scheduling information: `SCHED_INFO_ADDR`.
pub const SCHEDULING_INFO: u64 = 0xe_0000_8000;

/// Where Muen's own library puts the time of day; found by its name.
pub const TIME_INFO: u64 = 0xf_ffd0_0000;

/// Where Muen's own library puts the debug log; found by its name.
pub const DEBUGLOG: u64 = 0xf_fff0_0000;

/// The event that says that the subject has ended.
pub const EXIT_EVENT: &str = "solo5_exit";

/// What a subject prints last (`platform_exit`).
pub const HALTED: &str = "Solo5: Halted";

/// `struct hvt_boot_info`, of which Muen fills in what a subject cannot find elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootInfo {
    /// Where memory ends.
    pub memory_end: u64,
    /// The last byte of the image.
    pub image_last: u64,
}

impl BootInfo {
    /// Reads the page at [`INFO`].
    #[must_use]
    pub fn read(page: &[u8; INFO_SIZE]) -> Self {
        Self { memory_end: crate::sinfo::long(page, 0), image_last: crate::sinfo::long(page, 8) }
    }

    /// The page at [`INFO`], with a command line, which is cut if there is no room for it and its terminator.
    #[must_use]
    pub fn emit(&self, command_line: &[u8]) -> [u8; INFO_SIZE] {
        let mut page = [0; INFO_SIZE];
        let fields = [self.memory_end, self.image_last, 0, INFO + COMMAND_LINE as u64, 0];
        for (place, field) in page.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let length = command_line.len().min(COMMAND_LINE_SIZE - 1);
        page[COMMAND_LINE..COMMAND_LINE + length].copy_from_slice(&command_line[..length]);
        page
    }

    /// The memory beyond an image that ends at `image_end`, in whole pages.
    #[must_use]
    pub fn free(&self, image_end: u64) -> Range<u64> {
        const PAGE: u64 = 4096;
        let start = self.image_last.saturating_add(1).max(image_end).div_ceil(PAGE).saturating_mul(PAGE);
        start..(self.memory_end / PAGE * PAGE).max(start)
    }
}

/// The command line in the page at [`INFO`], without its terminator.
#[must_use]
pub fn command_line(page: &[u8; INFO_SIZE]) -> &[u8] {
    let rest = &page[COMMAND_LINE..];
    &rest[..rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emitted_is_read() {
        let info = BootInfo { memory_end: 0x2020_d000, image_last: 0x20_cfff };
        let page = info.emit(b"--a=1 b");
        assert_eq!(BootInfo::read(&page), info);
        assert_eq!(command_line(&page), b"--a=1 b");
        assert_eq!(page[24..32], 0x1028_u64.to_le_bytes());
        assert_eq!(command_line(&info.emit(&[b'x'; 5000])).len(), COMMAND_LINE_SIZE - 1);
        assert_eq!(command_line(&[b'x'; INFO_SIZE]).len(), COMMAND_LINE_SIZE);
    }

    #[test]
    fn memory_begins_after_the_image_whoever_says_where_that_ends() {
        let info = BootInfo { memory_end: 0x40_0fff, image_last: 0x20_cfff };
        assert_eq!(info.free(0x20_c001), 0x20_d000..0x40_0000);
        assert_eq!(info.free(0x20_f001), 0x21_0000..0x40_0000);
        assert!(info.free(0x50_0000).is_empty());
        assert!(BootInfo { memory_end: u64::MAX, image_last: u64::MAX }.free(0).is_empty());
    }
}
