//! Messages for whoever carries them elsewhere, such as a syslog sink.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use log::{Level, Record};

use super::Filter;
use crate::current;
use crate::platform::Platform;
use crate::time::WallTime;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When it was written.
    pub time: WallTime,
    /// How important it is.
    pub level: Level,
    /// The module path that it is from.
    pub source: String,
    /// What it says.
    pub text: String,
    /// How many messages were lost just before it.
    pub lost: u64,
}

/// Receives messages, until it is dropped. It holds a bounded number of them; when more come, the new ones are lost and counted.
///
/// What it is used for must not write messages that pass its own filter: each would be followed by another, without end.
#[derive(Debug)]
pub struct Subscription {
    queue: Rc<RefCell<Queue>>,
}

#[derive(Debug)]
struct Queue {
    filter: Filter,
    capacity: usize,
    messages: VecDeque<Message>,
    lost: u64,
    waker: Option<Waker>,
}

impl Subscription {
    /// Receives the messages that pass `filter`, and holds `capacity` of them.
    ///
    /// # Panics
    /// When no runtime is running.
    #[must_use]
    pub fn new(filter: Filter, capacity: usize) -> Self {
        super::install(&filter);
        let queue = Queue { filter, capacity, messages: VecDeque::new(), lost: 0, waker: None };
        let queue = Rc::new(RefCell::new(queue));
        current::with(|runtime| runtime.journal.subscribers.0.borrow_mut().push(queue.clone()));
        Self { queue }
    }

    /// Waits for the next message.
    pub async fn next(&mut self) -> Message {
        poll_fn(|context| {
            let mut queue = self.queue.borrow_mut();
            match queue.messages.pop_front() {
                Some(message) => Poll::Ready(message),
                None => {
                    queue.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(runtime) = current::get() {
            let queue: Rc<dyn Subscriber> = self.queue.clone();
            runtime.journal.subscribers.0.borrow_mut().retain(|other| !Rc::ptr_eq(other, &queue));
        }
    }
}

/// Who is told of messages beside the console: a trait object, so that an image without any has no code for it.
pub(super) trait Subscriber {
    /// Whether messages of this level and source are wanted.
    fn wants(&self, level: Level, source: &str) -> bool;

    /// Takes a message that is wanted.
    fn tell(&self, record: &Record<'_>, now: WallTime);
}

/// A runtime's subscribers: few.
#[derive(Default)]
pub(super) struct Subscribers(RefCell<Vec<Rc<dyn Subscriber>>>);

impl Subscribers {
    pub(super) fn want(&self, level: Level, source: &str) -> bool {
        self.0.borrow().iter().any(|subscriber| subscriber.wants(level, source))
    }

    /// Passes a message on to those who want it.
    pub(super) fn tell(&self, record: &Record<'_>, platform: &dyn Platform) {
        for subscriber in self.0.borrow().iter() {
            if subscriber.wants(record.level(), record.target()) {
                subscriber.tell(record, platform.wall());
            }
        }
    }
}

impl Subscriber for RefCell<Queue> {
    fn wants(&self, level: Level, source: &str) -> bool {
        level <= self.borrow().filter.level_of(source)
    }

    fn tell(&self, record: &Record<'_>, time: WallTime) {
        // Formatted before the queue is touched: what is formatted may log as well.
        let text = record.args().to_string();
        let mut queue = self.borrow_mut();
        if queue.messages.len() >= queue.capacity {
            queue.lost += 1;
            return;
        }
        let lost = core::mem::take(&mut queue.lost);
        queue.messages.push_back(Message { time, level: record.level(), source: record.target().to_string(), text, lost });
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
