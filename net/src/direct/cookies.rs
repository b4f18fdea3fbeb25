//! SYN cookies (RFC 4987, section 3.6): answers to the connection requests that the table of handshakes has no room for.
//!
//! Nothing is remembered of such a request. The sequence number of the answer says what must be known later, and a hash whose key only this stack has
//! tells, when it comes back acknowledged, that it was given to this peer and lately: whoever cannot receive at the address that it claims gets no
//! further. What the number has no room for such a connection is without: window scaling, time stamps, selective acknowledgements.
//!
//! From the highest bit: 5 bits of the time in periods, 3 of the segment size, 24 of the hash. Who guesses blindly finds a valid number in one of 2²⁴ tries.

use core::hash::{BuildHasher, Hasher};

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, TcpControl, TcpRepr, TcpSeqNumber};

use super::counters::Cause;
use super::demultiplex::{FlowKey, Keyed};
use super::engine::Engine;
use crate::frame::FrameTransmitter;
use crate::tcp::{HEADERS, Socket, asked_segment};

/// A cookie is good in the period that it is from and in the next.
const PERIOD: Duration = Duration::from_secs(64);
/// Segment sizes that a cookie can tell, and a peer that asks for another gets the next smaller: the least, those of hosts without and behind tunnels,
/// of Ethernet behind PPPoE with and without time stamps, of Ethernet alone, and of jumbo frames.
const SEGMENTS: [u16; 8] = [88, 536, 1024, 1240, 1400, 1452, 1460, 8960];

/// What a cookie is for.
#[derive(Clone, Copy)]
pub(super) struct Request {
    key: FlowKey,
    /// The first sequence number of the peer's.
    first: TcpSeqNumber,
}

impl Request {
    /// The cookie with this segment size, of so many periods ago.
    fn cookie(self, keyed: Keyed, now: Instant, ago: u64, size: usize) -> u32 {
        let period = (now.total_micros().cast_unsigned() / PERIOD.total_micros()).wrapping_sub(ago);
        let mut hasher = keyed.build_hasher();
        hasher.write_u64(self.key.number());
        hasher.write_i32(self.first.0);
        hasher.write_u64(period);
        hasher.write_usize(size);
        (period as u32 & 0x1f) << 27 | (size as u32) << 24 | hasher.finish() as u32 & 0xff_ffff
    }

    /// The segment size that a cookie of this stack's tells.
    fn segment(self, keyed: Keyed, now: Instant, cookie: u32) -> Option<u16> {
        let size = (cookie >> 24 & 7) as usize;
        [0, 1].iter().any(|&ago| self.cookie(keyed, now, ago, size) == cookie).then_some(SEGMENTS[size])
    }
}

impl Engine {
    /// Answers a connection request without remembering it.
    pub(super) fn send_cookie<T: FrameTransmitter>(&mut self, key: FlowKey, from: EthernetAddress, syn: &TcpRepr, transmitter: &mut T) {
        if !transmitter.has_room() {
            return;
        }
        let asked = asked_segment(syn);
        let size = SEGMENTS.partition_point(|&segment| usize::from(segment) <= asked).saturating_sub(1);
        let cookie = Request { key, first: syn.seq_number }.cookie(self.keyed, self.now, 0, size);
        self.statistics.cookies_sent += 1;
        // As long as one can come back.
        self.cookies_until = Some(self.now + PERIOD * 2);
        let own = self.config.ipv4.address;
        // What each connection is sure of: how much more there is when the cookie comes back is not known.
        let offer = [self.mtu - HEADERS, self.pool.least()].map(|size| u16::try_from(size).unwrap_or(u16::MAX));
        self.wire(transmitter).answer_request(from, own, key.remote(), syn, cookie, offer.into());
    }

    /// Makes the connection whose request a cookie has answered, if `segment` acknowledges one, and if there is room: without, the peer will ask again.
    /// False when it does not acknowledge one.
    pub(super) fn ingress_cookie(&mut self, key: FlowKey, segment: &TcpRepr) -> bool {
        if self.cookies_until.is_none_or(|until| self.now > until) || matches!(segment.control, TcpControl::Syn | TcpControl::Rst) {
            return false;
        }
        let Some(acknowledged) = segment.ack_number else { return false };
        let (first, cookie) = (segment.seq_number - 1, (acknowledged - 1).0.cast_unsigned());
        let Some(size) = (Request { key, first }).segment(self.keyed, self.now, cookie) else { return false };
        let syn = TcpRepr {
            control: TcpControl::Syn,
            seq_number: first,
            ack_number: None,
            max_seg_size: Some(size),
            window_scale: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
            ..*segment
        };
        // This peer is there; of those in their handshake that is not known.
        if self.is_full() {
            self.replace_handshake();
        }
        if let Some(id) = self.admit(key, |settings, _, now, pool, flight| Socket::resume(settings, &syn, cookie, now, pool, flight)) {
            self.statistics.cookies_accepted += 1;
            self.ingress_flow(id, segment);
        }
        true
    }

    /// Gives up a handshake, chosen so that a peer cannot tell which.
    fn replace_handshake(&mut self) {
        let victim = self.draw() as usize % self.half_open.len().max(1);
        if let Some(&id) = self.half_open.get(victim) {
            self.statistics.drops.count(Cause::HandshakeReplaced);
            self.discard(id);
        }
    }
}
