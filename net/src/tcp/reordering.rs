//! For how long a segment that was overtaken may be late before it counts as lost: RFC 8985, section 6.2, steps 3 and 4.

use smoltcp::time::Duration;

use super::sequence::Seq;

/// Recoveries without a sign of reordering after which the window is as small as at first.
const REMEMBERED: u8 = 16;

/// The reordering window of a connection, in quarters of its shortest round trip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reordering {
    quarters: u8,
    /// Recoveries that the window still stays as it is.
    stays: u8,
    /// Until this is acknowledged, further duplicates tell nothing new.
    told: Option<Seq>,
}

impl Reordering {
    pub(crate) const fn new() -> Self {
        Self { quarters: 1, stays: REMEMBERED, told: None }
    }

    /// Something was sent again in vain, as is known when all before `una` is acknowledged and `next` is next: the window grows, once a round trip.
    pub(crate) fn was_underestimated(&mut self, una: Seq, next: Seq) {
        if self.told.is_none_or(|until| una >= until) {
            self.quarters = self.quarters.saturating_add(1);
            self.told = Some(next);
        }
        self.stays = REMEMBERED;
    }

    /// A recovery is over.
    pub(crate) fn recovered(&mut self) {
        self.stays = self.stays.saturating_sub(1);
        if self.stays == 0 {
            *self = Self::new();
        }
    }

    /// How long it is, with these round trips.
    pub(crate) fn window(&self, shortest: Duration, smoothed: Duration) -> Duration {
        Duration::from_micros(shortest.total_micros() * u64::from(self.quarters) / 4).min(smoothed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(reordering: &Reordering) -> u64 {
        reordering.window(Duration::from_millis(20), Duration::from_millis(30)).total_millis()
    }

    #[test]
    fn rfc8985_section_6_2_step_4_each_round_trip_with_duplicates_makes_the_window_larger_up_to_a_round_trip() {
        let mut reordering = Reordering::new();
        assert_eq!(window(&reordering), 5);
        for (una, next, expected) in
            [(0, 100, 10), (50, 150, 10), (99, 200, 10), (100, 200, 15), (200, 300, 20), (300, 400, 25), (400, 500, 30)]
        {
            reordering.was_underestimated(Seq(una), Seq(next));
            assert_eq!(window(&reordering), expected);
        }
        (5..1000).for_each(|round| reordering.was_underestimated(Seq(100 * round), Seq(100 * round + 100)));
        assert_eq!(window(&reordering), 30);
    }

    #[test]
    fn rfc8985_section_6_2_step_4_sixteen_recoveries_without_duplicates_make_it_small_again() {
        let mut reordering = Reordering::new();
        reordering.was_underestimated(Seq(0), Seq(100));
        (0..15).for_each(|_| reordering.recovered());
        assert_eq!(window(&reordering), 10);
        reordering.was_underestimated(Seq(50), Seq(100));
        (0..15).for_each(|_| reordering.recovered());
        assert_eq!(window(&reordering), 10);
        reordering.recovered();
        assert_eq!(window(&reordering), 5);
    }
}
