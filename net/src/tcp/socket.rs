//! A connection: its state, what the application does with it, and the segments that it sends.

use alloc::boxed::Box;
use core::task::Waker;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpRepr;

use super::congestion::Congestion;
use super::doubt::Doubt;
use super::flight::Flight;
use super::pool::{Pool, Ring};
use super::reassembly::Reassembly;
use super::reordering::Reordering;
use super::repeats::Repeats;
use super::round_trip::RoundTrip;
use super::sequence::Seq;
use crate::direct::CongestionControl;
use crate::stack::StreamError;

/// IPv4 and TCP headers without options, in bytes.
pub(crate) const HEADERS: usize = 40;
/// The time stamp option with its padding (RFC 7323, appendix A).
pub(super) const STAMP: usize = 12;
/// What a connection may buffer per direction before it has shown its rate, in bytes: the largest window that needs no scale.
const FIRST_BUFFER: usize = 65_535;
/// For how long an acknowledgement may wait for data to go with it: RFC 1122, section 4.2.3.2, allows half a second.
pub(super) const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_millis(10);
/// A window that is filled within this time may be too small: no path that matters has a longer round trip.
const FAST: Duration = Duration::from_secs(1);

/// The states of RFC 9293, section 3.3.2, but for LISTEN, which is not one of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

/// What does not change while a connection lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// The largest IP packet.
    pub(crate) mtu: usize,
    /// The largest IP packet that the device cuts to the MTU; 0 when it cuts none.
    pub(crate) largest_packet: usize,
    pub(crate) congestion_control: CongestionControl,
    pub(crate) least_rto: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) timeout: Duration,
}

/// What reading gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes(usize),
    /// Nothing yet.
    Pending,
    /// The peer has said that nothing more comes.
    End,
    Failed(StreamError),
}

