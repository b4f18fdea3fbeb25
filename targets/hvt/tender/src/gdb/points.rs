//! Breakpoints and watchpoints of the processor, by its debug registers.
//!
//! Limit: there are four, of 1, 2, 4 or 8 bytes each, and none that a read alone triggers.

use gdbstub::target::ext::breakpoints::WatchKind;

use super::Reason;

/// Bits of DR6 (Intel SDM volume 3B, section 17.2.3): which breakpoints were hit, and that a step has ended.
pub(super) const HIT: u64 = 0xf;
pub(super) const STEPPED: u64 = 1 << 14;

/// A breakpoint or a watchpoint, as DR7 has it (section 17.2.4): an address, and four bits of condition and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    address: u64,
    condition: u64,
}

impl Point {
    pub(super) const fn code(address: u64) -> Self {
        Self { address, condition: 0 }
    }

    /// `None` for a length or an alignment that the processor does not have.
    pub(super) fn data(address: u64, length: u64, kind: WatchKind) -> Option<Self> {
        let size = match length {
            1 => 0,
            2 => 1,
            4 => 3,
            8 => 2,
            _ => return None,
        };
        // The processor cannot tell reads alone.
        let access = if kind == WatchKind::Write { 1 } else { 3 };
        address.is_multiple_of(length).then_some(Self { address, condition: access | size << 2 })
    }
}

/// The debug registers for these points, four at most.
pub(super) fn debug_registers(points: &[Point]) -> [u64; 8] {
    let mut registers = [0; 8];
    for (index, point) in points.iter().enumerate() {
        registers[index] = point.address;
        registers[7] |= 2 << (2 * index) | point.condition << (16 + 4 * index);
    }
    registers
}

/// The point that DR6 says was hit.
pub(super) fn hit(points: &[Point], dr6: u64) -> Reason {
    match points.get((dr6 & HIT).trailing_zeros() as usize) {
        Some(Point { address, condition }) if condition & 3 == 1 => Reason::Watch { tid: (), kind: WatchKind::Write, addr: *address },
        Some(Point { address, condition }) if condition & 3 == 3 => Reason::Watch { tid: (), kind: WatchKind::ReadWrite, addr: *address },
        _ => Reason::HwBreak(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_encoded_as_the_processor_has_them() {
        let write = Point::data(0x2000, 8, WatchKind::Write).unwrap();
        assert_eq!(debug_registers(&[Point::code(0x1000), write]), [0x1000, 0x2000, 0, 0, 0, 0, 0, 0b1010 | 0b1001 << 20]);
        assert_eq!(Point::data(0x2001, 2, WatchKind::Write), None);
        assert_eq!(Point::data(0x2000, 3, WatchKind::Write), None);
    }

    #[test]
    fn what_was_hit_is_told_by_dr6() {
        let points = [Point::code(0x1000), Point::data(0x2000, 4, WatchKind::ReadWrite).unwrap()];
        assert_eq!(hit(&points, 1), Reason::HwBreak(()));
        assert_eq!(hit(&points, 2), Reason::Watch { tid: (), kind: WatchKind::ReadWrite, addr: 0x2000 });
    }
}
