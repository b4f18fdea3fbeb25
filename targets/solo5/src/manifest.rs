//! The manifest: which devices an image asks for, and what the tender made of each.
//!
//! An image carries the manifest in a note ([`notes`](crate::notes)); the tender fills in what each device turned out to be and hands the
//! same structure back at start of day, where [`Manifest::read`] checks it. Source: `mft_abi.h` of Solo5 v0.12.1.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use fogbow_net::frame::virtio::Framing;
use fogbow_net::frame::{FrameInfo, MacAddress, Offload};

/// `MFT_VERSION`: the version of the manifest's own layout.
pub const VERSION: u32 = 1;
/// `MFT_MAX_ENTRIES`, counting the reserved first entry.
pub const MAX_ENTRIES: usize = 64;
/// `MFT_NAME_MAX`: characters of a device's name.
pub const NAME_MAX: usize = 67;
/// The greatest number of bytes that a manifest takes.
pub const MAX_SIZE: usize = size_of::<raw::Header>() + MAX_ENTRIES * size_of::<raw::Entry>();

/// The smallest MTU that IPv4 works over, in bytes (RFC 791, section 3.2).
const MIN_MTU: u16 = 68;
/// The smallest sector, in bytes: Solo5's tenders refuse a smaller one.
const MIN_SECTOR: u16 = 512;

/// The first byte of an entry's padding where a tender of Fogbow's takes more of a block device than Solo5's do; two powers of two follow.
pub(crate) const EXTENSION: u8 = 1;

/// Where a block entry's padding says that the device can be read alone, and what it says then.
const READ_ONLY_AT: usize = 3;
pub(crate) const READ_ONLY: u8 = 1;

/// The first byte of a network entry's padding: where an image carries it, it takes frames with virtio's header before each; where a tender of Fogbow's
/// hands the other back, each has one. Solo5's tenders look at neither and hand back what the image carries.
const HEADERS_TAKEN: u8 = 1;
const HEADERS_GIVEN: u8 = 2;

/// The first byte of the reserved entry's padding: where an image carries it, it copes with a console that takes only a part of what it is given;
/// where a tender of Fogbow's hands the other back, it offers such a console, which is a terminal when 1 follows. Solo5's tenders look at neither and hand back what the image carries.
pub(crate) const CONSOLE_TAKEN: u8 = 1;
const CONSOLE_GIVEN: u8 = 2;

/// What kind of device: `enum mft_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// `MFT_DEV_NET_BASIC`: Ethernet frames.
    Net,
    /// `MFT_DEV_BLOCK_BASIC`: sectors.
    Block,
}

impl DeviceKind {
    const fn number(self) -> u32 {
        match self {
            Self::Block => 1,
            Self::Net => 2,
        }
    }

    const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Block),
            2 => Some(Self::Net),
            _ => None,
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Net => "net",
            Self::Block => "block",
        })
    }
}

/// A device that an image asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclaredDevice {
    kind: DeviceKind,
    name: &'static str,
}

impl DeclaredDevice {
    /// A network device.
    #[must_use]
    pub const fn net(name: &'static str) -> Self {
        Self { kind: DeviceKind::Net, name }
    }

