//! A network in memory, for tests: frame devices, and stacks on them, joined by a switch.
//!
//! Everything depends on the node's seed alone: time is the node's clock, under `fogbow::simulation` a virtual one that takes no real time, and
//! what happens to frames ([`Impairment`]) is drawn from the node's randomness. A whole exchange between any number of stacks replays bit for bit
//! from its seed, and what went over the switch can be kept as a file for Wireshark ([`Switch::capture`]).
//!
//! ```
//! use embedded_io_async::{Read, Write};
//! use fogbow::simulation::Simulation;
//! use fogbow_net::simulation::{Impairment, Network};
//! use fogbow_net::{Listener, Stack};
//!
//! Simulation::new(7).block_on(async {
//!     let network = Network::new();
//!     network.switch().impair(Impairment { lost: Impairment::PERCENT, ..Impairment::default() });
//!     let (server, client) = (network.stack(1), network.stack(2));
//!     let mut listener = server.listen(7).unwrap();
//!     let connecting = fogbow::spawn(async move { client.connect(Network::at(1, 7)).await.unwrap() });
//!     let mut accepted = listener.accept().await.unwrap();
//!     accepted.write_all(b"hello").await.unwrap();
//!     let mut buffer = [0; 8];
//!     assert_eq!(connecting.await.read(&mut buffer).await, Ok(5));
//! });
//! ```

mod impairment;
#[cfg(feature = "direct")]
mod network;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use fogbow::time::{self, Instant, Sleep};

use crate::frame::{
    Checksums, ETHERNET_HEADER, Finish, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter, MacAddress, Offload, software,
};
pub use impairment::{Impairment, Link};
#[cfg(feature = "direct")]
pub use network::Network;

/// A switch that joins devices. Cloning gives another handle to it.
#[derive(Clone, Default)]
pub struct Switch(Rc<RefCell<Wiring>>);

#[derive(Default)]
struct Wiring {
    impairment: Impairment,
    ports: Vec<Port>,
    frames: u64,
    unused: Vec<Vec<u8>>,
    capture: Option<Capture>,
}

struct Port {
    info: FrameInfo,
    /// What happens to frames from and to this port, instead of what happens to all.
    impairment: Option<Impairment>,
    /// What is sent to this port.
    link: Link,
    waker: Option<Waker>,
}

/// A record of all frames that devices send, lost ones included. It goes on as long as the switch.
#[derive(Clone)]
pub struct Capture(Rc<RefCell<Vec<u8>>>);

impl Capture {
    /// The record so far, as a file that Wireshark and tcpdump read. Its times are the node's wall clock.
    #[must_use]
    pub fn to_pcap(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }

    fn add(&self, frame: &[u8]) {
        let mut file = self.0.borrow_mut();
        file.extend_from_slice(&fogbow_pcap::record(time::wall().as_unix_nanos(), frame.len()));
        file.extend_from_slice(frame);
    }
}

impl Switch {
    /// A switch without devices, whose frames arrive at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets frames fare as `impairment` says from now on.
    pub fn impair(&self, impairment: Impairment) {
        self.0.borrow_mut().impairment = impairment;
    }

    /// Lets frames from and to the device with the address `mac` fare as `impairment` says from now on, or as those of all others again.
    /// [`Impairment::UNPLUGGED`] takes it off the network.
    pub fn impair_link(&self, mac: MacAddress, impairment: Option<Impairment>) {
        let mut wiring = self.0.borrow_mut();
        if let Some(port) = wiring.find(&mac.0).and_then(|port| wiring.ports.get_mut(port)) {
            port.impairment = impairment;
        }
    }

    /// A device at this switch. Its hardware address is `02:00:00:00:NN:NN`, numbered from 1.
    #[must_use]
    pub fn device(&self, mtu: usize) -> Device {
        self.device_with(mtu, Offload::default())
    }

    /// As [`device`](Self::device), one that offers `offload`. What such a device sends reaches another that can take it as it is; for any other the
    /// switch does what is left to do, so that a large frame becomes several on the way.
    #[must_use]
    pub fn device_with(&self, mtu: usize, offload: Offload) -> Device {
        let mut wiring = self.0.borrow_mut();
        let port = wiring.ports.len();
        let [.., high, low] = (port + 1).to_be_bytes();
        let info = FrameInfo { mac: MacAddress([2, 0, 0, 0, high, low]), mtu, offload };
        wiring.ports.push(Port { info, impairment: None, link: Link::default(), waker: None });
        Device { receiver: Receiver { switch: self.clone(), port, sleep: None }, transmitter: Transmitter { switch: self.clone(), port } }
    }

    /// How many frames have been sent so far, lost ones included.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.0.borrow().frames
    }

    /// How many copies of frames have been lost so far, on purpose or because a queue was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.borrow().ports.iter().map(|port| port.link.lost()).sum()
    }

    /// Records all frames from now on.
    #[must_use]
    pub fn capture(&self) -> Capture {
        let capture = Capture(Rc::new(RefCell::new(fogbow_pcap::HEADER.to_vec())));
        self.0.borrow_mut().capture = Some(capture.clone());
        capture
    }

    /// Sends a frame from the device at `port`, the one it came from.
    fn send(&self, port: usize, mut frame: Vec<u8>, finish: Finish) {
        let mut wiring = self.0.borrow_mut();
        wiring.frames += 1;
        if let Some(capture) = &wiring.capture {
            capture.add(&frame);
        }
        // A frame too short for an address goes to everyone too, so that tests can send any.
        match frame.first_chunk::<6>() {
            Some(address) if address[0] & 1 == 0 => {
                if let Some(other) = wiring.find(address).filter(|&other| other != port) {
                    wiring.forward(port, other, &mut frame, finish);
                }
            }
            _ => (0..wiring.ports.len()).filter(|&other| other != port).for_each(|other| wiring.forward(port, other, &mut frame, finish)),
        }
        wiring.unused.push(frame);
    }
}

