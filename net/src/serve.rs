//! Serving connections: each in a task of its own, bounded in number.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};

use fogbow::task::{Either, select};
use fogbow::time::{self, Duration};

use crate::{AcceptError, Listener};

/// How long to wait before the next attempt when the stack has no memory for another connection and none of ours ends meanwhile.
const RETRY: Duration = Duration::from_millis(100);

/// Accepts connections and spawns what `handle` makes of each, at most `limit` at once; further ones wait in the listener. Connections run on
/// when this future is dropped.
///
/// # Errors
/// [`AcceptError`] when the listener has failed for good; until then it does not return.
///
/// ```no_run
/// # use fogbow_net::{Stack, Stream, serve};
/// # async fn example(stack: impl Stack) -> Result<(), fogbow::StartError> {
/// let listener = stack.listen(13).map_err(|error| fogbow::StartError::new("port 13", error))?;
/// serve(listener, 100, async |stream| fogbow::println!("{} calls", stream.peer())).await.map_err(fogbow::StartError::application)
/// # }
/// ```
pub async fn serve<L: Listener>(mut listener: L, limit: usize, handle: impl AsyncFn(L::Stream) + 'static) -> Result<(), AcceptError> {
    let handle = Rc::new(handle);
    let places = Rc::new(Places { taken: Cell::new(0), freed: RefCell::new(None) });
    loop {
        let place = Place::take(&places, limit).await;
        match listener.accept().await {
            Ok(stream) => {
                let handle = Rc::clone(&handle);
                let connection = async move {
                    handle(stream).await;
                    drop(place);
                };
                fogbow::spawn(connection).detach();
            }
            Err(AcceptError::Exhausted) => {
                log::warn!("port {}: {}", listener.port(), AcceptError::Exhausted);
                drop(place);
                let fewer = Place::take(&places, places.taken.get().max(1));
                if let Either::First(place) = select(fewer, time::sleep(RETRY)).await {
                    drop(place);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

struct Places {
    taken: Cell<usize>,
    /// Who waits for a place: the accepting task alone.
    freed: RefCell<Option<Waker>>,
}

/// One of the connections allowed; given back when dropped.
struct Place(Rc<Places>);

impl Place {
    fn take(places: &Rc<Places>, limit: usize) -> impl Future<Output = Self> {
        poll_fn(move |context| {
            if places.taken.get() < limit {
                places.taken.set(places.taken.get() + 1);
                return Poll::Ready(Self(Rc::clone(places)));
            }
            *places.freed.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        if let Some(waiting) = self.0.freed.take() {
            waiting.wake();
        }
    }
}
