//! Places for requests under way, for tasks in the order in which they ask.

use async_lock::{Semaphore, SemaphoreGuard};
use fogbow::lock::Lock;

/// So many places. A semaphore alone gives one to who comes just when it becomes free, before those who wait.
#[derive(Debug)]
pub(super) struct Places {
    turn: Lock<()>,
    free: Semaphore,
}

impl Places {
    pub(super) const fn new(count: usize) -> Self {
        Self { turn: Lock::new(()), free: Semaphore::new(count) }
    }

    /// Waits until all who asked before have a place, and there is one more.
    pub(super) async fn take(&self) -> SemaphoreGuard<'_> {
        let _turn = self.turn.lock().await;
        self.free.acquire().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use core::cell::Cell;
    use fogbow::simulation::Simulation;
    use fogbow::task::yield_now;

    #[test]
    fn who_takes_one_place_after_the_other_keeps_nobody_waiting() {
        Simulation::new(1).block_on(async {
            let places = Rc::new(Places::new(2));
            let taken = Rc::new(Cell::new(0));
            for _ in 0..2 {
                let (places, taken) = (Rc::clone(&places), Rc::clone(&taken));
                fogbow::spawn(async move {
                    while taken.get() < 100 {
                        let _place = places.take().await;
                        taken.set(taken.get() + 1);
                        yield_now().await;
                    }
                })
                .detach();
            }
            yield_now().await;
            let before = taken.get();
            drop(places.take().await);
            assert!(taken.get() - before <= 4, "{} others were first", taken.get() - before);
        });
    }
}
