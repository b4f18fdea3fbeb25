//! The executor: one thread, a queue of ready tasks, a queue of timers, and one place that waits.
//!
//! A round runs every task that was ready when it began; tasks woken meanwhile belong to the next round. Between rounds timers fire and the
//! platform looks at its devices: at every round when nothing else is ready, at every [`ROUNDS_PER_POLL`]th when tasks keep each other busy, so
//! that neither side starves the other.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell, RefCell};
use core::future::Future;

use async_task::Runnable;
use spin::Mutex;

use crate::arguments::Arguments;
use crate::current;
use crate::entropy::{Moments, Source};
use crate::logs::{Journal, Progress};
use crate::platform::{Platform, Wait};
use crate::random::Generator;
use crate::statistics::Counters;
use crate::task::{Ending, Task};
use crate::time::{Duration, Instant};
use crate::timers::TimerQueue;

/// Busy rounds between two looks at clock and devices. Each look costs about one host call; eight keep that below a tenth of a round's work
/// while a device waits no longer than eight rounds.
const ROUNDS_PER_POLL: u32 = 8;

/// When a console that had no room is looked at again: often enough for a person who reads along.
const CONSOLE_RETRY: Duration = Duration::from_millis(10);

/// Spawns what is to run when `start` has returned. Not the future itself, whose task would be code that images without hooks have as well.
type ExitHook = Box<dyn FnOnce(&Runtime) -> Task<()>>;

/// All state of one running image.
pub(crate) struct Runtime {
    pub(crate) platform: Rc<dyn Platform>,
    pub(crate) timers: RefCell<TimerQueue>,
    pub(crate) arguments: Arguments,
    pub(crate) journal: Journal,
    pub(crate) moments: Rc<Moments>,
    pub(crate) random: OnceCell<Rc<Generator>>,
    pub(crate) counters: Counters,
    /// What runs when `start` has returned, the last one first.
    pub(crate) exit_hooks: RefCell<Vec<ExitHook>>,
    /// Set when the image is to end although `start` has not.
    pub(crate) ending: Cell<Option<Ending>>,
    ready: Arc<ReadyQueue>,
}

impl Runtime {
    pub(crate) fn new(platform: Rc<dyn Platform>, arguments: Arguments, journal: Journal) -> Rc<Self> {
        let start = platform.monotonic();
        Rc::new(Self {
            platform,
            timers: RefCell::new(TimerQueue::new()),
            arguments,
            journal,
            moments: Rc::default(),
            random: OnceCell::new(),
            counters: Counters::new(start),
            exit_hooks: RefCell::default(),
            ending: Cell::new(None),
            ready: Arc::new(ReadyQueue(Mutex::new(VecDeque::new()))),
        })
    }

    /// The image's generator, made when something first draws from it.
    pub(crate) fn generator(&self) -> &Rc<Generator> {
        self.random.get_or_init(|| Rc::new(Generator::new(Rc::clone(&self.platform), Rc::clone(&self.moments))))
    }

