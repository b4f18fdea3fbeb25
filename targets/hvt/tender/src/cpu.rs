//! The state that the guest's only processor starts in: 64-bit mode, ring 0, an identity map, interrupts off.
//!
//! What a guest may rely on is Solo5 0.12.1's `hvt_cpu_x86_64.h` and `hvt_abi.h`: it is entered as a function of the x86-64 System V ABI
//! with the address of the boot information as its argument and a stack at the end of its memory. The tables below live in low
//! memory that the identity map leaves out; pages from [`BOOT_INFO`] up to [`IMAGE_BASE`] can be read only, and everything from there
//! to the end of memory can be read, written and executed as far as these tables go (segments' rights are the host's mapping's).

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

use crate::memory::GuestMemory;

/// Memory comes in multiples of this: the identity map's pages (`X86_GUEST_PAGE_SIZE`).
pub(crate) const LARGE_PAGE: u64 = 2 << 20;
/// The most memory a guest can have: what the identity map's four page directories reach (`X86_GUEST_MAX_MEM_SIZE`).
pub(crate) const MAX_MEMORY: u64 = 4 << 30;
/// Where the boot information is (`X86_BOOT_INFO_BASE`).
pub(crate) const BOOT_INFO: u64 = 0x1_0000;
/// The lowest address an image may be loaded at (`HVT_GUEST_MIN_BASE`).
pub(crate) const IMAGE_BASE: u64 = 0x10_0000;

// Where the tables are (`X86_GDT_BASE` to `X86_PT0E_BASE`).
const GDT: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PAGE_DIRECTORIES: u64 = 0x4000;
const FIRST_PAGE_TABLE: u64 = 0x8000;

/// Bytes of a page, and of a page table.
const PAGE: u64 = 0x1000;
/// Bytes that a page directory maps.
const DIRECTORY_REACH: u64 = 1 << 30;

// Page table entries: Intel SDM volume 3A, section 4.5.
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;

// Control registers: Intel SDM volume 3A, section 2.5; EFER: section 2.2.1.
const CR0_PE: u64 = 1 << 0;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// The guest may find out by XGETBV which vector registers it has.
pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS always reads as one.
const RFLAGS_RESERVED: u64 = 1 << 1;

// Descriptors: Intel SDM volume 3A, section 3.4.5. Flat, present, ring 0, limit 4 GiB.
const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
/// Execute-only and accessed, 64-bit.
const CODE_DESCRIPTOR: u64 = 0x00af_9900_0000_ffff;
/// Read-write and accessed.
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;

/// XCR0 with the registers of AVX (Intel SDM volume 1, section 13.3): x87, SSE, AVX.
pub(crate) const XCR0_AVX: u64 = 0b111;

/// Writes the descriptor table and the identity map of all of `memory` into its low pages.
pub(crate) fn write_tables(memory: &mut GuestMemory) {
    let size = memory.size().min(MAX_MEMORY);
    let bytes = memory.bytes_mut();
    let mut put = |table: u64, index: u64, value: u64| {
        let start = (table + index * 8) as usize;
        bytes[start..start + 8].copy_from_slice(&value.to_le_bytes());
    };
    put(GDT, u64::from(CODE_SELECTOR) / 8, CODE_DESCRIPTOR);
    put(GDT, u64::from(DATA_SELECTOR) / 8, DATA_DESCRIPTOR);
    put(PML4, 0, PDPT | PRESENT | WRITABLE);
    for directory in 0..MAX_MEMORY / DIRECTORY_REACH {
        put(PDPT, directory, (PAGE_DIRECTORIES + directory * PAGE) | PRESENT | WRITABLE);
    }
    put(PAGE_DIRECTORIES, 0, FIRST_PAGE_TABLE | PRESENT | WRITABLE);
    for index in 1..size / LARGE_PAGE {
        put(PAGE_DIRECTORIES, index, (index * LARGE_PAGE) | PRESENT | WRITABLE | LARGE);
    }
    for address in (BOOT_INFO..LARGE_PAGE).step_by(PAGE as usize) {
        let rights = if address < IMAGE_BASE { PRESENT } else { PRESENT | WRITABLE };
        put(FIRST_PAGE_TABLE, address / PAGE, address | rights);
    }
}

