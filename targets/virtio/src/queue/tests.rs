use super::*;
use proptest::prelude::*;
use std::vec::Vec;

/// A device's side of a ring: an honest one, if it is used so.
pub(crate) struct Device {
    pub(crate) ring: &'static Ring,
    taken: u16,
    used: u16,
}

impl Device {
    pub(crate) fn new(ring: &'static Ring) -> Self {
        Self { ring, taken: 0, used: 0 }
    }

    /// The first descriptor of the next buffer that the driver has made available.
    pub(crate) fn next(&mut self) -> Option<u16> {
        if self.ring.available[1].load(Ordering::Acquire) == self.taken {
            return None;
        }
        let head = self.ring.available[2 + usize::from(self.taken % self.ring.size())].load(Ordering::Relaxed);
        self.taken = self.taken.wrapping_add(1);
        Some(head)
    }

    /// The pieces of a buffer.
    pub(crate) fn pieces(&self, head: u16) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut index = Some(head);
        while let Some(at) = index {
            let [address, rest] = self.ring.descriptors[usize::from(at)].0.each_ref().map(|word| word.load(Ordering::Relaxed));
            let flags = (rest >> 32) as u16;
            assert_eq!(flags & 4, 0, "no table is expected");
            pieces.push(Piece { address, length: rest as u32, writable: flags & 2 != 0 });
            index = (flags & 1 != 0).then_some((rest >> 48) as u16);
        }
        pieces
    }

    /// Says that a buffer is used; the driver sees it after `publish`.
    pub(crate) fn use_buffer(&mut self, head: u32, length: u32) {
        let at = 1 + 2 * usize::from(self.used % self.ring.size());
        self.ring.used[at].store(head, Ordering::Relaxed);
        self.ring.used[at + 1].store(length, Ordering::Relaxed);
        self.used = self.used.wrapping_add(1);
    }

    pub(crate) fn publish(&mut self) {
        self.write_index(self.used);
    }

    pub(crate) fn write_index(&self, index: u16) {
        self.ring.used[0].store(u32::from(index) << 16, Ordering::Release);
    }

    /// Wants to be told when the driver has made available more than this many.
    pub(crate) fn set_event(&self, index: u16) {
        self.ring.used[self.ring.used.len() - 1].store(index.into(), Ordering::Relaxed);
    }
}

/// A queue and its bell, which shows the queue's number when it has rung.
pub(crate) fn queue(size: u16, has_events: bool) -> (Queue, Window) {
    let bell = crate::window::tests::memory(8);
    let queue = Queue::new(size, has_events, |_| Ok::<_, QueueError>(Doorbell::Half(bell, 7))).unwrap();
    (queue, bell)
}

#[test]
fn buffers_go_and_come_back_in_any_order() {
    let (mut queue, _) = queue(4, true);
    let mut device = Device::new(queue.ring());
    for round in 0..70_000_u32 {
        queue.offer(2, Some(10));
        queue.offer(0, Some(20));
        assert_eq!(device.next().filter(|_| round % 1000 == 0), None, "not published yet");
        queue.publish();
        assert_eq!([device.next(), device.next(), device.next()], [Some(2), Some(0), None]);
        device.use_buffer(0, 20);
        device.use_buffer(2, 0);
        assert_eq!(queue.take(), Ok(None));
        device.publish();
        assert_eq!(queue.take(), Ok(Some(Used { head: 0, length: 20 })));
        assert_eq!(queue.take(), Ok(Some(Used { head: 2, length: 0 })));
        assert_eq!(queue.take(), Ok(None));
    }
}

#[test]
fn the_bell_rings_when_the_device_wants_it() {
    for has_events in [false, true] {
        let (mut queue, bell) = queue(8, has_events);
        let device = Device::new(queue.ring());
        let rings = |head, queue: &mut Queue| {
            bell.write16(0, 0);
            queue.offer(head, None);
            queue.publish();
            queue.publish();
            bell.read16(0) == 7
        };
        assert!(rings(0, &mut queue), "the device sleeps at first");
        if has_events {
            assert!(!rings(1, &mut queue), "it has not said that it sleeps again");
            device.set_event(3);
            assert!(!rings(2, &mut queue));
            assert!(rings(3, &mut queue));
        } else {
            queue.ring().used[0].store(1, Ordering::Relaxed);
            assert!(!rings(1, &mut queue));
            queue.ring().used[0].store(0, Ordering::Relaxed);
            assert!(rings(2, &mut queue));
        }
    }
}

