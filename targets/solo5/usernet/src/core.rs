//! What TCP, UDP and the network's loop share: the link, the wait, and who has work to do.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use smoltcp::time::Instant;

use crate::link::Link;
use crate::timers::FlowId;

/// Events taken from the kernel in one wait.
const EVENTS_PER_WAIT: usize = 128;

/// Who has work to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The guest sent frames.
    Guest,
    /// A forwarded port, by its place in the list, has connections or datagrams.
    Port(usize),
    /// A TCP flow can go on.
    Tcp(FlowId),
    /// A UDP flow's host socket has datagrams.
    Udp(FlowId),
}

impl Token {
    const KINDS: u64 = 4;

    fn encode(self) -> EventData {
        let (kind, number) = match self {
            Token::Guest => (0, 0),
            Token::Port(index) => (1, index as u64),
            Token::Tcp(id) => (2, id),
            Token::Udp(id) => (3, id),
        };
        EventData::new_u64(number * Self::KINDS + kind)
    }

    fn decode(data: EventData) -> Self {
        let number = data.u64() / Self::KINDS;
        match data.u64() % Self::KINDS {
            0 => Token::Guest,
            1 => Token::Port(number as usize),
            2 => Token::Tcp(number),
            _ => Token::Udp(number),
        }
    }
}

/// The shared part of a network.
pub(crate) struct Core {
    pub(crate) link: Link,
    /// The time at which the current turn began.
    pub(crate) now: Instant,
    /// Who has work to do, in order.
    pub(crate) ready: VecDeque<Token>,
    /// Work was given up for want of room, and there is room again.
    pub(crate) room: bool,
    started: std::time::Instant,
    epoll: OwnedFd,
    events: Vec<(Token, EventFlags)>,
    awaits_link: bool,
}

impl Core {
    pub(crate) fn new(link: Link) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &link, Token::Guest.encode(), EventFlags::IN | EventFlags::RDHUP | EventFlags::ET)?;
        Ok(Core {
            link,
            now: Instant::ZERO,
            ready: VecDeque::new(),
            room: false,
            started: std::time::Instant::now(),
            epoll,
            events: Vec::with_capacity(EVENTS_PER_WAIT),
            awaits_link: false,
        })
    }

    /// Reports `flags` of `source` as `token`, each time they arise anew (edge-triggered). Closing the descriptor ends it.
    pub(crate) fn watch(&self, source: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, token.encode(), flags | EventFlags::ET)?)
    }

    /// Waits until something happens or `deadline` comes, not at all if somebody is ready, and sets the time. Tells how many events there are.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        self.watch_link()?;
        let timeout = match deadline {
            _ if !self.ready.is_empty() => Some(Duration::ZERO),
            deadline => deadline.map(|deadline| Duration::from_micros((deadline - self.clock()).total_micros())),
        };
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        self.events.clear();
        let mut space = [const { MaybeUninit::<Event>::uninit() }; EVENTS_PER_WAIT];
        match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
            Ok((events, _)) => self.events.extend(events.iter().map(|event| (Token::decode(event.data), event.flags))),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.now = self.clock();
        Ok(self.events.len())
    }

    /// The event number `index` of the last wait.
    pub(crate) fn event(&self, index: usize) -> (Token, EventFlags) {
        self.events[index]
    }

    /// Waits for room on the link only while frames are held back: the kernel would report every frame that the guest takes.
    fn watch_link(&mut self) -> io::Result<()> {
        if self.awaits_link != self.link.is_blocked() {
            self.awaits_link = self.link.is_blocked();
            let room = if self.awaits_link { EventFlags::OUT } else { EventFlags::empty() };
            epoll::modify(&self.epoll, &self.link, Token::Guest.encode(), EventFlags::IN | EventFlags::RDHUP | EventFlags::ET | room)?;
        }
        Ok(())
    }

    fn clock(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX))
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("link", &self.link).field("now", &self.now).field("ready", &self.ready).finish_non_exhaustive()
    }
}
