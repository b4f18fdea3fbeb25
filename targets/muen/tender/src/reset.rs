//! The machine's first instructions, in the place of a firmware: from the reset vector to the subject, with the processor as Muen hands it over.
//!
//! The last page of a ROM of 64 KiB, at [`ADDRESS`]. From real mode to protected mode to 64-bit mode under the subject's page tables, then null
//! descriptor tables, and the jump. Parts are at fixed places in the page, so that each can name the others' addresses. State by Muen's `vcpu` defaults:
//! CR0 PE MP ET NE WP PG; CR4 PAE MCE OSFXSR OSXMMEXCPT; no OSXSAVE.

use core::arch::global_asm;

/// Where the page is.
pub(crate) const ADDRESS: u64 = 0xffff_f000;

/// Bytes of a ROM: QEMU takes multiples of this.
pub(crate) const ROM_SIZE: usize = 64 << 10;

const PAGE: usize = 4096;

/// Where in the page what differs from start to start is.
const VALUES: usize = 0x200;

/// How the subject starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The entry point.
    pub(crate) entry: u64,
    /// RSP.
    pub(crate) stack: u64,
    /// RDI.
    pub(crate) argument: u64,
}

global_asm!(
    ".pushsection .rodata.fogbow.reset, \"a\", @progbits",
    ".balign 4096",
    "fogbow_reset_page:",
    // Real mode, with the code segment at 0xffff_0000.
    ".code16",
    "lgdtl %cs:0xf110",
    "movl %cr0, %eax",
    "orl $1, %eax",
    "movl %eax, %cr0",
    "ljmpl $0x08, $0xfffff040",
    ".org fogbow_reset_page + 0x40",
    ".code32",
    "movl $0x10, %eax",
    "movl %eax, %ds",
    "movl %eax, %es",
    "movl %eax, %ss",
    "movl $0x660, %eax",
    "movl %eax, %cr4",
    "movl 0xfffff200, %eax",
    "movl %eax, %cr3",
    // EFER: long mode, and pages that cannot be executed.
    "movl $0xc0000080, %ecx",
    "rdmsr",
    "orl $0x900, %eax",
    "wrmsr",
    "movl $0x80010033, %eax",
    "movl %eax, %cr0",
    "ljmpl $0x18, $0xfffff0a0",
    ".org fogbow_reset_page + 0xa0",
    ".code64",
    "lgdt fogbow_reset_page + 0x220(%rip)",
    "lidt fogbow_reset_page + 0x220(%rip)",
    "movq fogbow_reset_page + 0x210(%rip), %rsp",
    "movq fogbow_reset_page + 0x218(%rip), %rdi",
    "xorl %eax, %eax",
    "xorl %ecx, %ecx",
    "xorl %edx, %edx",
    "jmpq *fogbow_reset_page + 0x208(%rip)",
    // Descriptors (flat data, 32-bit code, 64-bit code), and the pointer to them.
    ".org fogbow_reset_page + 0xf0",
    ".quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff",
    ".org fogbow_reset_page + 0x110",
    ".word 31",
    ".long 0xfffff0f0",
    // What `rom` fills in: the root of the page tables, the entry point, RSP, RDI; and nothing, for the descriptor tables.
    ".org fogbow_reset_page + 0x200",
    ".quad 0, 0, 0, 0, 0, 0",
    // The reset vector.
    ".org fogbow_reset_page + 0xff0",
    ".code16",
    "jmp fogbow_reset_page",
    ".code64",
    ".org fogbow_reset_page + 0x1000",
    ".popsection",
    options(att_syntax),
);

unsafe extern "C" {
    #[link_name = "fogbow_reset_page"]
    static PAGE_CODE: [u8; PAGE];
}

/// The ROM that starts a subject like this under the page tables with this root.
pub(crate) fn rom(root: u64, start: &Start) -> Vec<u8> {
    let mut rom = vec![0; ROM_SIZE];
    let page = &mut rom[ROM_SIZE - PAGE..];
    // SAFETY: the page is defined above, of that size, and never written to.
    page.copy_from_slice(unsafe { &PAGE_CODE });
    for (place, value) in page[VALUES..].chunks_exact_mut(8).zip([root, start.entry, start.stack, start.argument]) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    rom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lies_as_its_parts_think() {
        let rom = rom(0x10_0000, &Start { entry: 0x20_0000, stack: 0x4000_0ff8, argument: 0x1000 });
        let page = &rom[ROM_SIZE - PAGE..];
        // A near jump of 16 bits, from the reset vector to the page's beginning.
        assert_eq!(page[0xff0], 0xe9);
        assert_eq!(0xff3_i16.wrapping_add(i16::from_le_bytes([page[0xff1], page[0xff2]])), 0);
        assert_eq!(page[0x110..0x116], [31, 0, 0xf0, 0xf0, 0xff, 0xff]);
        assert_eq!(page[0x208..0x210], 0x20_0000_u64.to_le_bytes());
        assert_eq!(page[0x218..0x220], 0x1000_u64.to_le_bytes());
    }
}
