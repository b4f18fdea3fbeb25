//! The address resolution protocol: what neighbours say and are asked (RFC 826), and that no two hosts have one address (RFC 5227).

use core::future::poll_fn;
use core::net::Ipv4Addr;

use fogbow::random;
use fogbow::time::{self, Duration};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;

use super::config::{DirectError, Ipv4Cidr, is_host};
use super::counters::{Cause, Statistics};
use super::demultiplex::{self, Frame, Message};
use super::device::Wire;
use super::engine::Engine;
use super::flow::{Flow, Holder};
use super::neighbours::Due;
use crate::frame::{FrameReceiver, FrameTransmitter, Offload};

/// Between two announcements in defence of the own address at least (RFC 5227, section 1.1, `DEFEND_INTERVAL`).
const DEFEND_INTERVAL: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(10);
/// Probes before an address is used (`PROBE_NUM`).
const PROBES: u32 = 3;
/// The longest wait before the first probe (`PROBE_WAIT`).
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// The shortest time between probes (`PROBE_MIN`); the longest is twice that (`PROBE_MAX`).
const PROBE_MIN: Duration = Duration::from_secs(1);
/// How long another may take to object to the last probe (`ANNOUNCE_WAIT`).
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// Other frames that are looked at in a row while probing.
const BATCH: usize = 64;

/// Asks the link whether another host has the address, as RFC 5227, section 2.1, says. Takes 4 to 7 seconds.
///
/// # Errors
/// [`DirectError::AddressInUse`] when one has.
pub(super) async fn probe<R: FrameReceiver, T: FrameTransmitter>(
    network: &Ipv4Cidr,
    mac: EthernetAddress,
    receiver: &mut R,
    transmitter: &mut T,
) -> Result<(), DirectError> {
    listen_for(random_up_to(PROBE_WAIT)?, network, mac, receiver).await?;
    for number in 1..=PROBES {
        let mut statistics = Statistics::default();
        Wire { transmitter, statistics: &mut statistics, mac, offload: Offload::default() }.ask_for(network.address, Ipv4Addr::UNSPECIFIED);
        transmitter.flush();
        let wait = if number == PROBES { ANNOUNCE_WAIT } else { PROBE_MIN + random_up_to(PROBE_MIN)? };
        listen_for(wait, network, mac, receiver).await?;
    }
    Ok(())
}

fn random_up_to(limit: Duration) -> Result<Duration, DirectError> {
    let number = random::next_u64().map_err(|_| DirectError::Entropy)?;
    Ok(Duration::from_nanos(number % (limit.as_nanos() as u64 + 1)))
}

/// Fails when, within `wait`, another host uses the address or asks for it as one that wants it too.
async fn listen_for<R: FrameReceiver>(
    wait: Duration,
    network: &Ipv4Cidr,
    mac: EthernetAddress,
    receiver: &mut R,
) -> Result<(), DirectError> {
    let is_claim = |frame: &mut [u8], checksums| match demultiplex::classify(frame, checksums, mac, network) {
        Ok(Frame::Arp(message)) => {
            let wants_it = message.is_request && message.sender.is_unspecified() && message.target == network.address;
            message.hardware != mac && (message.sender == network.address || wants_it)
        }
        _ => false,
    };
    let listening = async {
        loop {
            poll_fn(|context| receiver.poll_ready(context)).await;
            for _ in 0..BATCH {
                match receiver.receive(is_claim) {
                    Some(true) => return,
                    Some(false) => {}
                    None => break,
                }
            }
            fogbow::task::yield_now().await;
        }
    };
    match time::timeout(wait, listening).await {
        Ok(()) => Err(DirectError::AddressInUse),
        Err(_) => Ok(()),
    }
}

impl Engine {
    /// Tells the neighbours that this stack's address is here.
    pub(super) fn announce(&mut self, transmitter: &mut impl FrameTransmitter) {
        let own = self.config.ipv4.address;
        self.wire(transmitter).ask_for(own, own);
    }

    pub(super) fn ingress_arp(&mut self, message: &Message, transmitter: &mut impl FrameTransmitter) {
        let own = self.config.ipv4.address;
        let &Message { is_request, hardware, sender, target } = message;
        if sender == own {
            return self.defend(hardware, transmitter);
        }
        let is_for_us = target == own;
        if is_host(sender) && self.config.ipv4.contains(sender) && self.config.ipv4.broadcast() != Some(sender) {
            let waiting = self.neighbours.learn(sender, hardware, is_request && is_for_us, self.now);
            waiting.flows.into_iter().for_each(|id| self.retry(id));
            waiting.datagrams.into_iter().for_each(|datagram| self.enqueue_held(&datagram));
        }
        if is_request && is_for_us {
            self.wire(transmitter).answer_arp(own, hardware, sender);
        } else if !is_for_us {
            self.statistics.drops.count(Cause::NotForUs);
        }
    }

    /// Another host claims this stack's address: says that it is taken, as often as RFC 5227, section 2.4, allows.
    fn defend(&mut self, other: EthernetAddress, transmitter: &mut impl FrameTransmitter) {
        if other == self.mac {
            return;
        }
        self.statistics.address_conflicts += 1;
        if self.defended.is_none_or(|last| self.now >= last + DEFEND_INTERVAL) {
            self.defended = Some(self.now);
            log::warn!("{other} claims {}, the address of this stack: give one of the two another", self.config.ipv4.address);
            self.announce(transmitter);
        }
    }

    /// Lets a flow that waited for its next hop try again.
    fn retry(&mut self, id: u32) {
        if let Some(state) = self.flow(id).and_then(Flow::tcp) {
            state.awaiting = false;
            self.mark_dirty(id);
        }
    }

    /// Lets a TCP flow wait for its next hop's hardware address. Gives when to look again whatever comes.
    pub(super) fn await_neighbour(&mut self, id: u32, neighbour: Ipv4Addr) -> Instant {
        let Self { flows, neighbours, config, .. } = self;
        if let Some(state) = flows.get_mut(id as usize).and_then(|flow| flow.tcp())
            && !state.awaiting
        {
            // A request for a connection may come from nowhere, and in the name of any host of the network; the gateway is nobody's choice.
            let surely = !matches!(state.holder, Holder::Handshake(_)) || config.gateway == Some(neighbour);
            state.awaiting = neighbours.await_for_flow(neighbour, id, surely);
        }
        self.now + smoltcp::time::Duration::from_secs(1)
    }

    /// Asks for the neighbours that are wanted, and gives up those that do not answer.
    pub(super) fn ask_neighbours(&mut self, transmitter: &mut impl FrameTransmitter) {
        let own = self.config.ipv4.address;
        while let Some(due) = self.neighbours.due(self.now) {
            match due {
                Due::Ask(neighbour) => self.wire(transmitter).ask_for(neighbour, own),
                Due::Absent(waiting) => {
                    waiting.flows.into_iter().for_each(|id| self.retry(id));
                    for datagram in waiting.datagrams {
                        self.statistics.drops.count(Cause::NoNeighbour);
                        self.forget_held(datagram.flow);
                    }
                }
                Due::Nothing => {}
            }
        }
    }
}
