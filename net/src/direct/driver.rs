//! The driver: the one task of a stack, which moves frames between the device and the engine.
//!
//! A pass takes a batch of frames in, lets the tasks run that these woke, then lets out what they wrote: a request that is answered at once costs one
//! frame in and one out, and many requests cost one trip to the device.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};

use fogbow::entropy::{self, Source};
use fogbow::task::yield_now;
use fogbow::time::{self, Sleep};
use smoltcp::time::Instant;

use super::engine::{self, Engine};
use super::flow;
use crate::frame::{FrameReceiver, FrameTransmitter};

/// Frames taken in before anything else has its turn. From 16 on larger batches gain little; 64 full frames are still less than a TCP window.
const BATCH: usize = 64;

/// Runs the stack until all handles to it and all its connections are gone.
pub(super) async fn drive<R: FrameReceiver, T: FrameTransmitter>(engine: Rc<RefCell<Engine>>, mut receiver: R, mut transmitter: T) {
    let mut alarm = Alarm(None);
    engine.borrow_mut().announce(&mut transmitter);
    transmitter.flush();
    while is_needed(&engine) {
        let received = take_in(&engine, &mut receiver, &mut transmitter);
        yield_now().await;
        send(&engine, &mut transmitter);
        if received < BATCH {
            poll_fn(|context| poll_work(&engine, &mut receiver, &mut alarm, context)).await;
        }
    }
}

/// Whether anybody holds the stack besides its driver, or a connection is still being closed.
fn is_needed(engine: &Rc<RefCell<Engine>>) -> bool {
    Rc::strong_count(engine) > 1 || !engine.borrow().flows.is_empty()
}

/// Takes a batch of frames in. Gives for how many they count.
fn take_in<R: FrameReceiver, T: FrameTransmitter>(engine: &Rc<RefCell<Engine>>, receiver: &mut R, transmitter: &mut T) -> usize {
    let mut engine = engine.borrow_mut();
    let now = time::now();
    engine.now = flow::instant(now);
    let mut taken = 0;
    let mut take = |frame: &mut [u8], checksums| {
        engine.ingress(frame, checksums, transmitter);
        engine::weight(frame.len())
    };
    while taken < BATCH
        && let Some(weight) = receiver.receive(&mut take)
    {
        taken += weight;
    }
    if taken > 0 {
        // Frames that came together came at one moment, as far as can be told.
        entropy::note(Source::Packet, now);
    }
    taken
}

/// Lets out what flows have to send.
fn send<T: FrameTransmitter>(engine: &Rc<RefCell<Engine>>, transmitter: &mut T) {
    let mut engine = engine.borrow_mut();
    engine.now = flow::instant(time::now());
    engine.egress(transmitter);
    transmitter.flush();
}

/// Ready when there is something to do: a frame, a flow that wants to send, a deadline, or nobody left to do it for.
fn poll_work<R: FrameReceiver>(engine: &Rc<RefCell<Engine>>, receiver: &mut R, alarm: &mut Alarm, context: &mut Context<'_>) -> Poll<()> {
    if !is_needed(engine) {
        return Poll::Ready(());
    }
    let deadline = {
        let mut engine = engine.borrow_mut();
        if mem::take(&mut engine.look_again) || engine.has_work() {
            return Poll::Ready(());
        }
        if engine.driver.as_ref().is_none_or(|driver| !driver.will_wake(context.waker())) {
            engine.driver = Some(context.waker().clone());
        }
        engine.next_deadline()
    };
    if receiver.poll_ready(context).is_ready() {
        return Poll::Ready(());
    }
    alarm.poll(deadline, context)
}

/// The timer of the driver. It is moved only to earlier moments: one that rings too early costs less than moving it at every request.
struct Alarm(Option<Sleep>);

impl Alarm {
    fn poll(&mut self, deadline: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline.map(when) else { return Poll::Pending };
        let sleep = self.0.get_or_insert_with(|| time::sleep_until(deadline));
        if deadline < sleep.deadline() {
            sleep.reset(deadline);
        }
        let poll = Pin::new(sleep).poll(context);
        if poll.is_ready() {
            self.0 = None;
        }
        poll
    }
}

fn when(instant: Instant) -> time::Instant {
    time::Instant::from_nanos(u64::try_from(instant.total_micros()).unwrap_or(0).saturating_mul(1000))
}