/// The system registers at entry.
pub(crate) fn system_registers() -> kvm_sregs {
    let data = segment(DATA_SELECTOR, 3);
    kvm_sregs {
        cr0: CR0_PE | CR0_NE | CR0_WP | CR0_PG,
        cr3: PML4,
        cr4: CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT,
        efer: EFER_LME | EFER_LMA,
        cs: kvm_segment { l: 1, db: 0, ..segment(CODE_SELECTOR, 9) },
        ss: data,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        gdt: kvm_dtable { base: GDT, limit: DATA_SELECTOR + 7, ..Default::default() },
        // Hardware enters 64-bit mode only with a busy task segment loaded (Intel SDM volume 3C, section 27.3.1.2).
        tr: kvm_segment { present: 1, type_: 11, ..Default::default() },
        ldt: kvm_segment { unusable: 1, ..Default::default() },
        ..Default::default()
    }
}

/// The general registers at entry: the stack is as after a call, 8 bytes off a multiple of 16.
pub(crate) fn general_registers(entry: u64, memory_end: u64) -> kvm_regs {
    kvm_regs { rip: entry, rsp: memory_end - 8, rdi: BOOT_INFO, rflags: RFLAGS_RESERVED, ..Default::default() }
}

fn segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment { selector, type_, limit: u32::MAX, present: 1, s: 1, db: 1, g: 1, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the processor makes of a linear address under the tables: the physical address and whether it can be written.
    fn translate(memory: &GuestMemory, address: u64) -> Option<(u64, bool)> {
        let mut table = system_registers().cr3;
        let mut writable = true;
        for level in (0..4).rev() {
            let shift = 12 + 9 * level;
            let entry = u64::from_le_bytes(memory.load(table + (address >> shift) % 512 * 8).ok()?);
            if entry & PRESENT == 0 {
                return None;
            }
            writable &= entry & WRITABLE != 0;
            let frame = entry & 0x000f_ffff_ffff_f000;
            if level == 0 || entry & LARGE != 0 {
                return Some((frame + address % (1 << shift), writable));
            }
            table = frame;
        }
        None
    }

    #[test]
    fn memory_is_mapped_to_itself_and_no_further() {
        for size in [2 << 20, 6 << 20, 1 << 30, (1 << 30) + (2 << 20), MAX_MEMORY] {
            let mut memory = GuestMemory::new(size, size).unwrap();
            write_tables(&mut memory);
            for address in [BOOT_INFO, IMAGE_BASE - 1, IMAGE_BASE, LARGE_PAGE - 1, LARGE_PAGE, 3 << 20, size - 1] {
                if address < size {
                    assert_eq!(translate(&memory, address), Some((address, address >= IMAGE_BASE)), "{address:#x} of {size:#x}");
                }
            }
            for address in [0, GDT, PML4, FIRST_PAGE_TABLE, BOOT_INFO - 1, size, size + LARGE_PAGE] {
                assert_eq!(translate(&memory, address), None, "{address:#x} of {size:#x}");
            }
        }
    }

    #[test]
    fn the_stack_is_as_after_a_call() {
        let registers = general_registers(IMAGE_BASE, 16 << 20);
        assert_eq!(registers.rsp % 16, 8);
        assert_eq!(registers.rdi, BOOT_INFO);
    }

    #[test]
    fn segments_match_their_descriptors() {
        let registers = system_registers();
        let descriptor = |segment: &kvm_segment| {
            let limit = u64::from(segment.limit) >> 12;
            let access = u64::from(segment.type_ | segment.s << 4 | segment.dpl << 5 | segment.present << 7);
            let flags = u64::from(segment.l << 1 | segment.db << 2 | segment.g << 3);
            limit & 0xffff | access << 40 | (limit >> 16) << 48 | flags << 52
        };
        assert_eq!(descriptor(&registers.cs), CODE_DESCRIPTOR);
        assert_eq!(descriptor(&registers.ds), DATA_DESCRIPTOR);
        assert_eq!(registers.gdt.limit, 23);
    }
}
