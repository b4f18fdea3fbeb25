//! The network devices' frames over the [`Ring`]: buffers, reads ahead of their use, and sends in batches.
//!
//! A device asks for several frames at once, while a stream lasts for ever more of them, and again while the last ones are being worked on. An
//! answer "nothing there" makes it *dry*: it asks no more until the tender says that frames wait. Nothing tells the image that an answer has come,
//! so whoever waits has to look as long as reads are under way ([`Frames::are_under_way`]).
//!
//! A buffer belongs to the tender while its read is under way, to the reader while it holds the frame, and to nobody otherwise; likewise for
//! sends, whose buffers come back in order.
//! Limit: buffers are never given back, as a device is had once.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::ring::{Commit, Ring, RingError, Transfer};

/// Reads that a device asks for at first, and when little comes. An answer "nothing there" costs the tender a system call.
const SMALLEST_BURST: usize = 8;

/// The fewest and the most reads of a device, and as many sends, that can be under way at a time.
const BUFFERS: (usize, usize) = (2 * SMALLEST_BURST, 128);

/// All devices on the ring.
pub(crate) struct Frames {
    ring: Ring,
    devices: Vec<Device>,
    /// The reads of all devices; a read's id is its index.
    reads: Vec<Read>,
    error_taken: bool,
}

/// A buffer: an address rather than a reference, since the tender writes there too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    address: *mut u8,
    size: usize,
}

// SAFETY: a buffer is memory that is never given back, and no thread owns it; who may use it when is what this module keeps track of.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new(size: usize) -> Self {
        Self { address: Box::leak(vec![0; size].into_boxed_slice()).as_mut_ptr(), size }
    }

    /// The buffer's first `length` bytes, or all of it if it has fewer.
    ///
    /// # Safety
    /// The buffer is the caller's as long as the result is used, which is the only one at a time.
    pub(crate) unsafe fn bytes<'a>(self, length: usize) -> &'a mut [u8] {
        // SAFETY: the memory is that long, lives for ever, and is the caller's.
        unsafe { core::slice::from_raw_parts_mut(self.address, length.min(self.size)) }
    }

    fn transfer(self, handle: u8, length: usize, id: u32) -> Transfer {
        Transfer { device: handle.into(), data: self.address.expose_provenance() as u64, length: length as u32, id }
    }
}

struct Device {
    handle: u8,
    /// Reads whose buffers are nobody's.
    free: Vec<u32>,
    /// Frames that have come.
    arrived: VecDeque<Arrived>,
    under_way: usize,
    /// Reads to ask for next time, and the most that they may become.
    burst: usize,
    largest_burst: usize,
    /// The last answer was "nothing there".
    dry: bool,
    sends: Vec<OutBuffer>,
    next_send: usize,
}

struct Read {
    device: usize,
    buffer: Buffer,
    under_way: bool,
}

struct OutBuffer {
    buffer: Buffer,
    /// The ring's entry that sent it last: once the tender has taken that, the buffer is nobody's.
    entry: Option<u32>,
}

/// A frame that has come, in a buffer that is the holder's until [`Frames::give_back`].
#[derive(Debug)]
pub(crate) struct Arrived {
    read: u32,
    pub(crate) buffer: Buffer,
    pub(crate) length: usize,
}

impl Frames {
    pub(crate) const fn new(ring: Ring) -> Self {
        Self { ring, devices: Vec::new(), reads: Vec::new(), error_taken: false }
    }

    /// Adds the device that the manifest calls `handle`, for frames of `frame_size` bytes at most. `budget` is about how many bytes its buffers may
    /// take each way. Gives its index here.
    pub(crate) fn add(&mut self, handle: u8, frame_size: usize, budget: usize) -> usize {
        let (fewest, most) = BUFFERS;
        let count = (budget / frame_size.max(1)).clamp(fewest, most);
        let device = self.devices.len();
        let first = self.reads.len() as u32;
        self.reads.extend((0..count).map(|_| Read { device, buffer: Buffer::new(frame_size), under_way: false }));
        self.devices.push(Device {
            handle,
            free: (first..self.reads.len() as u32).collect(),
            arrived: VecDeque::with_capacity(count),
            under_way: 0,
            burst: SMALLEST_BURST,
            largest_burst: count / 2,
            dry: false,
            sends: (0..count).map(|_| OutBuffer { buffer: Buffer::new(frame_size), entry: None }).collect(),
            next_send: 0,
        });
        device
    }

    /// What broke the ring, once.
    pub(crate) fn take_error(&mut self) -> Option<RingError> {
        let error = self.ring.broken().filter(|_| !self.error_taken);
        self.error_taken |= error.is_some();
        error
    }

    /// True when no frame will ever come or go.
    pub(crate) const fn is_broken(&self) -> bool {
        self.ring.broken().is_some()
    }

    /// True while answers are to be expected, for which somebody has to look.
    pub(crate) const fn are_under_way(&self) -> bool {
        self.ring.reads_under_way() > 0
    }

