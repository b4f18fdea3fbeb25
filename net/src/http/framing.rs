//! Where a body ends: a length, chunks, or the end of the connection (RFC 9112, sections 6.2, 6.3 and 7.1).
//!
//! Chunks are read by the letter: no white space around sizes, CR LF alone ends a line, and extensions and trailers, which are ignored, must be
//! well-formed. What is lenient here is what request smuggling lives on.

/// Bytes of chunk extensions and trailers that one body may have.
const MAX_OVERHEAD: u32 = 4096;

/// Hexadecimal digits of a chunk's size: as many as 64 bits need.
const MAX_DIGITS: u8 = 16;

/// The chunks are not as the grammar says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How far a body has been read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// All until the peer closes, as a response may have it; whether it has closed.
    UntilClose(bool),
}

impl Framing {
    pub(super) const fn chunked() -> Self {
        Self::Chunked(Chunked { state: State::Size, digits: 0, left: 0, overhead: 0 })
    }

    /// Reads what stands between data at the start of `input`. Gives how many bytes that was.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::Length(_) | Self::UntilClose(_) => Ok(0),
            Self::Chunked(chunked) => chunked.advance(input),
        }
    }

    /// How many of the next bytes are data.
    pub(super) const fn data(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(Chunked { state: State::Data, left, .. }) => *left,
            Self::UntilClose(false) => u64::MAX,
            Self::Chunked(_) | Self::UntilClose(true) => 0,
        }
    }

    /// Notes that `length` bytes of data were taken, at most [`data`](Self::data).
    pub(super) const fn take(&mut self, length: u64) {
        match self {
            Self::Length(left) => *left -= length,
            Self::Chunked(chunked) => {
                chunked.left -= length;
                if chunked.left == 0 {
                    chunked.state = State::DataCr;
                }
            }
            Self::UntilClose(_) => {}
        }
    }

    /// True when the body has been read to its end.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::UntilClose(true) | Self::Chunked(Chunked { state: State::Done, .. }))
    }
}

/// The state of a body in chunks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    state: State,
    digits: u8,
    left: u64,
    overhead: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Done,
}

impl Chunked {
    fn advance(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        for (at, &byte) in input.iter().enumerate() {
            if matches!(self.state, State::Data | State::Done) {
                return Ok(at);
            }
            self.state = self.step(byte)?;
        }
        Ok(input.len())
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        use State::*;
        Ok(match (self.state, byte) {
            (Size, b'\r') if self.digits > 0 => SizeLf,
            (Size, b';') if self.digits > 0 => Extension,
            (Size, _) => {
                let digit = char::from(byte).to_digit(16).filter(|_| self.digits < MAX_DIGITS).ok_or(Malformed)?;
                self.digits += 1;
                self.left = self.left << 4 | u64::from(digit);
                Size
            }
            (Extension, b'\r') => SizeLf,
            (Extension, _) if is_field_value(byte) => self.overhead(Extension)?,
            (SizeLf, b'\n') if self.left == 0 => TrailerStart,
            (SizeLf, b'\n') => Data,
            (DataCr, b'\r') => DataLf,
            (DataLf, b'\n') => {
                self.digits = 0;
                Size
            }
            (TrailerStart, b'\r') => LastLf,
            (TrailerStart | TrailerName, _) if is_token(byte) => self.overhead(TrailerName)?,
            (TrailerName, b':') => TrailerValue,
            (TrailerValue, b'\r') => TrailerLf,
            (TrailerValue, _) if is_field_value(byte) => self.overhead(TrailerValue)?,
            (TrailerLf, b'\n') => TrailerStart,
            (LastLf, b'\n') => Done,
            _ => return Err(Malformed),
        })
    }

    fn overhead(&mut self, next: State) -> Result<State, Malformed> {
        self.overhead += 1;
        if self.overhead > MAX_OVERHEAD { Err(Malformed) } else { Ok(next) }
    }
}

/// A character of a token (RFC 9110, section 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// A byte that a field value may have (RFC 9110, section 5.5).
pub(super) const fn is_field_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The data of a body, and what follows it.
    type Parts = (Vec<u8>, Vec<u8>);

    /// Reads a body that arrives in pieces. Gives its data and what follows it, or `None` while it has not ended.
    fn read(pieces: &[&[u8]]) -> Result<Option<Parts>, Malformed> {
        let mut framing = Framing::chunked();
        let (mut data, mut rest) = (Vec::new(), Vec::new());
        for piece in pieces {
            let mut piece = *piece;
            while !piece.is_empty() && !framing.is_done() {
                piece = &piece[framing.advance(piece)?..];
                let length = piece.len().min(framing.data() as usize);
                data.extend_from_slice(&piece[..length]);
                if length > 0 {
                    framing.take(length as u64);
                }
                piece = &piece[length..];
            }
            rest.extend_from_slice(piece);
        }
        Ok(framing.is_done().then_some((data, rest)))
    }

    #[test]
    fn reads_chunks_extensions_and_trailers() {
        let body = b"4\r\nWiki\r\n00A;name=\"v\"\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET";
        assert_eq!(read(&[body]), Ok(Some((b"Wiki0123456789".to_vec(), b"GET".to_vec()))));
        assert_eq!(read(&[b"0\r\n\r\n"]), Ok(Some((Vec::new(), Vec::new()))));
        assert_eq!(read(&[b"5\r\nab"]), Ok(None));
    }

    #[test]
    fn refuses_what_others_might_read_otherwise() {
        for body in [
            "\r\n",
            "5\n",
            "5 \r\n",
            " 5\r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5\r\nhello\n",
            "5\r\nhello!",
            "5\r\nhello\r\r",
            ";a\r\n",
            "10000000000000000\r\n",
            "5;a\nb\r\n",
            "5;\0\r\n",
            "0\r\n X: y\r\n",
            "0\r\nX : y\r\n",
            "0\r\nX\r\n",
            "0\r\nX: y\n",
            "0\r\n\n",
            "0\r\n: y\r\n",
        ] {
            assert_eq!(read(&[body.as_bytes()]), Err(Malformed), "{body:?}");
        }
        let long = [b"1;", &[b'a'; 5000][..]].concat();
        assert_eq!(read(&[&long]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(body in "(([0-9a-f]{1,2}|3;x)(\r\n)([a-z]{3})(\r\n)){0,4}0\r\n(a: b\r\n)?\r\nrest", cuts in proptest::collection::vec(0..60usize, 0..5)) {
            let body = body.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[body]));
        }

        #[test]
        fn anything_is_read_or_refused(body in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'0')], 0..200)) {
            let _ = read(&[&body]);
        }
    }
}
