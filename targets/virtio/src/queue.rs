//! Split virtqueues (virtio 1.2, section 2.7): how buffers go to a device and come back.
//!
//! The device is not trusted. What it writes is where used buffers stand: each index and length is checked before anything is done with it, and the
//! first that is wrong breaks the queue for good, with a reason. It is told only of memory that it has been given, and memory that it may ever write
//! is never freed.
//!
//! Notifications both ways are suppressed by `VIRTIO_F_EVENT_IDX` where the device offers it: the driver rings the bell only when the device has said
//! that it sleeps, and the device interrupts only a driver that is about to halt ([`Ring::arm`]).
//!
//! Limits: one thread; a descriptor is the driver's choice, there is no list of free ones here.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use virtio_spec::virtq::DescF;

use crate::window::Window;

/// The most entries that a queue gets here: as many as QEMU gives by default. More would only take memory.
pub(crate) const LARGEST: u16 = 256;

/// The device need not ring (`VIRTQ_USED_F_NO_NOTIFY`, in the used ring), the driver wants no interrupt (`VIRTQ_AVAIL_F_NO_INTERRUPT`).
const NO_NOTIFICATION: u16 = 1;

/// A descriptor: an address, then 32 bits of length, 16 of flags and 16 of the next one's index.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub(crate) struct Descriptor([AtomicU64; 2]);

/// A piece of memory for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) address: u64,
    pub(crate) length: u32,
    /// The device writes it; otherwise it reads it.
    pub(crate) writable: bool,
}

impl Descriptor {
    /// Describes `piece`, which the one at index `next` follows.
    pub(crate) fn set(&self, piece: Piece, next: Option<u16>) {
        let write = if piece.writable { DescF::WRITE } else { DescF::empty() };
        let flags = write | if next.is_some() { DescF::NEXT } else { DescF::empty() };
        self.fill(piece.address, piece.length, flags, next.unwrap_or(0));
    }

    fn fill(&self, address: u64, length: u32, flags: DescF, next: u16) {
        let rest = u64::from(length) | u64::from(flags.bits().to_ne()) << 32 | u64::from(next) << 48;
        self.0[0].store(address, Ordering::Relaxed);
        self.0[1].store(rest, Ordering::Relaxed);
    }
}

/// The memory that driver and device share: it stays for the life of the image.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) descriptors: Box<[Descriptor]>,
    /// Flags, index, an entry for each descriptor, and the index at whose use an interrupt is wanted.
    available: Box<[AtomicU16]>,
    /// Flags and index; an index and a length for each descriptor; and the index at whose arrival the device wants to be told.
    used: Box<[AtomicU32]>,
    /// Used buffers that the driver has seen.
    seen: AtomicU16,
    has_events: bool,
    /// The device has done something wrong: it counts as having used nothing.
    is_broken: AtomicBool,
    /// The device has said that it cannot go on, which the driver finds where it looks for used buffers.
    has_given_up: AtomicBool,
}

impl Ring {
    fn new(size: u16, has_events: bool) -> &'static Self {
        let entries = usize::from(size);
        Box::leak(Box::new(Self {
            descriptors: (0..entries).map(|_| Descriptor::default()).collect(),
            available: (0..entries + 3).map(|_| AtomicU16::new(0)).collect(),
            used: (0..2 * entries + 2).map(|_| AtomicU32::new(0)).collect(),
            seen: AtomicU16::new(0),
            has_events,
            is_broken: AtomicBool::new(false),
            has_given_up: AtomicBool::new(false),
        }))
    }

    pub(crate) fn size(&self) -> u16 {
        self.descriptors.len() as u16
    }

    /// Where the three parts lie, for the device.
    pub(crate) fn addresses(&self) -> [u64; 3] {
        let parts = [self.descriptors.as_ptr().cast::<u8>(), self.available.as_ptr().cast(), self.used.as_ptr().cast()];
        parts.map(|part| part.expose_provenance() as u64)
    }

    fn used_index(&self) -> u16 {
        (self.used[0].load(Ordering::Acquire) >> 16) as u16
    }

    /// Whether the device has used buffers that the driver has not seen, or has given up, which it has not seen either.
    pub(crate) fn has_used(&self) -> bool {
        let has_news = self.used_index() != self.seen.load(Ordering::Relaxed) || self.has_given_up.load(Ordering::Relaxed);
        has_news && !self.is_broken.load(Ordering::Relaxed)
    }

    /// The device says that it cannot go on.
    pub(crate) fn give_up(&self) {
        self.has_given_up.store(true, Ordering::Relaxed);
    }

    /// Lets the device interrupt when it uses the next buffer. True when it has used one already.
    pub(crate) fn arm(&self) -> bool {
        if self.has_events {
            self.available[self.available.len() - 1].store(self.seen.load(Ordering::Relaxed), Ordering::Relaxed);
        } else {
            self.available[0].store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        self.has_used()
    }

    /// Takes [`arm`](Self::arm) back. With events the device has not far to go until it is past the index, and does not come back to it for long.
    pub(crate) fn disarm(&self) {
        if !self.has_events {
            self.available[0].store(NO_NOTIFICATION, Ordering::Relaxed);
        }
    }

    /// Whether the device wants to be told of the buffers from `old` to `new`.
    fn wants_notification(&self, old: u16, new: u16) -> bool {
        if self.has_events {
            let event = self.used[self.used.len() - 1].load(Ordering::Relaxed) as u16;
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.used[0].load(Ordering::Relaxed) as u16 & NO_NOTIFICATION == 0
        }
    }
}

/// How a device is told that buffers are available.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doorbell {
    /// 16 bits (PCI).
    Half(Window, u16),
    /// 32 bits (memory-mapped).
    Word(Window, u32),
}