    /// True when some device hears of frames from the tender's poll alone.
    pub(crate) fn is_any_dry(&self) -> bool {
        self.devices.iter().any(|device| device.dry)
    }

    /// The tender says that frames wait at the devices in `handles`, a bit each.
    pub(crate) fn notify(&mut self, handles: u64) {
        for device in self.devices.iter_mut().filter(|device| handles >> device.handle & 1 != 0) {
            device.dry = false;
        }
    }

    /// Takes the tender's answers. Gives the handles, a bit each, of the devices that got frames.
    pub(crate) fn collect(&mut self) -> u64 {
        let mut handles = 0;
        while let Some(commit) = self.ring.next_commit() {
            match self.accept(commit) {
                Some(handle) => handles |= handle,
                None => self.ring.refuse(commit),
            }
        }
        handles
    }

    /// Takes one answer: the bit of the device if it got a frame, 0 if not, `None` if the answer is to nothing that was asked.
    fn accept(&mut self, Commit { id, frame }: Commit) -> Option<u64> {
        let read = self.reads.get_mut(id as usize).filter(|read| read.under_way)?;
        let length = frame.map_or(0, |length| length as usize);
        if length > read.buffer.size {
            return None;
        }
        let device = &mut self.devices[read.device];
        read.under_way = false;
        device.under_way -= 1;
        if length > 0 {
            device.arrived.push_back(Arrived { read: id, buffer: read.buffer, length });
            return Some(1 << device.handle);
        }
        device.dry = true;
        device.burst = (device.burst / 2).max(SMALLEST_BURST);
        device.free.push(id);
        Some(0)
    }

    /// True when [`receive`](Self::receive) would give a frame or ask for some.
    pub(crate) fn may_hold(&mut self, device: usize) -> bool {
        let device = &self.devices[device];
        !device.arrived.is_empty() || (!device.dry && device.under_way == 0 && !self.is_broken())
    }

    /// Takes the next frame that has come, and asks for more when all that was asked for has come too. True when the doorbell has to ring.
    pub(crate) fn receive(&mut self, device: usize) -> (Option<Arrived>, bool) {
        let state = &mut self.devices[device];
        let arrived = state.arrived.pop_front();
        let ask = !state.dry && state.under_way == 0 && state.free.len() >= state.burst;
        (arrived, ask && self.ask(device))
    }

    /// Gives the buffer of a frame back.
    pub(crate) fn give_back(&mut self, device: usize, frame: Arrived) {
        self.devices[device].free.push(frame.read);
    }

    fn ask(&mut self, device: usize) -> bool {
        let device = &mut self.devices[device];
        for _ in 0..device.burst {
            let Some(id) = device.free.pop() else { break };
            let read = &mut self.reads[id as usize];
            if !self.ring.read(read.buffer.transfer(device.handle, read.buffer.size, id)) {
                device.free.push(id);
                break;
            }
            read.under_way = true;
            device.under_way += 1;
        }
        device.burst = (device.burst * 2).min(device.largest_burst);
        self.ring.publish()
    }

    /// The buffer for the next frame to send, which is the caller's until [`send`](Self::send) or the next call of this; `None` when the tender has not sent
    /// enough of the former ones yet.
    pub(crate) fn out_buffer(&mut self, device: usize) -> Option<Buffer> {
        let device = &self.devices[device];
        let next = &device.sends[device.next_send];
        let free = next.entry.is_none_or(|entry| self.ring.has_taken(entry));
        (free && self.ring.room() > 0).then_some(next.buffer)
    }

    /// Sends the first `length` bytes of the buffer that [`out_buffer`](Self::out_buffer) gave last, at the next [`publish`](Self::publish).
    pub(crate) fn send(&mut self, device: usize, length: usize) {
        let device = &mut self.devices[device];
        let next = &mut device.sends[device.next_send];
        let entry = self.ring.position();
        if self.ring.write(next.buffer.transfer(device.handle, length.min(next.buffer.size), 0)) {
            next.entry = Some(entry);
            device.next_send = (device.next_send + 1) % device.sends.len();
        }
    }

