//! A connection's stream with what it takes to use it well: a buffer that gathers small writes, and a time limit on every wait.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;

use fogbow::time::{self, Duration, Instant, Sleep};

use super::seats::{Seat, Wait};
use crate::{Stream, StreamError};

/// Bytes gathered before they are written. Larger bodies fill it up once and go on directly, so that they are not copied.
const GATHERED: usize = 4096;

/// How long a connection that a server closes is read on for (RFC 9112, section 9.6): a peer that still sends would otherwise be answered
/// with a reset, which can destroy the response on its way.
const LINGER: Duration = Duration::from_secs(2);

/// The most that is read while lingering, in bytes.
const LINGER_BYTES: usize = 1024 * 1024;

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The peer took too long.
    TimedOut,
    /// The stream failed.
    Failed(StreamError),
    /// The body that is sent failed after its head was sent.
    Interrupted,
    /// Another connection takes the place of this one.
    Crowded,
}

impl From<StreamError> for Broken {
    fn from(error: StreamError) -> Self {
        Self::Failed(error)
    }
}

/// How long a peer may take for each part of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From one part of a body to the next.
    pub(super) body: Duration,
    /// Until it takes more of what is sent.
    pub(super) write: Duration,
}

pub(super) struct Wire<S> {
    stream: S,
    output: Vec<u8>,
    /// Something was written that has not been flushed.
    is_dirty: bool,
    alarm: Alarm,
    patience: Patience,
}

impl<S: Stream> Wire<S> {
    pub(super) const fn new(stream: S, patience: Patience) -> Self {
        Self { stream, output: Vec::new(), is_dirty: false, alarm: Alarm::new(None), patience }
    }

    /// A connection that gives way to others when the server is full.
    pub(super) const fn seated(stream: S, patience: Patience, seat: Seat) -> Self {
        Self { stream, output: Vec::new(), is_dirty: false, alarm: Alarm::new(Some(seat)), patience }
    }

    /// What will be sent next; text may be added to it.
    pub(super) const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// True when as much has been gathered as should go at once.
    pub(super) fn is_full(&self) -> bool {
        self.output.len() >= GATHERED
    }

    /// Sends what was gathered, then reads, until `due`. Gives 0 at the end of what the peer sends.
    pub(super) async fn read_until(&mut self, into: &mut [u8], wait: Wait, due: impl FnMut() -> Instant) -> Result<usize, Broken> {
        self.flush().await?;
        Ok(self.alarm.guard(wait, due, self.stream.read(into)).await??)
    }

    /// The peer is no longer waited for.
    pub(super) fn go_on(&self) {
        self.alarm.seat.iter().for_each(Seat::go_on);
    }

    /// Adds `bytes` to what is sent.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let room = GATHERED.saturating_sub(self.output.len());
        let (gathered, rest) = bytes.split_at(bytes.len().min(room));
        self.output.extend_from_slice(gathered);
        if rest.is_empty() {
            return Ok(());
        }
        self.write_gathered().await?;
        write_all(&mut self.stream, &mut self.alarm, self.patience.write, rest).await
    }

    /// Sends all that was written.
    pub(super) async fn flush(&mut self) -> Result<(), Broken> {
        self.write_gathered().await?;
        if self.is_dirty {
            let allowance = self.patience.write;
            self.alarm.guard(Wait::Transfer, || time::now() + allowance, self.stream.flush()).await??;
            self.is_dirty = false;
        }
        Ok(())
    }

    /// Sends all that was written and closes the connection in order.
    pub(super) async fn close(mut self) -> Result<(), Broken> {
        self.flush().await?;
        self.stream.shutdown().await?;
        let due = time::now() + LINGER;
        let mut scratch = [0; 128];
        let mut lingered = 0;
        while lingered < LINGER_BYTES {
            match self.read_until(&mut scratch, Wait::Idle, || due).await? {
                0 => break,
                length => lingered += length,
            }
        }
        Ok(())
    }

    /// True while the peer has sent nothing, nor closed the connection.
    pub(super) async fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut read = pin!(self.stream.read(&mut byte));
        poll_fn(|context| Poll::Ready(read.as_mut().poll(context).is_pending())).await
    }

    /// Resets the connection.
    pub(super) fn abort(self) {
        self.stream.abort();
    }

    async fn write_gathered(&mut self) -> Result<(), Broken> {
        if !self.output.is_empty() {
            self.is_dirty = true;
            write_all(&mut self.stream, &mut self.alarm, self.patience.write, &self.output).await?;
            self.output.clear();
        }
        Ok(())
    }
}

async fn write_all<S: Stream>(stream: &mut S, alarm: &mut Alarm, allowance: Duration, mut bytes: &[u8]) -> Result<(), Broken> {
    while !bytes.is_empty() {
        match alarm.guard(Wait::Transfer, || time::now() + allowance, stream.write(bytes)).await?? {
            0 => return Err(Broken::Failed(StreamError::Closed)),
            length => bytes = &bytes[length..],
        }
    }
    Ok(())
}

/// Where a body comes from, whatever the stream is: this keeps streams out of the types that handlers see.
pub(super) trait Source {
    /// Reads as [`Wire::read_until`] does, within the time allowed for bodies.
    fn read<'a>(&'a mut self, into: &'a mut [u8]) -> Pin<Box<dyn Future<Output = Result<usize, Broken>> + 'a>>;

    /// Asks a peer that waits for it to send the body.
    fn ask_for_body(&mut self);
}

impl<S: Stream> Source for Wire<S> {
    fn read<'a>(&'a mut self, into: &'a mut [u8]) -> Pin<Box<dyn Future<Output = Result<usize, Broken>> + 'a>> {
        let allowance = self.patience.body;
        Box::pin(self.read_until(into, Wait::Transfer, move || time::now() + allowance))
    }

    fn ask_for_body(&mut self) {
        self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
}

/// One timer for all the waits of a connection. It stays set when a wait ends, and is only moved when it fires too early or would fire too late:
/// a busy connection does not touch the timer queue at all.
struct Alarm {
    sleep: Sleep,
    /// What a wait may be ended for besides.
    seat: Option<Seat>,
}

impl Alarm {
    const fn new(seat: Option<Seat>) -> Self {
        Self { sleep: time::sleep_until(Instant::from_nanos(u64::MAX)), seat }
    }

    /// Runs `future` until the time that `due` gives, which is asked only if it has to wait, or until another connection needs this one's place.
    async fn guard<F: Future>(&mut self, wait: Wait, mut due: impl FnMut() -> Instant, future: F) -> Result<F::Output, Broken> {
        let mut future = pin!(future);
        let mut fixed = None;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                // A head is waited for until it is whole, however many parts it comes in.
                if wait != Wait::Head {
                    self.seat.iter().for_each(Seat::go_on);
                }
                return Poll::Ready(Ok(output));
            }
            if self.seat.as_ref().is_some_and(|seat| seat.wait(wait, context.waker())) {
                return Poll::Ready(Err(Broken::Crowded));
            }
            let due = *fixed.get_or_insert_with(&mut due);
            if self.sleep.deadline() > due {
                self.sleep.reset(due);
            }
            while Pin::new(&mut self.sleep).poll(context).is_ready() {
                if time::now() >= due {
                    return Poll::Ready(Err(Broken::TimedOut));
                }
                self.sleep.reset(due);
            }
            Poll::Pending
        })
        .await
    }
}
