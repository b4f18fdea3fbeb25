//! The ring of the last messages, and how it reaches the console.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use log::Level;

use super::subscription::Subscribers;
use super::{Colour, Filter, colour_of};
use crate::console::format_into;
use crate::platform::Platform;
use crate::time::Instant;

/// The longest message, its source included, in bytes: what is beyond is cut off.
pub const LONGEST: usize = 1024;

/// The longest line of the console: a message after at most 48 bytes of time, level and colour.
const LONGEST_LINE: usize = LONGEST + 64;

/// What the ring holds, in bytes: some two hundred messages of common length.
const CAPACITY: usize = 16 * 1024;

/// What the console is offered at once between two rounds, in bytes: what a pipe takes without waiting once it has room at all (`PIPE_BUF` of Linux).
const PIECE: usize = 4096;

/// A record's head: length (2), level (1), whether it is printed (1), time (8).
const HEAD: usize = 12;

/// A runtime's messages.
pub(crate) struct Journal {
    pub(super) filter: Filter,
    pub(super) subscribers: Subscribers,
    is_coloured: bool,
    ring: RefCell<Ring>,
    outgoing: RefCell<Outgoing>,
}

/// Lines on their way to the console, which may take a part of them at a time.
#[derive(Default)]
struct Outgoing {
    lines: Vec<u8>,
    written: usize,
}

/// How far the console has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has seen all messages.
    Done,
    /// It takes more.
    More,
    /// It has no room now.
    Full,
}

/// Records one after the other, addressed by how many bytes were ever written before them.
#[derive(Default)]
struct Ring {
    /// Empty until the first message.
    bytes: Box<[u8]>,
    oldest: u64,
    /// The first record that the console has not seen.
    pending: u64,
    end: u64,
    /// Records that were to be printed and are gone.
    lost: u64,
}

#[derive(Clone, Copy)]
struct Head {
    length: usize,
    level: Level,
    is_printed: bool,
    time: Instant,
}

impl Journal {
    /// Messages that pass `filter` go to the console of `platform`.
    pub(crate) fn new(filter: Filter, colour: Colour, platform: &dyn Platform) -> Self {
        super::install(&filter);
        let is_coloured = match colour {
            Colour::Auto => platform.console_is_terminal(),
            Colour::Always => true,
            Colour::Never => false,
        };
        Self { filter, subscribers: Subscribers::default(), is_coloured, ring: RefCell::default(), outgoing: RefCell::default() }
    }

    pub(super) fn push(&self, time: Instant, level: Level, is_printed: bool, text: &[u8]) {
        self.ring.borrow_mut().push(Head { length: text.len(), level, is_printed, time }, text);
    }

    /// Offers the console a piece of what it has not seen.
    pub(crate) fn write_piece(&self, platform: &dyn Platform) -> Progress {
        let mut outgoing = self.outgoing.borrow_mut();
        if !self.fill(&mut outgoing) {
            return Progress::Done;
        }
        let rest = &outgoing.lines[outgoing.written..];
        let (taken, all) = (platform.offer_console(rest).min(rest.len()), rest.len());
        outgoing.written += taken;
        match taken == all {
            true if self.fill(&mut outgoing) => Progress::More,
            true => Progress::Done,
            false => Progress::Full,
        }
    }

    /// Writes all that the console has not seen, however long it takes.
    pub(crate) fn flush(&self, platform: &dyn Platform) {
        let mut outgoing = self.outgoing.borrow_mut();
        while self.fill(&mut outgoing) {
            platform.write_console(&outgoing.lines[outgoing.written..]);
            outgoing.written = outgoing.lines.len();
        }
    }

    /// Gets the next piece ready, if the last is through. False when there is nothing more to write.
    fn fill(&self, outgoing: &mut Outgoing) -> bool {
        if outgoing.written == outgoing.lines.len() {
            outgoing.written = 0;
            self.ring.borrow_mut().take(&mut outgoing.lines, self.is_coloured);
        }
        !outgoing.lines.is_empty()
    }

