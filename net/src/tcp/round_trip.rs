//! How long an answer takes, and how long to wait for one: RFC 6298.

use smoltcp::time::{Duration, Instant};

/// The first wait, before any answer (RFC 6298, section 2.1).
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait (section 2.5 allows 60 seconds or more).
const LONGEST: Duration = Duration::from_secs(60);
/// The clock's grain: G of section 2.
const GRAIN: Duration = Duration::from_millis(1);
/// For how long the shortest round trip seen counts (RFC 8985, section 6.2, leaves the window open; Linux looks back five minutes).
const SHORTEST_FOR: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    shortest: Option<(Duration, Instant)>,
    least: Duration,
    backoff: u32,
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

impl RoundTrip {
    /// No wait after the first answer is shorter than `least`.
    pub(crate) fn new(least: Duration) -> Self {
        Self { smoothed: None, variation: Duration::ZERO, shortest: None, least, backoff: 0 }
    }

    /// A segment that was sent once has been answered after `time`.
    pub(crate) fn measured(&mut self, time: Duration, now: Instant) {
        match self.smoothed {
            None => {
                self.smoothed = Some(time);
                self.variation = micros(time.total_micros() / 2);
            }
            Some(smoothed) => {
                let difference = smoothed.total_micros().abs_diff(time.total_micros());
                self.variation = micros((3 * self.variation.total_micros() + difference) / 4);
                self.smoothed = Some(micros((7 * smoothed.total_micros() + time.total_micros()) / 8));
            }
        }
        if self.shortest.is_none_or(|(shortest, seen)| time <= shortest || now > seen + SHORTEST_FOR) {
            self.shortest = Some((time, now));
        }
        self.backoff = 0;
    }

    /// Something new has been answered: waits are short again.
    pub(crate) fn answered(&mut self) {
        self.backoff = 0;
    }

    /// Nothing was answered in time: the next wait is twice as long.
    pub(crate) fn timed_out(&mut self) {
        self.backoff += 1;
    }

    /// How often in a row nothing was answered.
    pub(crate) fn timeouts(&self) -> u32 {
        self.backoff
    }

    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(crate) fn shortest(&self) -> Duration {
        self.shortest.map_or(Duration::ZERO, |(shortest, _)| shortest)
    }

    /// How long to wait for an answer.
    pub(crate) fn timeout(&self) -> Duration {
        let single = match self.smoothed {
            None => FIRST,
            Some(smoothed) => (smoothed + (self.variation * 4).max(GRAIN)).max(self.least),
        };
        single.min(LONGEST).total_micros().checked_shl(self.backoff.min(16)).map_or(LONGEST, micros).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts(least: u64, measured: &[u64]) -> u64 {
        let mut round_trip = RoundTrip::new(Duration::from_millis(least));
        measured.iter().for_each(|&time| round_trip.measured(Duration::from_millis(time), Instant::ZERO));
        round_trip.timeout().total_millis()
    }

    #[test]
    fn rfc6298_section_2_waits_follow_what_was_measured() {
        assert_eq!(timeouts(200, &[]), 1000);
        // SRTT = R, RTTVAR = R / 2, RTO = SRTT + 4 RTTVAR.
        assert_eq!(timeouts(200, &[500]), 1500);
        // RTTVAR = 3/4 · 250 + 1/4 · 400, SRTT = 7/8 · 500 + 1/8 · 900.
        assert_eq!(timeouts(200, &[500, 900]), 550 + 4 * 287 + 2);
        assert_eq!((timeouts(200, &[10]), timeouts(1000, &[10])), (200, 1000));
    }

    #[test]
    fn rfc6298_section_5_5_each_timeout_doubles_the_wait_up_to_a_minute() {
        let mut round_trip = RoundTrip::new(Duration::from_millis(200));
        let mut waits = std::vec::Vec::new();
        for _ in 0..80 {
            waits.push(round_trip.timeout().total_millis() / 1000);
            round_trip.timed_out();
        }
        assert_eq!((&waits[..8], waits[79]), (&[1, 2, 4, 8, 16, 32, 60, 60][..], 60));
        round_trip.measured(Duration::from_millis(10), Instant::ZERO);
        assert_eq!(round_trip.timeout().total_millis(), 200);
    }
}
