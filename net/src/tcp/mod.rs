//! TCP: one connection's protocol, on smoltcp's wire formats (RFC 9293).
//!
//! A [`Socket`] knows no device, no table and no task: segments go in ([`Socket::process`]) and come out ([`Socket::next`]) at times that it is told.
//!
//! What it does: window scaling and time stamps (RFC 7323), selective acknowledgements both ways (RFC 2018), loss told by time and probed at the tail
//! (RFC 8985), reductions undone when nothing was lost (RFC 2883, 3522, 3708, 5682), CUBIC and Reno (RFC 9438, RFC 5681), waits of RFC 6298 with a
//! least one that can be set, protection against blind attacks (RFC 5961), buffers that grow with the rate ([`pool`]).
//!
//! Limits: no urgent data, no data on SYN, no explicit congestion notification, no path MTU discovery, no pacing.

use crate::direct::Cause;

mod congestion;
mod doubt;
mod flight;
mod output;
mod pool;
mod process;
mod ranges;
mod reassembly;
mod reordering;
mod repeats;
mod round_trip;
mod sequence;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use flight::Flight;
pub(crate) use pool::{Pool, cost};
pub(crate) use process::asked_segment;
pub(crate) use sequence::Seq;
pub(crate) use socket::{HEADERS, Read, Settings, Socket, State};

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was taken, or answered as the connection's state asks.
    Taken,
    /// It was not taken, or not all of it, though it may have been answered.
    Dropped(Cause),
    /// It belongs to no connection: to be answered with a reset.
    Stray,
}