    pub(super) fn dump(&self, write: &mut dyn FnMut(&[u8])) {
        let Ok(ring) = self.ring.try_borrow() else { return };
        let mut at = ring.oldest;
        if at < ring.end {
            write(b"the last log messages:\n");
        }
        while let Some(head) = ring.head(at) {
            write(ring.line(at, head, false, &mut [0; LONGEST_LINE]));
            at += head.size();
        }
    }
}

impl Head {
    /// Bytes of the whole record.
    const fn size(self) -> u64 {
        (HEAD + self.length) as u64
    }
}

impl Ring {
    fn push(&mut self, head: Head, text: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; CAPACITY].into_boxed_slice();
        }
        while self.end + head.size() - self.oldest > CAPACITY as u64 {
            let Some(oldest) = self.head(self.oldest) else { break };
            if self.pending == self.oldest {
                self.lost += u64::from(oldest.is_printed);
                self.pending += oldest.size();
            }
            self.oldest += oldest.size();
        }
        let mut bytes = [0; HEAD];
        bytes[..2].copy_from_slice(&(head.length as u16).to_le_bytes());
        bytes[2] = head.level as u8;
        bytes[3] = head.is_printed.into();
        bytes[4..].copy_from_slice(&head.time.as_nanos().to_le_bytes());
        self.append(&bytes);
        self.append(text);
    }

    fn append(&mut self, bytes: &[u8]) {
        let at = (self.end % CAPACITY as u64) as usize;
        let (first, second) = bytes.split_at(bytes.len().min(CAPACITY - at));
        self.bytes[at..at + first.len()].copy_from_slice(first);
        self.bytes[..second.len()].copy_from_slice(second);
        self.end += bytes.len() as u64;
    }

    /// Copies the bytes from `from` on.
    fn copy(&self, from: u64, into: &mut [u8]) {
        let at = (from % CAPACITY as u64) as usize;
        let length = into.len();
        let (first, second) = into.split_at_mut(length.min(CAPACITY - at));
        first.copy_from_slice(&self.bytes[at..at + first.len()]);
        second.copy_from_slice(&self.bytes[..second.len()]);
    }

    fn head(&self, at: u64) -> Option<Head> {
        if at >= self.end {
            return None;
        }
        let mut bytes = [0; HEAD];
        self.copy(at, &mut bytes);
        let [low, high, level, is_printed, time @ ..] = bytes;
        let level = Level::iter().find(|known| *known as u8 == level)?;
        let length = u16::from_le_bytes([low, high]).into();
        Some(Head { length, level, is_printed: is_printed != 0, time: Instant::from_nanos(u64::from_le_bytes(time)) })
    }

    /// The record at `at` as a line in `buffer`. Its bytes are copied as they are: a message is text already.
    fn line<'a>(&self, at: u64, head: Head, is_coloured: bool, buffer: &'a mut [u8; LONGEST_LINE]) -> &'a [u8] {
        let micros = head.time.as_nanos() / 1000;
        let (before, after) = if is_coloured { (colour_of(head.level), "\x1b[0m") } else { ("", "") };
        let (seconds, fraction, level) = (micros / 1_000_000, micros % 1_000_000, head.level);
        let start = format_into(buffer, format_args!("[{seconds:5}.{fraction:06}] {before}{level:5}{after} ")).len();
        let end = start + head.length;
        self.copy(at + HEAD as u64, &mut buffer[start..end]);
        buffer[end] = b'\n';
        &buffer[..=end]
    }

    /// Puts pending records into `piece`, whole ones, as many as fit, in the place of what is there.
    fn take(&mut self, piece: &mut Vec<u8>, is_coloured: bool) {
        piece.clear();
        if self.pending == self.end && self.lost == 0 {
            return;
        }
        piece.reserve(PIECE);
        let mut buffer = [0; LONGEST_LINE];
        if self.lost > 0 {
            let lost = core::mem::take(&mut self.lost);
            let message = format_args!("({lost} log messages were lost: they came faster than the console takes them)\n");
            piece.extend_from_slice(format_into(&mut buffer, message));
        }
        while let Some(head) = self.head(self.pending) {
            if head.is_printed {
                if piece.len() + LONGEST_LINE > PIECE {
                    return;
                }
                piece.extend_from_slice(self.line(self.pending, head, is_coloured, &mut buffer));
            }
            self.pending += head.size();
        }
    }
}
