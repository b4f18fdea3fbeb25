//! A request, as a handler sees it.

use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::net::SocketAddr;

use embedded_io_async::{ErrorKind, ErrorType, Read};

use super::framing::{Framing, Malformed};
use super::head::Head;
use super::wire::{Broken, Source};
use super::{Method, Response, Status};
use crate::StreamError;

/// Bytes of a body that are read and thrown away when the handler left them: reading them is cheaper than a new connection.
const SKIPPED: u64 = 64 * 1024;

/// A request. Its head has been read, its body is read on demand.
pub struct Request<'a> {
    pub(super) head: &'a Head<'a>,
    pub(super) body: Incoming<'a>,
    pub(super) peer: SocketAddr,
    /// Memory for the fields of the response, used again for every request of a connection.
    pub(super) scratch: &'a mut Vec<u8>,
}

impl<'a> Request<'a> {
    /// The method.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.head.method
    }

    /// The path as it was sent, percent-encoded, without the query; it begins with `/`, or is `*` for OPTIONS.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.head.path
    }

    /// What follows `?` in the target, percent-encoded.
    #[must_use]
    pub const fn query(&self) -> Option<&'a str> {
        self.head.query
    }

    /// The value of the first header field called `name`, in whatever case; no white space around it. Fields may have any bytes but controls.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.head.fields.get(name)
    }

    /// All header fields in order: names as they were sent, and values.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        // Names were found to be tokens when the head was read, so that none is left out here.
        self.head.fields.filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, value)))
    }

    /// The address of the client, or of the proxy before this server.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads a part of the body into `into`. Gives 0 at its end. A body that is not read is skipped.
    ///
    /// # Errors
    /// [`BodyError`]. The connection is then closed after a response that tells the client so, whatever the handler responds.
    pub async fn read(&mut self, into: &mut [u8]) -> Result<usize, BodyError> {
        self.body.read(into).await
    }

    /// Reads the whole body, which the server's limits bound.
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

    /// A response to this request.
    #[must_use]
    pub fn respond<B>(&mut self, status: Status, body: B) -> Response<B> {
        Response { status, fields: mem::take(self.scratch), body }
    }
}

impl ErrorType for Request<'_> {
    type Error = BodyError;
}

/// The body as a stream.
impl Read for Request<'_> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, BodyError> {
        self.body.read(into).await
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("head", self.head).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Why a body cannot be read: that of a request at the server, or that of a response at the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// Its chunks are malformed.
    Malformed,
    /// It is longer than this side's limit.
    TooLarge,
    /// The peer took too long to send it.
    TimedOut,
    /// The peer stopped sending before its end.
    Ended,
    /// The connection failed.
    Failed(StreamError),
}

impl BodyError {
    /// The status that tells the client.
    pub(super) const fn status(self) -> Status {
        match self {
            Self::Malformed | Self::Ended | Self::Failed(_) => Status::BAD_REQUEST,
            Self::TooLarge => Status::CONTENT_TOO_LARGE,
            Self::TimedOut => Status::REQUEST_TIMEOUT,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the body has malformed chunks"),
            Self::TooLarge => f.write_str("the body is longer than this side allows"),
            Self::TimedOut => f.write_str("the peer took too long to send the body"),
            Self::Ended => f.write_str("the body ended early"),
            Self::Failed(error) => write!(f, "the body: {error}"),
        }
    }
}

impl core::error::Error for BodyError {}

impl embedded_io_async::Error for BodyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed => ErrorKind::InvalidData,
            Self::TooLarge => ErrorKind::OutOfMemory,
            Self::TimedOut => ErrorKind::TimedOut,
            Self::Ended => ErrorKind::BrokenPipe,
            Self::Failed(error) => error.kind(),
        }
    }
}

impl From<Malformed> for BodyError {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Broken> for BodyError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::TimedOut => Self::TimedOut,
            Broken::Failed(error) => Self::Failed(error),
            Broken::Interrupted | Broken::Crowded => Self::Ended,
        }
    }
}

/// How far a body has been read.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) framing: Framing,
    /// Where the bytes begin and end that arrived and were not used yet, counted from the end of the head.
    pub(super) from: usize,
    pub(super) to: usize,
    /// How many bytes more the body may have.
    pub(super) allowance: u64,
    /// The client waits for a word before it sends the body.
    pub(super) expects_continue: bool,
    pub(super) failed: Option<BodyError>,
}

/// A body on its way in.
pub(super) struct Incoming<'a> {
    pub(super) progress: &'a mut Progress,
    /// The connection's buffer behind the head.
    pub(super) buffer: &'a mut [u8],
    pub(super) source: &'a mut dyn Source,
}

impl Incoming<'_> {
    pub(super) async fn read(&mut self, into: &mut [u8]) -> Result<usize, BodyError> {
        match self.progress.failed {
            Some(error) => Err(error),
            None => self.try_read(into).await.inspect_err(|error| self.progress.failed = Some(*error)),
        }
    }

    /// Skips what the handler left. False when that is too much, and the connection has to be closed instead.
    pub(super) async fn skip(&mut self) -> Result<bool, BodyError> {
        if let Some(error) = self.progress.failed {
            return Err(error);
        }
        if self.progress.framing.is_done() {
            return Ok(true);
        }
        if self.progress.expects_continue || self.progress.framing.data() > SKIPPED {
            return Ok(false);
        }
        let mut skipped = 0;
        let mut piece = [0; 256];
        while skipped <= SKIPPED {
            match self.read(&mut piece).await? {
                0 => return Ok(true),
                length => skipped += length as u64,
            }
        }
        Ok(false)
    }

    async fn try_read(&mut self, into: &mut [u8]) -> Result<usize, BodyError> {
        let progress = &mut *self.progress;
        while !into.is_empty() {
            progress.from += progress.framing.advance(&self.buffer[progress.from..progress.to])?;
            if progress.framing.is_done() {
                break;
            }
            if mem::take(&mut progress.expects_continue) {
                self.source.ask_for_body();
            }
            let data = progress.framing.data();
            let is_until_close = matches!(progress.framing, Framing::UntilClose(_));
            if data > progress.allowance && !is_until_close {
                return Err(BodyError::TooLarge);
            }
            let buffered = &self.buffer[progress.from..progress.to];
            let wanted = into.len().min(usize::try_from(data).unwrap_or(usize::MAX));
            let length = match (wanted, buffered.len()) {
                (0, _) => {
                    progress.from = 0;
                    progress.to = 0;
                    progress.to = some(self.source.read(self.buffer).await?)?;
                    continue;
                }
                (_, 0) => match self.source.read(&mut into[..wanted]).await? {
                    0 if is_until_close => {
                        progress.framing = Framing::UntilClose(true);
                        break;
                    }
                    length => some(length)?,
                },
                (_, available) => {
                    let length = wanted.min(available);
                    into[..length].copy_from_slice(&buffered[..length]);
                    progress.from += length;
                    length
                }
            };
            progress.framing.take(length as u64);
            progress.allowance = progress.allowance.checked_sub(length as u64).ok_or(BodyError::TooLarge)?;
            return Ok(length);
        }
        Ok(0)
    }
}

const fn some(length: usize) -> Result<usize, BodyError> {
    if length == 0 { Err(BodyError::Ended) } else { Ok(length) }
}
