//! The one place that waits: an epoll instance, edge-triggered, and who is to be woken for each descriptor.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

/// Events taken from the kernel in one call.
const EVENTS_PER_WAIT: usize = 256;

thread_local! {
    /// The reactor of the platform that runs on this thread.
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

/// Which way a descriptor is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// Descriptors and the tasks that wait for them.
pub(crate) struct Reactor {
    epoll: OwnedFd,
    sources: RefCell<Vec<Source>>,
    free: RefCell<Vec<usize>>,
    events: RefCell<Vec<Event>>,
}

#[derive(Default)]
struct Source {
    /// Tells events of this descriptor from late ones of a former holder of the place.
    generation: u32,
    /// By direction: the descriptor may be ready, as far as is known.
    ready: [bool; 2],
    wakers: [Option<Waker>; 2],
}

impl Reactor {
    /// Makes a reactor and makes it this thread's.
    pub(crate) fn install() -> io::Result<Rc<Self>> {
        let reactor = Rc::new(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            sources: RefCell::default(),
            free: RefCell::default(),
            events: RefCell::new(Vec::with_capacity(EVENTS_PER_WAIT)),
        });
        CURRENT.set(Some(Rc::clone(&reactor)));
        Ok(reactor)
    }

    /// Waits for at most `timeout`, for ever if there is none, and wakes the tasks whose descriptors became ready.
    pub(crate) fn wait(&self, timeout: Option<&Timespec>) {
        let mut events = self.events.borrow_mut();
        events.clear();
        // An interrupted or failed wait is an early one: the executor looks at its timers and waits again.
        if epoll::wait(&self.epoll, spare_capacity(&mut events), timeout).is_err() {
            return;
        }
        let mut woken: [Option<Waker>; 2];
        for event in events.iter() {
            let flags = event.flags;
            let token = event.data.u64();
            {
                let mut sources = self.sources.borrow_mut();
                let Some(source) =
                    sources.get_mut((token & 0xffff_ffff) as usize).filter(|source| u64::from(source.generation) == token >> 32)
                else {
                    continue;
                };
                let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                woken = [None, None];
                for (direction, interest) in [(Direction::Read, EventFlags::IN | EventFlags::RDHUP), (Direction::Write, EventFlags::OUT)] {
                    if failed || flags.intersects(interest) {
                        source.ready[direction as usize] = true;
                        woken[direction as usize] = source.wakers[direction as usize].take();
                    }
                }
            }
            woken.into_iter().flatten().for_each(Waker::wake);
        }
    }

    fn add(&self, descriptor: impl AsFd) -> io::Result<usize> {
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut sources = self.sources.borrow_mut();
            sources.push(Source::default());
            sources.len() - 1
        });
        let generation = {
            let source = &mut self.sources.borrow_mut()[index];
            source.ready = [true; 2];
            source.generation
        };
        let token = EventData::new_u64(u64::from(generation) << 32 | index as u64);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, descriptor, token, flags).inspect_err(|_| self.release(index))?;
        Ok(index)
    }

    fn release(&self, index: usize) {
        let mut sources = self.sources.borrow_mut();
        let source = &mut sources[index];
        source.generation = source.generation.wrapping_add(1);
        let wakers = std::mem::take(&mut source.wakers);
        drop(sources);
        // Dropping a waker can drop its task, and with it other descriptors.
        drop(wakers);
        self.free.borrow_mut().push(index);
    }
}

/// A non-blocking descriptor that tasks can wait for, one in each direction.
pub(crate) struct Watched<T: AsFd> {
    reactor: Rc<Reactor>,
    index: usize,
    io: T,
}

impl<T: AsFd> Watched<T> {
    /// Watches `io`, which must be non-blocking, with the reactor of this thread.
    pub(crate) fn new(io: T) -> io::Result<Self> {
        let reactor =
            CURRENT.with_borrow(Clone::clone).ok_or_else(|| io::Error::other("no image runs on this thread: open devices from `start`"))?;
        let index = reactor.add(&io)?;
        Ok(Self { reactor, index, io })
    }

    pub(crate) const fn io(&self) -> &T {
        &self.io
    }

    /// Tries `operation` until it does something else than to say that it would block; waits meanwhile.
    pub(crate) fn poll<R>(
        &self,
        direction: Direction,
        context: &mut Context<'_>,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        while self.poll_ready(direction, context).is_ready() {
            match operation(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.clear_ready(direction),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
        Poll::Pending
    }

    /// As [`poll`](Self::poll), to be awaited.
    pub(crate) async fn run<R>(&self, direction: Direction, mut operation: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        std::future::poll_fn(|context| self.poll(direction, context, &mut operation)).await
    }

    /// Ready when the descriptor may be ready; otherwise the task is woken when it is.
    pub(crate) fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<()> {
        let former = {
            let mut sources = self.reactor.sources.borrow_mut();
            let source = &mut sources[self.index];
            if source.ready[direction as usize] {
                return Poll::Ready(());
            }
            match &mut source.wakers[direction as usize] {
                Some(waker) if waker.will_wake(context.waker()) => None,
                waker => waker.replace(context.waker().clone()),
            }
        };
        drop(former);
        Poll::Pending
    }

    /// Notes that the descriptor said it would block.
    pub(crate) fn clear_ready(&self, direction: Direction) {
        self.reactor.sources.borrow_mut()[self.index].ready[direction as usize] = false;
    }
}

impl<T: AsFd> Drop for Watched<T> {
    fn drop(&mut self) {
        // It fails only if the descriptor is gone from the set already, which is what is wanted.
        let _ = epoll::delete(&self.reactor.epoll, &self.io);
        self.reactor.release(self.index);
    }
}