#[test]
fn interrupts_are_wanted_when_armed() {
    for has_events in [false, true] {
        let (mut queue, _) = queue(8, has_events);
        let ring = queue.ring();
        let mut device = Device::new(ring);
        let wanted = || match has_events {
            true => ring.available[ring.available.len() - 1].load(Ordering::Relaxed),
            false => ring.available[0].load(Ordering::Relaxed),
        };
        assert!(has_events || wanted() == 1, "none at first");
        queue.offer(0, None);
        queue.offer(1, None);
        queue.publish();
        assert!(!ring.arm());
        assert_eq!(wanted(), 0);
        device.use_buffer(0, 0);
        device.publish();
        assert!(ring.arm() && ring.has_used());
        queue.take().unwrap();
        ring.disarm();
        assert!(!ring.arm());
        assert_eq!(wanted(), u16::from(has_events), "the next but the one that has been seen");
    }
}

#[test]
fn what_a_device_does_wrong_is_said_once_and_ends_the_queue() {
    let lie = |lie: &dyn Fn(&mut Device)| {
        let (mut queue, _) = queue(8, true);
        let mut device = Device::new(queue.ring());
        queue.offer(3, Some(100));
        queue.publish();
        lie(&mut device);
        device.publish();
        let error = queue.take().unwrap_err();
        assert_eq!(queue.take(), Ok(None));
        assert!(!queue.ring().has_used() && !queue.ring().arm() && queue.is_broken());
        error
    };
    assert_eq!(lie(&|device| device.use_buffer(3, 101)), QueueError::TooLong { length: 101, room: 100 });
    assert_eq!(lie(&|device| device.use_buffer(2, 0)), QueueError::NotGiven { index: 2 });
    assert_eq!(lie(&|device| device.use_buffer(8, 0)), QueueError::NotGiven { index: 8 });
    assert_eq!(lie(&|device| device.use_buffer(u32::MAX, 0)), QueueError::NotGiven { index: u32::MAX });
    assert_eq!(lie(&|device| device.used = 2), QueueError::TooMany { used: 2, given: 1 });
    assert_eq!(lie(&|device| device.used = u16::MAX), QueueError::TooMany { used: u16::MAX, given: 1 });
}

#[test]
fn what_is_written_does_not_matter_where_nobody_looks() {
    let (mut queue, _) = queue(8, true);
    let mut device = Device::new(queue.ring());
    for length in [0, 1, 1514, u32::MAX] {
        queue.offer(3, None);
        queue.publish();
        device.use_buffer(3, length);
        device.publish();
        assert_eq!(queue.take(), Ok(Some(Used { head: 3, length })));
    }
}

#[test]
fn a_buffer_is_used_once() {
    let (mut queue, _) = queue(8, false);
    let mut device = Device::new(queue.ring());
    queue.offer(3, Some(100));
    queue.offer(4, Some(100));
    queue.publish();
    device.use_buffer(3, 1);
    device.use_buffer(3, 1);
    device.publish();
    assert!(queue.take().is_ok());
    assert_eq!(queue.take(), Err(QueueError::NotGiven { index: 3 }));
}

proptest! {
    #[test]
    fn whatever_a_device_says_a_buffer_comes_back_once_and_no_longer_than_it_is(
        lies in prop::collection::vec((any::<bool>(), 0_u32..10, prop_oneof![0_u32..200, any::<u32>()], any::<u16>()), 1..40), has_events in any::<bool>(),
    ) {
        let (mut queue, _) = queue(8, has_events);
        let mut device = Device::new(queue.ring());
        let mut given = [false; 8];
        for (honest, head, length, index) in lies {
            for head in 0..8 {
                if !given[usize::from(head)] {
                    given[usize::from(head)] = true;
                    queue.offer(head, Some(100));
                }
            }
            queue.publish();
            device.use_buffer(head, length);
            if honest {
                device.publish();
            } else {
                device.write_index(index);
            }
            while let Ok(Some(used)) = queue.take() {
                prop_assert!(used.length <= 100 && given[usize::from(used.head)]);
                given[usize::from(used.head)] = false;
            }
        }
    }
}
