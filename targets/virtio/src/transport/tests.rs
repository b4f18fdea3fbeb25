use super::*;
use crate::queue::QueueError;
use crate::window::tests::memory;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::boxed::Box;
use std::sync::Mutex;
use std::vec;

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;

/// A device that does as it is told, but for what a test wants.
#[derive(Default)]
struct Fake {
    offered: u64,
    accepted: AtomicU64,
    /// All that the driver has written to the status, and what it shows.
    written: Mutex<Vec<u8>>,
    shown: AtomicU8,
    stays: bool,
    refuses: bool,
    has_no_queues: bool,
    /// The configuration's bytes all show its generation, which changes so many times while it is read.
    generation: AtomicU32,
    changes: AtomicU32,
    was_attached_late: AtomicBool,
}

impl Fake {
    fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    fn last(&self) -> Option<u8> {
        self.written.lock().unwrap().last().copied()
    }
}

impl Transport for Fake {
    fn status(&self) -> u8 {
        self.shown.load(Relaxed)
    }

    fn set_status(&self, status: u8) {
        self.written.lock().unwrap().push(status);
        let hidden = if self.refuses { DeviceStatus::FEATURES_OK.bits() } else { 0 };
        self.shown.store(if self.stays { 0x0f } else { status & !hidden }, Relaxed);
    }

    fn features(&self) -> u64 {
        self.offered
    }

    fn accept(&self, features: u64) {
        self.accepted.store(features, Relaxed);
    }

    fn queue_size(&self, index: u16) -> u16 {
        [256, 1000, 1, 0].get(usize::from(index)).copied().unwrap_or(0)
    }

    fn attach(&self, _: u16, _: &Ring) -> Option<Doorbell> {
        self.was_attached_late.store(self.status() & DeviceStatus::DRIVER_OK.bits() != 0, Relaxed);
        (!self.has_no_queues).then(|| Doorbell::Half(memory(8), 0))
    }

    fn configuration8(&self, _: usize) -> u8 {
        if self.changes.load(Relaxed) > 0 {
            self.changes.fetch_sub(1, Relaxed);
            self.generation.fetch_add(1, Relaxed);
        }
        self.generation.load(Relaxed) as u8
    }

    fn configuration16(&self, offset: usize) -> u16 {
        self.configuration8(offset).into()
    }

    fn configuration32(&self, offset: usize) -> u32 {
        self.configuration8(offset).into()
    }

    fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }
}

#[test]
fn a_device_is_brought_up_step_by_step() {
    let device = Fake { offered: VERSION_1 | EVENT_IDX | 0b110, ..Fake::default() }.leak();
    let mut setup = Setup::new(device, |offered| {
        assert_eq!(offered, device.offered);
        0b11
    })
    .unwrap();
    assert_eq!(device.accepted.load(Relaxed), VERSION_1 | EVENT_IDX | 0b10, "what is offered and wanted");
    assert!(setup.has(0b10) && !setup.has(0b1) && !setup.has(0b100));
    assert_eq!(*device.written.lock().unwrap(), [0, 3, 11]);
    let sizes = [0, 1, 2].map(|index| setup.queue(index).unwrap().ring().size());
    assert_eq!(sizes, [256, 256, 1], "powers of two, no more than the driver's");
    assert_eq!(setup.queue(3).unwrap_err(), SetupError::Queue(3));
    let _ = setup.finish();
    assert_eq!((device.last(), device.was_attached_late.load(Relaxed)), (Some(15), false));
}

#[test]
fn what_a_device_does_not_do_is_said_and_it_is_given_up() {
    let fail = |device: &'static Fake| (Setup::new(device, |_| 0).err(), device.last());
    let good = || Fake { offered: VERSION_1, ..Fake::default() };
    assert_eq!(fail(Fake { stays: true, ..good() }.leak()), (Some(SetupError::NoReset), Some(0)));
    assert_eq!(fail(Fake { offered: 0xffff_ffff, ..good() }.leak()), (Some(SetupError::Legacy), Some(0x83)));
    assert_eq!(fail(Fake { refuses: true, ..good() }.leak()), (Some(SetupError::Refused), Some(0x83)));
    let mut setup = Setup::new(Fake { has_no_queues: true, ..good() }.leak(), |_| 0).unwrap();
    assert_eq!(setup.queue(0).unwrap_err(), SetupError::Queue(0));
}

#[test]
fn a_configuration_that_changes_is_read_again() {
    let read = |changes| {
        let device = Fake { offered: VERSION_1, changes: AtomicU32::new(changes), ..Fake::default() }.leak();
        let setup = Setup::new(device, |_| 0).unwrap();
        setup.configuration(|device| [0, 1, 2, 3].map(|offset| device.configuration8(offset)))
    };
    assert_eq!([0, 1, 6].map(read), [Ok([0; 4]), Ok([1; 4]), Ok([6; 4])]);
    assert!(matches!(read(u32::MAX), Err(SetupError::Nonsense(_))));
}

#[test]
fn a_device_that_cannot_go_on_ends_its_queues() {
    let device = Fake { offered: VERSION_1, ..Fake::default() }.leak();
    let mut setup = Setup::new(device, |_| 0).unwrap();
    let mut queues = vec![setup.queue(0).unwrap(), setup.queue(1).unwrap()];
    let running = setup.finish();
    running.look();
    assert!(queues.iter_mut().all(|queue| !queue.ring().has_used() && queue.take() == Ok(None)));
    device.shown.fetch_or(DeviceStatus::DEVICE_NEEDS_RESET.bits(), Relaxed);
    running.look();
    for queue in &mut queues {
        assert!(queue.ring().has_used() && queue.ring().arm(), "whoever waits is to look");
        assert_eq!([queue.take(), queue.take()], [Err(QueueError::GivenUp), Ok(None)]);
        assert!(queue.is_broken() && !queue.ring().has_used());
    }
}
