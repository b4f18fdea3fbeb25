//! Neighbours on the link: their hardware addresses, and who waits for one.
//!
//! The table is bounded. When it is full, a neighbour that nothing has been sent to since the last look gives way, so that a flood of strangers
//! pushes out strangers. What a neighbour says of itself is believed when it asks this stack for its address or answers its question (RFC 826);
//! anything else only changes what is in the table already. An entry that has grown old is still used while the neighbour is asked again.
//! Operations take constant time, but for two that look at each entry once at most: making room for a neighbour, and forgetting an absent one.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use hashbrown::HashMap;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::EthernetAddress;

use super::demultiplex::Keyed;

/// Neighbours asked for at once at most; flows to others try again, and datagrams to others are dropped.
const MOST_ASKED: usize = 256;
/// As many again may be asked for when who waits cannot be made up by strangers, who would otherwise keep all others from being asked for.
const MOST_ASKED_SURELY: usize = 2 * MOST_ASKED;
/// Strangers asked for within an interval at most, those that have answered counted.
const MOST_SCHEDULED: usize = 4 * MOST_ASKED;
/// Datagrams held for a neighbour that is being asked for at most, as Linux held traditionally; later ones are dropped.
const MOST_DATAGRAMS: usize = 3;
/// Between two requests: RFC 1122, section 2.3.2.1, recommends one a second at most.
const INTERVAL: Duration = Duration::from_secs(1);
/// Requests before a neighbour counts as absent, as Linux asks (`mcast_solicit`).
const ATTEMPTS: u8 = 3;
/// After how long an entry in use is asked for again: RFC 1122, section 2.3.2.1, suggests on the order of a minute.
const FRESH_FOR: Duration = Duration::from_secs(60);

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

struct Known {
    hardware: EthernetAddress,
    /// When it wants to be asked for again.
    stale: Instant,
    /// Something has been sent there since the hand went by.
    used: bool,
}

struct Asked {
    attempts: u8,
    /// When to ask again or give up.
    next: Instant,
    waiting: Waiting,
}

pub(super) struct Neighbours {
    most: usize,
    known: HashMap<Ipv4Addr, Known, Keyed>,
    /// The addresses in `known`, in the order in which they are looked at when one must give way.
    clock: VecDeque<Ipv4Addr>,
    asked: HashMap<Ipv4Addr, Asked, Keyed>,
    /// When to ask again or give up, earliest first, as all intervals are the same.
    schedule: VecDeque<(Instant, Ipv4Addr)>,
    /// Neighbours to ask for the first time, at once.
    new: Vec<Ipv4Addr>,
}

impl Neighbours {
    /// A table of `most` neighbours.
    pub(super) fn new(keyed: Keyed, most: usize) -> Self {
        Self {
            most: most.max(1),
            known: HashMap::with_hasher(keyed),
            clock: VecDeque::new(),
            asked: HashMap::with_hasher(keyed),
            schedule: VecDeque::new(),
            new: Vec::new(),
        }
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// The hardware address of `neighbour`, if it is known.
    pub(super) fn find(&mut self, neighbour: Ipv4Addr, now: Instant) -> Option<EthernetAddress> {
        let known = self.known.get_mut(&neighbour)?;
        known.used = true;
        let (hardware, is_stale) = (known.hardware, known.stale <= now);
        if is_stale && !self.asked.contains_key(&neighbour) {
            self.ask(neighbour, true);
        }
        Some(hardware)
    }

    /// `neighbour` has said what its hardware address is; `solicited` when to this stack, or when it is being asked for. Gives what waited for it.
    pub(super) fn learn(&mut self, neighbour: Ipv4Addr, hardware: EthernetAddress, solicited: bool, now: Instant) -> Waiting {
        if let Some(known) = self.known.get_mut(&neighbour) {
            known.hardware = hardware;
            known.stale = now + FRESH_FOR;
        } else if solicited || self.asked.contains_key(&neighbour) {
            self.insert(neighbour, hardware, now);
        } else {
            return Waiting::default();
        }
        self.asked.remove(&neighbour).map(|asked| asked.waiting).unwrap_or_default()
    }

    fn insert(&mut self, neighbour: Ipv4Addr, hardware: EthernetAddress, now: Instant) {
        if self.known.len() >= self.most {
            // After one turn the first has lost its mark.
            for _ in 0..=self.clock.len() {
                let Some(candidate) = self.clock.pop_front() else { break };
                if self.known.get_mut(&candidate).is_some_and(|known| core::mem::take(&mut known.used)) {
                    self.clock.push_back(candidate);
                } else {
                    self.known.remove(&candidate);
                    break;
                }
            }
        }
        self.known.insert(neighbour, Known { hardware, stale: now + FRESH_FOR, used: false });
        self.clock.push_back(neighbour);
    }

    /// Lets `flow` wait for `neighbour`, `surely` when no stranger can have made it up; a flow waits for one at most. False when too many are asked for
    /// already.
    pub(super) fn await_for_flow(&mut self, neighbour: Ipv4Addr, flow: u32, surely: bool) -> bool {
        let asked = self.ask(neighbour, surely);
        if let Some(asked) = asked {
            asked.waiting.flows.push(flow);
            return true;
        }
        false
    }

    /// Lets a datagram wait for `neighbour`, `surely` when no stranger can have chosen that. False when it is dropped, as too many wait already.
    pub(super) fn await_for_datagram(&mut self, neighbour: Ipv4Addr, datagram: Datagram, surely: bool) -> bool {
        match self.ask(neighbour, surely) {
            Some(asked) if asked.waiting.datagrams.len() < MOST_DATAGRAMS => {
                asked.waiting.datagrams.push(datagram);
                true
            }
            _ => false,
        }
    }

    fn ask(&mut self, neighbour: Ipv4Addr, surely: bool) -> Option<&mut Asked> {
        if !self.asked.contains_key(&neighbour) {
            // Those that were asked for and have answered stay in the schedule for an interval.
            let is_crowded = self.asked.len() >= MOST_ASKED || self.schedule.len() >= MOST_SCHEDULED;
            if self.asked.len() >= MOST_ASKED_SURELY || is_crowded && !surely {
                return None;
            }
            self.asked.insert(neighbour, Asked { attempts: 0, next: Instant::ZERO, waiting: Waiting::default() });
            self.new.push(neighbour);
        }
        self.asked.get_mut(&neighbour)
    }

    /// When [`due`](Self::due) wants to be called next.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.new.is_empty() { self.schedule.front().map(|&(when, _)| when) } else { Some(Instant::ZERO) }
    }

