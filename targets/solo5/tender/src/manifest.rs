//! The application manifest, MFT1: which devices an image asks for, and what it got.
//!
//! An image carries `struct mft` of Solo5's `mft_abi.h` in an ELF note: a version, a count, and an entry for each device, the first one
//! reserved. The tender fills in what each device turned out to be and places the same structure in guest memory. All numbers are
//! little-endian; a device's handle is its entry's index, so the first device has handle 1.
//!
//! Stricter than Solo5's `mft_validate`: a device that no tender could attach (an unknown type, a name that cannot be written on the
//! command line, the same name and type twice) is refused here, with a reason.

use core::fmt;
use std::os::fd::RawFd;

/// `MFT_VERSION`, the only manifest version there is.
pub const VERSION: u32 = 1;
/// `MFT_MAX_ENTRIES`, counting the reserved first entry.
pub const MAX_ENTRIES: usize = 64;
/// `MFT_NAME_MAX`, in characters.
pub const NAME_MAX: usize = 67;
/// Bytes before the first entry of `struct mft`.
pub const HEADER_SIZE: usize = 8;
/// Bytes of a `struct mft_entry` on x86-64.
pub const ENTRY_SIZE: usize = 104;

/// `MFT_RESERVED_FIRST`, the type of the entry that stands first and is no device.
const TYPE_RESERVED_FIRST: u32 = 1 << 30;

/// Where the fields of a `struct mft_entry` are on x86-64.
mod field {
    pub(super) const TYPE: usize = 68;
    pub(super) const CAPACITY: usize = 72;
    pub(super) const BLOCK_SIZE: usize = 80;
    pub(super) const MAC: usize = 72;
    pub(super) const MTU: usize = 78;
    pub(super) const HOST_DESCRIPTOR: usize = 88;
    pub(super) const ATTACHED: usize = 96;
    /// Padding in Solo5's structure: nothing to its own tenders. Here, of a block device: 1 when it can be flushed, then the two sizes of transfers
    /// beyond a sector, as powers of two in bytes. Of a network device: [`HEADERS_TAKEN`](super::HEADERS_TAKEN) in the image,
    /// [`HEADERS_GIVEN`](super::HEADERS_GIVEN) where that is what it gets.
    pub(super) const EXTENSION: usize = 97;
}

/// A guest takes frames with virtio's header before each, and says so in its image.
const HEADERS_TAKEN: u8 = 1;
/// Each frame has such a header, in both directions.
const HEADERS_GIVEN: u8 = 2;

/// Padding too, of the reserved entry: an image that carries the one copes with a console that takes only a part of what it is given; it is handed the
/// other back, and 1 behind it when the console is a terminal.
const CONSOLE_TAKEN: u8 = 1;
const CONSOLE_GIVEN: u8 = 2;

/// What our tenders take from a guest beyond Solo5's one sector at a time, as powers of two: a transfer of at most so many bytes, if as many fit
/// between its offset and the end of the device. Two sizes, because a system call filter can compare but not add.
pub const TRANSFER_SIZES: [u8; 2] = [16, 20];

/// Where padding says that a block device can be read alone, so that the image need not find out by an error; and what it says then.
const READ_ONLY_AT: usize = field::EXTENSION + 3;
const READ_ONLY: u8 = 1;

/// Block devices of an image that are all extended in this way; beyond that none is, as each takes room in the filter.
pub const MAX_EXTENDED: usize = 16;

/// The kinds of device an image can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// `MFT_DEV_BLOCK_BASIC`.
    Block,
    /// `MFT_DEV_NET_BASIC`.
    Net,
}

impl DeviceKind {
    /// The command-line option that attaches such a device.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::Block => "--block",
            Self::Net => "--net",
        }
    }

    fn from_abi(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Block),
            2 => Some(Self::Net),
            _ => None,
        }
    }

    fn to_abi(self) -> u32 {
        match self {
            Self::Block => 1,
            Self::Net => 2,
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Block => "block",
            Self::Net => "net",
        })
    }
}

/// A device's name: 1 to [`NAME_MAX`] ASCII letters and digits, as the command line can spell it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// The name, if it is one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let valid = (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        valid.then(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A device that an image asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// What the application calls it.
    pub name: Name,
    /// What it is.
    pub kind: DeviceKind,
    /// Of a network device: the guest can take frames with virtio's header before each, and so larger ones than the MTU.
    pub takes_headers: bool,
}

impl Device {
    /// A device as images of Fogbow's declare it: networks with headers.
    #[must_use]
    pub fn new(name: Name, kind: DeviceKind) -> Self {
        Self { name, kind, takes_headers: kind == DeviceKind::Net }
    }
}

