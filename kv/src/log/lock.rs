//! A lock for tasks of one thread, first come, first served.

use alloc::collections::VecDeque;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Poll, Waker};

#[derive(Debug, Default)]
pub(crate) struct Lock(RefCell<Queue>);

#[derive(Debug, Default)]
struct Queue {
    is_held: bool,
    next: u64,
    waiting: VecDeque<(u64, Option<Waker>)>,
}

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(crate) struct Held<'l>(&'l Lock);

/// A place in the queue, given up when it is dropped.
struct Place<'l> {
    lock: &'l Lock,
    number: Option<u64>,
}

impl Lock {
    pub(crate) async fn hold(&self) -> Held<'_> {
        let mut place = Place { lock: self, number: None };
        poll_fn(|context| {
            let mut queue = self.0.borrow_mut();
            let number = *place.number.get_or_insert_with(|| {
                queue.next += 1;
                let number = queue.next;
                queue.waiting.push_back((number, None));
                number
            });
            if !queue.is_held && queue.waiting.front().is_some_and(|(first, _)| *first == number) {
                queue.waiting.pop_front();
                queue.is_held = true;
                return Poll::Ready(());
            }
            if let Some((_, waker)) = queue.waiting.iter_mut().find(|(waiting, _)| *waiting == number) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        place.number = None;
        Held(self)
    }

    fn wake_first(queue: &Queue) {
        if let Some((_, Some(waker))) = queue.waiting.front() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.0.borrow_mut();
        queue.is_held = false;
        Lock::wake_first(&queue);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut queue = self.lock.0.borrow_mut();
            queue.waiting.retain(|(waiting, _)| *waiting != number);
            Lock::wake_first(&queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use alloc::vec::Vec;
    use fogbow::simulation::Simulation;

    #[test]
    fn tasks_take_turns_and_may_give_up() {
        Simulation::new(1).block_on(async {
            let (lock, seen) = (Rc::new(Lock::default()), Rc::new(RefCell::new(Vec::new())));
            let held = lock.hold().await;
            let tasks: Vec<_> = (0..4)
                .map(|number| {
                    let (lock, seen) = (Rc::clone(&lock), Rc::clone(&seen));
                    fogbow::spawn(async move {
                        let _held = lock.hold().await;
                        fogbow::task::yield_now().await;
                        seen.borrow_mut().push(number);
                    })
                })
                .collect();
            fogbow::task::yield_now().await;
            drop(held);
            for (number, task) in tasks.into_iter().enumerate() {
                if number != 1 {
                    task.await;
                }
            }
            assert_eq!(*seen.borrow(), [0, 2, 3]);
            drop(lock.hold().await);
        });
    }
}
