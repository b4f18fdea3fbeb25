//! Subject information: what Muen says about a subject, as a table of named resources in memory that nobody writes to.
//!
//! Versions 04 and 05 are read. They differ in the place of the number of resources, in what a device's record says, which is not read here, and in the
//! numbers of kinds of memory from 18 on, which are not told apart here. Source: `bindings/muen/sinfo.h` of Solo5 0.12.1 (05) and 0.12.0 (04).

use core::fmt;

/// Bytes of the whole.
pub const SIZE: usize = RESOURCES + MAX_RESOURCES * RESOURCE_SIZE;

/// Resources that there may be: `MAX_RESOURCE_COUNT`.
pub const MAX_RESOURCES: usize = 255;

/// Bytes of a name: `MAX_NAME_LENGTH`.
pub const MAX_NAME: usize = 63;

/// `MUEN_SUBJECT_INFO_MAGIC` without its highest byte, which is the version.
const MAGIC: u64 = 0x6f66_6e69_756d;

/// Places in the whole.
const TSC_KHZ: usize = 8;
const NAME: usize = 12;
const COUNT_04: usize = 77;
const COUNT_05: usize = 78;
const RESOURCES: usize = 80;
const RESOURCE_SIZE: usize = 128;

/// Places in a resource.
const RESOURCE_NAME: usize = 4;
const DATA: usize = 72;

/// Kinds of resource: `enum muen_resource_kind`.
const NONE: u32 = 0;
const MEMORY: u32 = 1;
const EVENT: u32 = 2;

/// `NO_PATTERN`.
const NO_PATTERN: u16 = 256;

/// What memory is for: of `enum muen_memory_kind` those that a subject asks for.
pub mod kind {
    /// Memory of its own.
    pub const SUBJECT: u8 = 0;
    /// The subject information.
    pub const SUBJECT_INFO: u8 = 1;
    /// A part of its image.
    pub const BINARY: u8 = 2;
    /// A channel.
    pub const CHANNEL: u8 = 5;
    /// The scheduling information.
    pub const SCHEDULING_INFO: u8 = 9;
    /// The boot information of the Solo5 family.
    pub const BOOT_INFO: u8 = 16;
}

/// The version of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 04, which the tools emit that Muen has released.
    V04,
    /// 05, of ABI note 4.
    V05,
}

impl Version {
    const fn magic(self) -> u64 {
        MAGIC
            | (match self {
                Self::V04 => 4,
                Self::V05 => 5,
            }) << 56
    }

    const fn count_at(self) -> usize {
        match self {
            Self::V04 => COUNT_04,
            Self::V05 => COUNT_05,
        }
    }
}

/// Why memory is no subject information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownVersion {
    /// What stands where the magic number should.
    pub found: u64,
}

impl fmt::Display for UnknownVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found & !(0xff << 56) == MAGIC {
            write!(
                f,
                "the subject information has version {:02x}, and this image reads 04 and 05: use tools of Muen of that age",
                self.found >> 56
            )
        } else {
            write!(f, "there is no subject information: {:#x} stands where it should begin", self.found)
        }
    }
}

impl core::error::Error for UnknownVersion {}

/// A region of memory that a subject has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// What it is for: see [`kind`].
    pub kind: u8,
    /// Whether the subject may write to it.
    pub is_writable: bool,
    /// Whether the subject may execute it.
    pub is_executable: bool,
    /// Where it begins.
    pub address: u64,
    /// Bytes of it.
    pub size: u64,
}

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Memory.
    Memory(MemoryRegion),
    /// An event that the subject may raise, by its number.
    Event(u8),
    /// Something that this library has no use for, by its kind.
    Other(u32),
}

/// Subject information.
#[derive(Clone, Copy, Debug)]
pub struct Sinfo<'a> {
    bytes: &'a [u8; SIZE],
    version: Version,
}

impl<'a> Sinfo<'a> {
    /// Reads subject information.
    ///
    /// # Errors
    /// [`UnknownVersion`].
    pub fn read(bytes: &'a [u8; SIZE]) -> Result<Self, UnknownVersion> {
        let found = long(bytes, 0);
        let version = [Version::V04, Version::V05].into_iter().find(|version| version.magic() == found);
        version.map(|version| Self { bytes, version }).ok_or(UnknownVersion { found })
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Ticks of the time stamp counter in a millisecond.
    #[must_use]
    pub fn tsc_khz(&self) -> u32 {
        word(self.bytes, TSC_KHZ)
    }

    /// The subject's name.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        name(&self.bytes[NAME..])
    }