    /// The next neighbour to ask for, or what waited for one that does not answer, if there is something to do by now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let (when, neighbour) = match self.new.pop() {
            Some(neighbour) => (Instant::ZERO, neighbour),
            None if self.schedule.front().is_some_and(|&(when, _)| when <= now) => self.schedule.pop_front()?,
            None => return None,
        };
        let Some(asked) = self.asked.get_mut(&neighbour).filter(|asked| asked.next == when) else { return Some(Due::Nothing) };
        if asked.attempts >= ATTEMPTS {
            let waiting = self.asked.remove(&neighbour).map(|asked| asked.waiting).unwrap_or_default();
            // What was known of it is no longer true. Its place on the clock goes with its turn.
            if self.known.remove(&neighbour).is_some() {
                self.clock.retain(|&other| other != neighbour);
            }
            return Some(Due::Absent(waiting));
        }
        asked.attempts += 1;
        asked.next = now + INTERVAL;
        self.schedule.push_back((asked.next, neighbour));
        Some(Due::Ask(neighbour))
    }
}

/// What is to be done about a neighbour.
pub(super) enum Due {
    /// Ask for it.
    Ask(Ipv4Addr),
    /// It does not answer: this waited for it.
    Absent(Waiting),
    /// It has answered in time.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 9]);
    const NOW: Instant = Instant::ZERO;

    fn host(number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + number)
    }

    #[test]
    fn a_flood_of_strangers_does_not_push_out_neighbours_in_use() {
        let mut neighbours = Neighbours::new(Keyed(1, 2), 256);
        for number in 0..128 {
            neighbours.learn(host(number), HARDWARE, true, NOW);
        }
        for stranger in 1000..11_000 {
            neighbours.learn(host(stranger), HARDWARE, true, NOW);
            assert!(neighbours.len() <= 256 && neighbours.clock.len() == neighbours.len());
            if stranger % 50 == 0 {
                assert!((0..128).all(|number| neighbours.find(host(number), NOW) == Some(HARDWARE)), "after {stranger}");
            }
        }
    }

    #[test]
    fn an_unsolicited_answer_changes_only_what_is_known() {
        let mut neighbours = Neighbours::new(Keyed(1, 2), 256);
        neighbours.learn(host(1), HARDWARE, false, NOW);
        assert_eq!(neighbours.find(host(1), NOW), None);
        neighbours.learn(host(1), HARDWARE, true, NOW);
        let moved = EthernetAddress([2, 0, 0, 0, 0, 10]);
        neighbours.learn(host(1), moved, false, NOW);
        assert_eq!(neighbours.find(host(1), NOW), Some(moved));
    }

    #[test]
    fn an_old_entry_is_used_while_the_neighbour_is_asked_again_and_dropped_when_it_is_absent() {
        let mut neighbours = Neighbours::new(Keyed(1, 2), 256);
        neighbours.learn(host(1), HARDWARE, true, NOW);
        assert_eq!(neighbours.next(), None);
        let mut now = NOW + FRESH_FOR;
        assert_eq!(neighbours.find(host(1), now), Some(HARDWARE));
        for _ in 0..ATTEMPTS {
            assert!(matches!(neighbours.due(now), Some(Due::Ask(neighbour)) if neighbour == host(1)));
            assert_eq!(neighbours.find(host(1), now), Some(HARDWARE));
            assert!(neighbours.due(now).is_none());
            now += INTERVAL;
            assert_eq!(neighbours.next(), Some(now));
        }
        assert!(matches!(neighbours.due(now), Some(Due::Absent(_))));
        assert_eq!((neighbours.find(host(1), now), neighbours.next()), (None, None));
    }
}