/// What a device turned out to be once attached, as the guest is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Properties {
    /// `struct mft_block_basic`.
    Block {
        /// Bytes, a multiple of `block_size`.
        capacity: u64,
        /// Bytes in a sector; a power of two, 512 at least.
        block_size: u16,
        /// Whether it can be flushed and takes [`TRANSFER_SIZES`]; otherwise a sector at a time.
        extended: bool,
        /// Whether it is open for reading alone.
        read_only: bool,
    },
    /// `struct mft_net_basic`.
    Net {
        /// The guest's Ethernet address.
        mac: [u8; 6],
        /// Largest payload of a frame in bytes, the Ethernet header not counted.
        mtu: u16,
        /// Whether virtio's header stands before each frame.
        headed: bool,
    },
}

/// A device's entry, filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// What the device turned out to be.
    pub properties: Properties,
    /// The descriptor in the tender's process: what an spt guest reads and writes; give -1 where a guest has no use for it.
    pub descriptor: RawFd,
}

/// The devices an image asks for, in the order declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    devices: Vec<Device>,
    takes_console: bool,
    on_terminal: bool,
}

/// Why bytes are not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The size does not follow from the count of entries.
    #[error("the manifest is {found} bytes long and {expected} were expected: rebuild the image")]
    Size {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// Not version 1.
    #[error("the manifest has version {0}, and only version {VERSION} is known: rebuild the image for this tender")]
    Version(u32),
    /// No entry at all, or more than [`MAX_ENTRIES`].
    #[error("the manifest has {0} entries, and 1 to {MAX_ENTRIES} are allowed: rebuild the image with fewer devices")]
    Count(u32),
    /// The first entry is not the reserved one.
    #[error("the manifest's first entry is not the reserved one: rebuild the image")]
    ReservedFirst,
    /// A type that is no device.
    #[error("manifest entry {index} has type {number:#x}, which is neither block (1) nor net (2): rebuild the image for this tender")]
    Type {
        /// Which entry.
        index: usize,
        /// Its type.
        number: u32,
    },
    /// A name that is empty, too long, or has other characters than letters and digits.
    #[error("manifest entry {0} has a name that is not 1 to {NAME_MAX} letters and digits: rename the device and rebuild the image")]
    Name(usize),
    /// An entry claims to be attached already.
    #[error("manifest entry {0} claims to be attached already: rebuild the image")]
    AlreadyAttached(usize),
    /// Two devices of the same kind have the same name.
    #[error("the manifest declares the {} device '{}' twice: rename one and rebuild the image", .0.kind, .0.name)]
    Duplicate(Device),
}

impl Manifest {
    /// A manifest of these devices.
    ///
    /// # Errors
    /// [`ManifestError::Count`] if there are more than 63, [`ManifestError::Duplicate`] if two are the same.
    pub fn new(devices: Vec<Device>) -> Result<Self, ManifestError> {
        if devices.len() >= MAX_ENTRIES {
            return Err(ManifestError::Count(u32::try_from(devices.len()).unwrap_or(u32::MAX).saturating_add(1)));
        }
        let is_same = |one: &Device, other: &Device| (one.kind, &one.name) == (other.kind, &other.name);
        let repeated = devices.iter().enumerate().find(|(index, device)| devices[..*index].iter().any(|other| is_same(device, other)));
        match repeated {
            Some((_, device)) => Err(ManifestError::Duplicate(device.clone())),
            None => Ok(Self { devices, ..Self::default() }),
        }
    }

    /// This manifest of a guest whose networks are given plain frames, whatever it takes.
    #[must_use]
    pub fn with_plain_frames(mut self) -> Self {
        self.devices.iter_mut().for_each(|device| device.takes_headers = false);
        self
    }

