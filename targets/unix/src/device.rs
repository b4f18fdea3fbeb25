//! Opening devices by the names that `unikernel.toml` gives them. Which of the host's devices is meant, the image's arguments tell.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use fogbow::arguments::{self, Argument, ArgumentError, YesNo};
use fogbow::{StartError, arguments::parse};
use fogbow_block::{BlockInfo, Durability};
use fogbow_net::frame::virtio::Framing;
use fogbow_net::{FrameInfo, MacAddress, Offload};
use fogbow_tender::block::Access;
use fogbow_tender::net::{Frames, NetError};
use fogbow_tender::options::NetSource;

use crate::block::BlockDevice;
use crate::frames::Net;
use crate::sockets::HostStack;

/// Arguments of a stack of host sockets.
pub const STACK_ARGUMENTS: &[Argument] =
    &[Argument::new::<Ipv4Addr>("bind", "the host's IPv4 address to listen on; 0.0.0.0 for all of them")
        .valued("ADDRESS")
        .default("127.0.0.1")];

/// Arguments of a frame device: each is `--NAME-` and this, NAME being the device's.
pub const NET_ARGUMENTS: &[Argument] = &[
    Argument::new::<String>("tap", "the tap interface that is this network device: it must exist, be up, and be yours")
        .valued("INTERFACE")
        .required(),
    Argument::new::<YesNo>("offload", "no has the stack cut and sum all that it sends itself, not the host")
        .valued("yes|no")
        .default("yes"),
    Argument::new::<String>("pcap", "the file in which all frames are recorded, for Wireshark").valued("PATH"),
];

/// Arguments of a block device: each is `--NAME-` and this, NAME being the device's.
pub const BLOCK_ARGUMENTS: &[Argument] = &[
    Argument::new::<String>("file", "the file or raw device that is this block device").valued("PATH").required(),
    Argument::new::<u16>("sector-size", "bytes in a sector of it: a power of two from 512 to 32768").valued("BYTES").default("512"),
];

/// Why a device cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeviceError {
    /// The argument that says which of the host's devices is meant is missing or wrong.
    Argument(ArgumentError),
    /// The network device does not open.
    Net(NetError),
    /// The block device does not open.
    Block(fogbow_tender::block::BlockError),
    /// The host refuses a step that should not fail.
    Host(io::Error),
}

impl std::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argument(error) => error.fmt(f),
            Self::Net(error) => error.fmt(f),
            Self::Block(error) => error.fmt(f),
            Self::Host(error) => write!(f, "the host refuses it: {error}"),
        }
    }
}

impl std::error::Error for DeviceError {}

impl From<io::Error> for DeviceError {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// The host's sockets, bound as the argument `--bind` says.
///
/// # Errors
/// [`StartError`] when the argument is no IPv4 address.
pub fn stack() -> Result<HostStack, StartError> {
    Ok(HostStack::new(arguments::parse_optional("bind")?.unwrap_or(Ipv4Addr::LOCALHOST)))
}

/// Opens the network device `name`: the tap interface that `--NAME-tap` names. Its hardware address is random, of the locally administered kind.
///
/// # Errors
/// [`DeviceError`].
pub fn net(name: &str) -> Result<Net, DeviceError> {
    let tap = parse::<String>(&format!("{name}-tap")).map_err(DeviceError::Argument)?;
    let frames = match parse::<YesNo>(&format!("{name}-offload")).map_err(DeviceError::Argument)? {
        YesNo(true) => Frames::Any,
        YesNo(false) => Frames::Plain,
    };
    let mut device = fogbow_tender::net::open(&NetSource::Tap(tap), frames).map_err(DeviceError::Net)?;
    if let Some(path) = arguments::parse_optional::<String>(&format!("{name}-pcap")).map_err(DeviceError::Argument)? {
        device = fogbow_tender::net::record(device, Path::new(&path)).map_err(DeviceError::Net)?;
    }
    let mac = MacAddress(fogbow_tender::net::random_mac()?);
    let (offload, framing) = if device.headed { (Offload::FULL, Framing::Headed) } else { (Offload::default(), Framing::Plain) };
    Ok(Net::new(device.descriptor, FrameInfo { mac, mtu: device.mtu.into(), offload }, framing)?)
}

/// Opens the block device `name`: the file that `--NAME-file` names.
///
/// # Errors
/// [`DeviceError`].
pub fn block(name: &str) -> Result<BlockDevice, DeviceError> {
    named_block(name, Access::Write)
}

/// Opens it for reading alone, as others may, too.
///
/// # Errors
/// [`DeviceError`].
pub fn read_only_block(name: &str) -> Result<BlockDevice, DeviceError> {
    named_block(name, Access::Read)
}

fn named_block(name: &str, access: Access) -> Result<BlockDevice, DeviceError> {
    let path = parse::<String>(&format!("{name}-file")).map_err(DeviceError::Argument)?;
    let sector_size = parse::<u16>(&format!("{name}-sector-size")).map_err(DeviceError::Argument)?;
    BlockDevice::open_for(name, Path::new(&path), sector_size, access)
}

impl BlockDevice {
    /// Opens a file or a raw device of the host, with sectors of `sector_size` bytes, as the block device `name`. Nobody else may have it open.
    ///
    /// # Errors
    /// [`DeviceError::Block`].
    pub fn open(name: &str, path: &Path, sector_size: u16) -> Result<Self, DeviceError> {
        Self::open_for(name, path, sector_size, Access::Write)
    }

    /// Opens one for reading alone, as others may, too.
    ///
    /// # Errors
    /// [`DeviceError::Block`].
    pub fn open_read_only(name: &str, path: &Path, sector_size: u16) -> Result<Self, DeviceError> {
        Self::open_for(name, path, sector_size, Access::Read)
    }

    fn open_for(name: &str, path: &Path, sector_size: u16, access: Access) -> Result<Self, DeviceError> {
        let device = fogbow_tender::block::open(path, sector_size, access).map_err(DeviceError::Block)?;
        let sectors = device.capacity / u64::from(sector_size);
        let read_only = access == Access::Read;
        let info = BlockInfo { sector_size: sector_size.into(), sectors, read_only, durability: Durability::Host };
        Ok(Self::new(name, device.descriptor.into(), info))
    }
}
