//! Attaching all of an image's devices to what the command line names.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use fogbow_usernet::Forward;

use crate::block::{self, Access, BlockError};
use crate::manifest::{Attachment, DeviceKind, MAX_EXTENDED, Manifest, Properties};
use crate::net::{self, Frames, NetError};
use crate::options::{CommandLine, DEFAULT_SECTOR_SIZE, DeviceSetting, NetSetting, NetSource, OptionsError};

/// A device that has been attached. Closing its descriptor detaches it.
#[derive(Debug)]
pub struct Attached {
    /// What the guest is told of it.
    pub properties: Properties,
    /// What the tender, or an spt guest itself, reads and writes: a network is non-blocking, one frame at a time; a block device takes
    /// reads and writes at an offset. Closed on exec.
    pub descriptor: OwnedFd,
    /// The host's ports that lead to the guest, as bound; empty but for a net device on the user-mode network.
    pub forwards: Vec<Forward>,
}

impl Attached {
    /// The device's entry for [`Manifest::emit_attached`], with the descriptor's number for guests that use it themselves.
    #[must_use]
    pub fn with_descriptor(&self) -> Attachment {
        self.entry(self.descriptor.as_raw_fd())
    }

    /// The device's entry for [`Manifest::emit_attached`], without the descriptor's number.
    #[must_use]
    pub fn without_descriptor(&self) -> Attachment {
        self.entry(-1)
    }

    fn entry(&self, descriptor: RawFd) -> Attachment {
        Attachment { properties: self.properties, descriptor }
    }
}

/// Why an image's devices cannot be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The command line and the manifest do not agree.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A network cannot be attached.
    #[error("net device '{name}': {source}")]
    Net {
        /// The device.
        name: String,
        /// Why.
        source: NetError,
    },
    /// A file cannot be attached.
    #[error("block device '{name}': {source}")]
    Block {
        /// The device.
        name: String,
        /// Why.
        source: BlockError,
    },
    /// The host gives no random bytes for an Ethernet address.
    #[error("net device '{name}': no random Ethernet address ({source}): give one with --net-mac:{name}=MAC")]
    RandomMac {
        /// The device.
        name: String,
        /// What the host says.
        source: io::Error,
    },
}

/// Guests with less memory than this, in bytes, get plain frames: those with headers can be 64 KiB long, and a guest keeps some buffers for such.
const LEAST_HEADED_MEMORY: u64 = 16 << 20;

/// Attaches every device of the manifest, in its order: the device at index `i` has handle `i + 1`.
///
/// Nothing is opened unless the command line names every declared device and no other.
///
/// # Errors
/// One of [`AttachError`], for the first device that cannot be attached.
pub fn attach(command_line: &CommandLine, manifest: &Manifest) -> Result<Vec<Attached>, AttachError> {
    let settings = command_line.resolve(manifest)?;
    let extended = manifest.devices().iter().filter(|device| device.kind == DeviceKind::Block).count() <= MAX_EXTENDED;
    let devices = manifest.devices().iter().zip(settings);
    let attached = devices.map(|(device, setting)| match setting {
        DeviceSetting::Net(NetSetting { source: Some(source), mac, offload, pcap }) => {
            let headed = device.takes_headers && command_line.memory_size >= LEAST_HEADED_MEMORY && offload.unwrap_or(true);
            let frames = if headed { Frames::Any } else { Frames::Plain };
            attach_net(device.name.as_str(), source, *mac, frames, pcap.as_deref())
        }
        DeviceSetting::Block { source: Some(path), sector_size, read_only } => {
            let block_size = sector_size.unwrap_or(DEFAULT_SECTOR_SIZE);
            let read_only = read_only.unwrap_or(false);
            let access = if read_only { Access::Read } else { Access::Write };
            let file =
                block::open(path, block_size, access).map_err(|source| AttachError::Block { name: device.name.to_string(), source })?;
            let properties = Properties::Block { capacity: file.capacity, block_size, extended, read_only };
            Ok(Attached { properties, descriptor: file.descriptor, forwards: Vec::new() })
        }
        // `resolve` lets no device without a source through.
        DeviceSetting::Net(NetSetting { source: None, .. }) | DeviceSetting::Block { source: None, .. } => {
            Err(OptionsError::NotAttached(device.name.to_string(), device.kind.option().to_owned()).into())
        }
    });
    attached.collect()
}

fn attach_net(name: &str, source: &NetSource, mac: Option<[u8; 6]>, frames: Frames, pcap: Option<&Path>) -> Result<Attached, AttachError> {
    let opened = net::open(source, frames).and_then(|network| match pcap {
        Some(path) => net::record(network, path),
        None => Ok(network),
    });
    let network = opened.map_err(|source| AttachError::Net { name: name.to_owned(), source })?;
    let random = || net::random_mac().map_err(|source| AttachError::RandomMac { name: name.to_owned(), source });
    let mac = mac.map_or_else(random, Ok)?;
    let properties = Properties::Net { mac, mtu: network.mtu, headed: network.headed };
    Ok(Attached { properties, descriptor: network.descriptor, forwards: network.forwards })
}
