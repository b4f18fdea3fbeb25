//! Faults: what the processor says about one, in words.

use core::fmt;

use crate::layout::Layout;
use crate::paging::PAGE;

/// What the entry code writes down about a fault.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Fault {
    vector: u64,
    error_code: u64,
    instruction: u64,
    code_segment: u64,
    stack: u64,
    /// CR2: of use after a page fault only.
    address: u64,
    flags: u64,
    /// In the order of [`REGISTERS`].
    registers: [u64; REGISTERS.len()],
}

/// The general registers.
const REGISTERS: [&str; 15] = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// Where the fields are that follow what the processor pushes.
pub(crate) const ADDRESS: usize = core::mem::offset_of!(Fault, address);
pub(crate) const FLAGS: usize = core::mem::offset_of!(Fault, flags);
pub(crate) const FIRST_REGISTER: usize = core::mem::offset_of!(Fault, registers);

impl Fault {
    /// No fault: what stands there before one.
    pub const NONE: Self =
        Self { vector: 0, error_code: 0, instruction: 0, code_segment: 0, stack: 0, address: 0, flags: 0, registers: [0; REGISTERS.len()] };
}

/// The vector of a page fault.
const PAGE_FAULT: u64 = 14;

/// Bits of a page fault's error code (Intel SDM volume 3A, chapter 4.7).
const PROTECTION: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 4;

/// A fault in words: a line, then the registers.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The fault.
    pub fault: &'a Fault,
    /// Where the image's parts lie, as far as that is known: addresses are then named.
    pub layout: Option<&'a Layout>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { vector, error_code, instruction, code_segment, stack, address, flags, registers } = *self.fault;
        if vector == PAGE_FAULT {
            write!(f, "fault: {} at address {address:#x}", page_fault(address, error_code, self.layout))?;
            if let Some(part) = self.layout.and_then(|layout| part(address, layout)) {
                write!(f, " ({part})")?;
            }
        } else {
            write!(f, "fault: {}", kind(vector))?;
        }
        write!(f, ", instruction at {instruction:#x}, stack at {stack:#x}, vector {vector}, error code {error_code:#x}")?;
        if code_segment & 3 == 0 {
            f.write_str(", in ring 0")?;
        }
        for (index, (name, value)) in REGISTERS.into_iter().zip(registers).chain([("flags", flags)]).enumerate() {
            let lead = if index % 4 == 0 { "\n " } else { "" };
            write!(f, "{lead} {name:>5} {value:016x}")?;
        }
        Ok(())
    }
}

/// What kind of access faulted.
fn page_fault(address: u64, error_code: u64, layout: Option<&Layout>) -> &'static str {
    if layout.is_some_and(|layout| layout.guard.contains(&address)) {
        return "stack overflow";
    }
    let which = |read, write, execute| match error_code {
        code if code & EXECUTE != 0 => execute,
        code if code & WRITE != 0 => write,
        _ => read,
    };
    if address < PAGE {
        return which("null pointer: read", "null pointer: write", "null pointer: call");
    }
    if error_code & PROTECTION == 0 {
        return which("read of memory that is not there", "write to memory that is not there", "execute of memory that is not there");
    }
    if layout.is_some_and(|layout| layout.ring0.contains(&address) || layout.tables.contains(&address)) {
        return which("read of protected memory", "write to protected memory", "execute of protected memory");
    }
    which("read of protected memory", "write to read-only memory", "execute of non-executable memory")
}

/// The part of the image that an address lies in.
fn part(address: u64, layout: &Layout) -> Option<&'static str> {
    let parts = [
        (&layout.handed_over, "boot information"),
        (&layout.code, "code"),
        (&layout.constants, "constants"),
        (&layout.ring0, "descriptors"),
        (&layout.data, "data"),
        (&layout.tables, "page tables"),
        (&layout.guard, "guard page"),
        (&layout.stack, "stack"),
        (&layout.heap, "heap"),
        (layout.high.as_ref().unwrap_or(&(0..0)), "heap"),
    ];
    parts.into_iter().find(|(range, _)| range.contains(&address)).map(|(_, name)| name)
}

