//! What a guest waits with: an epoll set of its networks and of a timer.

use std::io;
use std::os::fd::OwnedFd;

use fogbow_tender::attach::Attached;
use fogbow_tender::manifest::Properties;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{TimerfdClockId, TimerfdFlags};

/// `SPT_INTERNAL_TIMERFD` of `spt_abi.h`: what the set reports for the timer. For a network it reports its handle.
const TIMER_EVENT: u64 = 0xffff_fffe;

/// The descriptors of the set and the timer.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) epoll: OwnedFd,
    pub(crate) timer: OwnedFd,
}

/// Why there is no such set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventError {
    #[error("cannot make the guest's event set: {0}")]
    Create(io::Error),
    #[error("net device with handle {handle}: cannot wait for its descriptor: {source}; pass a tap or a socket")]
    Add { handle: u64, source: io::Error },
}

/// Makes the set, with the devices' handles as what it reports.
pub(crate) fn create(devices: &[Attached]) -> Result<Events, EventError> {
    let create = |errno: rustix::io::Errno| EventError::Create(errno.into());
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(create)?;
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).map_err(create)?;
    epoll::add(&epoll, &timer, EventData::new_u64(TIMER_EVENT), EventFlags::IN).map_err(create)?;
    for (handle, device) in (1..).zip(devices) {
        if matches!(device.properties, Properties::Net { .. }) {
            epoll::add(&epoll, &device.descriptor, EventData::new_u64(handle), EventFlags::IN)
                .map_err(|errno| EventError::Add { handle, source: errno.into() })?;
        }
    }
    Ok(Events { epoll, timer })
}
