//! Serving a key-value store as files.

use alloc::borrow::Cow;
use alloc::rc::Rc;
use alloc::string::String;
use core::ops::Range;

use fogbow_kv::{Digest, Key, Kind, ReadError, ReadOnly};
use percent_encoding::percent_decode_str;

use super::conditions::{self, Wanted};
use super::{Body, Handler, Interrupted, Method, Request, Response, Status, content_type};

/// What a dictionary is shown as.
const INDEX: &str = "index.html";

/// What is shown where nothing is, if the store has it.
const NOT_FOUND: &str = "404.html";

/// The largest value that is got at once, and the size of the parts that larger ones are got in: bounds the memory that a download takes.
const PART: u64 = 64 * 1024;

/// Serves the values of a store: `/a/b.css` is the value of the key `a/b.css`; `/a/` is `a/index.html`, and `/a` leads to `/a/`.
///
/// Responses have a content type by the name's ending and an entity tag from the value's digest, so that clients ask only for what has changed
/// (`If-None-Match`), and give single ranges. What is not there is answered with the store's `404.html`.
///
/// Limits: no listings of dictionaries, no modification dates, one range a request.
#[derive(Debug)]
pub struct Files<S> {
    store: Rc<S>,
}

impl<S: ReadOnly> Files<S> {
    /// Serves all of `store`.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { store: Rc::new(store) }
    }

    /// The response to a request for a path: a value, the way to it, or what says that there is none.
    async fn find(&self, request: &mut Request<'_>) -> Result<Response<FileBody<S>>, ReadError> {
        let path = request.path();
        // A path that begins with two slashes reads as a host name where it is redirected to.
        let decoded = if path.starts_with("//") { None } else { percent_decode_str(path).decode_utf8().ok() };
        let Some(path_text) = decoded else {
            return self.not_found(request).await;
        };
        let name: Cow<'_, str> = match path_text.strip_suffix('/') {
            None => path_text,
            Some("") => INDEX.into(),
            Some(dictionary) => alloc::format!("{dictionary}/{INDEX}").into(),
        };
        let Ok(key) = Key::new(&name) else {
            return self.not_found(request).await;
        };
        match self.value(request, key, Status::OK).await {
            Err(ReadError::NotFound(_)) => self.not_found(request).await,
            Err(ReadError::IsDictionary(_)) => self.to_dictionary(request, key).await,
            other => other,
        }
    }

    /// The value of `key`, as much of it as the request wants.
    async fn value(&self, request: &mut Request<'_>, key: Key<'_>, status: Status) -> Result<Response<FileBody<S>>, ReadError> {
        let size = self.store.size(key).await?;
        let tag = tag_of(&self.store.digest(key).await?);
        let wanted = if status == Status::OK { conditions::wanted(request, &tag, size) } else { Wanted::All };
        let (status, range) = match wanted {
            Wanted::All => (status, 0..size),
            Wanted::Nothing => (Status::NOT_MODIFIED, 0..0),
            Wanted::Range(range) => (Status::PARTIAL_CONTENT, range),
            Wanted::Unsatisfiable => {
                let response = request.respond(Status::RANGE_NOT_SATISFIABLE, FileBody(Content::Text("no such range\n")));
                return Ok(response.with_field("content-range", alloc::format!("bytes */{size}")));
            }
        };
        let body = if request.method() == Method::Head || status == Status::NOT_MODIFIED {
            Content::Unread(range.end - range.start)
        } else {
            self.content(key, range.clone(), size).await?
        };
        let response = request.respond(status, FileBody(body)).with_type(content_type::of(key.as_str())).with_field("etag", tag);
        Ok(match status {
            Status::PARTIAL_CONTENT => {
                response.with_field("content-range", alloc::format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1)))
            }
            _ => response,
        })
    }

    async fn content(&self, key: Key<'_>, range: Range<u64>, size: u64) -> Result<Content<S>, ReadError> {
        let length = range.end - range.start;
        Ok(if length > PART {
            Content::Parts(Parts { store: Rc::clone(&self.store), key: key.as_str().into(), range, part: None })
        } else if length == size {
            Content::Whole(self.store.get(key).await?)
        } else {
            Content::Whole(self.store.get_partial(key, range.start, length as usize).await?)
        })
    }

    /// Leads from `/a` to `/a/` if there is something to see.
    async fn to_dictionary(&self, request: &mut Request<'_>, key: Key<'_>) -> Result<Response<FileBody<S>>, ReadError> {
        let index = alloc::format!("{key}/{INDEX}");
        let has_index = match Key::new(&index) {
            Ok(index) => self.store.exists(index).await? == Some(Kind::Value),
            Err(_) => false,
        };
        if !has_index {
            return self.not_found(request).await;
        }
        let location = alloc::format!("{}/", request.path());
        Ok(request.respond(Status::MOVED_PERMANENTLY, FileBody(Content::Text(""))).with_field("location", location))
    }

    async fn not_found(&self, request: &mut Request<'_>) -> Result<Response<FileBody<S>>, ReadError> {
        if let Ok(key) = Key::new(NOT_FOUND)
            && let Ok(response) = self.value(request, key, Status::NOT_FOUND).await
        {
            return Ok(response);
        }
        Ok(text(request, Status::NOT_FOUND, "404 Not Found\n"))
    }
}

