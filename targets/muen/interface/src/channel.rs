//! Channels: SHMStream version 2, a stream of elements of one size through shared memory.
//!
//! The memory begins with a header, and a ring of elements follows. One side writes; it never waits, and overwrites the oldest element when the ring
//! is full. A reader counts for itself how many elements it has read, and finds by the writer's two counters, which only ever count up, what it may
//! read and whether that has been overwritten meanwhile. An epoch names one life of the channel; 0 is none.
//!
//! A [`Reader`] trusts nothing that it reads: sizes are checked against the memory that there is, on copies that are used from then on; a counter that says that
//! more elements wait than there are is an overrun, and so is one that ran back; what was copied counts only once the second counter and the epoch
//! have been looked at again. A [`Writer`] reads nothing back at all.
//!
//! Ordering is that of a sequence lock: the writer announces an element before it writes it, and publishes it after, each with a release fence between;
//! a reader loads the counter, the element, and the announcement, each with an acquire fence between.
//!
//! Source: `bindings/muen/channel.h`, `reader.c`, `writer.c` of Solo5 0.12.1, which leave out the checks of sizes and do not recover from an overrun.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// `SHMSTREAM20`.
pub const TRANSPORT: u64 = 0x4873_12b6_b79a_9b6d;

/// Bytes of the header: `struct muchannel_header`.
pub const HEADER_SIZE: usize = 64;

/// Words of 64 bits of the header.
const TRANSPORT_WORD: usize = 0;
const EPOCH: usize = 1;
const PROTOCOL: usize = 2;
const ELEMENT_SIZE: usize = 3;
const ELEMENTS: usize = 4;
const RESERVED: usize = 5;
/// Elements announced (`wsc`).
const ANNOUNCED: usize = 6;
/// Elements written (`wc`).
const WRITTEN: usize = 7;

/// Bytes of the words that elements are copied in: Muen's elements are multiples of it, and begin at multiples of it.
const WORD: usize = 4;

/// Memory that is shared with the other side, as words that may change at any time. All accesses are relaxed; [`fence`](Self::fence) orders them.
pub trait Shared {
    /// A word of the header, of the eight that it has.
    fn header(&self, word: usize) -> u64;
    /// Changes a word of the header.
    fn set_header(&self, word: usize, value: u64);
    /// How many words follow the header.
    fn data_words(&self) -> usize;
    /// A word of those.
    fn data(&self, word: usize) -> u32;
    /// Changes a word of those.
    fn set_data(&self, word: usize, value: u32);
    /// Orders the accesses before and after it.
    fn fence(&self, ordering: Ordering);
}

/// A channel's memory.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    header: &'a [AtomicU64; HEADER_SIZE / 8],
    data: &'a [AtomicU32],
}

impl Region<'_> {
    /// The channel at this address; `None` when it is not aligned to 8 bytes or has no room for a header.
    ///
    /// # Safety
    /// As long as the result is used, all of the memory is mapped, and changed by atomic accesses alone, or by others than this program. It may be
    /// memory that can only be read; then nothing writes to it through the result.
    #[must_use]
    pub unsafe fn new(address: u64, size: u64) -> Option<Self> {
        let (address, size) = (usize::try_from(address).ok()?, usize::try_from(size).ok()?);
        let is_usable = address != 0 && address.is_multiple_of(8) && address.checked_add(size).is_some() && isize::try_from(size).is_ok();
        let words = size.checked_sub(HEADER_SIZE).filter(|_| is_usable)? / WORD;
        // SAFETY: the address is aligned for both, and the caller promises the memory; atomics may be changed by others at any time.
        unsafe {
            let header = &*core::ptr::with_exposed_provenance(address);
            let data = core::slice::from_raw_parts(core::ptr::with_exposed_provenance(address + HEADER_SIZE), words);
            Some(Self { header, data })
        }
    }
}