impl Doorbell {
    fn ring(self) {
        match self {
            Self::Half(window, value) => window.write16(0, value),
            Self::Word(window, value) => window.write32(0, value),
        }
    }
}

/// What a device did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueError {
    /// It says that it used more buffers than it had.
    TooMany { used: u16, given: u16 },
    /// It says that it used a buffer that it did not have.
    NotGiven { index: u32 },
    /// It says that it wrote more than the buffer holds, where that is of interest.
    TooLong { length: u32, room: u32 },
    /// What it wrote makes no sense.
    Nonsense(&'static str),
    /// It says that it cannot go on (`DEVICE_NEEDS_RESET`).
    GivenUp,
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { used, given } => write!(f, "the device used {used} buffers of {given} that it had"),
            Self::NotGiven { index } => write!(f, "the device used buffer {index}, which it did not have"),
            Self::TooLong { length, room } => write!(f, "the device wrote {length} bytes into a buffer of {room}"),
            Self::Nonsense(what) => write!(f, "the device gave {what}"),
            Self::GivenUp => f.write_str("the device says that it cannot go on without a reset"),
        }
    }
}

impl core::error::Error for QueueError {}

/// A buffer that the device has used: its first descriptor, and how many bytes the device wrote, as far as it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) length: u32,
}

/// The driver's side of a queue.
#[derive(Debug)]
pub(crate) struct Queue {
    ring: &'static Ring,
    doorbell: Doorbell,
    /// Buffers offered, and those of them that the device knows of.
    offered: u16,
    published: u16,
    /// For each descriptor that is the first of a buffer the device has: how much it may say that it wrote.
    room: Box<[Option<u32>]>,
}

impl Queue {
    /// A queue of `size` entries, a power of two; `attach` tells the device where it lies and gives its bell.
    pub(crate) fn new<E>(size: u16, has_events: bool, attach: impl FnOnce(&Ring) -> Result<Doorbell, E>) -> Result<Self, E> {
        let ring = Ring::new(size, has_events);
        ring.disarm();
        let doorbell = attach(ring)?;
        Ok(Self { ring, doorbell, offered: 0, published: 0, room: (0..size).map(|_| None).collect() })
    }

    pub(crate) fn ring(&self) -> &'static Ring {
        self.ring
    }

    /// Offers the buffer that begins at descriptor `head`, of which the device may write `room` bytes. The device has it until [`take`](Self::take) gives
    /// it back, and knows of it after [`publish`](Self::publish).
    ///
    /// `None` is for buffers of which nobody looks at how much was written: there some devices say how much they read, or do not count all that they
    /// wrote (Cloud Hypervisor's), as nothing ever came of it.
    ///
    /// # Panics
    /// When the device has it already.
    pub(crate) fn offer(&mut self, head: u16, room: Option<u32>) {
        let size = self.ring.size();
        let former = self.room[usize::from(head)].replace(room.unwrap_or(u32::MAX));
        assert!(former.is_none(), "buffer {head} is the device's");
        self.ring.available[2 + usize::from(self.offered % size)].store(head, Ordering::Relaxed);
        self.offered = self.offered.wrapping_add(1);
    }

    /// Tells the device of all buffers that were offered.
    pub(crate) fn publish(&mut self) {
        if self.published == self.offered {
            return;
        }
        self.ring.available[1].store(self.offered, Ordering::Release);
        // The device goes to sleep by writing its wish and then looking at the index; this looks at the wish after writing the index.
        fence(Ordering::SeqCst);
        let former = core::mem::replace(&mut self.published, self.offered);
        if !self.is_broken() && self.ring.wants_notification(former, self.offered) {
            self.doorbell.ring();
        }
    }

    /// Takes the next buffer that the device has used.
    ///
    /// # Errors
    /// [`QueueError`] at the first wrong word of the device, or when it has given up; from then on the queue is as if the device used nothing.
    pub(crate) fn take(&mut self) -> Result<Option<Used>, QueueError> {
        if self.is_broken() {
            return Ok(None);
        }
        if self.ring.has_given_up.load(Ordering::Relaxed) {
            return Err(self.fail(QueueError::GivenUp));
        }
        let seen = self.ring.seen.load(Ordering::Relaxed);
        let count = self.ring.used_index().wrapping_sub(seen);
        if count == 0 {
            return Ok(None);
        }
        match self.check(seen, count) {
            Ok(used) => {
                self.ring.seen.store(seen.wrapping_add(1), Ordering::Relaxed);
                Ok(Some(used))
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    fn check(&mut self, seen: u16, count: u16) -> Result<Used, QueueError> {
        let given = self.published.wrapping_sub(seen);
        if count > given {
            return Err(QueueError::TooMany { used: count, given });
        }
        let at = 1 + 2 * usize::from(seen % self.ring.size());
        let (index, length) = (self.ring.used[at].load(Ordering::Relaxed), self.ring.used[at + 1].load(Ordering::Relaxed));
        let slot = usize::try_from(index).ok().and_then(|index| self.room.get_mut(index));
        let room = slot.as_ref().and_then(|slot| **slot).ok_or(QueueError::NotGiven { index })?;
        if length > room {
            return Err(QueueError::TooLong { length, room });
        }
        if let Some(slot) = slot {
            *slot = None;
        }
        Ok(Used { head: index as u16, length })
    }

    /// Breaks the queue: nothing that the device says counts from here on.
    pub(crate) fn fail(&mut self, error: QueueError) -> QueueError {
        self.ring.is_broken.store(true, Ordering::Relaxed);
        error
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.ring.is_broken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
pub(crate) mod tests;
