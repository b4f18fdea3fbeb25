//! How much may be in flight: RFC 5681 (Reno) and RFC 9438 (CUBIC), in bytes.

use smoltcp::time::{Duration, Instant};

use crate::direct::CongestionControl;

/// The first window, in segments (RFC 6928).
const INITIAL: usize = 10;
/// CUBIC's C is 0.4 segments a second cubed (RFC 9438, section 5): these over a thousand million, as times are in milliseconds.
const C: (i128, i128) = (4, 10_000_000_000);
/// What is left of the window after a loss, in tenths: RFC 9438, section 4.6, and RFC 5681, section 3.1.
const CUBIC_BETA: usize = 7;
const RENO_BETA: usize = 5;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    algorithm: CongestionControl,
    segment: usize,
    window: usize,
    threshold: usize,
    /// The window at the last loss.
    largest: usize,
    epoch: Option<Epoch>,
}

/// A time without loss.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    begun: Instant,
    /// After how long the window has its former size again, in milliseconds.
    plateau: i64,
    /// The window that Reno would have.
    reno: usize,
}

impl Congestion {
    pub(crate) fn new(algorithm: CongestionControl, segment: usize) -> Self {
        Self { algorithm, segment, window: INITIAL * segment, threshold: usize::MAX, largest: 0, epoch: None }
    }

    /// How many bytes may be in flight.
    pub(crate) fn window(&self) -> usize {
        if self.algorithm == CongestionControl::None { usize::MAX } else { self.window }
    }

    /// Whether the window grows as fast as it may.
    pub(crate) fn is_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// `count` bytes have arrived, and the window was the limit.
    pub(crate) fn acknowledged(&mut self, count: usize, now: Instant, round_trip: Duration) {
        if self.is_slow_start() {
            self.window += count;
            return;
        }
        match self.algorithm {
            CongestionControl::None => {}
            CongestionControl::Reno => self.window += (self.segment * count / self.window).max(1),
            CongestionControl::Cubic => self.grow_cubic(count, now, round_trip),
        }
    }

    /// RFC 9438, sections 4.2 to 4.5.
    fn grow_cubic(&mut self, count: usize, now: Instant, round_trip: Duration) {
        let (window, segment) = (self.window, self.segment);
        let largest = self.largest.max(window);
        let epoch = self.epoch.get_or_insert_with(|| {
            let missing = (largest - window) as u128 / segment as u128;
            Epoch { begun: now, plateau: cube_root(missing * C.1.unsigned_abs() / C.0.unsigned_abs()) as i64, reno: window }
        });
        let since = i128::from((now - epoch.begun + round_trip).total_millis() as i64 - epoch.plateau);
        let change = C.0 * segment as i128 * since * since * since / C.1;
        let target = usize::try_from(largest as i128 + change).unwrap_or(0).min(window + window / 2);
        // 3 (1 - 0.7) / (1 + 0.7) segments each round trip are as friendly as Reno with its half.
        let step = if epoch.reno < largest { segment * 9 / 17 } else { segment };
        epoch.reno += step * count / window;
        if target > window {
            self.window += ((target - window) * count / window).max(1);
        }
        self.window = self.window.max(epoch.reno);
    }

    /// A segment has been lost, the first in a round trip.
    pub(crate) fn lost(&mut self) {
        let beta = if self.algorithm == CongestionControl::Cubic { CUBIC_BETA } else { RENO_BETA };
        // A window smaller than at the last loss means that others came: make room for them (section 4.7).
        self.largest = if self.window < self.largest { self.window * (10 + beta) / 20 } else { self.window };
        self.threshold = (self.window * beta / 10).max(2 * self.segment);
        self.window = self.threshold;
        self.epoch = None;
    }

    /// Nothing has arrived for so long that all in flight counts as lost.
    pub(crate) fn timed_out(&mut self) {
        self.lost();
        self.window = self.segment;
    }

    /// The reduction of a window that was as `saved` was a mistake: it is as it was, and as far into its curve (RFC 9438, section 4.9), or larger where it
    /// has grown beyond since.
    pub(crate) fn restore(&mut self, saved: &Self) {
        let window = self.window.max(saved.window);
        *self = Self { window, ..*saved };
    }

