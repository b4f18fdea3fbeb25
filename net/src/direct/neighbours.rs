//! Neighbours on the link: who waits for whose hardware address.
//!
//! smoltcp keeps the addresses themselves, but it asks for one neighbour a second at most, keeps one that does not answer in the way of all others,
//! and tells nobody when an answer has come. So this stack asks by itself, wakes just the flows that wait, and gives up in time.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use hashbrown::HashMap;
use smoltcp::time::{Duration, Instant};

use super::demultiplex::Keyed;

/// Neighbours asked for at once at most; flows to others wait for smoltcp's own requests, and datagrams to others are dropped.
const MOST_ASKED: usize = 256;
/// Neighbours remembered as known at most, as many as smoltcp's cache holds.
const MOST_KNOWN: usize = 256;
/// Datagrams held for a neighbour that is being asked for at most, as Linux held traditionally; later ones are dropped.
const MOST_DATAGRAMS: usize = 3;
/// Between two requests: RFC 1122, section 2.3.2.1, recommends one a second at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// Requests before a neighbour counts as absent.
const ATTEMPTS: u8 = 3;
/// How long a neighbour counts as known. Shorter than the minute for which smoltcp keeps it.
const KNOWN_FOR: Duration = Duration::from_secs(55);

/// A datagram that waits for the hardware address of its next hop.
pub(super) struct Datagram {
    pub(super) flow: u32,
    pub(super) to: (Ipv4Addr, u16),
    pub(super) payload: Vec<u8>,
}

/// What waits for a neighbour.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) flows: Vec<u32>,
    pub(super) datagrams: Vec<Datagram>,
}

struct Asked {
    next: Instant,
    attempts: u8,
    waiting: Waiting,
}

pub(super) struct Neighbours {
    known: HashMap<Ipv4Addr, Instant, Keyed>,
    asked: HashMap<Ipv4Addr, Asked, Keyed>,
}

impl Neighbours {
    pub(super) fn new(keyed: Keyed) -> Self {
        Self { known: HashMap::with_hasher(keyed), asked: HashMap::with_hasher(keyed) }
    }

    /// Whether smoltcp has the address of `neighbour`, as far as can be told.
    pub(super) fn is_known(&self, neighbour: Ipv4Addr, now: Instant) -> bool {
        self.known.get(&neighbour).is_some_and(|&until| now < until)
    }

    /// `neighbour` has been heard of: gives what waited for it.
    pub(super) fn learn(&mut self, neighbour: Ipv4Addr, now: Instant) -> Waiting {
        if self.known.len() >= MOST_KNOWN && !self.known.contains_key(&neighbour) {
            self.known.retain(|_, &mut until| now < until);
        }
        if self.known.len() < MOST_KNOWN || self.known.contains_key(&neighbour) {
            self.known.insert(neighbour, now + KNOWN_FOR);
        }
        self.asked.remove(&neighbour).map(|asked| asked.waiting).unwrap_or_default()
    }

    /// Lets `flow` wait for `neighbour`.
    pub(super) fn await_for_flow(&mut self, neighbour: Ipv4Addr, flow: u32, now: Instant) {
        if let Some(waiting) = self.ask(neighbour, now)
            && !waiting.flows.contains(&flow)
        {
            waiting.flows.push(flow);
        }
    }

    /// Lets a datagram wait for `neighbour`. False when it is dropped, as too many wait already.
    pub(super) fn await_for_datagram(&mut self, neighbour: Ipv4Addr, datagram: Datagram, now: Instant) -> bool {
        match self.ask(neighbour, now) {
            Some(waiting) if waiting.datagrams.len() < MOST_DATAGRAMS => {
                waiting.datagrams.push(datagram);
                true
            }
            _ => false,
        }
    }

    fn ask(&mut self, neighbour: Ipv4Addr, now: Instant) -> Option<&mut Waiting> {
        if self.asked.len() >= MOST_ASKED && !self.asked.contains_key(&neighbour) {
            return None;
        }
        let asked = self.asked.entry(neighbour).or_insert_with(|| Asked { next: now, attempts: 0, waiting: Waiting::default() });
        Some(&mut asked.waiting)
    }

    /// When [`due`](Self::due) wants to be called next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.next).min()
    }

    /// Sends the requests that are due by `request`, and forgets neighbours that do not answer, with the datagrams for them.
    pub(super) fn due(&mut self, now: Instant, mut request: impl FnMut(Ipv4Addr)) {
        self.asked.retain(|&neighbour, asked| {
            if asked.next > now {
                return true;
            }
            if asked.attempts >= ATTEMPTS {
                return false;
            }
            asked.attempts += 1;
            asked.next = now + INTERVAL;
            request(neighbour);
            true
        });
    }
}
