//! The ring of the last messages, and how it reaches the console.

use alloc::boxed::Box;
use alloc::vec;
use core::cell::RefCell;
use core::fmt::{self, Write as _};

use log::Level;

use super::subscription::Subscribers;
use super::{Colour, Filter, colour_of};
use crate::console::ChunkWriter;
use crate::platform::Platform;
use crate::time::Instant;

/// The longest message, its source included, in bytes: what is beyond is cut off.
pub const LONGEST: usize = 1024;

/// What the ring holds, in bytes: some two hundred messages of common length.
const CAPACITY: usize = 16 * 1024;

/// What is written to the console at once between two rounds, in bytes: what a pipe takes without waiting once it has room at all (`PIPE_BUF` of
/// Linux).
const PIECE: usize = 4096;

/// A record's head: length (2), level (1), whether it is printed (1), time (8).
const HEAD: usize = 12;

/// A message while it is formatted, cut off at [`LONGEST`] bytes.
pub(super) struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Text {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; LONGEST], length: 0 }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let taken = text.floor_char_boundary(LONGEST - self.length);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        // Nothing after a cut: a shorter piece must not follow a longer one that is missing.
        if taken == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// A runtime's messages.
pub(crate) struct Journal {
    pub(super) filter: Filter,
    pub(super) subscribers: Subscribers,
    is_coloured: bool,
    ring: RefCell<Ring>,
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
        Self { filter, subscribers: Subscribers::default(), is_coloured, ring: RefCell::default() }
    }

    pub(super) fn push(&self, time: Instant, level: Level, is_printed: bool, text: &[u8]) {
        self.ring.borrow_mut().push(Head { length: text.len(), level, is_printed, time }, text);
    }

    /// Writes a piece of what the console has not seen, if it has room. True when something is left.
    pub(crate) fn write_piece(&self, platform: &dyn Platform) -> bool {
        if !self.has_pending() {
            return false;
        }
        if platform.console_has_room() {
            self.write(platform, PIECE);
        }
        self.has_pending()
    }

    /// Writes all that the console has not seen, however long it takes.
    pub(crate) fn flush(&self, platform: &dyn Platform) {
        while self.has_pending() {
            self.write(platform, PIECE);
        }
    }

    fn has_pending(&self) -> bool {
        let ring = self.ring.borrow();
        ring.pending < ring.end || ring.lost > 0
    }

    /// Takes as many records as fit into `limit` bytes and writes them in one call.
    fn write(&self, platform: &dyn Platform, limit: usize) {
        let mut piece = Piece { bytes: [0; PIECE], length: 0 };
        self.ring.borrow_mut().take(&mut piece, limit.min(PIECE), self.is_coloured);
        platform.write_console(&piece.bytes[..piece.length]);
    }

    pub(super) fn dump(&self, write: impl FnMut(&[u8])) {
        let Ok(ring) = self.ring.try_borrow() else { return };
        if ring.oldest == ring.end {
            return;
        }
        let mut writer = ChunkWriter::new(write);
        // The writer itself never fails.
        let _ = writer.write_str("the last log messages:\n");
        let mut at = ring.oldest;
        while let Some(head) = ring.head(at) {
            let _ = ring.format(at, head, false, &mut writer);
            at += (HEAD + head.length) as u64;
        }
    }
}

/// What goes to the console in one call.
struct Piece {
    bytes: [u8; PIECE],
    length: usize,
}

impl fmt::Write for Piece {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let into = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        into.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

impl Ring {
    fn push(&mut self, head: Head, text: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; CAPACITY].into_boxed_slice();
        }
        while self.end + (HEAD + head.length) as u64 - self.oldest > CAPACITY as u64 {
            let Some(oldest) = self.head(self.oldest) else { break };
            if self.pending == self.oldest {
                self.lost += u64::from(oldest.is_printed);
                self.pending += (HEAD + oldest.length) as u64;
            }
            self.oldest += (HEAD + oldest.length) as u64;
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

    /// The bytes from `from` on, in two parts because the ring may end between them.
    fn slices(&self, from: u64, length: usize) -> (&[u8], &[u8]) {
        let at = (from % CAPACITY as u64) as usize;
        let first = length.min(CAPACITY - at);
        (&self.bytes[at..at + first], &self.bytes[..length - first])
    }

    fn head(&self, at: u64) -> Option<Head> {
        if at >= self.end {
            return None;
        }
        let (first, second) = self.slices(at, HEAD);
        let mut bytes = [0; HEAD];
        bytes[..first.len()].copy_from_slice(first);
        bytes[first.len()..].copy_from_slice(second);
        let [low, high, level, is_printed, time @ ..] = bytes;
        let level = Level::iter().find(|known| *known as u8 == level)?;
        let length = u16::from_le_bytes([low, high]).into();
        Some(Head { length, level, is_printed: is_printed != 0, time: Instant::from_nanos(u64::from_le_bytes(time)) })
    }

    /// Formats the record at `at` as a line.
    fn format(&self, at: u64, head: Head, is_coloured: bool, into: &mut dyn fmt::Write) -> fmt::Result {
        let (nanos, level) = (head.time.as_nanos(), head.level);
        let (before, after) = if is_coloured { (colour_of(level), "\x1b[0m") } else { ("", "") };
        write!(into, "[{:5}.{:06}] {before}{level:5}{after} ", nanos / 1_000_000_000, nanos / 1000 % 1_000_000)?;
        let (first, second) = self.slices(at + HEAD as u64, head.length);
        // The ring may end within a character: then its two halves are joined.
        match (core::str::from_utf8(first), core::str::from_utf8(second)) {
            (Ok(first), Ok(second)) => writeln!(into, "{first}{second}"),
            _ => {
                let mut text = [0; LONGEST];
                text[..first.len()].copy_from_slice(first);
                text[first.len()..head.length].copy_from_slice(second);
                writeln!(into, "{}", core::str::from_utf8(&text[..head.length]).unwrap_or_default())
            }
        }
    }

    /// Moves pending records into `piece`, whole ones, up to `limit` bytes.
    fn take(&mut self, piece: &mut Piece, limit: usize, is_coloured: bool) {
        if self.lost > 0 {
            // There is room: the piece is empty.
            let _ = writeln!(piece, "({} log messages were lost: they came faster than the console takes them)", self.lost);
            self.lost = 0;
        }
        while let Some(head) = self.head(self.pending) {
            let length = piece.length;
            if head.is_printed && (self.format(self.pending, head, is_coloured, piece).is_err() || piece.length > limit) {
                piece.length = length;
                return;
            }
            self.pending += (HEAD + head.length) as u64;
        }
    }
}