    /// A block device.
    #[must_use]
    pub const fn block(name: &'static str) -> Self {
        Self { kind: DeviceKind::Block, name }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> DeviceKind {
        self.kind
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn check_against(&self, devices: &[Self], before: usize) {
        let name = self.name.as_bytes();
        assert!(!name.is_empty() && name.len() <= NAME_MAX, "a device's name has 1 to 67 characters");
        let mut index = 0;
        while index < name.len() {
            assert!(name[index].is_ascii_alphanumeric(), "a device's name is made of ASCII letters and digits alone");
            index += 1;
        }
        let mut other = 0;
        while other < before {
            assert!(!is_equal(name, devices[other].name.as_bytes()), "two devices have the same name");
            other += 1;
        }
    }

    pub(crate) const fn entry(&self) -> raw::Entry {
        let mut entry = raw::Entry::RESERVED_FIRST;
        let name = self.name.as_bytes();
        let mut index = 0;
        while index < name.len() {
            entry.name[index] = name[index];
            index += 1;
        }
        entry.kind = self.kind.number();
        if matches!(self.kind, DeviceKind::Net) {
            entry.padding[0] = HEADERS_TAKEN;
        }
        entry
    }
}

const fn is_equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// The structures as they lie in memory: `struct mft` and `struct mft_entry` on x86-64, padding spelt out.
pub(crate) mod raw {
    /// What precedes the entries.
    #[derive(Clone, Copy, Debug)]
    #[repr(C)]
    pub(crate) struct Header {
        pub(crate) version: u32,
        pub(crate) entries: u32,
    }

    /// One entry.
    #[derive(Clone, Copy, Debug)]
    #[repr(C)]
    pub(crate) struct Entry {
        /// `MFT_NAME_SIZE` bytes.
        pub(crate) name: [u8; 68],
        pub(crate) kind: u32,
        /// `union u`: `struct mft_block_basic` or `struct mft_net_basic`.
        pub(crate) properties: [u8; 16],
        /// `union b`: the host's file descriptor, in the first four bytes.
        pub(crate) host: [u8; 8],
        pub(crate) attached: u8,
        /// Nothing to Solo5's tenders; what Fogbow's offer of a block device begins with [`EXTENSION`](super::EXTENSION), and of a network device with
        /// [`HEADERS_GIVEN`](super::HEADERS_GIVEN).
        pub(crate) padding: [u8; 7],
    }

    impl Entry {
        /// The entry that stands first and is no device: `MFT_RESERVED_FIRST`.
        pub(crate) const RESERVED_FIRST: Self =
            Self { name: [0; 68], kind: 1 << 30, properties: [0; 16], host: [0; 8], attached: 0, padding: [0; 7] };
    }
}

/// What a device turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Properties {
    /// A network device.
    Net {
        /// Its hardware address.
        mac: MacAddress,
        /// The largest payload of a frame, in bytes; at least 68.
        mtu: u16,
        /// Whether virtio's header stands before each frame, in both directions, and the host cuts segments, puts them together and completes
        /// checksums ([`fogbow_net::frame::virtio`]).
        headed: bool,
    },
    /// A block device.
    Block {
        /// Its size in bytes: a multiple of `sector_size`, at least one sector.
        capacity: u64,
        /// Bytes in a sector: a power of two, at least 512.
        sector_size: u16,
        /// What the tender takes beyond one sector at a time.
        extension: Option<Extension>,
        /// Whether the tender says that it can be read alone. Solo5's do not.
        read_only: bool,
    },
}

/// What a tender of Fogbow's takes of a block device beyond what Solo5's do: flushes, and larger transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// A transfer may have this many bytes if as many lie between its offset and the end of the device; the smaller size first.
    pub transfer_sizes: [u32; 2],
}

impl Properties {
    /// What a stack is told of a network device, and how its frames lie in buffers; `None` of another device.
    #[must_use]
    pub fn frames(&self) -> Option<(FrameInfo, Framing)> {
        match *self {
            Self::Net { mac, mtu, headed } => {
                let (offload, framing) = if headed { (Offload::FULL, Framing::Headed) } else { (Offload::default(), Framing::Plain) };
                Some((FrameInfo { mac, mtu: mtu.into(), offload }, framing))
            }
            Self::Block { .. } => None,
        }
    }

    /// The kind of device they describe.
    #[must_use]
    pub fn kind(&self) -> DeviceKind {
        match self {
            Self::Net { .. } => DeviceKind::Net,
            Self::Block { .. } => DeviceKind::Block,
        }
    }

    /// A network device with this hardware address and MTU in bytes, plain frames or each after a header.
    ///
    /// # Errors
    /// [`Unusable::Mac`], [`Unusable::Mtu`].
    pub fn net(mac: [u8; 6], mtu: u16, headed: bool) -> Result<Self, Unusable> {
        // The lowest bit of the first byte marks a multicast address (IEEE 802).
        if mac == [0; 6] || mac[0] & 1 != 0 {
            return Err(Unusable::Mac(MacAddress(mac)));
        }
        if mtu < MIN_MTU {
            return Err(Unusable::Mtu(mtu));
        }
        Ok(Self::Net { mac: MacAddress(mac), mtu, headed })
    }

