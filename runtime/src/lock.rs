//! A lock for tasks, in the order in which they ask for it.
//!
//! Who gives it back hands it to the one who has waited longest, so that nobody waits for ever, however often others ask. A task that is dropped
//! while it waits or holds the lock gives up its place.

use alloc::collections::BTreeMap;
use core::cell::{RefCell, RefMut};
use core::fmt;
use core::future::Future;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// A value that one task has at a time, also while it waits for something else.
///
/// ```
/// # fogbow::simulation::Simulation::new(1).block_on(async {
/// let balance = fogbow::lock::Lock::new(1);
/// *balance.lock().await += 1;
/// assert_eq!(*balance.lock().await, 2);
/// # });
/// ```
#[derive(Default)]
pub struct Lock<T> {
    queue: RefCell<Queue>,
    value: RefCell<T>,
}

#[derive(Default)]
struct Queue {
    is_held: bool,
    next: u64,
    /// Who waits, by number.
    waiting: BTreeMap<u64, Waker>,
    /// Whom the lock was handed to, until that one looks.
    granted: Option<u64>,
}

impl<T> Lock<T> {
    /// A lock around `value`.
    #[must_use]
    pub const fn new(value: T) -> Self {
        let queue = Queue { is_held: false, next: 0, waiting: BTreeMap::new(), granted: None };
        Self { queue: RefCell::new(queue), value: RefCell::new(value) }
    }

    /// Waits until all who asked before have given the lock back.
    pub const fn lock(&self) -> Locking<'_, T> {
        Locking { lock: self, number: None }
    }

    fn release(&self) {
        let next = {
            let mut queue = self.queue.borrow_mut();
            let next = queue.waiting.pop_first();
            queue.is_held = next.is_some();
            queue.granted = next.as_ref().map(|(number, _)| *number);
            next
        };
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("is_held", &self.queue.borrow().is_held).finish_non_exhaustive()
    }
}

/// Waiting for a [`Lock`].
pub struct Locking<'l, T> {
    lock: &'l Lock<T>,
    /// The place in the queue, once there is one.
    number: Option<u64>,
}

impl<'l, T> Future for Locking<'l, T> {
    type Output = Guard<'l, T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Guard<'l, T>> {
        let lock = self.lock;
        let mut queue = lock.queue.borrow_mut();
        match self.number {
            None if !queue.is_held => queue.is_held = true,
            Some(number) if queue.granted == Some(number) => queue.granted = None,
            number => {
                let number = number.unwrap_or(queue.next);
                queue.next = queue.next.max(number + 1);
                queue.waiting.insert(number, context.waker().clone());
                drop(queue);
                self.number = Some(number);
                return Poll::Pending;
            }
        }
        drop(queue);
        self.number = None;
        Poll::Ready(Guard { lock, value: lock.value.borrow_mut() })
    }
}

impl<T> Drop for Locking<'_, T> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let is_granted = {
            let mut queue = self.lock.queue.borrow_mut();
            queue.waiting.remove(&number);
            queue.granted == Some(number)
        };
        if is_granted {
            self.lock.release();
        }
    }
}

impl<T> fmt::Debug for Locking<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locking").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The value of a [`Lock`], which is given back when this is dropped.
pub struct Guard<'l, T> {
    lock: &'l Lock<T>,
    value: RefMut<'l, T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.lock.release();
    }
}

impl<T: fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::Simulation;
    use crate::{spawn, task, time};
    use alloc::rc::Rc;
    use alloc::vec::Vec;
    use core::time::Duration;

    /// Three tasks that ask again at once, each as soon as it is through, get the lock in turn.
    #[test]
    fn it_goes_round() {
        Simulation::new(1).block_on(async {
            let lock = Rc::new(Lock::new(Vec::new()));
            let tasks: Vec<_> = (0..3)
                .map(|number| {
                    let lock = Rc::clone(&lock);
                    spawn(async move {
                        for _ in 0..10 {
                            let mut turns = lock.lock().await;
                            turns.push(number);
                            task::yield_now().await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            let turns = lock.lock().await;
            assert!(turns.len() == 30 && turns.chunks(3).all(|round| round == &turns[..3]), "{turns:?}");
        });
    }

    #[test]
    fn who_is_dropped_gives_up_the_place() {
        Simulation::new(1).block_on(async {
            let lock = Rc::new(Lock::new(0));
            let held = lock.lock().await;
            let wait = |number| {
                let lock = Rc::clone(&lock);
                spawn(async move { *lock.lock().await = number })
            };
            let (first, second, third) = (wait(1), wait(2), wait(3));
            task::yield_now().await;
            assert!(time::timeout(Duration::from_secs(1), lock.lock()).await.is_err(), "it is held");
            drop(second);
            drop(held);
            // It was handed to the first, which never looks.
            drop(first);
            third.await;
            assert_eq!(*lock.lock().await, 3);
        });
    }
}
