//! What can go wrong with a request.

use core::fmt;

use crate::http::wire::Broken;
use crate::{ConnectError, StreamError};

/// Why a URL cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// It does not begin with `http://`.
    Scheme,
    /// It has no host, or one with characters that hosts do not have.
    Host,
    /// Its port is no number from 1 to 65535.
    Port,
    /// Its path or query has a character that must be percent-encoded.
    Character,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the URL does not begin with http://, and nothing else is supported",
            Self::Host => "the URL's host is missing or malformed: write http://HOST:PORT/PATH",
            Self::Port => "the URL's port is no number from 1 to 65535",
            Self::Character => "the URL has blanks, controls or other characters that must be percent-encoded",
        })
    }
}

impl core::error::Error for UrlError {}

/// Why a request got no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The URL's host is a name.
    Name,
    /// No connection could be opened.
    Connect(ConnectError),
    /// The server took too long.
    TimedOut,
    /// The server closed the connection without a word.
    Closed,
    /// The server's answer is no HTTP/1.1 response, or one that can be read in two ways.
    Malformed,
    /// The response's head or body is longer than the client allows.
    TooLarge,
    /// The body has a coding beside `chunked`.
    Coding,
    /// The body of the request could not be had to its end.
    Interrupted,
    /// The connection failed.
    Failed(StreamError),
}

impl SendError {
    /// True when a kept connection may have been closed before the request reached the server.
    pub(super) const fn is_of_a_closed_connection(self) -> bool {
        matches!(self, Self::Closed | Self::Failed(_))
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the URL's host is a name, and names cannot be looked up: say with at() where its server is",
            Self::Connect(error) => return error.fmt(f),
            Self::TimedOut => "the server took too long to respond",
            Self::Closed => "the server closed the connection without a response",
            Self::Malformed => "the server's response is malformed",
            Self::TooLarge => "the response is longer than the client allows",
            Self::Coding => "the response has a transfer coding that is not supported",
            Self::Interrupted => "the body of the request ended early",
            Self::Failed(error) => return error.fmt(f),
        })
    }
}

impl core::error::Error for SendError {}

impl From<Broken> for SendError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::TimedOut => Self::TimedOut,
            Broken::Failed(error) => Self::Failed(error),
            Broken::Interrupted | Broken::Crowded => Self::Interrupted,
        }
    }
}
