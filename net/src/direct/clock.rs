//! The clock that a TCP flow goes by.
//!
//! smoltcp never waits less than a second before it repeats a segment (RFC 6298, section 2.4), and that cannot be changed from outside. What can be
//! changed is how long its second is: a flow's clock goes faster than the stack's, so that the wait is what [`Config::least_rto`] says. Everything
//! that smoltcp measures and waits for is on the same clock, and what the stack tells it in seconds is stretched to match.
//!
//! During the handshake the clock is the stack's own, so that the first wait is the second that RFC 6298, section 2.1, asks for. How fast it goes then
//! depends on how long the handshake took: a wait is three times that at least, so that a long path is not flooded with copies.
//!
//! [`Config::least_rto`]: super::Config::least_rto

use smoltcp::time::{Duration, Instant};

/// smoltcp's shortest wait (`RTTE_MIN_RTO`).
const SECOND: Duration = Duration::from_secs(1);
/// How many handshakes' time a wait takes at least.
const MARGIN: u32 = 3;
/// The fastest clock: shorter waits than 100 ms meet the delayed acknowledgements of honest peers (RFC 1122, section 4.2.3.2).
const FASTEST: u32 = 10;

/// The clock of one flow.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    /// When it was set last, on the stack's clock and on its own.
    set: (Instant, Instant),
    rate: u32,
    /// When the flow began.
    begun: Instant,
}

impl Clock {
    /// The stack's own.
    pub(super) const fn new(now: Instant) -> Self {
        Self { set: (now, now), rate: 1, begun: now }
    }

    /// How fast the clock of an established flow goes at most.
    pub(super) fn fastest(least_rto: Duration) -> u32 {
        let whole = SECOND.total_micros() / least_rto.total_micros().max(1);
        u32::try_from(whole).unwrap_or(FASTEST).clamp(1, FASTEST)
    }

    /// The handshake is over: the clock goes up to `fastest` times faster from now on. Gives how much faster.
    pub(super) fn speed_up(&mut self, now: Instant, fastest: u32) -> u32 {
        let wait = (now - self.begun) * MARGIN;
        self.set = (now, self.at(now));
        self.rate = Self::fastest(wait).min(fastest);
        self.rate
    }

    /// The time on this clock at `now`.
    pub(super) fn at(&self, now: Instant) -> Instant {
        let (stack, own) = self.set;
        own + (now - stack.min(now)) * self.rate
    }

    /// The stack's time when this clock shows `own`, rounded up.
    pub(super) fn when(&self, own: Instant) -> Instant {
        let (stack, since) = self.set;
        if own <= since { stack } else { stack + Duration::from_micros((own - since).total_micros().div_ceil(u64::from(self.rate))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn a_wait_is_least_rto_or_three_handshakes() {
        for (handshake, least, wait) in [(10, 200, 200), (66, 200, 200), (100, 200, 333), (400, 200, 1000), (10, 1000, 1000), (0, 1, 100)] {
            let mut clock = Clock::new(at(5_000_000));
            let established = at(5_000_000 + handshake * 1000);
            clock.speed_up(established, Clock::fastest(Duration::from_millis(least)));
            let wait_over = clock.when(clock.at(established) + SECOND);
            assert_eq!((wait_over - established).total_millis(), wait, "{handshake} {least}");
        }
    }

    proptest! {
        #[test]
        fn a_deadline_is_reached_when_the_clock_says_so(fastest in 1..=10_u32, wait in 0..10_000_000_i64, passed in 0..1_000_000_i64) {
            let mut clock = Clock::new(at(77));
            clock.speed_up(at(1077), fastest);
            let deadline = clock.at(at(1077 + passed)) + Duration::from_micros(wait as u64);
            let when = clock.when(deadline);
            prop_assert!(clock.at(when) >= deadline);
            prop_assert!(when == at(1077) || clock.at(when - Duration::from_micros(1)) < deadline);
        }
    }
}
