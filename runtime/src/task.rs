//! Tasks: spawn, join, cancel, select.
//!
//! A task is a future that the executor runs beside others on the image's one thread. Futures need not be `Send`.

use alloc::boxed::Box;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::current;

pub use embassy_futures::join::{join, join_array, join3, join4};
pub use embassy_futures::select::{Either, Either3, Either4, select, select_array, select3, select4};
pub use embassy_futures::yield_now;

/// Starts `future` as a task of its own. It runs when the caller next waits.
///
/// # Panics
/// When no runtime is running.
///
/// ```
/// # fogbow::simulation::Simulation::new(1).block_on(async {
/// let answer = fogbow::spawn(async { 6 * 7 });
/// assert_eq!(answer.await, 42);
/// # });
/// ```
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    current::with(|runtime| runtime.spawn(future))
}

/// Lets `hook` run when `start` has returned, whether in success or not, before the image ends: to flush a store, or to say goodbye to a peer.
///
/// Hooks run one after another, the last one added first, while the other tasks go on. The image ends when all have ended: one that may take long limits
/// itself with [`timeout`](crate::time::timeout). After a panic or a fault none runs.
///
/// # Panics
/// When no runtime is running.
///
/// ```
/// # let simulation = fogbow::simulation::Simulation::new(1);
/// # simulation.block_on(async {
/// fogbow::at_exit(async { fogbow::println!("goodbye") });
/// # });
/// # assert_eq!(simulation.console(), "goodbye\n");
/// ```
pub fn at_exit<F: Future<Output = ()> + 'static>(hook: F) {
    current::with(|runtime| runtime.exit_hooks.borrow_mut().push(Box::new(|runtime| runtime.spawn(hook))));
}

/// How an image ends although `start` has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    PowerOff,
    Restart,
}

/// Ends the image in success although `start` has not ended: its future is dropped, then the [hooks](at_exit) run. Targets call it when the host asks the
/// image to end, by a machine's power button for example; an application may.
///
/// # Panics
/// When no runtime is running.
///
/// ```no_run
/// # async fn stopped_by_an_administrator() {}
/// # async fn start() {
/// fogbow::spawn(async {
///     stopped_by_an_administrator().await;
///     fogbow::shut_down();
/// })
/// .detach();
/// # }
/// ```
pub fn shut_down() {
    current::with(|runtime| runtime.ending.set(Some(Ending::PowerOff)));
}

/// As [`shut_down`], but then the machine starts anew. On a target that has no machine to start anew the image ends in failure and says so.
///
/// # Panics
/// When no runtime is running.
pub fn restart() {
    current::with(|runtime| runtime.ending.set(Some(Ending::Restart)));
}

/// A handle to a spawned task: await it to join the task and take its output; drop it to cancel the task; [`detach`](Task::detach) it to let it
/// run on alone.
#[derive(Debug)]
#[must_use = "dropping a task cancels it: await it, keep it, or detach it"]
pub struct Task<T>(async_task::Task<T>);

impl<T> Task<T> {
    pub(crate) fn new(task: async_task::Task<T>) -> Self {
        Self(task)
    }

    /// Lets the task run on until it ends by itself or the image ends.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Cancels the task and waits until its future has been dropped. Gives the output if the task had ended before.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }

    /// True when the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context)
    }
}