    /// Nothing has been in flight for longer than a retransmission takes: begins anew from the first window (RFC 5681, section 4.1).
    pub(crate) fn idle(&mut self) {
        self.window = self.window.min(INITIAL * self.segment);
        self.epoch = None;
    }
}

/// The greatest number whose cube is at most `number`.
fn cube_root(number: u128) -> u64 {
    let (mut low, mut high) = (0_u64, 1 << 32);
    while high - low > 1 {
        let middle = u64::midpoint(low, high);
        if u128::from(middle).pow(3) <= number { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: usize = 1000;
    const ROUND_TRIP: Duration = Duration::from_millis(100);

    #[test]
    fn rfc5681_section_3_1_slow_start_doubles_and_avoidance_adds_a_segment_each_round_trip() {
        let mut congestion = Congestion::new(CongestionControl::Reno, SEGMENT);
        assert_eq!(congestion.window(), 10 * SEGMENT);
        (0..10).for_each(|_| congestion.acknowledged(SEGMENT, Instant::ZERO, ROUND_TRIP));
        assert_eq!(congestion.window(), 20 * SEGMENT);
        congestion.lost();
        assert_eq!(congestion.window(), 10 * SEGMENT);
        (0..10).for_each(|_| congestion.acknowledged(SEGMENT, Instant::ZERO, ROUND_TRIP));
        assert!((10_900..=11_000).contains(&congestion.window()), "{}", congestion.window());
        congestion.timed_out();
        assert_eq!(congestion.window(), SEGMENT);
    }

    #[test]
    fn rfc9438_section_4_2_the_window_comes_back_to_its_plateau_and_goes_beyond() {
        let mut congestion = Congestion::new(CongestionControl::Cubic, SEGMENT);
        congestion.window = 1000 * SEGMENT;
        congestion.lost();
        assert_eq!(congestion.window(), 700 * SEGMENT);
        // K is the cube root of 300 / 0.4: 9.09 seconds.
        let at = |congestion: &mut Congestion, from: i64, to: i64| {
            for tenth in from..to {
                let window = congestion.window();
                for _ in 0..window / SEGMENT {
                    congestion.acknowledged(SEGMENT, Instant::from_millis(100 * tenth), ROUND_TRIP);
                }
            }
            congestion.window() / SEGMENT
        };
        let (early, plateau, late) = (at(&mut congestion, 0, 45), at(&mut congestion, 45, 90), at(&mut congestion, 90, 180));
        assert!((930..980).contains(&early) && (985..=1005).contains(&plateau) && late > 1200, "{early} {plateau} {late}");
    }

    #[test]
    fn rfc9438_section_4_9_an_undone_reduction_leaves_the_window_and_its_curve_as_they_were() {
        for reduce in [Congestion::lost, Congestion::timed_out] {
            let (mut congestion, mut other) =
                (Congestion::new(CongestionControl::Cubic, SEGMENT), Congestion::new(CongestionControl::Cubic, SEGMENT));
            for one in [&mut congestion, &mut other] {
                one.window = 100 * SEGMENT;
                one.lost();
                one.acknowledged(SEGMENT, Instant::from_secs(1), ROUND_TRIP);
            }
            let saved = congestion;
            reduce(&mut congestion);
            congestion.acknowledged(SEGMENT, Instant::from_secs(2), ROUND_TRIP);
            assert!(congestion.window() < saved.window());
            congestion.restore(&saved);
            for second in 2..9 {
                [&mut congestion, &mut other].into_iter().for_each(|one| one.acknowledged(SEGMENT, Instant::from_secs(second), ROUND_TRIP));
                assert_eq!((congestion.window, congestion.threshold, congestion.largest), (other.window, other.threshold, other.largest));
            }
            // What has come since is not taken away.
            congestion.window = 500 * SEGMENT;
            congestion.restore(&saved);
            assert_eq!((congestion.window(), congestion.threshold), (500 * SEGMENT, saved.threshold));
        }
    }

    #[test]
    fn cube_roots() {
        for number in [0, 1, 7, 8, 26, 27, 1_000_000, 751_089_000_000] {
            let root = u128::from(cube_root(number));
            assert!(root.pow(3) <= number && (root + 1).pow(3) > number);
        }
    }
}