    /// A block device of `capacity` bytes, in sectors of `sector_size` bytes, perhaps for reading alone.
    ///
    /// # Errors
    /// [`Unusable::SectorSize`], [`Unusable::Capacity`].
    pub fn block(capacity: u64, sector_size: u16, extension: Option<Extension>, read_only: bool) -> Result<Self, Unusable> {
        if !sector_size.is_power_of_two() || sector_size < MIN_SECTOR {
            return Err(Unusable::SectorSize(sector_size));
        }
        // Signed on the host (off_t).
        if capacity == 0 || !capacity.is_multiple_of(u64::from(sector_size)) || i64::try_from(capacity).is_err() {
            return Err(Unusable::Capacity(capacity));
        }
        Ok(Self::Block { capacity, sector_size, extension, read_only })
    }
}

/// A device of the manifest, as the tender handed it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its place in the manifest, 1 to 63: what hypercalls and readiness call it.
    pub handle: u8,
    /// What kind it is.
    pub kind: DeviceKind,
    /// What it turned out to be; `Err` says why it cannot be used.
    pub properties: Result<Properties, Unusable>,
    /// The file descriptor behind it; meaningful on spt alone.
    pub host_descriptor: i32,
}

/// Why a device of the manifest cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The tender attached nothing to it.
    NotAttached,
    /// Its MTU is smaller than IPv4 needs.
    Mtu(u16),
    /// Its hardware address is not that of one device: all zero, or a multicast address.
    Mac(MacAddress),
    /// Its sector size is no power of two or less than 512 bytes.
    SectorSize(u16),
    /// Its capacity is not a whole number of sectors, or none.
    Capacity(u64),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAttached => f.write_str("nothing is attached to it"),
            Self::Mtu(mtu) => write!(f, "its MTU of {mtu} bytes is below the {MIN_MTU} that IPv4 needs"),
            Self::Mac(mac) => write!(f, "{mac} is not the hardware address of one device"),
            Self::SectorSize(size) => write!(f, "a sector of {size} bytes is not a power of two of at least {MIN_SECTOR}"),
            Self::Capacity(capacity) => write!(f, "its {capacity} bytes are not a whole number of sectors"),
        }
    }
}

/// The devices that the tender handed back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    devices: Vec<Device>,
    offers_console: bool,
    on_terminal: bool,
}

impl Manifest {
    /// Reads a manifest from the beginning of `bytes`. More bytes than it has may follow.
    ///
    /// A device that cannot be used is no error here but when it is asked for, so that the message can name it.
    ///
    /// # Errors
    /// [`ManifestError`] when the whole is not a manifest.
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        let (header, entries) = bytes.split_first_chunk::<{ size_of::<raw::Header>() }>().ok_or(ManifestError::Truncated)?;
        let [v0, v1, v2, v3, n0, n1, n2, n3] = *header;
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        if !(1..=MAX_ENTRIES as u32).contains(&count) {
            return Err(ManifestError::Count(count));
        }
        let entries = entries.get(..count as usize * size_of::<raw::Entry>()).ok_or(ManifestError::Truncated)?;
        let (entries, _) = entries.as_chunks::<{ size_of::<raw::Entry>() }>();
        let console = entries.first().map_or([0; 2], |first| {
            const PADDING: usize = core::mem::offset_of!(raw::Entry, padding);
            [first[PADDING], first[PADDING + 1]]
        });
        let (offers_console, on_terminal) = (console[0] == CONSOLE_GIVEN, console == [CONSOLE_GIVEN, 1]);
        let mut devices = Vec::with_capacity(entries.len());
        // The first entry is reserved.
        for (handle, entry) in (1..).zip(entries.iter().skip(1)) {
            devices.push(read_entry(handle, entry)?);
        }
        Ok(Self { devices, offers_console, on_terminal })
    }

    /// The manifest of a target whose host says of each device what it is, and hands no manifest back.
    #[must_use]
    pub const fn from_devices(devices: Vec<Device>) -> Self {
        Self { devices, offers_console: false, on_terminal: false }
    }

    /// Whether the console takes a part of what it is given rather than let the image wait.
    #[must_use]
    pub const fn offers_console(&self) -> bool {
        self.offers_console
    }

    /// Whether the console is a terminal, as far as the tender says.
    #[must_use]
    pub const fn on_terminal(&self) -> bool {
        self.on_terminal
    }

    /// The devices in the order declared.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The device of this name and kind.
    #[must_use]
    pub fn find(&self, kind: DeviceKind, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.kind == kind && device.name == name)
    }
}