impl<S: ReadOnly> Handler for Files<S> {
    type Body = FileBody<S>;

    async fn handle(&self, mut request: Request<'_>) -> Response<FileBody<S>> {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return text(&mut request, Status::METHOD_NOT_ALLOWED, "405 Method Not Allowed\n").with_field("allow", "GET, HEAD");
        }
        match self.find(&mut request).await {
            Ok(response) => response,
            Err(error) => {
                log::error!("{}: {error}", request.path());
                text(&mut request, Status::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n")
            }
        }
    }
}

fn text<S: ReadOnly>(request: &mut Request<'_>, status: Status, text: &'static str) -> Response<FileBody<S>> {
    request.respond(status, FileBody(Content::Text(text))).with_type("text/plain; charset=utf-8")
}

/// Bytes of the digest in an entity tag: 128 bits do not meet by chance.
const TAG_DIGEST: usize = 16;
/// The length of an entity tag: hexadecimal digits in quotation marks.
const TAG: usize = 2 * TAG_DIGEST + 2;

fn tag_of(digest: &Digest) -> [u8; TAG] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut tag = [b'"'; TAG];
    for (pair, byte) in tag[1..].chunks_exact_mut(2).zip(&digest.0[..TAG_DIGEST]) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    tag
}

/// A body that [`Files`] responds with.
pub struct FileBody<S: ReadOnly>(Content<S>);

enum Content<S: ReadOnly> {
    Text(&'static str),
    /// A value that nobody will see, of so many bytes.
    Unread(u64),
    Whole(S::Value),
    Parts(Parts<S>),
}

/// A value that is got part by part.
struct Parts<S: ReadOnly> {
    store: Rc<S>,
    key: String,
    range: Range<u64>,
    part: Option<S::Value>,
}

impl<S: ReadOnly> Body for FileBody<S> {
    fn size(&self) -> Option<u64> {
        Some(match &self.0 {
            Content::Text(text) => text.len() as u64,
            Content::Unread(length) => *length,
            Content::Whole(value) => value.as_ref().len() as u64,
            Content::Parts(parts) => parts.range.end - parts.range.start,
        })
    }

    async fn read_at(&mut self, offset: u64) -> Result<&[u8], Interrupted> {
        match &mut self.0 {
            Content::Text(text) => text.read_at(offset).await,
            Content::Unread(_) => Err(Interrupted),
            Content::Whole(value) => Ok((*value).as_ref().get(offset as usize..).unwrap_or_default()),
            Content::Parts(parts) => parts.read_at(offset).await,
        }
    }
}

impl<S: ReadOnly> Parts<S> {
    async fn read_at(&mut self, offset: u64) -> Result<&[u8], Interrupted> {
        let start = self.range.start.saturating_add(offset);
        let length = self.range.end.saturating_sub(start).min(PART) as usize;
        let key = Key::new(&self.key).map_err(|_| Interrupted)?;
        // The former part goes first: a store without sharing would else hold two at a time.
        self.part = None;
        match self.store.get_partial(key, start, length).await {
            Ok(part) => Ok((*self.part.insert(part)).as_ref()),
            Err(error) => {
                log::error!("{error}");
                Err(Interrupted)
            }
        }
    }
}