impl Wiring {
    /// The port of the device with the address given.
    fn find(&self, mac: &[u8; 6]) -> Option<usize> {
        let [2, 0, 0, 0, high, low] = *mac else { return None };
        usize::from(u16::from_be_bytes([high, low])).checked_sub(1).filter(|&port| port < self.ports.len())
    }

    fn impairment(&self, from: usize, to: usize) -> Impairment {
        self.ports[from].impairment.or(self.ports[to].impairment).unwrap_or(self.impairment)
    }

    /// Delivers a frame as it is where the device can take it, and what it becomes in software otherwise.
    fn forward(&mut self, from: usize, to: usize, frame: &mut [u8], finish: Finish) {
        let offload = self.ports[to].info.offload;
        let is_taken = match finish {
            Finish::Nothing => return self.deliver(from, to, frame, Checksums::Unknown),
            Finish::Checksum { .. } => offload.checksum,
            Finish::Segments { .. } => frame.len() - ETHERNET_HEADER <= offload.reassembly,
        };
        // What is corrupted on the way must not pass for verified.
        if is_taken && self.impairment(from, to).corrupted == 0 {
            return self.deliver(from, to, frame, Checksums::Verified);
        }
        software::apply(frame, finish, |frame| self.deliver(from, to, frame, Checksums::Unknown));
    }

    fn deliver(&mut self, from: usize, to: usize, frame: &[u8], checksums: Checksums) {
        let impairment = self.impairment(from, to);
        let port = &mut self.ports[to];
        // A simulated node always has randomness.
        let mut draw = || fogbow::random::next_u64().unwrap_or(0);
        if port.link.send(frame, checksums, &impairment, time::now(), &mut draw) {
            port.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// A frame device at a [`Switch`].
pub struct Device {
    receiver: Receiver,
    transmitter: Transmitter,
}

impl Device {
    /// Puts a frame on the wire, as it is.
    pub fn send(&mut self, frame: &[u8]) {
        self.transmitter.switch.send(self.transmitter.port, Vec::from(frame), Finish::Nothing);
    }

    /// Takes the next frame that has arrived, if one has.
    pub fn try_receive(&mut self) -> Option<Vec<u8>> {
        self.receiver.receive(|frame, _| Vec::from(&*frame))
    }

    /// Waits for the next frame.
    pub async fn receive(&mut self) -> Vec<u8> {
        loop {
            poll_fn(|context| self.receiver.poll_ready(context)).await;
            if let Some(frame) = self.try_receive() {
                return frame;
            }
        }
    }
}

impl FrameDevice for Device {
    type Receiver = Receiver;
    type Transmitter = Transmitter;

    fn info(&self) -> FrameInfo {
        self.receiver.switch.0.borrow().ports[self.receiver.port].info
    }

    fn split(self) -> (Receiver, Transmitter) {
        (self.receiver, self.transmitter)
    }
}

/// The receiver of a [`Device`].
pub struct Receiver {
    switch: Switch,
    port: usize,
    sleep: Option<Sleep>,
}

impl Receiver {
    fn next_arrival(&self) -> Option<Instant> {
        self.switch.0.borrow().ports[self.port].link.next_arrival()
    }
}

impl FrameReceiver for Receiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R> {
        let when = self.next_arrival()?;
        if when != Instant::default() && when > time::now() {
            return None;
        }
        let (mut frame, checksums) = self.switch.0.borrow_mut().ports[self.port].link.take()?;
        let result = consume(&mut frame, checksums);
        self.switch.0.borrow_mut().ports[self.port].link.reuse(frame);
        Some(result)
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.switch.0.borrow_mut().ports[self.port].waker = Some(context.waker().clone());
        let Some(when) = self.next_arrival() else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| time::sleep_until(when));
        if sleep.deadline() != when {
            sleep.reset(when);
        }
        Pin::new(sleep).poll(context)
    }
}

/// The transmitter of a [`Device`].
pub struct Transmitter {
    switch: Switch,
    port: usize,
}

impl FrameTransmitter for Transmitter {
    fn has_room(&mut self) -> bool {
        true
    }

    fn transmit<R>(&mut self, length: usize, finish: Finish, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut frame = {
            let mut wiring = self.switch.0.borrow_mut();
            let info = wiring.ports[self.port].info;
            let limit = if matches!(finish, Finish::Segments { .. }) { info.largest_sent() } else { ETHERNET_HEADER + info.mtu };
            assert!(length <= limit, "a frame of {length} bytes is longer than the device can send");
            assert!(finish == Finish::Nothing || info.offload.checksum, "the device offers nothing of that kind");
            wiring.unused.pop().unwrap_or_default()
        };
        frame.clear();
        frame.resize(length, 0);
        let result = fill(&mut frame);
        self.switch.send(self.port, frame, finish);
        result
    }

    fn flush(&mut self) {}
}

#[cfg(all(test, feature = "direct"))]
mod tests;
