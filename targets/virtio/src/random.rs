//! The random device (virtio 1.2, section 5.4): the host's random bytes for the image's generator.
//!
//! One buffer is always with the device, so that there are fresh bytes when the generator asks again, and nothing waits but the first time.

use crate::bind::RANDOM;
use crate::guest::Guest;
use crate::queue::{Piece, Queue};
use crate::slots::Slots;
use crate::transport::{Setup, SetupError};

/// Bytes asked for at a time: what a start of the generator wants.
const LENGTH: usize = fogbow::entropy::START_BYTES;

/// How long the device is waited for, in nanoseconds at a time, and how often: a second in all. Hosts give such bytes at once.
const WAIT: u64 = 10_000_000;
const WAITS: u32 = 100;

/// The machine's random device.
#[derive(Debug)]
pub(crate) struct Random {
    queue: Queue,
    slots: Slots,
}

impl Random {
    /// The first random device of the machine; `None` when there is none that works.
    pub(crate) fn find(guest: &Guest) -> Option<Self> {
        let found = guest.found().iter().find(|found| found.kind == RANDOM)?;
        let open = || {
            let transport = guest.open(*found)?;
            let mut setup = Setup::new(transport, |_| 0).map_err(Some)?;
            let mut random = Self { queue: setup.queue(0).map_err(Some)?, slots: Slots::new(LENGTH, 1) };
            guest.add(setup.finish());
            random.ask();
            Ok::<_, Option<SetupError>>(random)
        };
        match open() {
            Ok(random) => Some(random),
            Err(error) => {
                let error = error.as_ref().map_or(&"something has it already" as &dyn core::fmt::Display, |error| error);
                fogbow::log::warn!("random device at {}: {error}: it is not used", found.place);
                None
            }
        }
    }

    /// Gives the device the buffer.
    fn ask(&mut self) {
        let piece = Piece { address: self.slots.address(0), length: LENGTH as u32, writable: true };
        self.queue.ring().descriptors[0].set(piece, None);
        self.queue.offer(0, Some(LENGTH as u32));
        self.queue.publish();
    }

    /// Gives what the device has written to `collect`, and asks for more. With `patience`, waits for the device until it has.
    pub(crate) fn gather(&mut self, guest: &Guest, patience: bool, mut collect: impl FnMut(&[u8])) {
        let mut waits = if patience { WAITS } else { 0 };
        loop {
            match self.queue.take() {
                Ok(Some(used)) => {
                    // SAFETY: the device has given the buffer back, and has written no more than it holds.
                    collect(unsafe { self.slots.bytes(0, 0, used.length as usize) });
                    return self.ask();
                }
                Ok(None) if waits > 0 && !self.queue.is_broken() => {
                    waits -= 1;
                    guest.wait_for(self.queue.ring(), WAIT);
                }
                Ok(None) => return,
                Err(error) => {
                    fogbow::log::error!("{error}: no more is taken from this random device");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::tests::Device;
    use crate::queue::{Doorbell, QueueError};
    use std::vec::Vec;

    fn random() -> (Random, Device) {
        let bell = Doorbell::Half(crate::window::tests::memory(8), 0);
        let queue = Queue::new(8, true, |_| Ok::<_, QueueError>(bell)).unwrap();
        let device = Device::new(queue.ring());
        let mut random = Random { queue, slots: Slots::new(LENGTH, 1) };
        random.ask();
        (random, device)
    }

    fn gather(random: &mut Random) -> Vec<u8> {
        let mut all = Vec::new();
        random.gather(&crate::guest::tests::guest(), false, |bytes| all.extend_from_slice(bytes));
        all
    }

    #[test]
    fn what_the_device_wrote_is_given_once_and_no_more() {
        let (mut random, mut device) = random();
        assert_eq!(gather(&mut random), []);
        for length in [64, 1, 0] {
            let head = device.next().unwrap();
            // SAFETY: the test is the device.
            unsafe { random.slots.bytes(0, 0, LENGTH) }.fill(7);
            device.use_buffer(head.into(), length);
            device.publish();
            assert_eq!(gather(&mut random), [7].repeat(length as usize));
            assert_eq!(gather(&mut random), []);
        }
    }

    #[test]
    fn a_device_that_lies_gives_nothing() {
        let (mut random, mut device) = random();
        device.use_buffer(0, 65);
        device.publish();
        assert_eq!(gather(&mut random), []);
        assert_eq!(gather(&mut random), []);
    }
}
