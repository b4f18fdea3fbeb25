//! A network in memory, for tests: frame devices joined by a switch.
//!
//! Without [`Impairment`] a frame arrives at once. With one, frames are lost, doubled and delayed as the randomness of the node decides
//! ([`fogbow::random`]), and time is the node's clock: under `fogbow::simulation` a run depends on its seed alone and takes no real time.

use alloc::collections::BinaryHeap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::cmp::Reverse;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use fogbow::time::{self, Duration, Instant, Sleep};

use crate::frame::{ETHERNET_HEADER, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter, MacAddress};

/// Frames that wait at a port at most; more are lost, as in a switch.
const QUEUE: usize = 4096;

/// What happens to frames on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Of a thousand frames so many are lost.
    pub lost: u16,
    /// Of a thousand frames so many arrive twice.
    pub doubled: u16,
    /// How long every frame takes.
    pub delay: Duration,
    /// A frame takes up to this much longer, each for itself, so that frames overtake each other.
    pub jitter: Duration,
}

/// A switch that joins devices. Cloning gives another handle to it.
#[derive(Clone, Default)]
pub struct Switch(Rc<RefCell<Wiring>>);

#[derive(Default)]
struct Wiring {
    impairment: Impairment,
    ports: Vec<Port>,
    frames: u64,
    unused: Vec<Vec<u8>>,
}

struct Port {
    info: FrameInfo,
    arriving: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    waker: Option<Waker>,
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

    /// A device at this switch. Its hardware address is `02:00:00:00:00:NN`, numbered from 1.
    #[must_use]
    pub fn device(&self, mtu: usize) -> Device {
        let mut wiring = self.0.borrow_mut();
        let port = wiring.ports.len();
        let [.., high, low] = (port + 1).to_be_bytes();
        let info = FrameInfo { mac: MacAddress([2, 0, 0, 0, high, low]), mtu };
        wiring.ports.push(Port { info, arriving: BinaryHeap::new(), waker: None });
        Device { receiver: Receiver { switch: self.clone(), port, sleep: None }, transmitter: Transmitter { switch: self.clone(), port } }
    }

    /// How many frames have been sent so far, lost ones included.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.0.borrow().frames
    }

    /// Sends a frame from the device at `port`, the one it came from.
    fn send(&self, port: usize, frame: Vec<u8>) {
        let mut wiring = self.0.borrow_mut();
        wiring.frames += 1;
        // A frame too short for an address goes to everyone too, so that tests can send any.
        let to_all = frame.get(..6).is_none_or(|address| address[0] & 1 == 1);
        for other in (0..wiring.ports.len()).filter(|&other| other != port) {
            if to_all {
                wiring.deliver(other, &frame);
            } else if wiring.ports[other].info.mac.0 == frame[..6] {
                wiring.deliver(other, &frame);
                break;
            }
        }
        wiring.unused.push(frame);
    }
}

impl Wiring {
    fn deliver(&mut self, port: usize, frame: &[u8]) {
        let Impairment { lost, doubled, delay, jitter } = self.impairment;
        if chance(lost) {
            return;
        }
        for _ in 0..if chance(doubled) { 2 } else { 1 } {
            let extra = if jitter.is_zero() { 0 } else { draw() % (jitter.as_nanos() as u64 + 1) };
            let when = if delay.is_zero() && extra == 0 { Instant::default() } else { time::now() + delay + Duration::from_nanos(extra) };
            let mut copy = self.unused.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(frame);
            let port = &mut self.ports[port];
            if port.arriving.len() < QUEUE {
                port.arriving.push(Reverse((when, self.frames, copy)));
            }
            if let Some(waker) = port.waker.take() {
                waker.wake();
            }
        }
    }
}

/// True in so many of a thousand cases.
fn chance(of_thousand: u16) -> bool {
    of_thousand > 0 && draw() % 1000 < u64::from(of_thousand)
}

/// A draw of the node's randomness, which a simulated node always has.
fn draw() -> u64 {
    fogbow::random::next_u64().unwrap_or(0)
}

/// A frame device at a [`Switch`].
pub struct Device {
    receiver: Receiver,
    transmitter: Transmitter,
}

impl Device {
    /// Puts a frame on the wire, as it is.
    pub fn send(&mut self, frame: &[u8]) {
        self.transmitter.switch.send(self.transmitter.port, Vec::from(frame));
    }

    /// Takes the next frame that has arrived, if one has.
    pub fn try_receive(&mut self) -> Option<Vec<u8>> {
        self.receiver.receive(|frame| Vec::from(&*frame))
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
        self.switch.0.borrow().ports[self.port].arriving.peek().map(|Reverse((when, ..))| *when)
    }
}

impl FrameReceiver for Receiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8]) -> R) -> Option<R> {
        let when = self.next_arrival()?;
        if when != Instant::default() && when > time::now() {
            return None;
        }
        let Reverse((.., mut frame)) = self.switch.0.borrow_mut().ports[self.port].arriving.pop()?;
        let result = consume(&mut frame);
        self.switch.0.borrow_mut().unused.push(frame);
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

    fn transmit<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut frame = {
            let mut wiring = self.switch.0.borrow_mut();
            assert!(length <= wiring.ports[self.port].info.mtu + ETHERNET_HEADER, "a frame of {length} bytes is longer than the MTU");
            wiring.unused.pop().unwrap_or_default()
        };
        frame.clear();
        frame.resize(length, 0);
        let result = fill(&mut frame);
        self.switch.send(self.port, frame);
        result
    }

    fn flush(&mut self) {}
}
