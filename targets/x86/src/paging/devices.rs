//! Pages for devices that are added to tables in use: for registers that firmware put beyond all memory.
//!
//! Ring 0 does this, as a service to ring 3, which finds devices and cannot write to the tables. Limit: below 128 TiB, the lower half of what four levels
//! of tables translate.

use core::arch::naked_asm;
use core::mem::offset_of;

use super::{ADDRESS, Access, ENTRIES, LARGE, LARGE_PAGE, PAGE, TABLE_ENTRY, Table};

/// Tables that are not used yet: those between two addresses, all zeros.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Spare {
    /// The address of the next.
    pub next: u64,
    /// Where they end.
    pub end: u64,
}

/// The memory type at index 3 of the page attribute table: uncacheable, as the processor has it after a reset (Intel SDM volume 3A, table 12-12).
const UNCACHEABLE: u64 = 1 << 3 | 1 << 4;

/// An entry for a large page of device registers, but for its address.
const DEVICE_PAGE: u64 = Access::ReadWrite.bits() | LARGE | UNCACHEABLE;

/// Where the addresses end that a page of devices can have: the lower half of what four levels translate.
pub const END: u64 = 1 << BITS;
const BITS: u32 = 47;

/// Maps the large page around `address` to itself, readable and writable and not cached, and takes tables for that from `spare`. Gives 1, or 0 when it
/// lies below 4 GiB or from [`END`] on, when something else is mapped there, or when the tables do not suffice.
///
/// It is assembler, in general registers, since ring 0 runs it; it changes RAX, RCX, RSI, RDI, R8 and R9. What it maps is neither the image's own memory nor
/// page zero nor the guard page, which all lie below 4 GiB or are mapped as something else: so ring 3 may ask for any page.
///
/// # Safety
/// `root` and the tables below it, which lie where their entries say, are tables of this module's; `spare` is as it says, and nothing else uses its tables.
#[unsafe(naked)]
pub unsafe extern "C" fn map(root: *mut Table, address: u64, spare: *mut Spare) -> u32 {
    naked_asm!(
        "mov rax, rsi",
        "shr rax, 32",
        "jz 6f",
        "shr rax, {bits} - 32",
        "jnz 6f",
        "and rsi, -{large_page}",
        "mov ecx, 39",
        "2:",
        "mov rax, rsi",
        "shr rax, cl",
        "and eax, {entries} - 1",
        "lea r8, [rdi + 8 * rax]",
        "mov rax, [r8]",
        "cmp ecx, 21",
        "je 4f",
        "test rax, rax",
        "jnz 3f",
        "mov rax, [rdx + {next}]",
        "cmp rax, [rdx + {end}]",
        "jae 6f",
        "add qword ptr [rdx + {next}], {page}",
        "or rax, {table_entry}",
        "mov [r8], rax",
        "3:",
        "test eax, {large}",
        "jnz 6f",
        "mov rdi, {address_bits}",
        "and rdi, rax",
        "sub ecx, 9",
        "jmp 2b",
        "4:",
        "mov r9, {device_page}",
        "or r9, rsi",
        "test rax, rax",
        "jz 5f",
        "cmp rax, r9",
        "jne 6f",
        "5:",
        "mov [r8], r9",
        "mov eax, 1",
        "ret",
        "6:",
        "xor eax, eax",
        "ret",
        bits = const BITS,
        large_page = const LARGE_PAGE,
        entries = const ENTRIES,
        next = const offset_of!(Spare, next),
        end = const offset_of!(Spare, end),
        page = const PAGE,
        table_entry = const TABLE_ENTRY,
        large = const LARGE,
        address_bits = const ADDRESS,
        device_page = const DEVICE_PAGE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paging::{NO_EXECUTE, PageTables, index};
    use std::vec;
    use std::vec::Vec;

    /// Tables with 4 GiB and a piece beyond, at their own address, and `count` spare ones after them.
    fn with_spare(count: usize) -> (Vec<Table>, Spare) {
        let mut tables = vec![Table::EMPTY; 9 + count];
        let at = tables.as_mut_ptr().expose_provenance() as u64;
        let mut page_tables = PageTables::new(&mut tables, at).unwrap();
        page_tables.map(PAGE, 4 << 30, Access::ReadWrite).unwrap();
        page_tables.map(4 << 30, (4 << 30) + 3 * LARGE_PAGE, Access::ReadWrite).unwrap();
        let next = at + page_tables.used as u64 * PAGE;
        (tables, Spare { next, end: next + count as u64 * PAGE })
    }

    fn map_device(tables: &mut [Table], spare: &mut Spare, address: u64) -> bool {
        // SAFETY: the tables lie where their entries say, and the spare ones are among them.
        unsafe { map(tables.as_mut_ptr(), address, spare) == 1 }
    }

    /// What the processor finds for `address`: the entry.
    fn entry(tables: &[Table], address: u64) -> u64 {
        let at = tables.as_ptr().addr() as u64;
        [39, 30, 21].into_iter().fold(at | TABLE_ENTRY, |entry, shift| {
            if entry == 0 { 0 } else { tables[((entry & ADDRESS) - at) as usize / PAGE as usize].0[index(address, shift)] }
        })
    }

    #[test]
    fn devices_are_mapped_to_themselves_not_cached_and_never_executed() {
        let (mut tables, mut spare) = with_spare(3);
        let beyond = 3 << 40;
        for address in [(4 << 30) + 3 * LARGE_PAGE, (5 << 30) - 1, beyond + 0x1234, beyond, beyond + LARGE_PAGE] {
            assert!(map_device(&mut tables, &mut spare, address), "{address:#x}");
            assert_eq!(entry(&tables, address), (address / LARGE_PAGE * LARGE_PAGE) | 0xff | NO_EXECUTE, "{address:#x}");
        }
        assert_eq!(entry(&tables, beyond + 2 * LARGE_PAGE), 0);
        assert_eq!(spare.end - spare.next, PAGE, "two tables for what lies far away");
    }

    #[test]
    fn no_device_is_mapped_where_something_else_is_or_nothing_can_be() {
        let (mut tables, mut spare) = with_spare(1);
        let before = tables.clone();
        for address in [0, PAGE, (4 << 30) - 1, 4 << 30, (4 << 30) + 3 * LARGE_PAGE - 1, END, 1 << 52, u64::MAX] {
            assert!(!map_device(&mut tables, &mut spare, address), "{address:#x}");
        }
        assert!(tables.iter().zip(&before).all(|(now, before)| now.0 == before.0) && spare.end - spare.next == PAGE);
        assert!(!map_device(&mut tables, &mut spare, END - 1), "two tables are missing");
        let (mut tables, mut spare) = with_spare(2);
        assert!(map_device(&mut tables, &mut spare, END - 1) && !map_device(&mut tables, &mut spare, 1 << 40));
    }
}
