//! Sequence numbers: a circle of 2³² values (RFC 9293, section 3.4).

use core::cmp::Ordering;
use core::ops::{Add, Sub};

/// A sequence number. Comparing two is meaningful while they are less than 2³¹ apart, which those of one connection's window are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seq(pub(crate) u32);

impl Seq {
    /// How far this number is after `other`; negative when it is before.
    pub(crate) fn after(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// How far this number is after `other`, and 0 when it is not.
    pub(crate) fn beyond(self, other: Self) -> usize {
        usize::try_from(self.after(other)).unwrap_or(0)
    }

    pub(crate) fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    pub(crate) fn min(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
}

impl PartialOrd for Seq {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.after(*other).cmp(&0))
    }
}

impl Add<usize> for Seq {
    type Output = Self;

    fn add(self, length: usize) -> Self {
        Self(self.0.wrapping_add(length as u32))
    }
}

impl Sub<usize> for Seq {
    type Output = Self;

    fn sub(self, length: usize) -> Self {
        Self(self.0.wrapping_sub(length as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_round() {
        let last = Seq(u32::MAX);
        assert!(last + 1 == Seq(0) && Seq(0) > last && last < Seq(5) && Seq(5) - 6 == last);
        assert_eq!((Seq(5).beyond(last), last.beyond(Seq(5)), last.after(Seq(5))), (6, 0, -6));
        assert_eq!((last.max(Seq(1)), last.min(Seq(1))), (Seq(1), last));
    }
}
