//! A response, as a handler makes it.

use alloc::vec::Vec;
use core::fmt::{self, Display};
use core::future::Future;

use super::Status;
use super::fields::append_field;

/// A response; [`Request::respond`](super::Request::respond) makes it. The server adds `date`, `content-length` or `transfer-encoding`, and
/// `connection` by itself.
#[derive(Debug)]
pub struct Response<B> {
    pub(super) status: Status,
    /// Header fields as text, each ended by CR LF.
    pub(super) fields: Vec<u8>,
    pub(super) body: B,
}

impl<B> Response<B> {
    /// Adds a header field. Bytes that a value must not have, such as line ends, become spaces, so that no value can forge another field.
    ///
    /// # Panics
    /// In debug builds, when `name` is no token (RFC 9110, section 5.6.2).
    #[must_use]
    pub fn with_field(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        append_field(&mut self.fields, name, value.as_ref());
        self
    }

    /// Says what kind of data the body is: `with_field("content-type", ..)`.
    #[must_use]
    pub fn with_type(self, content_type: &str) -> Self {
        self.with_field("content-type", content_type)
    }

    /// Makes the body another one.
    #[must_use]
    pub fn map_body<C>(self, change: impl FnOnce(B) -> C) -> Response<C> {
        Response { status: self.status, fields: self.fields, body: change(self.body) }
    }
}

/// The body of a response. What is bytes (`AsRef<[u8]>`: strings, vectors, shared slices) is a body; others give their bytes piece by piece.
pub trait Body: 'static {
    /// How many bytes it has, if that is known before: the response then says so. Else it is sent in chunks, each as soon as it is there.
    fn size(&self) -> Option<u64>;

    /// The bytes from `offset` on: as many as there are now, none at the end. Offsets follow each other without gaps.
    ///
    /// # Errors
    /// [`Interrupted`]; the connection is then reset, so that the client does not take what it has for the whole.
    fn read_at(&mut self, offset: u64) -> impl Future<Output = Result<&[u8], Interrupted>>;
}

/// A response's body cannot be had to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of the response ended early")
    }
}

impl core::error::Error for Interrupted {}

impl<T: AsRef<[u8]> + 'static> Body for T {
    fn size(&self) -> Option<u64> {
        Some(self.as_ref().len() as u64)
    }

    async fn read_at(&mut self, offset: u64) -> Result<&[u8], Interrupted> {
        let bytes = (*self).as_ref();
        Ok(usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default())
    }
}

/// One of two kinds of body, for handlers that pass some requests on to others:
/// `files.handle(request).await.map_body(EitherBody::Right)`.
#[derive(Clone, Copy, Debug)]
pub enum EitherBody<L, R> {
    /// The one.
    Left(L),
    /// The other.
    Right(R),
}

impl<L: Body, R: Body> Body for EitherBody<L, R> {
    fn size(&self) -> Option<u64> {
        match self {
            Self::Left(body) => body.size(),
            Self::Right(body) => body.size(),
        }
    }

    async fn read_at(&mut self, offset: u64) -> Result<&[u8], Interrupted> {
        match self {
            Self::Left(body) => body.read_at(offset).await,
            Self::Right(body) => body.read_at(offset).await,
        }
    }
}