// Loads are relaxed, with fences: other atomic loads are not allowed in memory that can only be read.
impl Shared for Region<'_> {
    fn header(&self, word: usize) -> u64 {
        self.header[word].load(Ordering::Relaxed)
    }

    fn set_header(&self, word: usize, value: u64) {
        self.header[word].store(value, Ordering::Relaxed);
    }

    fn data_words(&self) -> usize {
        self.data.len()
    }

    fn data(&self, word: usize) -> u32 {
        self.data[word].load(Ordering::Relaxed)
    }

    fn set_data(&self, word: usize, value: u32) {
        self.data[word].store(value, Ordering::Relaxed);
    }

    fn fence(&self, ordering: Ordering) {
        fence(ordering);
    }
}

/// What a reader got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<T> {
    /// An element.
    Element(T),
    /// No element waits.
    Nothing,
    /// Nobody writes, or in another way than this reader reads.
    Inactive,
    /// Elements were overwritten before they were read; the next read goes on with those that come now.
    Overrun,
}

/// The end that reads.
#[derive(Debug)]
pub struct Reader {
    protocol: u64,
    element_words: usize,
    /// The life of the channel that the rest is about; 0 before the first.
    epoch: u64,
    elements: u64,
    /// Elements read.
    read: u64,
}

impl Reader {
    /// A reader of elements of `element_size` bytes.
    ///
    /// # Panics
    /// When `element_size` is zero or no multiple of 4.
    #[must_use]
    pub const fn new(protocol: u64, element_size: usize) -> Self {
        assert!(element_size > 0 && element_size.is_multiple_of(WORD), "an element is made of words of 32 bits");
        Self { protocol, element_words: element_size / WORD, epoch: 0, elements: 0, read: 0 }
    }

    /// Whether a read would give something else than nothing.
    pub fn is_pending<S: Shared>(&mut self, shared: &S) -> bool {
        self.synchronize(shared) && shared.header(WRITTEN) != self.read
    }

    /// Takes the next element: `copy` copies it out of the shared memory. What it gives counts only if the element was whole, which shows afterwards:
    /// it must not act on what it sees.
    pub fn read<S: Shared, R>(&mut self, shared: &S, copy: impl FnOnce(&ElementReader<'_, S>) -> R) -> Received<R> {
        if !self.synchronize(shared) {
            return Received::Inactive;
        }
        let written = shared.header(WRITTEN);
        shared.fence(Ordering::Acquire);
        let waiting = written.wrapping_sub(self.read);
        if waiting == 0 {
            return Received::Nothing;
        }
        if waiting > self.elements {
            return self.overrun(shared);
        }
        // Fits: the elements lie within the memory.
        let first = (self.read % self.elements) as usize * self.element_words;
        let copied = copy(&ElementReader { shared, first, words: self.element_words });
        shared.fence(Ordering::Acquire);
        if shared.header(EPOCH) != self.epoch {
            self.epoch = 0;
            return Received::Inactive;
        }
        if shared.header(ANNOUNCED).wrapping_sub(self.read) > self.elements {
            return self.overrun(shared);
        }
        self.read = self.read.wrapping_add(1);
        Received::Element(copied)
    }

    fn overrun<S: Shared, R>(&mut self, shared: &S) -> Received<R> {
        self.read = shared.header(WRITTEN);
        Received::Overrun
    }

    /// Whether somebody writes what this reader reads; takes in the header when another life of the channel has begun.
    fn synchronize<S: Shared>(&mut self, shared: &S) -> bool {
        let epoch = shared.header(EPOCH);
        if epoch == self.epoch {
            return epoch != 0;
        }
        self.epoch = 0;
        if epoch == 0 {
            return false;
        }
        shared.fence(Ordering::Acquire);
        let header = [TRANSPORT_WORD, PROTOCOL, ELEMENT_SIZE].map(|word| shared.header(word));
        let elements = shared.header(ELEMENTS);
        shared.fence(Ordering::Acquire);
        let room = (shared.data_words() / self.element_words) as u64;
        let is_ours = header == [TRANSPORT, self.protocol, (self.element_words * WORD) as u64] && (1..=room).contains(&elements);
        if !is_ours || shared.header(EPOCH) != epoch {
            return false;
        }
        (self.epoch, self.elements, self.read) = (epoch, elements, 0);
        true
    }
}

/// An element in shared memory, for a copy.
#[derive(Debug)]
pub struct ElementReader<'a, S> {
    shared: &'a S,
    first: usize,
    words: usize,
}

