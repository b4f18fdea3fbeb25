//! The encodings of segment descriptors, the task state segment and interrupt gates (Intel SDM volume 3A, chapters 3.4.5, 6.14 and 7.7).
//!
//! The segments stand in Linux's order: a hypervisor that runs ring 3 natively on a Linux host then finds the selectors its host uses.

/// The code segment of ring 0.
pub(crate) const RING0_CODE: u16 = 0x10;

/// The data segment of ring 3, with the privilege level it asks for.
pub(crate) const RING3_DATA: u16 = 0x28 | 3;

/// The code segment of ring 3, with the privilege level it asks for.
pub(crate) const RING3_CODE: u16 = 0x30 | 3;

/// The selector of the task state segment.
pub(crate) const TASK: u16 = 0x40;

/// The segments: null, ring 0 code (twice: the selector with which the tender starts the image, and [`RING0_CODE`]), ring 0 data, ring 3 code of
/// 32 bits (unused), ring 3 data, ring 3 code, an empty one, and the task state segment without its base address, which the entry code fills in.
pub(crate) const SEGMENTS: [u64; 10] = [
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

/// The ports that ring 3 may use: Solo5's hypercalls (`HVT_HYPERCALL_PIO_BASE` in `hvt_abi.h`) up to the ring's doorbell
/// (`HVT_RING_KICK_PIO_BASE`), rounded up to a whole byte of the map. Both ends are multiples of 8.
const PORTS: core::ops::Range<usize> = 0x500..0x620;

/// Where the map of ports begins in the task state segment: right after its 0x68 fixed bytes.
const PORT_MAP: usize = 0x68;

/// The last byte of the task state segment: the map covers the ports below the end of [`PORTS`], and a byte of ones must follow it.
const TASK_LIMIT: usize = PORT_MAP + PORTS.end / 8;

/// Where the stack pointer for ring 0 stands in the task state segment.
pub(crate) const TASK_RING0_STACK: usize = 4;

/// Bytes in [`TaskState`], a multiple of 16.
const TASK_SIZE: usize = 0x130;

/// The task state segment. It says which stack a fault takes and which ports ring 3 may use; without a base for its stack yet, which the entry code
/// fills in.
#[repr(C, align(16))]
pub(crate) struct TaskState([u8; TASK_SIZE]);

impl TaskState {
    pub(crate) const fn new() -> Self {
        let mut bytes = [0; TASK_SIZE];
        bytes[0x66] = PORT_MAP as u8;
        let mut index = PORT_MAP;
        while index <= TASK_LIMIT {
            let port = (index - PORT_MAP) * 8;
            let allowed = port >= PORTS.start && port < PORTS.end;
            bytes[index] = if allowed { 0 } else { 0xff };
            index += 1;
        }
        Self(bytes)
    }
}

/// An entry of the interrupt descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Gate([u64; 2]);

impl Gate {
    /// A gate to `handler` in ring 0, with interrupts off, for instructions such as `int` from `lowest_ring` and the rings within.
    pub(crate) const fn new(handler: u64, lowest_ring: u8) -> Self {
        let interrupt_gate = 0x8e | ((lowest_ring as u64) << 5);
        let low = (handler & 0xffff) | ((RING0_CODE as u64) << 16) | (interrupt_gate << 40) | ((handler >> 16 & 0xffff) << 48);
        Self([low, handler >> 32])
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
    fn the_task_state_allows_the_hypercalls_and_the_doorbell_alone() {
        let TaskState(bytes) = TaskState::new();
        assert_eq!(TASK_LIMIT, 0x12c);
        assert_eq!(bytes[0x66..0x68], [0x68, 0]);
        let denied = |port: usize| bytes[PORT_MAP + port / 8] >> (port % 8) & 1 == 1;
        for port in 0..0x628 {
            assert_eq!(denied(port), !(0x500..0x620).contains(&port), "port {port:#x}");
        }
        assert_eq!(bytes[TASK_LIMIT], 0xff);
        assert!(bytes[..0x66].iter().all(|byte| *byte == 0));
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
        assert_eq!(SEGMENTS[usize::from(TASK >> 3)], 0x0000_8900_0000_012c);
    }
}