/// What the one timer for data in flight is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// Nothing was answered.
    Retransmit,
    /// The end of what is in flight may be lost (RFC 8985, section 7).
    Tail,
    /// A segment that was overtaken counts as lost (RFC 8985, section 6).
    Reorder,
    /// The peer's window is closed, and its opening may have been lost (RFC 9293, section 3.8.6.1).
    Window,
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(super) settings: Settings,
    pub(super) state: State,
    pub(super) failure: Option<StreamError>,

    // What is sent.
    pub(super) una: Seq,
    pub(super) next: Seq,
    pub(super) tx: Ring,
    /// The application has nothing more to send.
    pub(super) fin: bool,
    pub(super) fin_sent: bool,
    pub(super) peer_window: usize,
    pub(super) largest_window: usize,
    /// The segment that told the window: its sequence and acknowledgement numbers (SND.WL1 and SND.WL2).
    pub(super) told: (Seq, Seq),
    pub(super) peer_shift: u8,
    /// Bytes in a full segment.
    pub(super) segment: usize,
    pub(super) stamps: bool,
    pub(super) sacks: bool,
    pub(super) flight: Flight,
    pub(super) congestion: Congestion,
    pub(super) round_trip: RoundTrip,
    pub(super) reordering: Reordering,
    /// What was sent again; there since the window was first reduced.
    pub(super) repeats: Option<Box<Repeats>>,
    pub(super) doubt: Doubt,
    /// Recovering from loss until this is acknowledged.
    pub(super) recovery: Option<Seq>,
    /// A lost segment may be sent again whatever is in flight.
    pub(super) repair: bool,
    pub(super) duplicates: u32,
    /// What is in flight could have been more, but for congestion.
    pub(super) limited: bool,
    /// A probe of the tail is out for what is in flight.
    pub(super) probed: bool,
    /// A probe has sent the tail again, up to here, and it is not known whether that was lost.
    pub(super) probe_end: Option<Seq>,

    // What is received.
    pub(super) rcv: Seq,
    pub(super) rx: Ring,
    pub(super) reassembly: Reassembly,
    /// The end of the window that the peer has been told.
    pub(super) edge: Seq,
    pub(super) own_shift: u8,
    pub(super) scales: bool,
    /// How much may be buffered by now.
    pub(super) target: usize,
    /// Where the peer's FIN is, once it has come.
    pub(super) peer_fin: Option<Seq>,
    pub(super) ended: bool,
    /// Nobody reads: what comes is acknowledged and thrown away.
    pub(super) discards: bool,
    pub(super) recent_stamp: u32,
    /// What was acknowledged last (Last.ACK.sent of RFC 7323).
    pub(super) acknowledged: Seq,
    /// The end of the window that was told at that time, to see how fast it is filled.
    pub(super) mark: (Seq, Instant),

    // What is due, and when.
    pub(super) send_syn: bool,
    pub(super) send_ack: bool,
    pub(super) send_reset: bool,
    pub(super) send_probe: bool,
    pub(super) send_window_probe: bool,
    pub(super) send_question: bool,
    pub(super) alarm: Option<(Instant, Alarm)>,
    pub(super) acknowledge_at: Option<Instant>,
    /// When the wait for an answer began.
    pub(super) waiting_since: Instant,
    pub(super) last_sent: Instant,
    /// When the peer was heard of last, and asked last whether it is there.
    pub(super) heard: Instant,
    pub(super) asked: Instant,
    /// When the peer has taken something last.
    pub(super) progress: Instant,
    pub(super) challenged: Option<Instant>,
    pub(super) begun: Instant,
    pub(super) stamp_base: u32,

    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Socket {
    fn new(settings: Settings, state: State, initial: u32, now: Instant, pool: &Pool, flight: Flight) -> Self {
        let segment = settings.mtu - HEADERS;
        let initial = Seq(initial);
        Self {
            settings,
            state,
            failure: None,
            una: initial,
            next: initial + 1,
            tx: Ring::default(),
            fin: false,
            fin_sent: false,
            peer_window: 0,
            largest_window: 0,
            told: (Seq(0), Seq(0)),
            peer_shift: 0,
            segment,
            stamps: true,
            sacks: true,
            flight,
            congestion: Congestion::new(settings.congestion_control, segment),
            round_trip: RoundTrip::new(settings.least_rto),
            reordering: Reordering::new(),
            repeats: None,
            doubt: Doubt::None,
            recovery: None,
            repair: false,
            duplicates: 0,
            limited: false,
            probed: false,
            probe_end: None,
            rcv: Seq(0),
            rx: Ring::default(),
            reassembly: Reassembly::default(),
            edge: Seq(0),
            own_shift: (pool.most().ilog2() + 1).saturating_sub(16) as u8,
            scales: true,
            target: pool.share().min(FIRST_BUFFER),
            peer_fin: None,
            ended: false,
            discards: false,
            recent_stamp: 0,
            acknowledged: Seq(0),
            mark: (Seq(0), now),
            send_syn: true,
            send_ack: false,
            send_reset: false,
            send_probe: false,
            send_window_probe: false,
            send_question: false,
            alarm: None,
            acknowledge_at: None,
            waiting_since: now,
            last_sent: now,
            heard: now,
            asked: now,
            progress: now,
            challenged: None,
            begun: now,
            // Time stamps tell nothing of how long the host has been up (RFC 7323, section 5.4).
            stamp_base: initial.0.rotate_left(16),
            reader: None,
            writer: None,
        }
    }

    /// A connection that this end opens; `initial` is its first sequence number, `flight` an empty one.
    pub(crate) fn open(settings: Settings, initial: u32, now: Instant, pool: &Pool, flight: Flight) -> Self {
        Self::new(settings, State::SynSent, initial, now, pool, flight)
    }

    /// A connection that the peer opens with `syn`.
    pub(crate) fn answer(settings: Settings, syn: &TcpRepr, initial: u32, now: Instant, pool: &Pool, flight: Flight) -> Self {
        let mut socket = Self::new(settings, State::SynReceived, initial, now, pool, flight);
        socket.negotiate(syn);
        socket
    }

    /// A connection whose `syn` was answered with `initial`, and forgotten, and whose peer has acknowledged that.
    pub(crate) fn resume(settings: Settings, syn: &TcpRepr, initial: u32, now: Instant, pool: &Pool, flight: Flight) -> Self {
        let mut socket = Self::answer(settings, syn, initial, now, pool, flight);
        // How long the answer has taken is not known: it is not a measurement of the round trip.
        socket.round_trip.timed_out();
        socket
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn failure(&self) -> Option<StreamError> {
        self.failure
    }

    /// The sequence number that the peer sends next.
    pub(crate) fn expected(&self) -> Seq {
        self.rcv
    }

    /// The first of what this end has sent that the peer has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> Seq {
        self.una
    }

    /// An acknowledgement waits to be sent.
    pub(crate) fn owes_acknowledgement(&self) -> bool {
        self.send_ack || self.acknowledge_at.is_some()
    }

    pub(crate) fn can_recv(&self) -> bool {
        self.rx.len() > 0
    }

    /// Whether reading would not wait.
    pub(crate) fn is_readable(&self) -> bool {
        self.can_recv() || self.ended || self.state == State::Closed
    }

    /// Whether writing would not wait.
    pub(crate) fn is_writable(&self, pool: &Pool) -> bool {
        match self.state {
            State::SynSent | State::SynReceived => false,
            State::Established | State::CloseWait => self.tx.len() < self.send_limit(pool),
            _ => true,
        }
    }

    pub(crate) fn wake_on_read(&mut self, waker: &Waker) {
        register(&mut self.reader, waker);
    }

    pub(crate) fn wake_on_write(&mut self, waker: &Waker) {
        register(&mut self.writer, waker);
    }

    pub(super) fn wake_all(&mut self) {
        [self.reader.take(), self.writer.take()].into_iter().flatten().for_each(Waker::wake);
    }

    pub(crate) fn read(&mut self, into: &mut [u8], now: Instant, pool: &mut Pool) -> Read {
        let count = into.len().min(self.rx.len());
        if count == 0 {
            return match self.failure {
                _ if self.ended => Read::End,
                Some(failure) => Read::Failed(failure),
                None if self.state == State::Closed => Read::Failed(StreamError::Closed),
                None => Read::Pending,
            };
        }
        let (first, second) = self.rx.pieces(0, count);
        into[..first.len()].copy_from_slice(first);
        into[first.len()..count].copy_from_slice(second);
        self.rx.discard(count);
        if self.rx.len() == 0 && self.reassembly.is_empty() {
            self.rx.release(pool);
        }
        self.grow_window(now, pool);
        Read::Bytes(count)
    }

    /// Lets the window grow when the peer has filled it fast and the application has kept up: then it may be what holds the peer back.
    fn grow_window(&mut self, now: Instant, pool: &Pool) {
        let (end, since) = self.mark;
        if self.rcv >= end {
            if now <= since + FAST && self.rx.len() <= self.target / 2 {
                self.target = (2 * self.target).min(pool.share()).max(self.target);
            }
            self.mark = (self.edge, now);
        }
    }

    /// How much may wait to be sent and acknowledged by now: twice what may be in flight.
    pub(super) fn send_limit(&self, pool: &Pool) -> usize {
        self.congestion.window().saturating_mul(2).max(FIRST_BUFFER).min(pool.share())
    }

    /// Takes bytes to send; 0 when there is no room.
    pub(crate) fn write(&mut self, from: &[u8], now: Instant, pool: &mut Pool) -> Result<usize, StreamError> {
        match self.state {
            State::SynSent | State::SynReceived => return Ok(0),
            State::Established | State::CloseWait => {}
            _ => return Err(self.failure.unwrap_or(StreamError::Closed)),
        }
        let held = self.tx.len();
        let wanted = from.len().min(self.send_limit(pool).saturating_sub(held));
        let room = self.tx.make_room(held + wanted, pool).saturating_sub(held);
        let count = wanted.min(room);
        if count > 0 {
            if self.flight.is_empty() && now > self.last_sent + self.round_trip.timeout() {
                self.congestion.idle();
                self.repeats.as_mut().and_then(|repeats| repeats.take_saved());
            }
            self.tx.write_at(held, &from[..count]);
            self.tx.extend(count);
        }
        Ok(count)
    }

    /// Nothing more will be written.
    pub(crate) fn close(&mut self) {
        match self.state {
            State::SynSent => self.end(None),
            State::SynReceived => self.fin = true,
            State::Established => (self.state, self.fin) = (State::FinWait1, true),
            State::CloseWait => (self.state, self.fin) = (State::LastAck, true),
            _ => {}
        }
    }

    /// Nobody will read any more.
    pub(crate) fn stop_reading(&mut self, pool: &mut Pool) {
        self.discards = true;
        self.reassembly.clear();
        self.rx.release(pool);
    }

    /// Ends the connection at once, with a reset.
    pub(crate) fn abort(&mut self) {
        self.send_reset = !matches!(self.state, State::SynSent | State::TimeWait | State::Closed);
        self.end(None);
    }

    /// Gives the memory back.
    pub(crate) fn release(&mut self, pool: &mut Pool) {
        self.rx.release(pool);
        self.tx.release(pool);
    }

    /// The records of what was in flight, empty, for another connection to use.
    pub(crate) fn take_flight(&mut self) -> Flight {
        let mut flight = core::mem::take(&mut self.flight);
        flight.clear();
        flight
    }

    pub(super) fn end(&mut self, failure: Option<StreamError>) {
        self.state = State::Closed;
        self.failure = self.failure.or(failure);
        (self.alarm, self.acknowledge_at, self.send_ack, self.send_syn) = (None, None, false, false);
        self.wake_all();
    }

    /// Wakes the writer when there is room for an eighth of what may wait: less would wake it for every segment, more would let the path run dry.
    pub(super) fn wake_writer(&mut self, pool: &Pool) {
        if self.writer.is_some() && self.tx.len() <= self.send_limit(pool) / 8 * 7 {
            self.writer.take().into_iter().for_each(Waker::wake);
        }
    }
}

fn register(place: &mut Option<Waker>, waker: &Waker) {
    if place.as_ref().is_none_or(|former| !former.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}
