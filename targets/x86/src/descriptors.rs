//! The encodings of segment descriptors, the task state segment and interrupt gates (Intel SDM volume 3A, chapters 3.4.5, 6.14 and 7.7; the
//! map of ports: volume 1, chapter 18.5.2).
//!
//! The segments stand in Linux's order: a hypervisor that runs ring 3 natively on a Linux host then finds the selectors its host uses.

use core::ops::Range;

/// The code segment of ring 0.
pub const RING0_CODE: u16 = 0x10;

/// The data segment of ring 0.
pub const RING0_DATA: u16 = 0x18;

/// The data segment of ring 3, with the privilege level it asks for.
pub const RING3_DATA: u16 = 0x28 | 3;

/// The code segment of ring 3, with the privilege level it asks for.
pub const RING3_CODE: u16 = 0x30 | 3;

/// The selector of the task state segment.
pub const TASK: u16 = 0x40;

/// The segments: null, ring 0 code (twice: the selector with which hvt tenders start an image, and [`RING0_CODE`]), ring 0 data, ring 3 code of
/// 32 bits (unused), ring 3 data, ring 3 code, an empty one, and the task state segment without its base address, which the entry code fills in.
pub const SEGMENTS: [u64; 10] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
    0,
    TASK_PRESENT | TASK_LIMIT as u64,
    0,
];

/// Present, type 9: a 64-bit task state segment that is not busy.
const TASK_PRESENT: u64 = 0x89 << 40;

/// The ports that a task state segment's map can allow: the others are for ring 0 alone. Those of a PC's own devices lie below.
pub const PORTS: usize = 0x1000;

/// Where the map of ports begins in the task state segment: right after its 0x68 fixed bytes.
const PORT_MAP: usize = 0x68;

/// The last byte of the task state segment: the map covers the ports below [`PORTS`], and a byte of ones must follow it.
const TASK_LIMIT: usize = PORT_MAP + PORTS / 8;

/// Where the stack pointer for ring 0 stands in the task state segment.
pub const TASK_RING0_STACK: usize = 4;

/// Where the first of the stack pointers stands that a gate can name (see [`Gate::on_own_stack`]).
pub const TASK_OWN_STACK: usize = 0x24;

/// Bytes in [`TaskState`], a multiple of 16.
const TASK_SIZE: usize = (TASK_LIMIT + 1).next_multiple_of(16);

/// The task state segment. It says which stack a fault takes and which ports ring 3 may use: none yet, and no stack either.
#[repr(C, align(16))]
pub struct TaskState([u8; TASK_SIZE]);

impl TaskState {
    /// A segment that allows no port.
    #[must_use]
    pub const fn new() -> Self {
        let mut bytes = [0; TASK_SIZE];
        bytes[0x66] = PORT_MAP as u8;
        let mut index = PORT_MAP;
        while index <= TASK_LIMIT {
            bytes[index] = 0xff;
            index += 1;
        }
        Self(bytes)
    }

    /// Lets ring 3 use `ports`, as far as they lie below [`PORTS`].
    pub fn allow(&mut self, ports: Range<u16>) {
        for port in ports.map(usize::from).filter(|port| *port < PORTS) {
            self.0[PORT_MAP + port / 8] &= !(1 << (port % 8));
        }
    }

    /// Says where the stacks begin that faults and services take, whether they name one or not.
    pub fn set_stack(&mut self, top: u64) {
        for at in [TASK_RING0_STACK, TASK_OWN_STACK] {
            self.0[at..at + 8].copy_from_slice(&top.to_le_bytes());
        }
    }
}

impl Default for TaskState {
    fn default() -> Self {
        Self::new()
    }
}

/// What `lgdt` and `lidt` read, at `limit`.
#[repr(C)]
pub struct TablePointer {
    padding: [u16; 3],
    pub(crate) limit: u16,
    pub(crate) base: u64,
}

impl TablePointer {
    /// For a table of `size` bytes whose address is not known yet.
    #[must_use]
    pub const fn new(size: usize) -> Self {
        Self { padding: [0; 3], limit: (size - 1) as u16, base: 0 }
    }
}

/// An entry of the interrupt descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Gate([u64; 2]);

impl Gate {
    /// A gate to `handler` in ring 0, with interrupts off, for instructions such as `int` from `lowest_ring` and the rings within.
    #[must_use]
    pub const fn new(handler: u64, lowest_ring: u8) -> Self {
        let interrupt_gate = 0x8e | ((lowest_ring as u64) << 5);
        let low = (handler & 0xffff) | ((RING0_CODE as u64) << 16) | (interrupt_gate << 40) | ((handler >> 16 & 0xffff) << 48);
        Self([low, handler >> 32])
    }

    /// The same gate, taken on a stack of its own from ring 0 as well: the first of the interrupt stack table.
    #[must_use]
    pub const fn on_own_stack(self) -> Self {
        let Self([low, high]) = self;
        Self([low | 1 << 32, high])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_holds_its_handler_in_three_pieces() {
        let Gate(words) = Gate::new(0x1122_3344_5566_7788, 0);
        assert_eq!(words, [0x5566_8e00_0010_7788, 0x1122_3344]);
        let Gate(words) = Gate::new(0x10_0000, 3);
        assert_eq!(words, [0x0010_ee00_0010_0000, 0]);
    }

    #[test]
    fn a_gate_names_its_stack() {
        let Gate(words) = Gate::new(0x10_0000, 0).on_own_stack();
        assert_eq!(words, [0x0010_8e01_0010_0000, 0]);
    }

    #[test]
    fn the_task_state_allows_what_it_was_told_and_no_other_port() {
        let mut task = TaskState::new();
        let denied = |task: &TaskState, port: usize| task.0[PORT_MAP + port / 8] >> (port % 8) & 1 == 1;
        assert!((0..PORTS + 8).all(|port| denied(&task, port)));
        task.allow(0x500..0x620);
        task.allow(0x3f8..0x3ff);
        task.allow(0xfff..0x2000);
        for port in 0..PORTS + 8 {
            let allowed = (0x500..0x620).contains(&port) || (0x3f8..0x3ff).contains(&port) || port == 0xfff;
            assert_eq!(denied(&task, port), !allowed, "port {port:#x}");
        }
        assert_eq!(task.0[0x66..0x68], [0x68, 0]);
        assert_eq!(task.0[TASK_LIMIT], 0xff);
        assert!(task.0[..0x66].iter().all(|byte| *byte == 0));
        task.set_stack(0x1122_3344);
        assert_eq!(task.0[4..12], task.0[0x24..0x2c]);
        assert_eq!(task.0[4..8], [0x44, 0x33, 0x22, 0x11]);
    }

    #[test]
    fn selectors_name_segments_of_their_kind() {
        // Bits of a descriptor: 43 executable, 44 code or data, 45-46 ring, 47 present, 53 64-bit code.
        let field = |selector: u16, shift: u32, bits: u64| SEGMENTS[usize::from(selector >> 3)] >> shift & bits;
        for (selector, executable, ring, long) in [(RING0_CODE, 1, 0, 1), (RING3_CODE, 1, 3, 1), (RING3_DATA, 0, 3, 0), (0x08, 1, 0, 1)] {
            assert_eq!(field(selector, 43, 1), executable);
            assert_eq!(field(selector, 44, 1), 1);
            assert_eq!(field(selector, 45, 3), ring);
            assert_eq!(field(selector, 47, 1), 1);
            assert_eq!(field(selector, 53, 1), long);
        }
        assert_eq!(SEGMENTS[usize::from(TASK >> 3)], 0x0000_8900_0000_0268);
    }
}
