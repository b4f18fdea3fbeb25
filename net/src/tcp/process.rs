//! What arrives: RFC 9293, section 3.10.7, with RFC 7323 and RFC 5961.

use core::task::Waker;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

use super::flight::Told;
use super::pool::Pool;
use super::sequence::Seq;
use super::socket::{Alarm, HEADERS, STAMP, Socket, State};
use super::{Verdict, congestion::Congestion};
use crate::direct::Cause;
use crate::stack::StreamError;

/// The segment size of a peer that tells none (RFC 9293, section 3.7.1).
const DEFAULT_SEGMENT: usize = 536;
/// The least segment size that a peer may ask for: smaller ones are only good to make work (Linux takes no less either).
const LEAST_SEGMENT: usize = 88;
/// The largest window shift (RFC 7323, section 2.3).
const MOST_SHIFT: u8 = 14;
/// Between two answers to segments that change nothing and carry nothing (RFC 5961, section 7; Linux waits as long).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);
/// Duplicate acknowledgements that tell of a loss (RFC 5681, section 3.2).
const DUPLICATES: u32 = 3;

/// The segment size that a peer's SYN asks for.
pub(crate) fn asked_segment(syn: &TcpRepr) -> usize {
    syn.max_seg_size.map_or(DEFAULT_SEGMENT, usize::from).max(LEAST_SEGMENT)
}

fn seq(number: TcpSeqNumber) -> Seq {
    Seq(number.0.cast_unsigned())
}

impl Socket {
    /// Takes what the peer's SYN says.
    pub(super) fn negotiate(&mut self, syn: &TcpRepr) {
        self.rcv = seq(syn.seq_number) + 1;
        self.acknowledged = self.rcv;
        self.edge = self.rcv + self.target.min(usize::from(u16::MAX));
        self.told.0 = self.rcv - 1;
        self.mark.0 = self.edge;
        self.stamps &= syn.timestamp.is_some();
        self.recent_stamp = syn.timestamp.map_or(0, |stamp| stamp.tsval);
        self.sacks &= syn.sack_permitted;
        self.scales &= syn.window_scale.is_some();
        self.peer_shift = if self.scales { syn.window_scale.unwrap_or(0).min(MOST_SHIFT) } else { 0 };
        self.segment = asked_segment(syn).min(self.settings.mtu - HEADERS) - if self.stamps { STAMP } else { 0 };
        self.congestion = Congestion::new(self.settings.congestion_control, self.segment);
        self.peer_window = usize::from(syn.window_len);
        self.largest_window = self.peer_window;
    }

    /// Takes a segment of this connection.
    pub(crate) fn process(&mut self, segment: &TcpRepr, now: Instant, pool: &mut Pool) -> Verdict {
        let verdict = match self.state {
            State::Closed => Verdict::Stray,
            State::SynSent => self.process_syn_sent(segment, now),
            _ => self.process_synchronized(segment, now, pool),
        };
        if self.state != State::Closed {
            self.arm(now);
        }
        verdict
    }

    /// RFC 9293, section 3.10.7.3.
    fn process_syn_sent(&mut self, segment: &TcpRepr, now: Instant) -> Verdict {
        let acknowledges = segment.ack_number.map(seq);
        if acknowledges.is_some_and(|number| number != self.next) {
            return if segment.control == TcpControl::Rst { Verdict::Taken } else { Verdict::Stray };
        }
        match segment.control {
            TcpControl::Rst if acknowledges.is_some() => self.end(Some(StreamError::Reset)),
            TcpControl::Syn => {
                self.negotiate(segment);
                self.heard = now;
                if acknowledges.is_some() {
                    self.establish(now);
                    self.send_ack = true;
                } else {
                    // Both ends have opened at once.
                    (self.state, self.send_syn) = (State::SynReceived, true);
                }
            }
            _ => {}
        }
        Verdict::Taken
    }

    /// The peer has acknowledged the SYN.
    fn establish(&mut self, now: Instant) {
        if self.round_trip.timeouts() == 0 {
            self.round_trip.measured(now - self.waiting_since, now);
        }
        self.round_trip.answered();
        self.una = self.next;
        self.told.1 = self.una;
        (self.alarm, self.send_syn, self.progress) = (None, false, now);
        self.state = if self.fin { State::FinWait1 } else { State::Established };
        self.wake_all();
    }

