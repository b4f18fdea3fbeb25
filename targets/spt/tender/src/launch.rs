//! The last step: the guest's boot information, its stack, and the jump to its entry point.

use core::arch::asm;
use std::ffi::OsString;
use std::os::fd::AsRawFd;

use fogbow_tender::attach::Attached;
use fogbow_tender::boot::{self, BootError};
use fogbow_tender::elf::Layout;
use fogbow_tender::manifest::{Attachment, Manifest};
use fogbow_tender::memory::GuestMemory;

use crate::events::Events;
use crate::memory::BASE;

/// `SPT_BOOT_INFO_BASE` of `spt_abi.h`.
const BOOT_INFO_ADDRESS: u64 = BASE + 0x1000;
/// Bytes of `struct spt_boot_info`.
const BOOT_INFO_SIZE: usize = 40;

/// A guest that is ready to run.
#[derive(Debug)]
pub(crate) struct Start {
    entry: u64,
    stack: u64,
}

/// Writes the boot information, the manifest and the command line into the guest's low memory.
pub(crate) fn place(
    memory: &mut GuestMemory<'_>,
    layout: &Layout,
    manifest: &Manifest,
    devices: &[Attached],
    events: &Events,
    arguments: &[OsString],
) -> Result<Start, BootError> {
    let attachments: Vec<Attachment> = devices.iter().map(Attached::with_descriptor).collect();
    let boot_info_end = BOOT_INFO_ADDRESS + BOOT_INFO_SIZE as u64;
    let placed = boot::place(memory, boot_info_end, &manifest.emit_attached(&attachments), arguments)?;

    let memory_size = memory.end();
    let mut boot_info = [0; BOOT_INFO_SIZE];
    for (field, value) in boot_info.chunks_exact_mut(8).zip([memory_size, layout.end, placed.command_line, placed.manifest]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    boot_info[32..36].copy_from_slice(&events.epoll.as_raw_fd().to_le_bytes());
    boot_info[36..].copy_from_slice(&events.timer.as_raw_fd().to_le_bytes());
    let place = memory.slice_mut(BOOT_INFO_ADDRESS..boot_info_end).ok_or(BootError::NoRoom(memory_size))?;
    place.copy_from_slice(&boot_info);
    // As after a call: the address to return to, zero, is on top of the memory.
    Ok(Start { entry: layout.entry, stack: memory_size - 8 })
}

impl Start {
    /// Becomes the guest.
    pub(crate) fn enter(self) -> ! {
        // SAFETY: the entry point is inside a segment that was loaded and made executable, the stack is the top of the guest's memory, and
        // the boot information is in place. Nothing of this program runs again but the fault handler, which has a stack of its own.
        // The other registers are cleared, so that they tell the guest nothing of the host's addresses.
        unsafe {
            asm!(
                "mov rsp, rsi",
                "xor ebx, ebx",
                "xor ecx, ecx",
                "xor edx, edx",
                "xor esi, esi",
                "xor ebp, ebp",
                "xor r8d, r8d",
                "xor r9d, r9d",
                "xor r10d, r10d",
                "xor r11d, r11d",
                "xor r12d, r12d",
                "xor r13d, r13d",
                "xor r14d, r14d",
                "xor r15d, r15d",
                "cld",
                "jmp rax",
                in("rax") self.entry,
                in("rsi") self.stack,
                in("rdi") BOOT_INFO_ADDRESS,
                options(noreturn),
            )
        }
    }
}