/// The number at a place of an entry, little-endian.
macro_rules! field {
    ($type:ty, $entry:expr, $offset:expr) => {{
        let mut bytes = [0; size_of::<$type>()];
        bytes.copy_from_slice(&$entry[$offset..$offset + size_of::<$type>()]);
        <$type>::from_le_bytes(bytes)
    }};
}

fn read_entry(handle: u8, entry: &[u8; size_of::<raw::Entry>()]) -> Result<Device, ManifestError> {
    use core::mem::offset_of;

    let kind = field!(u32, entry, offset_of!(raw::Entry, kind));
    let kind = DeviceKind::from_number(kind).ok_or(ManifestError::Kind { handle, kind })?;
    let name = &entry[..=NAME_MAX];
    let length = name.iter().position(|&byte| byte == 0).ok_or(ManifestError::Name { handle })?;
    let name = core::str::from_utf8(&name[..length]).map_err(|_| ManifestError::Name { handle })?;
    let properties = match entry[offset_of!(raw::Entry, attached)] {
        0 => Err(Unusable::NotAttached),
        _ => read_properties(kind, entry),
    };
    let host_descriptor = field!(i32, entry, offset_of!(raw::Entry, host));
    Ok(Device { name: name.to_owned(), handle, kind, properties, host_descriptor })
}

fn read_properties(kind: DeviceKind, entry: &[u8; size_of::<raw::Entry>()]) -> Result<Properties, Unusable> {
    use core::mem::offset_of;

    const AT: usize = offset_of!(raw::Entry, properties);
    match kind {
        DeviceKind::Net => {
            let mut mac = [0; 6];
            mac.copy_from_slice(&entry[AT..AT + 6]);
            Properties::net(mac, field!(u16, entry, AT + 6), entry[offset_of!(raw::Entry, padding)] == HEADERS_GIVEN)
        }
        DeviceKind::Block => {
            let padding = &entry[offset_of!(raw::Entry, padding)..];
            let (extension, read_only) = (read_extension(padding), padding[READ_ONLY_AT] == READ_ONLY);
            Properties::block(field!(u64, entry, AT), field!(u16, entry, AT + 8), extension, read_only)
        }
    }
}

/// What follows the byte that says whether a device is attached.
fn read_extension(padding: &[u8]) -> Option<Extension> {
    match *padding {
        [EXTENSION, medium @ 9..=30, large @ 9..=30, ..] => Some(Extension { transfer_sizes: [1 << medium, 1 << large] }),
        _ => None,
    }
}

/// Why what the tender handed over is not a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// It ends early, or lies outside of the image's memory.
    Truncated,
    /// Its version is not 1.
    Version(u32),
    /// Its number of entries is not 1 to 64.
    Count(u32),
    /// A device's name does not end, or is not text.
    Name {
        /// The device's place.
        handle: u8,
    },
    /// A device of a kind that is not known.
    Kind {
        /// The device's place.
        handle: u8,
        /// `enum mft_type`.
        kind: u32,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tender's manifest cannot be read: ")?;
        match self {
            Self::Truncated => f.write_str("it does not lie within the image's memory"),
            Self::Version(version) => {
                write!(f, "its version is {version}, not {VERSION}: use a tender of Solo5's manifest version {VERSION}")
            }
            Self::Count(count) => write!(f, "it has {count} entries, not 1 to {MAX_ENTRIES}"),
            Self::Name { handle } => write!(f, "the name of device {handle} is not text that ends within {NAME_MAX} bytes"),
            Self::Kind { handle, kind } => write!(f, "device {handle} is of the unknown kind {kind}"),
        }
    }
}

impl core::error::Error for ManifestError {}

#[cfg(test)]
mod tests;