impl<S: Shared> ElementReader<'_, S> {
    /// Copies the element's bytes from `offset` on, as many as fit into `into` and are there.
    ///
    /// # Panics
    /// When `offset` lies beyond the element.
    pub fn get(&self, offset: usize, into: &mut [u8]) {
        let (mut word, skipped) = (offset / WORD, offset % WORD);
        assert!(word < self.words, "the offset {offset} lies beyond an element of {} bytes", self.words * WORD);
        let mut rest = into;
        let mut skipped = skipped;
        while !rest.is_empty() && word < self.words {
            let bytes = self.shared.data(self.first + word).to_le_bytes();
            let bytes = &bytes[skipped..];
            let (now, later) = rest.split_at_mut(rest.len().min(bytes.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            (rest, word, skipped) = (later, word + 1, 0);
        }
    }
}

/// A channel's memory has no room for an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall;

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the channel has no room for an element: give it a larger size in the system's policy")
    }
}

impl core::error::Error for TooSmall {}

/// The end that writes.
#[derive(Debug)]
pub struct Writer {
    element_words: usize,
    elements: u64,
    written: u64,
}

impl Writer {
    /// Begins another life of the channel, with all of its memory zero. An `epoch` of 0, which is none, becomes 1.
    ///
    /// # Errors
    /// [`TooSmall`].
    ///
    /// # Panics
    /// When `element_size` is zero or no multiple of 4.
    pub fn new<S: Shared>(shared: &S, protocol: u64, element_size: usize, epoch: u64) -> Result<Self, TooSmall> {
        assert!(element_size > 0 && element_size.is_multiple_of(WORD), "an element is made of words of 32 bits");
        let element_words = element_size / WORD;
        let elements = (shared.data_words() / element_words) as u64;
        if elements == 0 {
            return Err(TooSmall);
        }
        shared.set_header(EPOCH, 0);
        shared.fence(Ordering::Release);
        for word in 0..shared.data_words() {
            shared.set_data(word, 0);
        }
        for (word, value) in [
            (TRANSPORT_WORD, TRANSPORT),
            (PROTOCOL, protocol),
            (ELEMENT_SIZE, element_size as u64),
            (ELEMENTS, elements),
            (RESERVED, 0),
            (ANNOUNCED, 0),
            (WRITTEN, 0),
        ] {
            shared.set_header(word, value);
        }
        shared.fence(Ordering::Release);
        shared.set_header(EPOCH, epoch.max(1));
        Ok(Self { element_words, elements, written: 0 })
    }

    /// Writes an element: `fill` puts into it what it has to say. What `fill` leaves out stays as it was in an older element.
    pub fn write<S: Shared>(&mut self, shared: &S, fill: impl FnOnce(&ElementWriter<'_, S>)) {
        let first = (self.written % self.elements) as usize * self.element_words;
        self.written = self.written.wrapping_add(1);
        shared.set_header(ANNOUNCED, self.written);
        shared.fence(Ordering::Release);
        fill(&ElementWriter { shared, first, words: self.element_words });
        shared.fence(Ordering::Release);
        shared.set_header(WRITTEN, self.written);
    }
}

/// An element in shared memory, to be filled.
#[derive(Debug)]
pub struct ElementWriter<'a, S> {
    shared: &'a S,
    first: usize,
    words: usize,
}

impl<S: Shared> ElementWriter<'_, S> {
    /// Puts `bytes` at `offset`; up to three bytes after them become zero.
    ///
    /// # Panics
    /// When `offset` is no multiple of 4, or the bytes do not fit.
    pub fn put(&self, offset: usize, bytes: &[u8]) {
        let word = offset / WORD;
        assert!(offset.is_multiple_of(WORD) && bytes.len().div_ceil(WORD) + word <= self.words, "{} bytes at {offset}", bytes.len());
        let (whole, rest) = bytes.as_chunks::<WORD>();
        for (index, bytes) in whole.iter().enumerate() {
            self.shared.set_data(self.first + word + index, u32::from_le_bytes(*bytes));
        }
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            self.shared.set_data(self.first + word + whole.len(), u32::from_le_bytes(last));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