    /// RFC 9293, section 3.10.7.4.
    fn process_synchronized(&mut self, segment: &TcpRepr, now: Instant, pool: &mut Pool) -> Verdict {
        let start = seq(segment.seq_number);
        let length = segment.payload.len() + usize::from(segment.control == TcpControl::Fin);
        let is_reset = segment.control == TcpControl::Rst;
        if segment.control == TcpControl::Syn && self.state == State::SynReceived && start + 1 == self.rcv {
            // The answer to it was lost.
            self.send_syn = true;
            return Verdict::Taken;
        }
        let is_old = self.stamps
            && !is_reset
            && segment.timestamp.is_some_and(|stamp| stamp.tsval.wrapping_sub(self.recent_stamp).cast_signed() < 0);
        let is_within = start == self.rcv || start >= self.rcv && start < self.edge || start < self.rcv && start + length > self.rcv;
        if is_old || !is_within {
            if !is_reset {
                if length > 0 {
                    self.came_twice(start, start + length);
                }
                self.challenge(length > 0, now);
            }
            return Verdict::Dropped(if is_old { Cause::OldStamp } else { Cause::OutsideWindow });
        }
        if is_reset {
            // Only an exact one is believed (RFC 5961, section 3.2).
            if start == self.rcv {
                self.end((self.state != State::TimeWait).then_some(StreamError::Reset));
                return Verdict::Taken;
            }
            self.challenge(false, now);
            return Verdict::Dropped(Cause::Challenged);
        }
        if segment.control == TcpControl::Syn {
            self.challenge(false, now);
            return Verdict::Dropped(Cause::Challenged);
        }
        let Some(acknowledges) = segment.ack_number.map(seq) else { return Verdict::Dropped(Cause::Malformed) };
        if !self.is_synchronized() {
            if acknowledges != self.next {
                return Verdict::Stray;
            }
            self.establish(now);
        }
        if acknowledges > self.next || acknowledges < self.una - self.largest_window.max(1) {
            self.challenge(false, now);
            return Verdict::Dropped(Cause::WrongAcknowledgement);
        }
        self.heard = now;
        if let Some(stamp) = segment.timestamp
            && start <= self.acknowledged
        {
            self.recent_stamp = stamp.tsval;
        }
        self.process_acknowledgement(acknowledges, segment, start, length, now, pool);
        self.process_payload(segment, start, now, pool).map_or(Verdict::Taken, Verdict::Dropped)
    }

    /// Says where this end is, at once where the peer has sent something, and not too often otherwise.
    fn challenge(&mut self, carries: bool, now: Instant) {
        if carries || self.challenged.is_none_or(|last| now >= last + CHALLENGE_INTERVAL) {
            if !carries {
                self.challenged = Some(now);
            }
            if self.is_synchronized() {
                self.send_ack = true;
            } else {
                self.send_syn = true;
            }
        }
    }

    /// What is from `start` to `end` and has been acknowledged has come again.
    fn came_twice(&mut self, start: Seq, end: Seq) {
        if start < self.rcv && self.sacks && self.is_synchronized() {
            self.reassembly.came_twice(start, end.min(self.rcv));
        }
    }

    fn process_acknowledgement(&mut self, acknowledges: Seq, segment: &TcpRepr, start: Seq, length: usize, now: Instant, pool: &mut Pool) {
        let window = usize::from(segment.window_len) << self.peer_shift;
        let mut told = if self.repeats.is_some() { self.first_told(acknowledges, segment, now) } else { Told::default() };
        let former_window = self.peer_window;
        if acknowledges >= self.una && (self.told.0 < start || self.told.0 == start && self.told.1 <= acknowledges) {
            self.peer_window = window;
            self.largest_window = self.largest_window.max(window);
            self.told = (start, acknowledges);
        }
        if window == 0 || former_window == 0 {
            // An answer is all that can be expected of a closed window (RFC 9293, section 3.8.6.1).
            self.progress = now;
        }
        if self.sacks {
            for (left, right) in segment.sack_ranges.into_iter().flatten() {
                let (left, right) = (Seq(left), Seq(right));
                if left >= self.una && left < right && right <= self.next {
                    self.flight.acknowledge_range(left, right, &mut told);
                }
            }
        }
        let advances = acknowledges > self.una;
        if advances {
            self.advance(acknowledges, &mut told, now, pool);
        } else if acknowledges == self.una && length == 0 && window == former_window && !self.flight.is_empty() {
            self.duplicates += 1;
        }
        if self.repeats.is_some() {
            self.reconsider(acknowledges, advances, segment, &mut told, now);
        }
        if self.probe_end.is_some() {
            self.judge_probe(acknowledges, advances || length > 0, segment);
        }
        if let Some(sent) = told.sample {
            self.round_trip.measured(now - sent, now);
        }
        if told.arrived > 0 && self.limited && (self.recovery.is_none() || self.congestion.is_slow_start()) {
            let round_trip = self.round_trip.smoothed().unwrap_or_default();
            self.congestion.acknowledged(told.arrived, now, round_trip);
        }
        if told.arrived > 0 || advances || self.duplicates > 0 {
            self.recover(advances, now);
        }
        if self.peer_window > former_window && matches!(self.alarm, Some((_, Alarm::Window))) {
            self.alarm = None;
        }
    }

