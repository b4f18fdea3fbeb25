//! Streams of values that are in memory.

use alloc::string::ToString;
use alloc::vec::Vec;

use embedded_io_async::{ErrorType, Read};

use crate::{Key, ReadError, StreamError, WriteError};

/// What a stream is read into at a time, in bytes.
const PART: usize = 4096;

/// A value in memory as a stream.
#[derive(Clone, Debug)]
pub struct Slice<V> {
    value: V,
    at: usize,
}

impl<V: AsRef<[u8]>> Slice<V> {
    /// A stream of `value`.
    #[must_use]
    pub const fn new(value: V) -> Self {
        Self { value, at: 0 }
    }
}

impl<V> ErrorType for Slice<V> {
    type Error = ReadError;
}

impl<V: AsRef<[u8]>> Read for Slice<V> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, ReadError> {
        let rest = &self.value.as_ref()[self.at..];
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

/// All that `source` gives, in memory.
pub(crate) async fn collect<R: Read>(key: Key<'_>, source: &mut R) -> Result<Vec<u8>, StreamError<R::Error>> {
    let mut value = Vec::new();
    loop {
        let length = value.len();
        value.try_reserve(PART).map_err(|_| WriteError::NoSpace(key.to_string()))?;
        value.resize(length + PART, 0);
        let count = source.read(&mut value[length..]).await.map_err(StreamError::Source)?;
        value.truncate(length + count);
        if count == 0 {
            return Ok(value);
        }
    }
}