    /// Shows the tender all that was sent. True when the doorbell has to ring.
    pub(crate) fn publish(&mut self) -> bool {
        self.ring.publish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::simulated::{Tender, shared};
    use proptest::prelude::*;

    const SIZE: usize = 100;
    const OK: i32 = 0;
    const AGAIN: i32 = 1;

    /// Two devices, 3 and 5, with 16 buffers each way.
    fn frames() -> (Frames, Tender) {
        let shared = shared(0);
        let mut frames = Frames::new(Ring::new(shared));
        assert_eq!((frames.add(3, SIZE, 16 * SIZE), frames.add(5, SIZE, 0)), (0, 1));
        (frames, Tender(shared))
    }

    fn first_byte(arrived: &Arrived) -> u8 {
        // SAFETY: the frame is the test's until it gives it back.
        unsafe { arrived.buffer.bytes(1)[0] }
    }

    /// Answers all reads: the first `count` with frames whose first bytes count up from `first`.
    fn answer(tender: &Tender, count: u8, first: u8) -> u8 {
        let mut given = 0;
        while let Some((_, id, data)) = tender.take() {
            if given < count {
                // SAFETY: the read's buffer is the tender's until it has answered.
                unsafe { *core::ptr::with_exposed_provenance_mut::<u8>(data as usize) = first.wrapping_add(given) };
                tender.commit(id, OK, 60);
                given += 1;
            } else {
                tender.commit(id, AGAIN, 0);
            }
        }
        given
    }

    #[test]
    fn frames_arrive_in_order_at_their_device_until_it_is_dry() {
        let (mut frames, tender) = frames();
        assert!(frames.may_hold(0) && frames.may_hold(1));
        assert!(frames.receive(0).0.is_none());
        assert!(frames.are_under_way() && !frames.may_hold(0), "nothing to do until answers come");
        assert_eq!(answer(&tender, 3, 10), 3);
        assert_eq!(frames.collect(), 1 << 3);
        assert!(frames.is_any_dry() && !frames.are_under_way());
        for expected in 10..13 {
            assert!(frames.may_hold(0));
            let arrived = frames.receive(0).0.unwrap();
            assert_eq!((first_byte(&arrived), arrived.length), (expected, 60));
            frames.give_back(0, arrived);
        }
        assert!(!frames.may_hold(0) && frames.receive(0).0.is_none() && !frames.are_under_way(), "a dry device asks for nothing");
        frames.notify(1 << 5);
        assert!(!frames.may_hold(0));
        frames.notify(1 << 3);
        assert!(frames.may_hold(0));
    }

    #[test]
    fn a_stream_is_read_ahead_and_buffers_that_are_held_are_not_written_to() {
        let (mut frames, tender) = frames();
        let _ = frames.receive(0);
        assert_eq!(answer(&tender, u8::MAX, 0), 8);
        assert_eq!(frames.collect(), 1 << 3);
        let held = frames.receive(0).0.unwrap();
        assert!(frames.are_under_way(), "more is asked for while the frames are worked on");
        assert_eq!(answer(&tender, u8::MAX, 100), 8);
        assert_eq!(first_byte(&held), 0);
        frames.give_back(0, held);
        frames.collect();
        let rest: Vec<u8> = core::iter::from_fn(|| {
            let arrived = frames.receive(0).0?;
            let byte = first_byte(&arrived);
            frames.give_back(0, arrived);
            Some(byte)
        })
        .take(15)
        .collect();
        assert_eq!(rest, (1..8).chain(100..108).collect::<Vec<u8>>());
    }

    #[test]
    fn sends_wait_for_the_tender_and_their_buffers_come_back_in_order() {
        let (mut frames, tender) = frames();
        let first = frames.out_buffer(0).unwrap();
        for _ in 0..16 {
            assert!(frames.out_buffer(0).is_some());
            frames.send(0, 60);
        }
        assert!(frames.out_buffer(0).is_none() && frames.out_buffer(1).is_some());
        assert!(tender.take().is_none(), "held back until published");
        frames.publish();
        assert_eq!(tender.take().unwrap().2, first.address.addr() as u64);
        assert_eq!(frames.out_buffer(0), Some(first));
    }

    #[test]
    fn a_wrong_answer_breaks_the_ring_and_is_reported_once() {
        for (wrong_id, length) in [(1000, 60), (0, 60), (15, SIZE as u32 + 1)] {
            let (mut frames, tender) = frames();
            let _ = frames.receive(0);
            // The last read of the device is asked for first; read 0 is not under way.
            assert_eq!(tender.take().unwrap().1, 15);
            tender.commit(wrong_id, OK, length);
            assert_eq!(frames.collect(), 0);
            assert_eq!(frames.take_error(), Some(RingError::Answer { id: wrong_id, length }));
            assert_eq!(frames.take_error(), None);
            assert!(frames.is_broken() && !frames.are_under_way() && frames.out_buffer(0).is_none());
            assert!(frames.receive(0).0.is_none() && !frames.may_hold(1));
        }
    }

    proptest! {
        #[test]
        fn no_frame_is_lost_or_doubled(steps in prop::collection::vec((0_u8..5, 0_u8..20), 1..400)) {
            let (mut frames, tender) = frames();
            let (mut sent, mut received) = (0_u8, 0_u8);
            let mut held = Vec::new();
            for (step, count) in steps {
                match step {
                    0 => sent = sent.wrapping_add(answer(&tender, count, sent)),
                    1 => { frames.collect(); }
                    2 => frames.notify(u64::MAX),
                    3 => if let Some(arrived) = frames.receive(0).0 {
                        prop_assert_eq!(first_byte(&arrived), received);
                        received = received.wrapping_add(1);
                        held.push((arrived, received.wrapping_sub(1)));
                    },
                    _ => while let Some((arrived, byte)) = held.pop() {
                        prop_assert_eq!(first_byte(&arrived), byte, "a held frame was written to");
                        frames.give_back(0, arrived);
                    },
                }
                prop_assert!(frames.take_error().is_none());
            }
        }
    }
}
