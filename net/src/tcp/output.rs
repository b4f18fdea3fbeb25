//! The segments that a connection sends, and when: RFC 9293, section 3.8, with RFC 6298 and RFC 8985.

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use super::congestion::Congestion;
use super::doubt::{Doubt, NEW};
use super::sequence::Seq;
use super::socket::{ACKNOWLEDGEMENT_DELAY, Alarm, HEADERS, STAMP, Socket, State};
use crate::stack::StreamError;

/// The shortest wait before the last segment is probed for; peers may hold acknowledgements back for 40 ms.
const LEAST_PROBE: Duration = Duration::from_millis(50);
/// How much longer the wait is when one segment alone is in flight (RFC 8985, section 7.2).
const LONE_PROBE: Duration = Duration::from_millis(200);

/// Segments in flight at most: those of the largest buffer. A peer that asks for tiny ones cannot make this end keep a record of each.
const MOST_SEGMENTS: usize = 1024;

/// A segment to send: its header, and which bytes of [`Socket::payload`] go with it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) header: TcpRepr<'static>,
    pub(crate) offset: usize,
    pub(crate) length: usize,
    /// Bytes in each segment that the device is to cut it into, where it is longer.
    pub(crate) segment: usize,
    /// It repeats what was sent before.
    pub(crate) again: bool,
}

impl Socket {
    /// Does what is due by `now`.
    fn expire(&mut self, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        if self.acknowledge_at.is_some_and(|when| when <= now) {
            self.send_ack = true;
        }
        if self.fails_at().is_some_and(|when| when <= now) {
            self.send_reset = self.is_synchronized();
            return self.end(Some(StreamError::TimedOut));
        }
        if self.asks_at().is_some_and(|when| when <= now) {
            self.asked = now;
            self.send_question = true;
        }
        let Some((_, alarm)) = self.alarm.filter(|&(when, _)| when <= now) else { return };
        self.alarm = None;
        match alarm {
            Alarm::Retransmit if !self.is_synchronized() => {
                self.round_trip.timed_out();
                self.send_syn = true;
            }
            Alarm::Retransmit => {
                // A closed window is no sign of congestion.
                let is_first = self.peer_window > 0 && self.round_trip.timeouts() == 0;
                if is_first {
                    self.reduce(Congestion::timed_out);
                }
                self.doubt = if is_first && self.recovery.is_none() { Doubt::Unanswered } else { Doubt::None };
                self.round_trip.timed_out();
                self.probe_end = None;
                self.flight.lose_all();
                self.recovery = Some(self.next);
                self.waiting_since = now;
            }
            Alarm::Tail => (self.send_probe, self.probed, self.waiting_since) = (true, true, now),
            Alarm::Reorder => self.detect_loss(now),
            Alarm::Window => self.send_window_probe = true,
        }
    }