    /// Everything before `acknowledges` has arrived.
    fn advance(&mut self, acknowledges: Seq, told: &mut Told, now: Instant, pool: &mut Pool) {
        let fin_arrived = self.fin_sent && acknowledges == self.next;
        self.flight.acknowledge(acknowledges, told);
        self.tx.discard(acknowledges.beyond(self.una) - usize::from(fin_arrived));
        self.una = acknowledges;
        if self.tx.len() == 0 {
            self.tx.release(pool);
        }
        self.round_trip.answered();
        (self.waiting_since, self.progress, self.duplicates, self.probed) = (now, now, 0, false);
        if self.recovery.is_some_and(|end| acknowledges >= end) {
            self.recovery = None;
            self.reordering.recovered();
        }
        if fin_arrived {
            match self.state {
                State::FinWait1 => self.state = State::FinWait2,
                State::Closing => self.state = State::TimeWait,
                State::LastAck => self.end(None),
                _ => {}
            }
        }
        self.wake_writer(pool);
    }

    /// Sees what is lost after an acknowledgement.
    fn recover(&mut self, advances: bool, now: Instant) {
        if matches!(self.alarm, Some((_, Alarm::Reorder))) {
            self.alarm = None;
        }
        if self.sacks {
            return self.detect_loss(now);
        }
        // A partial acknowledgement, or the third duplicate.
        let lost = if advances { self.recovery.is_some() } else { self.duplicates == DUPLICATES && self.recovery.is_none() };
        if lost && self.flight.lose_first() {
            self.begin_recovery();
            self.repair = true;
        }
    }

    pub(super) fn detect_loss(&mut self, now: Instant) {
        let smoothed = self.round_trip.smoothed().unwrap_or_default();
        let window = self.reordering.window(self.round_trip.shortest(), smoothed);
        let (found, next) = self.flight.detect(now, smoothed, window, self.recovery.is_some());
        if found {
            self.begin_recovery();
        }
        if let Some(next) = next {
            self.alarm = Some((next, Alarm::Reorder));
        }
    }

    fn begin_recovery(&mut self) {
        if self.recovery.is_none() {
            (self.recovery, self.probe_end) = (Some(self.next), None);
            self.reduce(Congestion::lost);
            // The first goes at once, whatever is in flight (RFC 5681, section 3.2, step 3).
            self.repair = true;
        }
    }

    /// Gives why not all of it was taken.
    fn process_payload(&mut self, segment: &TcpRepr, start: Seq, now: Instant, pool: &mut Pool) -> Option<Cause> {
        let is_fin = segment.control == TcpControl::Fin;
        if segment.payload.is_empty() && !is_fin {
            return None;
        }
        // What comes after the peer's FIN is ignored (section 3.10.7.4).
        if self.ended || self.state == State::Closed {
            return Some(Cause::AfterEnd);
        }
        let skip = self.rcv.beyond(start).min(segment.payload.len());
        if skip > 0 {
            self.came_twice(start, start + skip);
        }
        let payload = &segment.payload[skip..];
        let start = start + skip;
        let allowed = payload.len().min(self.edge.beyond(start));
        let taken = self.store(start, &payload[..allowed], pool);
        if is_fin && taken == payload.len() {
            self.peer_fin = Some(start + payload.len());
        }
        if self.peer_fin == Some(self.rcv) {
            self.finish(now);
        }
        let is_whole = taken == payload.len() && self.reassembly.is_empty() && skip == 0;
        if !is_whole || is_fin {
            self.send_ack = true;
        } else {
            self.acknowledge_soon(now);
        }
        if self.can_recv() || self.ended {
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        if allowed < payload.len() { Some(Cause::OutsideWindow) } else { (taken < allowed).then_some(Cause::NoBuffer) }
    }

    /// Stores what begins at `start`. Gives how much there was room for.
    fn store(&mut self, start: Seq, payload: &[u8], pool: &mut Pool) -> usize {
        if self.discards {
            if start != self.rcv {
                return 0;
            }
            self.rcv = self.rcv + payload.len();
            return payload.len();
        }
        if payload.is_empty() {
            return 0;
        }
        let offset = self.rx.len() + start.beyond(self.rcv);
        let room = self.rx.make_room(offset + payload.len(), pool).saturating_sub(offset);
        let payload = &payload[..payload.len().min(room)];
        if payload.is_empty() {
            return 0;
        }
        let end = start + payload.len();
        if start > self.rcv {
            if !self.reassembly.add(start, end, self.rx.records()) {
                return 0;
            }
            self.rx.write_at(offset, payload);
            return payload.len();
        }
        self.rx.write_at(offset, payload);
        let filled = !self.reassembly.is_empty();
        let reached = self.reassembly.advance(start, end);
        self.rx.extend(reached.beyond(self.rcv));
        self.rcv = reached;
        self.send_ack |= filled;
        payload.len()
    }

    /// The peer's FIN has been reached.
    fn finish(&mut self, now: Instant) {
        self.rcv = self.rcv + 1;
        self.ended = true;
        self.state = match self.state {
            State::SynReceived | State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::TimeWait,
            other => other,
        };
        self.heard = now;
        self.wake_all();
    }
}