    /// The resources with their names, up to the first that is none.
    pub fn resources(&self) -> impl Iterator<Item = (&'a [u8], Resource)> + use<'a> {
        let at = self.version.count_at();
        let count = usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])).min(MAX_RESOURCES);
        let records = self.bytes[RESOURCES..].as_chunks::<RESOURCE_SIZE>().0.iter().take(count);
        records.map_while(|record| Some((name(&record[RESOURCE_NAME..]), resource(record)?)))
    }

    /// The memory of this name.
    #[must_use]
    pub fn memory(&self, name: &str) -> Option<MemoryRegion> {
        self.resources().find_map(|(found, resource)| match resource {
            Resource::Memory(region) if found == name.as_bytes() => Some(region),
            _ => None,
        })
    }

    /// The number of the event of this name.
    #[must_use]
    pub fn event(&self, name: &str) -> Option<u8> {
        self.resources().find_map(|(found, resource)| match resource {
            Resource::Event(number) if found == name.as_bytes() => Some(number),
            _ => None,
        })
    }
}

/// Writes subject information; resources beyond [`MAX_RESOURCES`] are left out, and names are cut at [`MAX_NAME`] bytes.
pub fn emit(bytes: &mut [u8; SIZE], version: Version, tsc_khz: u32, subject: &str, resources: &[(&str, Resource)]) {
    bytes.fill(0);
    bytes[..8].copy_from_slice(&version.magic().to_le_bytes());
    bytes[TSC_KHZ..TSC_KHZ + 4].copy_from_slice(&tsc_khz.to_le_bytes());
    put_name(&mut bytes[NAME..], subject);
    let count = resources.len().min(MAX_RESOURCES) as u16;
    bytes[version.count_at()..version.count_at() + 2].copy_from_slice(&count.to_le_bytes());
    for (record, (name, resource)) in bytes[RESOURCES..].as_chunks_mut::<RESOURCE_SIZE>().0.iter_mut().zip(resources) {
        put_name(&mut record[RESOURCE_NAME..], name);
        let kind = match resource {
            Resource::Memory(region) => {
                let data = &mut record[DATA..];
                data[0] = region.kind;
                data[2] = u8::from(region.is_writable) | u8::from(region.is_executable) << 1;
                data[3..5].copy_from_slice(&NO_PATTERN.to_le_bytes());
                data[8..16].copy_from_slice(&region.address.to_le_bytes());
                data[16..24].copy_from_slice(&region.size.to_le_bytes());
                MEMORY
            }
            Resource::Event(number) => {
                record[DATA] = *number;
                EVENT
            }
            Resource::Other(kind) => *kind,
        };
        record[..4].copy_from_slice(&kind.to_le_bytes());
    }
}

fn resource(record: &[u8; RESOURCE_SIZE]) -> Option<Resource> {
    let data = &record[DATA..];
    match word(record, 0) {
        NONE => None,
        MEMORY => Some(Resource::Memory(MemoryRegion {
            kind: data[0],
            is_writable: data[2] & 1 != 0,
            is_executable: data[2] & 2 != 0,
            address: long(data, 8),
            size: long(data, 16),
        })),
        EVENT => Some(Resource::Event(data[0])),
        other => Some(Resource::Other(other)),
    }
}

/// A name: its length, then its bytes.
fn name(bytes: &[u8]) -> &[u8] {
    let length = usize::from(bytes[0]).min(MAX_NAME);
    &bytes[1..=length]
}

fn put_name(bytes: &mut [u8], name: &str) {
    let length = name.len().min(MAX_NAME);
    bytes[0] = length as u8;
    bytes[1..=length].copy_from_slice(&name.as_bytes()[..length]);
}

