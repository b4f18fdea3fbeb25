//! What has been sent again, to tell whether it was in vain: by duplicates that the peer tells of (RFC 3708), and by time stamps (RFC 3522).

use smoltcp::time::{Duration, Instant};

use super::congestion::Congestion;
use super::ranges::Ranges;
use super::sequence::Seq;

/// What the peer tells later than this about what was sent again is not believed: by then the window of that time is no measure of the path.
const BELIEVED_FOR: Duration = Duration::from_secs(10);

/// What was sent again since congestion control last reduced the window, and how the window was.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// What was sent again and has not been told to be a duplicate.
    open: Ranges,
    /// The same of the reduction before.
    former: Ranges,
    /// Something was sent again twice, or too many pieces were, so that `open` does not tell.
    unclear: bool,
    /// As it was before, while the reduction may be undone.
    saved: Option<Congestion>,
    sent: Option<Sent>,
}

/// Of what was sent again: the first one's time stamp, the end of the furthest, and when the last was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    stamp: u32,
    end: Seq,
    at: Instant,
}

impl Repeats {
    /// Congestion control reduces the window that is `saved`: what was sent again before is another matter.
    pub(crate) fn begin(&mut self, saved: Congestion) {
        core::mem::swap(&mut self.open, &mut self.former);
        self.open.clear();
        *self = Self {
            open: core::mem::take(&mut self.open),
            former: core::mem::take(&mut self.former),
            saved: Some(saved),
            ..Self::default()
        };
    }

    /// What is from `start` to `end` is sent again, with the time stamp `stamp`. No more than `most` pieces are remembered.
    pub(crate) fn sent_again(&mut self, (start, end): (Seq, Seq), most: usize, stamp: u32, now: Instant) {
        self.unclear |= self.open.held(start, end).is_some() || !self.open.add(start, end, most);
        let sent = self.sent.get_or_insert(Sent { stamp, end, at: now });
        (sent.end, sent.at) = (sent.end.max(end), now);
    }

    /// The peer tells that it has had what is from `start` to `end` twice. False when that was not sent twice.
    pub(crate) fn came_twice(&mut self, (start, end): (Seq, Seq), most: usize, now: Instant) -> bool {
        if self.sent.is_some_and(|sent| now > sent.at + BELIEVED_FOR) {
            self.saved = None;
            return false;
        }
        self.open.remove(start, end, most) || self.former.remove(start, end, most)
    }

    /// Whether all that was sent again had arrived before, as duplicates tell.
    pub(crate) fn were_duplicates(&self) -> bool {
        self.saved.is_some() && self.sent.is_some() && self.open.is_empty() && !self.unclear
    }

    /// Whether what fills the peer's gaps was sent before anything was sent again: the peer has all before `next`, and the segment that told so was
    /// caused by one with the time stamp `echoed`. No peer takes a segment whose time stamp is older than one that it has taken in order (RFC 7323,
    /// section 5.3), so that nothing sent again has filled a gap. Time stamps count from `base`.
    pub(crate) fn were_late(&self, next: Seq, echoed: u32, base: u32) -> bool {
        self.saved.is_some() && self.sent.is_some_and(|sent| next >= sent.end && echoed.wrapping_sub(base) < sent.stamp.wrapping_sub(base))
    }

    /// How the window was before it was reduced. Given once.
    pub(crate) fn take_saved(&mut self) -> Option<Congestion> {
        self.saved.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::CongestionControl;

    fn repeats(ranges: &[(u32, u32)]) -> Repeats {
        let mut repeats = Repeats::default();
        begin(&mut repeats, ranges);
        repeats
    }

    fn begin(repeats: &mut Repeats, ranges: &[(u32, u32)]) {
        repeats.begin(Congestion::new(CongestionControl::Cubic, 100));
        for (&(start, end), stamp) in ranges.iter().zip(1000..) {
            repeats.sent_again((Seq(start), Seq(end)), 4, stamp, Instant::ZERO);
        }
    }

    fn twice(repeats: &mut Repeats, start: u32, end: u32) -> bool {
        repeats.came_twice((Seq(start), Seq(end)), 4, Instant::ZERO)
    }

    #[test]
    fn rfc3708_section_2_all_that_was_sent_again_must_have_come_twice() {
        let mut repeats = repeats(&[(100, 200), (200, 300), (400, 500)]);
        assert!(twice(&mut repeats, 100, 300) && !repeats.were_duplicates());
        assert!(twice(&mut repeats, 400, 450) && !repeats.were_duplicates());
        assert!(twice(&mut repeats, 450, 500) && repeats.were_duplicates());
        assert!(repeats.take_saved().is_some() && !repeats.were_duplicates(), "once only");
    }

    #[test]
    fn rfc3708_section_2_what_was_sent_again_twice_tells_nothing() {
        let mut repeats = repeats(&[(100, 200), (150, 200)]);
        assert!(twice(&mut repeats, 100, 200) && !repeats.were_duplicates());
    }

    #[test]
    fn rfc3708_section_3_duplicates_of_what_was_not_sent_again_are_not_believed() {
        let mut repeats = repeats(&[(100, 200)]);
        for (start, end) in [(0, 100), (200, u32::MAX / 2), (50, 150), (150, 201), (0, 1000)] {
            assert!(!twice(&mut repeats, start, end) && !repeats.were_duplicates());
        }
        // Nor are such as come late.
        assert!(!repeats.came_twice((Seq(100), Seq(200)), 4, Instant::from_secs(11)) && !repeats.were_duplicates());
        // Nothing was sent again since the window was reduced: that undoes nothing.
        begin(&mut repeats, &[]);
        assert!(!repeats.were_duplicates());
    }

    #[test]
    fn rfc8985_section_6_2_duplicates_of_what_was_sent_again_before_the_last_reduction_tell_of_reordering_alone() {
        let mut repeats = repeats(&[(100, 200)]);
        begin(&mut repeats, &[(300, 400)]);
        assert!(twice(&mut repeats, 100, 200) && !repeats.were_duplicates());
        assert!(!twice(&mut repeats, 100, 200), "once only");
        begin(&mut repeats, &[(500, 600)]);
        assert!(twice(&mut repeats, 300, 400) && !repeats.were_duplicates());
        assert!(twice(&mut repeats, 500, 600) && repeats.were_duplicates());
    }

    #[test]
    fn rfc3522_section_3_2_a_time_stamp_from_before_tells_that_the_first_copy_has_arrived() {
        let repeats = repeats(&[(100, 200), (400, 500)]);
        assert!(!repeats.were_late(Seq(400), 999, 900), "the second may still fill a gap");
        assert!(repeats.were_late(Seq(500), 999, 900) && !repeats.were_late(Seq(500), 1000, 900));
        // What no segment had is not believed.
        assert!(!repeats.were_late(Seq(500), 0, 900));
    }
}