/// The processor's other faults (Intel SDM volume 3A, table 6-1).
const fn kind(vector: u64) -> &'static str {
    match vector {
        0 => "division by zero, or a quotient that does not fit",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid instruction",
        7 => "floating-point unit not available",
        8 => "double fault",
        10 => "invalid task state segment",
        11 => "segment not present",
        12 => "stack-segment fault: an address that no address space has",
        13 => "privileged instruction, or an address that no address space has",
        16 => "floating-point error",
        17 => "misaligned access",
        18 => "machine check",
        19 => "SIMD floating-point exception",
        _ => "unknown fault",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Given, Parts};
    use std::string::ToString as _;
    use std::vec::Vec;

    fn layout() -> Layout {
        let parts = Parts {
            start: 0x10_0000,
            code_end: 0x11_0000,
            guard: 0x11_8000,
            stack: 0x11_9000,
            stack_end: 0x12_0000,
            end: 0x14_0000,
            ring0: 0x13_0000,
        };
        Layout::new(&parts, &Given { memory: 16 << 20, handed_over: 0x1_0000..0x1_3000, shared: None, high: None, spare_tables: 0 })
            .unwrap()
    }

    fn says(vector: u64, error_code: u64, address: u64) -> std::string::String {
        let fault = Fault { vector, error_code, address, instruction: 0x10_1234, code_segment: 0x33, stack: 0x20_0000, ..Fault::NONE };
        Report { fault: &fault, layout: Some(&layout()) }.to_string()
    }

    #[test]
    fn page_faults_say_what_was_tried_and_where() {
        let layout = layout();
        for (error_code, address, text) in [
            (7, 0x10_0000, "write to read-only memory at address 0x100000 (code)"),
            (7, 0x11_0004, "write to read-only memory at address 0x110004 (constants)"),
            (0x15, 0x12_0000, "execute of non-executable memory at address 0x120000 (data)"),
            (0x15, layout.heap.start, "execute of non-executable memory at address"),
            (0x15, layout.stack.start, "execute of non-executable memory at address"),
            (4, 0x10, "null pointer: read at address 0x10,"),
            (6, 0, "null pointer: write at address 0x0,"),
            (0x14, 0, "null pointer: call at address 0x0,"),
            (6, layout.guard.start, "stack overflow at address"),
            (4, 1 << 40, "read of memory that is not there at address 0x10000000000,"),
            (5, layout.tables.start, "read of protected memory at address"),
            (7, 0x13_0008, "write to protected memory at address 0x130008 (descriptors)"),
        ] {
            let said = says(14, error_code, address);
            assert!(said.starts_with(&std::format!("fault: {text}")), "{said}");
        }
        assert!(says(14, 0x15, layout.heap.start).contains("(heap)"));
        assert!(says(14, 0x15, layout.stack.start).contains("(stack)"));
    }

    #[test]
    fn other_faults_say_where() {
        let said = says(6, 0, 5);
        let first = said.lines().next().unwrap();
        assert_eq!(first, "fault: invalid instruction, instruction at 0x101234, stack at 0x200000, vector 6, error code 0x0");
        assert!(says(13, 0, 5).starts_with("fault: privileged instruction"));
    }

    #[test]
    fn registers_follow_four_to_a_line() {
        let mut fault = Fault { flags: 0x202, ..Fault::NONE };
        fault.registers = core::array::from_fn(|index| index as u64 + 1);
        let text = Report { fault: &fault, layout: None }.to_string();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0], "    rax 0000000000000001   rbx 0000000000000002   rcx 0000000000000003   rdx 0000000000000004");
        assert!(lines[3].ends_with("  r15 000000000000000f flags 0000000000000202"), "{}", lines[3]);
    }
}