/// The 32 bits at `at`; zero beyond the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The 64 bits at `at`; zero beyond the end.
pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn region() -> impl Strategy<Value = Resource> {
        (any::<u8>(), any::<bool>(), any::<bool>(), any::<u64>(), any::<u64>()).prop_map(
            |(kind, is_writable, is_executable, address, size)| {
                Resource::Memory(MemoryRegion { kind, is_writable, is_executable, address, size })
            },
        )
    }

    fn resources() -> impl Strategy<Value = Vec<(String, Resource)>> {
        let resource = prop_oneof![region(), any::<u8>().prop_map(Resource::Event), (3_u32..7).prop_map(Resource::Other)];
        prop::collection::vec(("[a-z|]{1,63}", resource), 0..20)
    }

    proptest! {
        #[test]
        fn what_is_emitted_is_read(
            version in prop_oneof![Just(Version::V04), Just(Version::V05)], khz in any::<u32>(), subject in "[a-z]{0,63}", resources in resources(),
        ) {
            let list: Vec<(&str, Resource)> = resources.iter().map(|(name, resource)| (name.as_str(), *resource)).collect();
            let mut bytes = Box::new([0xff; SIZE]);
            emit(&mut bytes, version, khz, &subject, &list);
            let sinfo = Sinfo::read(&bytes).unwrap();
            prop_assert_eq!((sinfo.version(), sinfo.tsc_khz(), sinfo.name()), (version, khz, subject.as_bytes()));
            let read: Vec<_> = sinfo.resources().map(|(name, resource)| (core::str::from_utf8(name).unwrap(), resource)).collect();
            prop_assert_eq!(read, list);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            changes in prop::collection::vec((0_usize..1024, any::<u8>()), 0..60), count in any::<u16>(), names in any::<u8>(),
        ) {
            let mut bytes = Box::new([names; SIZE]);
            emit(&mut bytes, Version::V05, 1, "subject", &[("memory", Resource::Event(1)); 8]);
            bytes[COUNT_05..COUNT_05 + 2].copy_from_slice(&count.to_le_bytes());
            for (at, value) in changes {
                bytes[at] = value;
            }
            if let Ok(sinfo) = Sinfo::read(&bytes) {
                prop_assert!(sinfo.name().len() <= MAX_NAME && sinfo.resources().count() <= MAX_RESOURCES);
                let _ = (sinfo.memory("memory"), sinfo.event("memory"));
            }
        }
    }

    /// Offsets counted by hand from the structures of `sinfo.h`.
    #[test]
    fn the_layout_is_the_headers_byte_for_byte() {
        assert_eq!(SIZE, 32_720);
        let mut bytes = Box::new([0; SIZE]);
        let region = MemoryRegion { kind: kind::CHANNEL, is_writable: true, is_executable: false, address: 0xe000_0000, size: 0x10_0000 };
        emit(&mut bytes, Version::V05, 2_112_000, "subject", &[("a|out", Resource::Memory(region)), ("solo5_exit", Resource::Event(7))]);
        assert_eq!(bytes[..8], *b"muinfo\0\x05");
        assert_eq!(bytes[8..12], 2_112_000_u32.to_le_bytes());
        assert_eq!(bytes[12..20], *b"\x07subject");
        assert_eq!(bytes[76..80], [0, 0, 2, 0]);
        let record = &bytes[80..208];
        assert_eq!(record[..10], *b"\x01\0\0\0\x05a|out");
        assert_eq!(record[72..80], [5, 0, 1, 0, 1, 0, 0, 0]);
        assert_eq!(record[80..88], 0xe000_0000_u64.to_le_bytes());
        assert_eq!(record[88..96], 0x10_0000_u64.to_le_bytes());
        assert_eq!((bytes[208], bytes[280]), (2, 7));
        emit(&mut bytes, Version::V04, 1, "subject", &[("x", Resource::Event(7))]);
        assert_eq!((bytes[7], &bytes[76..80]), (4, &[0, 1, 0, 0][..]));
    }

    #[test]
    fn other_versions_are_named() {
        let mut bytes = Box::new([0; SIZE]);
        assert!(Sinfo::read(&bytes).unwrap_err().to_string().contains("no subject information"));
        emit(&mut bytes, Version::V05, 1, "", &[]);
        bytes[7] = 6;
        assert!(Sinfo::read(&bytes).unwrap_err().to_string().contains("version 06"));
    }
}
