//! The header of a member: POSIX.1-2017, pax, "ustar Interchange Format"; long names as GNU tar and pax write them.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use fogbow::time::WallTime;

/// Bytes in a header; data takes a multiple of it.
pub(super) const UNIT: usize = 512;

/// The largest value: what eleven octal digits say.
pub(super) const LARGEST: u64 = 0o777_7777_7777;

/// The most bytes of a long name, or of pax records, that are read.
pub(super) const LONGEST_EXTENSION: u64 = 64 * 1024;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const USER: Range<usize> = 108..116;
const GROUP: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MODIFIED: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const KIND: usize = 156;
const MAGIC: Range<usize> = 257..263;
const PREFIX: Range<usize> = 345..500;

/// The name of the member that GNU tar keeps a long name in.
const LONG_LINK: &str = "././@LongLink";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    /// GNU's: the data are the next member's name.
    LongName,
    /// pax's: the data are records about the next member.
    Extended,
    /// A directory, a link, a device.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) length: u64,
    pub(super) modified: WallTime,
    pub(super) kind: Kind,
}

impl Header {
    /// Reads a header; `None` for the zeros that end an archive, and for a header that is torn.
    pub(super) fn read(block: &[u8; UNIT]) -> Result<Option<Self>, &'static str> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // What `write` makes ends with the version, behind the magic. A header that lacks it and all behind it was torn by a power cut as it was being
        // appended: the archive ends before it, as it did.
        let is_whole = number(&block[CHECKSUM]) == Some(u64::from(checksum(block)));
        if !is_whole && block[MAGIC.end + 1..].iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if !is_whole {
            return Err("the header's checksum is wrong");
        }
        let kind = match block[KIND] {
            b'0' | 0 | b'7' => Kind::File,
            b'L' => Kind::LongName,
            b'x' => Kind::Extended,
            _ => Kind::Other,
        };
        let mut name = text(&block[NAME])?;
        // GNU's own format has other things there, and two spaces behind its magic.
        if &block[MAGIC] == b"ustar\0" && block[PREFIX.start] != 0 {
            name = format!("{}/{name}", text(&block[PREFIX])?);
        }
        let length = number(&block[SIZE]).ok_or("the size is no number")?;
        let modified = WallTime::from_unix_nanos(number(&block[MODIFIED]).unwrap_or(0).saturating_mul(1_000_000_000));
        Ok(Some(Self { name, length, modified, kind }))
    }

    /// A header of a file. A name that is too long for it is cut: [`names`] precedes it then.
    pub(super) fn write(name: &str, length: u64, modified: WallTime) -> [u8; UNIT] {
        header(name, length, modified.as_unix_nanos() / 1_000_000_000, b'0')
    }
}

/// What precedes the header of a member with this name: nothing, or the name as a member of its own.
pub(super) fn names(name: &str) -> Vec<u8> {
    if name.len() <= NAME.len() {
        return Vec::new();
    }
    // Its size counts the NUL behind the name.
    let mut units = vec![0; UNIT + (name.len() + 1).next_multiple_of(UNIT)];
    units[..UNIT].copy_from_slice(&header(LONG_LINK, name.len() as u64 + 1, 0, b'L'));
    units[UNIT..UNIT + name.len()].copy_from_slice(name.as_bytes());
    units
}

fn header(name: &str, length: u64, modified: u64, kind: u8) -> [u8; UNIT] {
    let mut block = [0; UNIT];
    let name = &name.as_bytes()[..name.len().min(NAME.len())];
    block[..name.len()].copy_from_slice(name);
    for (field, value) in [(MODE, 0o644), (USER, 0), (GROUP, 0), (SIZE, length), (MODIFIED, modified.min(LARGEST))] {
        let digits = format!("{value:0width$o}", width = field.len() - 1);
        block[field.start..field.end - 1].copy_from_slice(digits.as_bytes());
    }
    block[KIND] = kind;
    block[MAGIC].copy_from_slice(b"ustar\0");
    block[MAGIC.end..MAGIC.end + 2].copy_from_slice(b"00");
    let sum = format!("{:06o}\0 ", checksum(&block));
    block[CHECKSUM].copy_from_slice(sum.as_bytes());
    block
}

/// The sum of the header's bytes, its own place counted as spaces.
fn checksum(block: &[u8; UNIT]) -> u32 {
    let own = |at: &usize| CHECKSUM.contains(at);
    block.iter().enumerate().map(|(at, byte)| if own(&at) { u32::from(b' ') } else { u32::from(*byte) }).sum()
}

/// Octal digits between spaces and NULs, or GNU's big-endian number behind the bit 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        return rest.iter().try_fold(0_u64, |number, byte| number.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let text = core::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// Text up to the first NUL.
pub(super) fn text(field: &[u8]) -> Result<String, &'static str> {
    let length = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    core::str::from_utf8(&field[..length]).map(str::to_owned).map_err(|_| "the name is not UTF-8")
}

/// The name among pax's records, each `LENGTH KEYWORD=VALUE` and a line feed.
pub(super) fn extended_name(records: &[u8]) -> Result<Option<String>, &'static str> {
    let (mut rest, mut name) = (records, None);
    while !rest.is_empty() {
        let wrong = "a pax record is not one";
        let space = rest.iter().position(|byte| *byte == b' ').ok_or(wrong)?;
        let digits = core::str::from_utf8(&rest[..space]).map_err(|_| wrong)?;
        let length = digits.parse::<usize>().ok().filter(|length| *length > space + 1 && *length <= rest.len()).ok_or(wrong)?;
        let record = rest[space + 1..length].strip_suffix(b"\n").ok_or(wrong)?;
        match record.iter().position(|byte| *byte == b'=').map(|at| record.split_at(at)) {
            Some((b"path", value)) => name = Some(text(&value[1..])?),
            Some((b"size", _)) => return Err("a value of 8 GiB or more cannot be read"),
            Some(_) => {}
            None => return Err(wrong),
        }
        rest = &rest[length..];
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_octal_or_gnu() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"  17 \0\0\0", Some(0o17)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"0000648\0", None),
            (b"\x80\0\0\0\0\0\x01\x02", Some(0x102)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", Some(u64::MAX)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(mut block in proptest::collection::vec(any::<u8>(), UNIT), digits in any::<bool>()) {
            if digits {
                block[SIZE][0] = 0x80;
                block[MODIFIED][0] = 0x80;
            }
            let mut block: [u8; UNIT] = block.try_into().unwrap();
            let _ = Header::read(&block);
            let sum = format!("{:06o}\0 ", checksum(&block));
            block[CHECKSUM].copy_from_slice(sum.as_bytes());
            let _ = Header::read(&block);
            for field in [MODE, USER, GROUP, SIZE, MODIFIED, CHECKSUM] {
                block[field.start] = 0x80;
                let _ = number(&block[field]);
            }
        }
    }
}
