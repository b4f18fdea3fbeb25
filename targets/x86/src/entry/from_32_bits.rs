//! From 32-bit protected mode, where PVH and multiboot start an image, to 64-bit mode.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{FIRST_TABLES, RING0, Ring0, enter};
use crate::descriptors::{RING0_CODE, RING0_DATA, TablePointer};
use crate::paging::{FIRST_LARGE_PAGE, LARGE_PAGE, PAGE, TABLE_ENTRY};

/// Where memory ends that [`Program::prepare`](crate::program::Program::prepare) may read after [`enter_from_32_bits`].
pub const REACH: u64 = 1 << 30;

/// From 32-bit protected mode to [`enter`]: what the first instructions of an image jump to where its loader starts it there.
///
/// # Safety
/// Called once, in ring 0 of 32-bit protected mode without paging, with flat segments and with interrupts off (as the PVH and multiboot protocols
/// have it), by code of 32 bits, with EBX holding what [`Program::prepare`](crate::program::Program::prepare) wants and ESI the address of a [`Program`](crate::program::Program) whose addresses are true. The
/// image lies below [`REACH`].
#[unsafe(naked)]
pub unsafe extern "C" fn enter_from_32_bits() -> ! {
    naked_asm!(
        ".code32",
        "cld",
        // The same tables that `enter` makes, which does not mind that they are in use; but all of the directory, as a loader may leave what it says anywhere.
        "lea eax, [{tables}]",
        "lea ecx, [eax + {page} + {table_entry}]",
        "mov [eax], ecx",
        "lea ecx, [eax + 2 * {page} + {table_entry}]",
        "mov [eax + {page}], ecx",
        "lea edx, [eax + 2 * {page}]",
        "mov ebp, {entries}",
        "mov ecx, {large_page}",
        "2:",
        "mov [edx], ecx",
        "add ecx, 0x200000",
        "add edx, 8",
        "dec ebp",
        "jnz 2b",
        "mov cr3, eax",
        // CR4: PAE, and SSE with its exceptions.
        "mov ecx, cr4",
        "or ecx, 0x620",
        "mov cr4, ecx",
        // EFER: long mode, and pages that cannot be executed.
        "mov ecx, 0xc0000080",
        "rdmsr",
        "or eax, 0x900",
        "wrmsr",
        // CR0: paging, write protection in ring 0 too, the floating-point unit.
        "mov eax, cr0",
        "and eax, 0xfffffff3",
        "or eax, 0x80010022",
        "mov cr0, eax",
        // The first code segment of 64 bits.
        "lea ecx, [{ring0}]",
        "mov [ecx + {segments_base}], ecx",
        "lgdt [ecx + {segments_base} - 2]",
        "lea esp, [ecx + {page}]",
        "push {ring0_code}",
        "lea ecx, [3f]",
        "push ecx",
        "retf",
        ".code64",
        "3:",
        "mov edi, ebx",
        "mov esi, esi",
        "mov ecx, {ring0_data}",
        "mov ss, ecx",
        "jmp {enter}",
        tables = sym FIRST_TABLES,
        page = const PAGE,
        table_entry = const TABLE_ENTRY,
        large_page = const FIRST_LARGE_PAGE,
        entries = const REACH / LARGE_PAGE,
        ring0 = sym RING0,
        segments_base = const offset_of!(Ring0, segments_pointer) + offset_of!(TablePointer, base),
        ring0_code = const RING0_CODE,
        ring0_data = const RING0_DATA,
        enter = sym enter,
    )
}