    pub(crate) fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let ready = Arc::clone(&self.ready);
        let (runnable, task) = new_task(future, move |runnable| ready.push(runnable));
        runnable.schedule();
        Task::new(task)
    }

    /// Runs `future` and all tasks that it spawns, until `future` ends, or is dropped because the image [ends](Self::ending) before: the result is `None`
    /// then. Tasks that are ready or asleep then are dropped; those that wait for a device go with it.
    pub(crate) fn block_on<F>(self: &Rc<Self>, future: F) -> Option<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let _entered = current::enter(Rc::clone(self));
        // Left here by the task, which thus is of the same type as the exit hooks': the code that joins and drops a task is there once.
        let output = Rc::new(Cell::new(None));
        let place = Rc::clone(&output);
        // Boxed: a future that is captured and then awaited lies in the task twice.
        let mut future = Box::pin(future);
        let main = self.spawn(async move { place.set(Some(future.as_mut().await)) });
        self.run_until(&|| main.is_finished() || self.ending.get().is_some());
        // A main task that has not ended is dropped before the first hook runs: what it holds is free.
        drop(main);
        self.run_exit_hooks();
        self.journal.flush(&*self.platform);
        // Dropping a task's last waker makes it ready once more, to be dropped with its future: timers first, then what that made ready.
        let timers = self.timers.borrow_mut().take_all();
        drop(timers);
        self.ready.clear();
        output.take()
    }

    /// Runs the exit hooks, the latest first; a hook may add others.
    fn run_exit_hooks(&self) {
        loop {
            let Some(hook) = self.exit_hooks.borrow_mut().pop() else { return };
            let hook = hook(self);
            self.run_until(&|| hook.is_finished());
        }
    }

    fn run_until(&self, is_over: &dyn Fn() -> bool) {
        let mut rounds_since_poll = 0;
        while !is_over() {
            let more = self.run_round();
            rounds_since_poll += 1;
            if is_over() {
                break;
            }
            if !more || rounds_since_poll >= ROUNDS_PER_POLL {
                rounds_since_poll = 0;
                self.look_or_wait();
            }
        }
    }

    /// Fires timers and looks at the devices; waits when there is nothing else to do.
    fn look_or_wait(&self) {
        if !self.timers.borrow().is_empty() {
            self.fire_timers(self.platform.monotonic());
        }
        let wait = self.next_wait(self.journal.write_piece(&*self.platform));
        if wait == Wait::Poll {
            self.platform.wait(wait);
            self.counters.polled();
            if !self.timers.borrow().is_empty() {
                self.fire_timers(self.platform.monotonic());
            }
            return;
        }
        let asleep = self.platform.monotonic();
        self.platform.wait(wait);
        let awake = self.platform.monotonic();
        let by_device = self.ready.len() > 0;
        let by_timer = self.fire_timers(awake);
        self.counters.woke(awake - asleep, by_timer, by_device);
        self.moments.note(Source::WakeUp, awake.as_nanos());
    }

    /// Runs the tasks that are ready now. True when tasks are ready again afterwards.
    fn run_round(&self) -> bool {
        for _ in 0..self.ready.len() {
            match self.ready.pop() {
                Some(runnable) => {
                    runnable.run();
                }
                None => break,
            }
        }
        self.ready.len() > 0
    }

    /// Wakes the tasks whose timers are due; true when there was one.
    fn fire_timers(&self, now: Instant) -> bool {
        let mut any = false;
        loop {
            // Not held across `wake`, which may drop a task that cancels a timer of its own.
            let due = self.timers.borrow_mut().pop_due(now);
            match due {
                Some(waker) => waker.wake(),
                None => return any,
            }
            any = true;
        }
    }

    /// How long the image may wait: until a device is ready, a timer is due, or it is time to look at the console again.
    fn next_wait(&self, progress: Progress) -> Wait {
        if self.ready.len() > 0 || progress == Progress::More {
            return Wait::Poll;
        }
        let timer = self.timers.borrow_mut().next_deadline();
        let console = (progress == Progress::Full).then(|| self.platform.monotonic() + CONSOLE_RETRY);
        match timer.into_iter().chain(console).min() {
            Some(deadline) => Wait::Until(deadline),
            None => Wait::Forever,
        }
    }
}

/// Tasks that are ready, first come first served. The lock makes it sound to call a waker anywhere; it is never contended.
struct ReadyQueue(Mutex<VecDeque<Runnable>>);

impl ReadyQueue {
    fn push(&self, runnable: Runnable) {
        self.0.lock().push_back(runnable);
    }

    fn pop(&self) -> Option<Runnable> {
        self.0.lock().pop_front()
    }

    fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Drops what is ready, one at a time: dropping a task may wake another.
    fn clear(&self) {
        while let Some(runnable) = self.pop() {
            drop(runnable);
        }
    }
}

