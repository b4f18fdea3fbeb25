//! Messages for whoever carries them elsewhere, such as a syslog sink.

use alloc::collections::VecDeque;
use alloc::rc::{Rc, Weak};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use log::{Level, LevelFilter, Record};

use super::Filter;
use crate::current;
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
        current::with(|runtime| runtime.journal.subscribers.0.borrow_mut().push(Rc::downgrade(&queue)));
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

/// A runtime's subscriptions: few.
#[derive(Default)]
pub(super) struct Subscribers(RefCell<Vec<Weak<RefCell<Queue>>>>);

impl Subscribers {
    pub(super) fn want(&self, level: Level, source: &str) -> bool {
        self.0.borrow().iter().filter_map(Weak::upgrade).any(|queue| level <= queue.borrow().filter.level_of(source))
    }

    /// Passes a message on to those who want it.
    pub(super) fn tell(&self, record: &Record<'_>, now: impl Fn() -> WallTime) {
        if !self.want(record.level(), record.target()) {
            return;
        }
        let text = record.args().to_string();
        self.0.borrow_mut().retain(|queue| queue.strong_count() > 0);
        for queue in self.0.borrow().iter().filter_map(Weak::upgrade) {
            let mut queue = queue.borrow_mut();
            if record.level() > queue.filter.level_of(record.target()) || queue.filter == Filter::from(LevelFilter::Off) {
                continue;
            }
            if queue.messages.len() >= queue.capacity {
                queue.lost += 1;
                continue;
            }
            let lost = core::mem::take(&mut queue.lost);
            let message = Message { time: now(), level: record.level(), source: record.target().to_string(), text: text.clone(), lost };
            queue.messages.push_back(message);
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
    }
}
