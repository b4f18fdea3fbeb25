//! Who waits for which device: from a set of ready handles to the tasks to wake.
//!
//! Each device has one flag, "may hold something", and room for one waiting task. The flag is set when the host says that the device is
//! ready, and cleared by the device when it found itself empty; nothing here walks more than the devices that are ready.

use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};

use spin::Mutex;

use crate::manifest::MAX_ENTRIES;

/// Readiness of all devices of an image.
#[derive(Debug)]
pub struct Readiness {
    /// A bit for each handle: set while the device may hold something.
    ready: AtomicU64,
    /// The lock is never contended: an image has one thread.
    wakers: Mutex<[Option<Waker>; MAX_ENTRIES]>,
}

impl Readiness {
    /// Every device may hold something, until it is found empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { ready: AtomicU64::new(u64::MAX), wakers: Mutex::new([const { None }; MAX_ENTRIES]) }
    }

    /// The host says that the devices in `handles` (a bit each) are ready: wakes the tasks that wait for them.
    pub fn notify(&self, handles: u64) {
        self.ready.fetch_or(handles, Ordering::Relaxed);
        let mut rest = handles;
        while rest != 0 {
            let handle = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            // The lock is released before the waker runs, which may end a task that drops a device.
            let waker = self.wakers.lock()[handle].take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The device found itself empty: it is not ready again before the host says so.
    pub fn clear(&self, handle: u8) {
        self.ready.fetch_and(!bit(handle), Ordering::Relaxed);
    }

    /// Ready while the device may hold something; otherwise the task is woken when it may. A handle has one waiting task, the latest.
    pub fn poll(&self, handle: u8, context: &mut Context<'_>) -> Poll<()> {
        if self.ready.load(Ordering::Relaxed) & bit(handle) != 0 {
            return Poll::Ready(());
        }
        let mut wakers = self.wakers.lock();
        let slot = &mut wakers[usize::from(handle) % MAX_ENTRIES];
        let former = match slot {
            Some(waker) if waker.will_wake(context.waker()) => None,
            slot => slot.replace(context.waker().clone()),
        };
        drop(wakers);
        drop(former);
        Poll::Pending
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

fn bit(handle: u8) -> u64 {
    1 << (usize::from(handle) % MAX_ENTRIES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_those_who_wait_and_no_others() {
        let readiness = Readiness::new();
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let poll = |handle, count: &Arc<Count>| readiness.poll(handle, &mut Context::from_waker(&Waker::from(count.clone())));
        assert!(poll(1, &first).is_ready(), "a device may hold something at the start");
        readiness.clear(1);
        readiness.clear(63);
        assert!(poll(1, &first).is_pending());
        assert!(poll(63, &second).is_pending());
        readiness.notify(1 << 63);
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (0, 1));
        assert!(poll(63, &second).is_ready());
        assert!(poll(1, &first).is_pending());
        readiness.notify(1 << 1 | 1 << 63);
        assert_eq!((first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)), (1, 1), "woken once per wait");
    }
}
