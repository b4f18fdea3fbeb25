//! Connections that wait for another request.

use alloc::collections::VecDeque;
use alloc::rc::Weak;
use core::cell::RefCell;
use core::net::SocketAddr;

use fogbow::time::{self, Duration, Instant};

use super::Shared;
use crate::http::wire::Wire;
use crate::{Stack, Stream};

/// The kept connections, the one that was used last at the end. They are few, so that they are searched one by one.
pub(super) struct Pool<S> {
    kept: RefCell<VecDeque<Kept<S>>>,
    limit: usize,
    time: Duration,
}

struct Kept<S> {
    remote: SocketAddr,
    wire: Wire<S>,
    until: Instant,
}

impl<S: Stream> Pool<S> {
    pub(super) const fn new(limit: usize, time: Duration) -> Self {
        Self { kept: RefCell::new(VecDeque::new()), limit, time }
    }

    /// A connection to `remote` that the server has not closed.
    pub(super) async fn take(&self, remote: SocketAddr) -> Option<Wire<S>> {
        loop {
            let mut wire = {
                let mut kept = self.kept.borrow_mut();
                let at = kept.iter().rposition(|kept| kept.remote == remote)?;
                kept.remove(at)?.wire
            };
            if wire.is_quiet().await {
                return Some(wire);
            }
        }
    }

    /// Keeps a connection. True when it is the only one: somebody has to close it in time.
    fn put(&self, remote: SocketAddr, wire: Wire<S>) -> bool {
        let mut kept = self.kept.borrow_mut();
        kept.push_back(Kept { remote, wire, until: time::now() + self.time });
        let given_way = if kept.len() > self.limit { kept.pop_front() } else { None };
        let is_alone = kept.len() == 1;
        // Streams close when they are dropped, which is not this pool's to wait for.
        drop(kept);
        drop(given_way);
        is_alone
    }

    /// Closes what has waited too long. Gives when the next will have.
    fn expire(&self) -> Option<Instant> {
        let now = time::now();
        loop {
            let expired = {
                let mut kept = self.kept.borrow_mut();
                let until = kept.front()?.until;
                if until > now {
                    return Some(until);
                }
                kept.pop_front()
            };
            drop(expired);
        }
    }
}

/// Keeps a connection for other requests of the same client.
pub(super) fn keep<S: Stack>(shared: &alloc::rc::Rc<Shared<S>>, remote: SocketAddr, wire: Wire<S::Stream>) {
    if shared.pool.put(remote, wire) {
        fogbow::spawn(expire(alloc::rc::Rc::downgrade(shared))).detach();
    }
}

async fn expire<S: Stack>(shared: Weak<Shared<S>>) {
    while let Some(next) = shared.upgrade().and_then(|shared| shared.pool.expire()) {
        time::sleep_until(next).await;
    }
}
