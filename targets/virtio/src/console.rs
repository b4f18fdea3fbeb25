//! The virtio console (virtio 1.2, section 5.3), which shows what the serial port shows.
//!
//! Each piece of text is waited for, as the serial port is, so that nothing is lost when the image ends. Limits: the first port, output alone; what comes
//! before the heap is there, and a fault's report, are on the serial port only.

use crate::bind::CONSOLE;
use crate::guest::Guest;
use crate::queue::{Piece, Queue};
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
    is_stuck: bool,
}

impl Console {
    /// The first console of the machine; `None` when there is none that works, which the serial port is there for.
    pub(crate) fn find(guest: &Guest) -> Option<Self> {
        let found = guest.found().iter().find(|found| found.kind == CONSOLE)?;
        let open = || {
            let transport = guest.open(*found)?;
            let setup = Setup::new(&*transport, |_| 0).map_err(Some)?;
            let (receive, queue) = (setup.queue(0).map_err(Some)?, setup.queue(TRANSMIT).map_err(Some)?);
            setup.finish();
            Ok::<_, Option<SetupError>>(Self { queue, _receive: receive, slots: Slots::new(LENGTH, 1), is_stuck: false })
        };
        open().ok()
    }

    /// Writes bytes, all of them, in order, unless the device does not take them.
    pub(crate) fn write(&mut self, guest: &Guest, bytes: &[u8]) {
        for piece in bytes.chunks(LENGTH) {
            if self.is_stuck {
                return;
            }
            // SAFETY: the device does not have the buffer: each piece is waited for, and none follows one that was waited for in vain.
            unsafe { self.slots.bytes(0, 0, piece.len()) }.copy_from_slice(piece);
            let piece = Piece { address: self.slots.address(0), length: piece.len() as u32, writable: false };
            self.queue.ring().descriptors[0].set(piece, None);
            self.queue.offer(0, 0);
            self.queue.publish();
            self.is_stuck = !self.wait(guest);
        }
    }

    /// Waits until the device has taken a piece; false if it does not, or lies.
    fn wait(&mut self, guest: &Guest) -> bool {
        for _ in 0..WAITS {
            match self.queue.take() {
                Ok(Some(_)) => return true,
                Ok(None) => guest.wait_for(self.queue.ring(), WAIT),
                Err(_) => return false,
            }
        }
        false
    }
}
