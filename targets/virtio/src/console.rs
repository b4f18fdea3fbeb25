//! The virtio console (virtio 1.2, section 5.3), which shows what the serial port shows.
//!
//! Each piece of text is waited for, as the serial port is, so that nothing is lost when the image ends. Limits: the first port, output alone; what comes
//! before the heap is there, and a fault's report, are on the serial port only.

use core::fmt;

use crate::bind::CONSOLE;
use crate::guest::Guest;
use crate::queue::{Piece, Queue, QueueError};
use crate::slots::Slots;
use crate::transport::{Setup, SetupError};

/// Bytes given to the device at a time.
const LENGTH: usize = 512;

/// The queue of the first port's output.
const TRANSMIT: u16 = 1;

/// How long the device is waited for, in nanoseconds at a time, and how often, before it counts as stuck: a second in all.
const WAIT: u64 = 10_000_000;
const WAITS: u32 = 100;

/// The machine's console.
#[derive(Debug)]
pub(crate) struct Console {
    queue: Queue,
    /// Never used, but a device may want it there.
    _receive: Queue,
    slots: Slots,
    is_given_up: bool,
}

/// Why a console is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsoleError {
    /// It has not taken a piece of text within a second.
    Stuck,
    /// It says what cannot be.
    Queue(QueueError),
}

impl fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuck => f.write_str("the device takes no text"),
            Self::Queue(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ConsoleError {}

impl Console {
    /// The first console of the machine; `None` when there is none that works, which the serial port is there for.
    pub(crate) fn find(guest: &Guest) -> Option<Self> {
        let found = guest.found().iter().find(|found| found.kind == CONSOLE)?;
        let open = || {
            let transport = guest.open(*found)?;
            let mut setup = Setup::new(transport, |_| 0).map_err(Some)?;
            let (receive, queue) = (setup.queue(0).map_err(Some)?, setup.queue(TRANSMIT).map_err(Some)?);
            guest.add(setup.finish());
            Ok::<_, Option<SetupError>>(Self { queue, _receive: receive, slots: Slots::new(LENGTH, 1), is_given_up: false })
        };
        open().ok()
    }

    /// Writes bytes, all of them, in order. A device that does not take them, or lies, is an error once, and then left alone.
    pub(crate) fn write(&mut self, guest: &Guest, bytes: &[u8]) -> Result<(), ConsoleError> {
        for piece in bytes.chunks(LENGTH) {
            if self.is_given_up {
                return Ok(());
            }
            // SAFETY: the device does not have the buffer: each piece is waited for, and none follows one that was waited for in vain.
            unsafe { self.slots.bytes(0, 0, piece.len()) }.copy_from_slice(piece);
            let piece = Piece { address: self.slots.address(0), length: piece.len() as u32, writable: false };
            self.queue.ring().descriptors[0].set(piece, None);
            self.queue.offer(0, None);
            self.queue.publish();
            let taken = self.wait(guest);
            self.is_given_up = taken.is_err();
            taken?;
        }
        Ok(())
    }

    /// Waits until the device has taken a piece.
    fn wait(&mut self, guest: &Guest) -> Result<(), ConsoleError> {
        for _ in 0..WAITS {
            match self.queue.take() {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => guest.wait_for(self.queue.ring(), WAIT),
                Err(error) => return Err(ConsoleError::Queue(error)),
            }
        }
        Err(ConsoleError::Stuck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::tests::guest;
    use crate::queue::tests::{Device, queue};

    fn console() -> (Console, Device) {
        let [queue, receive] = [(), ()].map(|()| queue(4, true).0);
        let device = Device::new(queue.ring());
        (Console { queue, _receive: receive, slots: Slots::new(LENGTH, 1), is_given_up: false }, device)
    }

    #[test]
    fn text_goes_out_in_pieces_that_the_device_takes() {
        let (mut console, mut device) = console();
        for text in [&b"Hello"[..], &[7; LENGTH]] {
            // Taken before it is looked for: nothing waits, which it could not here.
            device.use_buffer(0, 0);
            device.publish();
            assert_eq!(console.write(&guest(), text), Ok(()));
            let head = device.next().unwrap();
            let pieces = device.pieces(head);
            assert_eq!(pieces, [Piece { address: console.slots.address(0), length: text.len() as u32, writable: false }]);
            // SAFETY: the device has given the buffer back.
            assert_eq!(unsafe { console.slots.bytes(0, 0, text.len()) }, text);
        }
    }

    #[test]
    fn a_device_that_lies_is_an_error_once_and_left_alone() {
        for (head, length, error) in [(1, 0, QueueError::NotGiven { index: 1 }), (9, 0, QueueError::NotGiven { index: 9 })] {
            let (mut console, mut device) = console();
            device.use_buffer(head, length);
            device.publish();
            assert_eq!(console.write(&guest(), b"Hello"), Err(ConsoleError::Queue(error)));
            assert_eq!(device.next(), Some(0));
            assert_eq!(console.write(&guest(), b"Hello"), Ok(()));
            assert_eq!(device.next(), None, "it is given nothing more");
        }
    }
}
