//! Doubt about losses: what is undone when it turns out that nothing was lost.
//!
//! Three things tell: the peer has had all twice that was sent again (RFC 2883, RFC 3708); what has filled its gaps was sent before (RFC 3522); after a
//! timeout, what was not sent again is acknowledged in its turn (RFC 5682). Then the window is as it was (RFC 9438, section 4.9; RFC 4015), and nothing
//! counts as lost until it is told anew. A peer that says so falsely gets back what the reduction took, and no more.

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpRepr;

use super::congestion::Congestion;
use super::flight::Told;
use super::output::Outgoing;
use super::sequence::Seq;
use super::socket::Socket;

/// New segments that are sent to see whether a timeout was a mistake (RFC 5682, section 3.1, step 2).
pub(super) const NEW: u8 = 2;

/// Where a connection stands with a timeout that may have been a mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Doubt {
    /// There is none.
    #[default]
    None,
    /// The first segment has been sent again, and no answer has come.
    Unanswered,
    /// New segments, so many more, are sent in place of what counts as lost: what is acknowledged next decides.
    New(u8),
}

/// What the peer has had twice, as a segment of its tells (RFC 2883, section 4): the first range, if it is acknowledged or in the second.
fn duplicate(segment: &TcpRepr, acknowledges: Seq) -> Option<(Seq, Seq)> {
    let [Some((start, end)), second, _] = segment.sack_ranges else { return None };
    let (start, end) = (Seq(start), Seq(end));
    let is_inside = second.is_some_and(|(left, right)| Seq(left) <= start && end <= Seq(right));
    (start < end && (end <= acknowledges || is_inside)).then_some((start, end))
}

impl Socket {
    /// Lets congestion control reduce the window, so that it can be undone.
    pub(super) fn reduce(&mut self, how: fn(&mut Congestion)) {
        self.repeats.get_or_insert_default().begin(self.congestion);
        how(&mut self.congestion);
    }

    /// Sends something again that counts as lost.
    pub(super) fn send_again(&mut self, range: (Seq, Seq), now: Instant) -> Outgoing {
        let (stamp, most) = (self.stamp(now), self.most_repeats());
        if let Some(repeats) = &mut self.repeats {
            repeats.sent_again(range, most, stamp, now);
        }
        self.compose_range(range, true, now)
    }

    /// How many pieces of what was sent again are remembered, for each of two reductions.
    fn most_repeats(&self) -> usize {
        self.tx.records() / 2
    }

    /// What an acknowledgement tells before it is looked at closely: whether nothing was lost, by its time stamp.
    pub(super) fn first_told(&self, acknowledges: Seq, segment: &TcpRepr, now: Instant) -> Told {
        let Some(repeats) = &self.repeats else { return Told::default() };
        let echoed = segment.timestamp.filter(|_| self.stamps && acknowledges > self.una);
        let is_late = echoed.is_some_and(|stamp| repeats.were_late(acknowledges, stamp.tsecr, self.stamp_base));
        let latest = if is_late { self.begun } else { now - self.round_trip.shortest() };
        Told { is_late, latest: Some(latest), ..Told::default() }
    }

    /// Sees whether an acknowledgement, which has `told` something, tells that nothing was lost.
    pub(super) fn reconsider(&mut self, acknowledges: Seq, advances: bool, segment: &TcpRepr, told: &mut Told, now: Instant) {
        let most = self.most_repeats();
        let Some(repeats) = &mut self.repeats else { return };
        let is_twice = self.sacks && duplicate(segment, acknowledges).is_some_and(|range| repeats.came_twice(range, most, now));
        let were_twice = is_twice && repeats.were_duplicates();
        if is_twice || told.is_late && self.doubt == Doubt::None {
            self.reordering.was_underestimated(self.una, self.next);
            self.flight.saw_reordering();
        }
        if told.is_late && told.sample.is_none() {
            // How late it was is what the next wait is to allow for (RFC 4015, section 3.3).
            let elapsed = self.stamp(now).wrapping_sub(segment.timestamp.map_or(0, |stamp| stamp.tsecr));
            told.sample = Some(now - Duration::from_millis(elapsed.into()));
        }
        if self.is_timeout_refuted(advances, told) || told.is_late || were_twice {
            self.undo();
        }
    }

    /// Sees whether the tail that a probe has sent again was lost, which is congestion like any loss (RFC 8985, section 7.4.2): it was not if the peer
    /// tells that it has come twice, or repeats its acknowledgement; it was if more is acknowledged without that.
    pub(super) fn judge_probe(&mut self, acknowledges: Seq, is_news: bool, segment: &TcpRepr) {
        let Some(end) = self.probe_end.filter(|&end| acknowledges >= end) else { return };
        let is_twice = self.sacks && duplicate(segment, acknowledges).is_some_and(|(start, stop)| start < end && stop >= end);
        let is_repeated = acknowledges == end && !is_news && segment.sack_ranges[0].is_none();
        if is_twice || is_repeated {
            self.probe_end = None;
        } else if acknowledges > end {
            self.probe_end = None;
            self.reduce(Congestion::lost);
        }
    }

    /// RFC 5682, section 3.1, steps 2 and 3.
    fn is_timeout_refuted(&mut self, advances: bool, told: &Told) -> bool {
        let is_in_doubt = self.doubt != Doubt::None;
        if is_in_doubt && (advances || told.arrived > 0 || self.duplicates > 0) {
            let is_first = self.doubt == Doubt::Unanswered && advances && self.recovery.is_some();
            self.doubt = if is_first { Doubt::New(NEW) } else { Doubt::None };
            // If it was none, what was held back goes at once, whatever is in flight.
            self.repair |= !is_first;
        }
        is_in_doubt && told.was_not_lost
    }

    fn undo(&mut self) {
        let Some(saved) = self.repeats.as_mut().and_then(|repeats| repeats.take_saved()) else { return };
        self.congestion.restore(&saved);
        self.flight.lose_none();
        (self.recovery, self.repair, self.doubt) = (None, false, Doubt::None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{TcpControl, TcpSeqNumber};

    #[test]
    fn rfc2883_section_4_the_first_range_is_a_duplicate_when_it_is_acknowledged_or_in_the_second() {
        for (first, second, expected) in [
            ((100, 200), None, true),
            ((100, 1000), None, true),
            ((100, 1001), None, false),
            ((200, 100), None, false),
            ((2000, 2100), Some((1900, 2200)), true),
            ((2000, 2100), Some((2000, 2100)), true),
            ((2000, 2100), Some((2050, 2200)), false),
            ((2000, 2100), Some((3000, 3100)), false),
            ((2000, 2100), None, false),
        ] {
            let segment = TcpRepr {
                src_port: 1,
                dst_port: 2,
                control: TcpControl::None,
                seq_number: TcpSeqNumber(0),
                ack_number: Some(TcpSeqNumber(1000)),
                window_len: 0,
                window_scale: None,
                max_seg_size: None,
                sack_permitted: false,
                sack_ranges: [Some(first), second, None],
                timestamp: None,
                payload: &[],
            };
            assert_eq!(duplicate(&segment, Seq(1000)), expected.then_some((Seq(first.0), Seq(first.1))), "{first:?} {second:?}");
        }
    }
}