    pub(super) fn is_synchronized(&self) -> bool {
        !matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// When the connection fails if nothing comes.
    fn fails_at(&self) -> Option<Instant> {
        let timeout = self.settings.timeout;
        let silent = self.heard + timeout;
        match self.state {
            State::Closed | State::TimeWait => None,
            _ if !self.flight.is_empty() && self.peer_window > 0 => Some(silent.min(self.progress + timeout)),
            _ => Some(silent),
        }
    }

    /// When to ask whether the peer is there.
    fn asks_at(&self) -> Option<Instant> {
        let is_idle = self.flight.is_empty() && self.is_synchronized() && !matches!(self.state, State::TimeWait | State::Closed);
        is_idle.then(|| self.heard.max(self.asked).max(self.last_sent) + self.settings.keep_alive)
    }

    /// When [`next`](Self::next) wants to be called again, unless something comes before.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        if self.state == State::Closed {
            return None;
        }
        let alarm = self.alarm.map(|(when, _)| when);
        [alarm, self.acknowledge_at, self.fails_at(), self.asks_at()].into_iter().flatten().min()
    }

    /// The next segment to send, if there is one. The bytes that go with it are [`payload`](Self::payload).
    pub(crate) fn next(&mut self, now: Instant) -> Option<Outgoing> {
        self.expire(now);
        let outgoing = self.choose(now);
        self.arm(now);
        outgoing
    }

    /// Lets time pass while nothing can be sent: what is due stays due, but the connection may fail.
    pub(crate) fn wait(&mut self, now: Instant) {
        if self.fails_at().is_some_and(|when| when <= now) {
            self.end(Some(StreamError::TimedOut));
        }
    }

    /// Whether [`next`](Self::next) has something to say after the application has read.
    pub(crate) fn has_to_send(&self) -> bool {
        self.send_ack || self.update_is_due()
    }

    fn choose(&mut self, now: Instant) -> Option<Outgoing> {
        if core::mem::take(&mut self.send_reset) {
            return Some(self.compose(TcpControl::Rst, self.next, (0, 0), now));
        }
        match self.state {
            State::Closed => return None,
            State::SynSent | State::SynReceived => return core::mem::take(&mut self.send_syn).then(|| self.compose_syn(now)),
            _ => {}
        }
        // Segments with data have no place for what has come out of order or twice, and the peer is to hear of it at once (RFC 2018, section 4).
        if self.sacks && (self.reassembly.has_to_tell() || self.send_ack && !self.reassembly.is_empty()) {
            return Some(self.compose(TcpControl::None, self.next, (0, 0), now));
        }
        if let Some(outgoing) = self.choose_data(now) {
            return Some(outgoing);
        }
        let updates = self.update_is_due();
        if core::mem::take(&mut self.send_question) {
            return Some(self.compose(TcpControl::None, self.next - 1, (0, 0), now));
        }
        let owed = self.rcv.beyond(self.acknowledged) >= 2 * self.segment.min(self.target / 4);
        (self.send_ack || updates || owed).then(|| self.compose(TcpControl::None, self.next, (0, 0), now))
    }

    /// What to send again, or what is new.
    fn choose_data(&mut self, now: Instant) -> Option<Outgoing> {
        if core::mem::take(&mut self.send_probe) && !self.flight.is_empty() {
            let outgoing = self.choose_new(self.segment, now);
            return outgoing.or_else(|| {
                let range = self.flight.send_last(now)?;
                self.probe_end = Some(range.1);
                Some(self.compose_range(range, true, now))
            });
        }
        if let Doubt::New(left) = self.doubt {
            let new = if left > 0 { self.choose_new(self.segment, now) } else { None };
            self.doubt = match new {
                Some(_) => Doubt::New(left - 1),
                None if left == NEW => Doubt::None,
                None => self.doubt,
            };
            if self.doubt != Doubt::None {
                return new;
            }
        }
        // After a timeout one segment is always allowed.
        let allowed = self.congestion.window();
        let repairs = core::mem::take(&mut self.repair);
        if self.flight.has_lost() && (self.flight.bytes() < allowed || self.flight.bytes() == 0 || repairs) {
            self.waiting_since = now;
            let most = allowed.saturating_sub(self.flight.bytes()).min(self.most_at_once());
            return self.flight.send_lost(most, now).map(|range| self.send_again(range, now));
        }
        self.choose_new(allowed.saturating_sub(self.flight.bytes()), now)
    }

    /// A new segment, if `allowed` bytes more may be in flight and the peer's window lets it.
    fn choose_new(&mut self, allowed: usize, now: Instant) -> Option<Outgoing> {
        let sent = self.next.beyond(self.una).saturating_sub(usize::from(self.fin_sent));
        let unsent = self.tx.len() - sent.min(self.tx.len());
        let fin = self.fin && !self.fin_sent;
        self.limited = false;
        if unsent == 0 && !fin || self.flight.segments() >= MOST_SEGMENTS {
            return None;
        }
        let window = (self.una + self.peer_window).beyond(self.next);
        let probe = core::mem::take(&mut self.send_window_probe);
        let mut length = unsent.min(self.most_at_once()).min(window).min(allowed);
        if length > self.segment {
            // The last of several that are sent together is full too, unless it is the last there is.
            length -= if length < unsent { length % self.segment } else { 0 };
        } else if length < unsent.min(self.segment) {
            // Silly windows (RFC 9293, section 3.8.6.2.1): waits until a segment is full or half of the largest window is open.
            let worth = length >= self.largest_window / 2 && length > 0;
            if probe && window < unsent.min(self.segment) {
                length = length.max(1).min(unsent);
            } else if allowed < self.segment && !self.flight.is_empty() {
                self.limited = window >= self.segment;
                return None;
            } else if !worth {
                return None;
            }
        }
        let ends = fin && length == unsent && (window > length || unsent == 0 && probe);
        if length == 0 && !ends {
            return None;
        }
        self.fin_sent |= ends;
        let range = (self.next, self.next + length + usize::from(ends));
        self.next = range.1;
        if self.flight.is_empty() {
            self.waiting_since = now;
            self.progress = now;
        }
        self.flight.push(range.0, range.1, self.segment, now);
        Some(self.compose_range(range, false, now))
    }

    /// Bytes that may be sent at once, whole segments: one, or as many as the device cuts.
    fn most_at_once(&self) -> usize {
        let room = self.settings.largest_packet.saturating_sub(HEADERS + if self.stamps { STAMP } else { 0 });
        let segments = (room / self.segment).min(MOST_SEGMENTS.saturating_sub(self.flight.segments()));
        segments.max(1) * self.segment
    }

    /// The segment with the bytes of `range`, the FIN counted.
    pub(super) fn compose_range(&mut self, (start, end): (Seq, Seq), again: bool, now: Instant) -> Outgoing {
        let offset = start.beyond(self.una);
        let length = end.beyond(start).min(self.tx.len() - offset.min(self.tx.len()));
        let control = if end.beyond(start) > length {
            TcpControl::Fin
        } else if offset + length == self.tx.len() {
            TcpControl::Psh
        } else {
            TcpControl::None
        };
        self.last_sent = now;
        Outgoing { again, ..self.compose(control, start, (offset, length), now) }
    }

    fn compose_syn(&mut self, now: Instant) -> Outgoing {
        let start = self.una;
        let again = self.round_trip.timeouts() > 0;
        self.waiting_since = now;
        let mut outgoing = self.compose(TcpControl::Syn, start, (0, 0), now);
        let header = &mut outgoing.header;
        let window = self.target.min(usize::from(u16::MAX));
        header.window_len = window as u16;
        header.window_scale = self.scales.then_some(self.own_shift);
        header.max_seg_size = Some((self.settings.mtu - HEADERS) as u16);
        header.sack_permitted = self.sacks;
        self.edge = self.rcv + window;
        if self.state == State::SynSent {
            header.ack_number = None;
        }
        outgoing.again = again;
        outgoing
    }

    fn compose(&mut self, control: TcpControl, start: Seq, (offset, length): (usize, usize), now: Instant) -> Outgoing {
        self.open_window();
        let window = self.edge.beyond(self.rcv).div_ceil(1 << self.shift()).min(usize::from(u16::MAX));
        self.edge = self.edge.max(self.rcv + (window << self.shift()));
        self.acknowledged = self.rcv;
        (self.send_ack, self.acknowledge_at) = (false, None);
        let ranges = if length == 0 && self.sacks && self.state != State::SynSent { self.reassembly.tell() } else { [None; 3] };
        let header = TcpRepr {
            src_port: self.settings.local_port,
            dst_port: self.settings.remote_port,
            control,
            seq_number: TcpSeqNumber(start.0.cast_signed()),
            ack_number: Some(TcpSeqNumber(self.rcv.0.cast_signed())),
            window_len: window as u16,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: ranges,
            timestamp: self.stamps.then(|| TcpTimestampRepr::new(self.stamp(now), self.recent_stamp)),
            payload: &[],
        };
        Outgoing { header, offset, length, segment: self.segment, again: false }
    }

    fn shift(&self) -> u8 {
        if self.scales { self.own_shift } else { 0 }
    }

    /// The time stamp clock: milliseconds (RFC 7323, section 4.1).
    pub(super) fn stamp(&self, now: Instant) -> u32 {
        self.stamp_base.wrapping_add((now - self.begun).total_millis() as u32)
    }

    /// Tells the peer of as much room as there is, if that is worth it (RFC 9293, section 3.8.6.2.2).
    fn open_window(&mut self) {
        let open = self.rcv + self.target.saturating_sub(self.rx.len());
        if open.beyond(self.edge) >= self.segment.min(self.target / 2) {
            self.edge = open;
        }
    }

    /// Whether the peer should hear of room that it does not know of.
    fn update_is_due(&self) -> bool {
        if self.ended || self.discards && self.peer_fin.is_some() {
            return false;
        }
        let known = self.edge.beyond(self.rcv);
        let gain = (self.rcv + self.target.saturating_sub(self.rx.len())).beyond(self.edge);
        let worth = if known < self.segment { self.segment.min(self.target / 2) } else { (self.target / 4).max(self.segment) };
        known < self.target / 2 && gain >= worth
    }

    /// Sets the timer for what is in flight.
    pub(super) fn arm(&mut self, now: Instant) {
        match self.state {
            State::Closed | State::TimeWait => return self.alarm = None,
            State::SynSent | State::SynReceived => {
                if !self.send_syn && self.alarm.is_none() {
                    self.alarm = Some((self.waiting_since + self.round_trip.timeout(), Alarm::Retransmit));
                }
                return;
            }
            _ => {}
        }
        if self.flight.is_empty() {
            let waits = self.tx.len() > 0 || self.fin && !self.fin_sent;
            if !waits {
                self.alarm = None;
            } else if !matches!(self.alarm, Some((_, Alarm::Window))) {
                self.alarm = Some((now + self.round_trip.timeout(), Alarm::Window));
            }
            return;
        }
        if matches!(self.alarm, Some((_, Alarm::Reorder))) {
            return;
        }
        let retransmit = self.waiting_since + self.round_trip.timeout();
        self.alarm = Some((retransmit, Alarm::Retransmit));
        if let Some(smoothed) = self.round_trip.smoothed()
            && self.recovery.is_none()
            && !self.probed
            && self.round_trip.timeouts() == 0
        {
            let lone = if self.flight.segments() == 1 { LONE_PROBE } else { Duration::ZERO };
            let tail = self.last_sent.max(self.waiting_since) + (smoothed * 2).max(LEAST_PROBE) + lone;
            if tail < retransmit {
                self.alarm = Some((tail, Alarm::Tail));
            }
        }
    }

    pub(super) fn acknowledge_soon(&mut self, now: Instant) {
        if self.acknowledge_at.is_none() {
            self.acknowledge_at = Some(now + ACKNOWLEDGEMENT_DELAY);
        }
    }

    /// The bytes of a segment, in one or two pieces.
    pub(crate) fn payload(&self, outgoing: &Outgoing) -> (&[u8], &[u8]) {
        self.tx.pieces(outgoing.offset, outgoing.length)
    }
}