    /// Reads a `struct mft` as an image carries it. What it says about attached devices is not looked at, as nothing is attached yet.
    ///
    /// # Errors
    /// One of [`ManifestError`], for the first thing found wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let too_short = ManifestError::Size { found: bytes.len(), expected: HEADER_SIZE };
        let version = read_u32(bytes, 0).ok_or(too_short.clone())?;
        let count = read_u32(bytes, 4).ok_or(too_short)?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let entry_count = usize::try_from(count).unwrap_or(usize::MAX);
        if !(1..=MAX_ENTRIES).contains(&entry_count) {
            return Err(ManifestError::Count(count));
        }
        let expected = HEADER_SIZE + entry_count * ENTRY_SIZE;
        if bytes.len() != expected {
            return Err(ManifestError::Size { found: bytes.len(), expected });
        }
        let mut entries = bytes[HEADER_SIZE..].chunks_exact(ENTRY_SIZE).enumerate();
        let takes_console = match entries.next() {
            Some((_, first)) if read_u32(first, field::TYPE) == Some(TYPE_RESERVED_FIRST) && first[0] == 0 => {
                first[field::EXTENSION] == CONSOLE_TAKEN
            }
            _ => return Err(ManifestError::ReservedFirst),
        };
        let devices = entries.map(|(index, entry)| parse_entry(index, entry)).collect::<Result<_, _>>()?;
        Ok(Self { takes_console, ..Self::new(devices)? })
    }

    /// The `struct mft` that an image carries: nothing attached. `Manifest::parse` of it gives this manifest back.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        self.emit_entries(&[], CONSOLE_TAKEN)
    }

    /// The `struct mft` that a guest is given: `attachments` in the order of [`devices`](Self::devices). Devices beyond its end are
    /// marked as not attached.
    #[must_use]
    pub fn emit_attached(&self, attachments: &[Attachment]) -> Vec<u8> {
        self.emit_entries(attachments, CONSOLE_GIVEN)
    }

    /// Whether the image copes with a console that takes only a part of what it is given.
    #[must_use]
    pub fn takes_console(&self) -> bool {
        self.takes_console
    }

    /// The same for an image that does.
    #[must_use]
    pub fn taking_console(self) -> Self {
        Self { takes_console: true, ..self }
    }

    /// The same for a guest whose console is a terminal, or is not.
    #[must_use]
    pub fn on_terminal(self, on_terminal: bool) -> Self {
        Self { on_terminal, ..self }
    }

    /// The devices, in the order declared. The device at index `i` has handle `i + 1`.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Where a device is in [`devices`](Self::devices).
    #[must_use]
    pub fn position(&self, name: &str, kind: DeviceKind) -> Option<usize> {
        self.devices.iter().position(|device| device.kind == kind && device.name.as_str() == name)
    }

    fn emit_entries(&self, attachments: &[Attachment], console: u8) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_SIZE + (1 + self.devices.len()) * ENTRY_SIZE];
        write(&mut bytes, 0, &VERSION.to_le_bytes());
        // At most MAX_ENTRIES, by construction.
        write(&mut bytes, 4, &(1 + self.devices.len() as u32).to_le_bytes());
        let mut entries = bytes[HEADER_SIZE..].chunks_exact_mut(ENTRY_SIZE);
        if let Some(first) = entries.next() {
            write(first, field::TYPE, &TYPE_RESERVED_FIRST.to_le_bytes());
            if self.takes_console {
                let is_terminal = console == CONSOLE_GIVEN && self.on_terminal;
                write(first, field::EXTENSION, &[console, is_terminal.into()]);
            }
        }
        for (index, (entry, device)) in entries.zip(&self.devices).enumerate() {
            write(entry, 0, device.name.as_str().as_bytes());
            write(entry, field::TYPE, &device.kind.to_abi().to_le_bytes());
            if device.takes_headers {
                entry[field::EXTENSION] = HEADERS_TAKEN;
            }
            if let Some(attachment) = attachments.get(index) {
                emit_attachment(entry, attachment);
            }
        }
        bytes
    }
}

impl fmt::Display for Manifest {
    /// The devices as a person reads them: `net 'service', block 'storage'`, or `no device`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.devices.is_empty() {
            return formatter.write_str("no device");
        }
        for (index, device) in self.devices.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(formatter, "{separator}{} '{}'", device.kind, device.name)?;
        }
        Ok(())
    }
}

fn parse_entry(index: usize, entry: &[u8]) -> Result<Device, ManifestError> {
    let name = &entry[..=NAME_MAX];
    let length = name.iter().position(|&byte| byte == 0).ok_or(ManifestError::Name(index))?;
    let name = core::str::from_utf8(&name[..length]).ok().and_then(Name::new).ok_or(ManifestError::Name(index))?;
    let number = read_u32(entry, field::TYPE).unwrap_or(0);
    let kind = DeviceKind::from_abi(number).ok_or(ManifestError::Type { index, number })?;
    if entry[field::ATTACHED] != 0 {
        return Err(ManifestError::AlreadyAttached(index));
    }
    let takes_headers = kind == DeviceKind::Net && entry[field::EXTENSION] == HEADERS_TAKEN;
    Ok(Device { name, kind, takes_headers })
}

fn emit_attachment(entry: &mut [u8], attachment: &Attachment) {
    match attachment.properties {
        Properties::Block { capacity, block_size, extended, read_only } => {
            write(entry, field::CAPACITY, &capacity.to_le_bytes());
            write(entry, field::BLOCK_SIZE, &block_size.to_le_bytes());
            if extended {
                let [medium, large] = TRANSFER_SIZES;
                write(entry, field::EXTENSION, &[1, medium, large]);
            }
            if read_only {
                entry[READ_ONLY_AT] = READ_ONLY;
            }
        }
        Properties::Net { mac, mtu, headed } => {
            write(entry, field::MAC, &mac);
            write(entry, field::MTU, &mtu.to_le_bytes());
            if headed {
                entry[field::EXTENSION] = HEADERS_GIVEN;
            }
        }
    }
    write(entry, field::HOST_DESCRIPTOR, &attachment.descriptor.to_le_bytes());
    entry[field::ATTACHED] = 1;
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn write(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests;