#[cfg(not(any(test, feature = "hosted")))]
fn new_task<F, S>(future: F, schedule: S) -> (Runnable, async_task::Task<F::Output>)
where
    F: Future + 'static,
    F::Output: 'static,
    S: Fn(Runnable) + Send + Sync + 'static,
{
    // SAFETY: `future` and its output are 'static, `schedule` is Send, Sync and 'static; that the future need not be Send follows from the
    // single thread of execution that every `Platform` promises without the feature `hosted`.
    unsafe { async_task::spawn_unchecked(future, schedule) }
}

#[cfg(any(test, feature = "hosted"))]
fn new_task<F, S>(future: F, schedule: S) -> (Runnable, async_task::Task<F::Output>)
where
    F: Future + 'static,
    F::Output: 'static,
    S: Fn(Runnable) + Send + Sync + 'static,
{
    async_task::spawn_local(future, schedule)
}

#[cfg(test)]
mod tests {
    use alloc::rc::Rc;
    use core::cell::{Cell, RefCell};
    use core::time::Duration;
    use std::vec::Vec;

    use crate::simulation::Simulation;
    use crate::task::yield_now;
    use crate::{spawn, time};

    #[test]
    fn joins_a_spawned_task() {
        assert_eq!(Simulation::new(1).block_on(async { spawn(async { 6 * 7 }).await }), 42);
    }

    #[test]
    fn dropping_a_task_cancels_it_and_detaching_does_not() {
        let (dropped, detached) = Simulation::new(1).block_on(async {
            let dropped = Rc::new(Cell::new(false));
            let detached = Rc::new(Cell::new(false));
            let set = |flag: &Rc<Cell<bool>>| {
                let flag = Rc::clone(flag);
                async move {
                    yield_now().await;
                    flag.set(true);
                }
            };
            drop(spawn(set(&dropped)));
            spawn(set(&detached)).detach();
            time::sleep(Duration::from_millis(1)).await;
            (dropped.get(), detached.get())
        });
        assert!(!dropped);
        assert!(detached);
    }

    #[test]
    fn tasks_that_keep_each_other_busy_do_not_starve_timers() {
        let simulation = Simulation::new(1);
        // Each look at the clock moves it, so that time passes although nobody waits.
        simulation.set_cost_of_poll(Duration::from_micros(1));
        simulation.block_on(async {
            let busy = spawn(async {
                loop {
                    yield_now().await;
                }
            });
            time::sleep(Duration::from_millis(1)).await;
            drop(busy);
        });
    }

    #[test]
    fn tasks_that_sleep_when_the_image_ends_are_dropped() {
        let held = Rc::new(());
        let task_holds = Rc::clone(&held);
        Simulation::new(1).block_on(async move {
            spawn(async move {
                let _held = task_holds;
                time::sleep(Duration::from_secs(1)).await;
            })
            .detach();
            yield_now().await;
        });
        assert_eq!(Rc::strong_count(&held), 1);
    }

    #[test]
    fn exit_hooks_run_last_first_while_tasks_go_on() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let note = |what: &'static str| {
            let order = Rc::clone(&order);
            move || order.borrow_mut().push(what)
        };
        let (first, second, late, task, end) = (note("first"), note("second"), note("added by a hook"), note("task"), note("end of start"));
        Simulation::new(1).block_on(async move {
            crate::at_exit(async move { first() });
            crate::at_exit(async move {
                time::sleep(Duration::from_secs(1)).await;
                second();
                crate::at_exit(async move { late() });
            });
            spawn(async move {
                time::sleep(Duration::from_millis(1)).await;
                task();
            })
            .detach();
            end();
        });
        assert_eq!(order.take(), ["end of start", "task", "second", "added by a hook", "first"]);
    }

    #[test]
    fn ready_tasks_run_in_the_order_they_became_ready() {
        let order = Simulation::new(1).block_on(async {
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = (0..10)
                .map(|i| {
                    let order = Rc::clone(&order);
                    spawn(async move {
                        order.borrow_mut().push(i);
                        yield_now().await;
                        order.borrow_mut().push(i + 10);
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            order.take()
        });
        assert_eq!(order, (0..20).collect::<Vec<_>>());
    }
}
