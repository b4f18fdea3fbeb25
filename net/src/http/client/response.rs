//! A response on its way in.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use super::head::Head;
use super::{Shared, pool};
use crate::Stack;
use crate::http::Status;
use crate::http::fields::Fields;
use crate::http::input::Input;
use crate::http::request::{BodyError, Incoming, Progress};
use crate::http::wire::Wire;

/// A response. Its head has been read, its body is read on demand; once it has been read to its end, the connection serves other requests. A
/// response that is dropped before closes its connection.
pub struct Response<S: Stack> {
    shared: Rc<Shared<S>>,
    remote: SocketAddr,
    /// `None` when there is nothing more to read.
    wire: Option<Wire<S::Stream>>,
    input: Input,
    head_length: usize,
    status: Status,
    keep_alive: bool,
    progress: Progress,
}

impl<S: Stack> Response<S> {
    pub(super) fn new(
        shared: Rc<Shared<S>>,
        remote: SocketAddr,
        wire: Wire<S::Stream>,
        mut input: Input,
        head: Head,
        head_length: usize,
    ) -> Self {
        input.keep_free_behind(head_length);
        let progress = Progress {
            framing: head.framing,
            from: 0,
            to: input.pending().len() - head_length,
            allowance: shared.limits.body,
            expects_continue: false,
            failed: None,
        };
        // Interim responses have been read away by now.
        let status = Status::new(head.status).unwrap_or(Status::OK);
        let mut response = Self { shared, remote, wire: Some(wire), input, head_length, status, keep_alive: head.keep_alive, progress };
        response.finish();
        response
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The value of the first header field called `name`, in whatever case; no white space around it. Fields may have any bytes but controls.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.all_fields().get(name)
    }

    /// All header fields in order: names as they were sent, and values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.all_fields().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, value)))
    }

    fn all_fields(&self) -> Fields<'_> {
        Fields::after_first_line(&self.input.pending()[..self.head_length])
    }

    /// Reads a part of the body into `into`. Gives 0 at its end.
    ///
    /// # Errors
    /// [`BodyError`], from then on.
    pub async fn read(&mut self, into: &mut [u8]) -> Result<usize, BodyError> {
        let Some(wire) = &mut self.wire else { return self.progress.failed.map_or(Ok(0), Err) };
        let buffer = &mut self.input.bytes[self.input.from + self.head_length..];
        let outcome = Incoming { progress: &mut self.progress, buffer, source: wire }.read(into).await;
        self.finish();
        outcome
    }

    /// Reads the whole body, which the client's limits bound.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>, BodyError> {
        let mut body = Vec::new();
        let mut piece = [0; 512];
        loop {
            match self.read(&mut piece).await? {
                0 => return Ok(body),
                length => body.extend_from_slice(&piece[..length]),
            }
        }
    }

    /// Gives the connection back at the end of the body, and closes it when something is wrong with it.
    fn finish(&mut self) {
        let has_failed = self.progress.failed.is_some();
        if !has_failed && !self.progress.framing.is_done() {
            return;
        }
        // What a server sends unasked would be taken for the response to the next request.
        let has_more = self.progress.from < self.progress.to;
        if let Some(wire) = self.wire.take() {
            match has_failed || has_more {
                true => wire.abort(),
                false if self.keep_alive => pool::keep(&self.shared, self.remote, wire),
                false => drop(wire),
            }
        }
    }
}

impl<S: Stack> fmt::Debug for Response<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).field("remote", &self.remote).finish_non_exhaustive()
    }
}
