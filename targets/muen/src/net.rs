//! Network devices: muennet, a pair of channels. Frames are copied out of and into the shared memory, as the other side may change it at any time.

use alloc::boxed::Box;
use core::fmt;
use core::hash::Hasher;
use core::task::{Context, Poll};

use fogbow_muen_interface::channel::{Region, TooSmall};
use fogbow_muen_interface::muennet::{FRAME_SIZE, Frame, FrameReader, FrameWriter, IN, MTU, OUT};
use fogbow_muen_interface::sinfo::{MemoryRegion, Resource, Sinfo, kind};
use fogbow_net::frame::{Checksums, Finish, FrameDevice, FrameInfo, FrameReceiver, FrameTransmitter};
use fogbow_solo5::manifest::{Device, Properties, Unusable};
use siphasher::sip::SipHasher13;
use spin::Mutex;

use crate::platform::{Clock, Guest, turn};

/// Why a network device has no channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelError {
    /// The subject has no such channel.
    Missing(&'static str),
    /// It cannot write to the channel that goes out.
    ReadOnly,
    /// A channel's address is not that of one.
    Place(&'static str),
    /// No frame fits.
    TooSmall(TooSmall),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(end) => {
                write!(f, "the subject has no channel '…{end}' for it: map the channels of the image's component description")
            }
            Self::ReadOnly => write!(f, "the subject cannot write to its channel '…{OUT}': make it a writer of it in the system's policy"),
            Self::Place(end) => write!(f, "its channel '…{end}' lies at an address that is no multiple of 8, or has no room for a header"),
            Self::TooSmall(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ChannelError {}

/// The channels of a network device. The locks are never contended: an image has one thread.
#[derive(Debug)]
pub(crate) struct Channels {
    input: Region<'static>,
    reader: Mutex<FrameReader>,
    output: Region<'static>,
    writer: Mutex<FrameWriter>,
}

impl Channels {
    /// Finds the channels of the device `name`, and begins the one that goes out.
    pub(crate) fn open(sinfo: &Sinfo<'_>, name: &str) -> Result<Self, ChannelError> {
        let (input, output) = (find(sinfo, name, IN)?, find(sinfo, name, OUT)?);
        if !output.is_writable {
            return Err(ChannelError::ReadOnly);
        }
        // SAFETY: Muen maps these channels, the second writable, and for nothing else; all accesses of this image to them go through the regions.
        let regions = unsafe { [(input, IN), (output, OUT)].map(|(region, end)| Region::new(region.address, region.size).ok_or(end)) };
        let [input, output] = regions;
        let (input, output) = (input.map_err(ChannelError::Place)?, output.map_err(ChannelError::Place)?);
        let writer = FrameWriter::new(&output, turn().start).map_err(ChannelError::TooSmall)?;
        Ok(Self { input, reader: Mutex::new(FrameReader::new()), output, writer: Mutex::new(writer) })
    }

    /// What the device turned out to be.
    pub(crate) fn properties(&self, sinfo: &Sinfo<'_>, name: &str, clock: &Clock) -> Result<Properties, Unusable> {
        Properties::net(address([sinfo.name(), name.as_bytes()], [turn().start, clock.wall()]), MTU, false)
    }

    /// Whether a frame waits.
    pub(crate) fn is_pending(&self) -> bool {
        self.reader.lock().is_pending(&self.input)
    }
}

/// The channel of the device `name` that this is the end of.
fn find(sinfo: &Sinfo<'_>, name: &str, end: &'static str) -> Result<MemoryRegion, ChannelError> {
    let is_it = |found: &[u8]| found.strip_suffix(end.as_bytes()) == Some(name.as_bytes());
    let mut channels = sinfo.resources().filter_map(|(found, resource)| match resource {
        Resource::Memory(region) if region.kind == kind::CHANNEL && is_it(found) => Some(region),
        _ => None,
    });
    channels.next().ok_or(ChannelError::Missing(end))
}

/// An Ethernet address: unicast, locally administered, and another for another device, another subject or another start.
fn address(names: [&[u8]; 2], moments: [u64; 2]) -> [u8; 6] {
    let mut hasher = SipHasher13::new_with_keys(moments[0], moments[1]);
    for name in names {
        hasher.write(name);
        // Between names, so that no two pairs are the same.
        hasher.write_u8(0xff);
    }
    let [a, b, c, d, e, f, ..] = hasher.finish().to_le_bytes();
    [a & 0xfc | 0x02, b, c, d, e, f]
}

/// A network device of the manifest.
#[derive(Debug)]
pub struct Net {
    info: FrameInfo,
    handle: u8,
    guest: &'static Guest,
    channels: &'static Channels,
}

impl Net {
    /// `None` when `device` is no usable network device.
    pub(crate) fn new(guest: &'static Guest, device: &Device) -> Option<Self> {
        let (info, _) = device.properties.ok()?.frames()?;
        Some(Self { info, handle: device.handle, guest, channels: guest.channels(device.handle)? })
    }
}

impl FrameDevice for Net {
    type Receiver = Receiver;
    type Transmitter = Transmitter;

    fn info(&self) -> FrameInfo {
        self.info
    }

    fn split(self) -> (Receiver, Transmitter) {
        let receiver = Receiver { handle: self.handle, guest: self.guest, channels: self.channels, frame: Box::new(Frame::new()) };
        (receiver, Transmitter { channels: self.channels, frame: Box::new(Frame::new()) })
    }
}

/// The half of a [`Net`] that takes frames from its channel.
#[derive(Debug)]
pub struct Receiver {
    handle: u8,
    guest: &'static Guest,
    channels: &'static Channels,
    frame: Box<Frame>,
}

impl FrameReceiver for Receiver {
    fn receive<R>(&mut self, consume: impl FnOnce(&mut [u8], Checksums) -> R) -> Option<R> {
        let frame = self.channels.reader.lock().receive(&self.channels.input, &mut self.frame);
        match frame {
            Some(frame) => Some(consume(frame, Checksums::Unknown)),
            None => {
                self.guest.readiness.clear(self.handle);
                None
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.guest.readiness.poll(self.handle, context)
    }
}

/// The half of a [`Net`] that puts frames into its channel. Each goes out at once; one that is not taken in time is lost.
#[derive(Debug)]
pub struct Transmitter {
    channels: &'static Channels,
    frame: Box<Frame>,
}

impl FrameTransmitter for Transmitter {
    fn has_room(&mut self) -> bool {
        true
    }

    fn transmit<R>(&mut self, length: usize, _: Finish, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        assert!(length <= FRAME_SIZE, "a frame of {length} bytes exceeds the device's {FRAME_SIZE}");
        let frame = &mut self.frame.bytes_mut()[..length];
        let result = fill(frame);
        self.channels.writer.lock().send(&self.channels.output, frame);
        result
    }

    fn flush(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogbow_muen_interface::sinfo::{self, Version};
    use std::string::ToString;

    #[test]
    fn addresses_are_local_and_differ() {
        let base = address([b"subject", b"service"], [1, 2]);
        assert_eq!(base[0] & 3, 2);
        assert_eq!(base, address([b"subject", b"service"], [1, 2]));
        for other in [
            address([b"subjects", b"ervice"], [1, 2]),
            address([b"subject", b"other"], [1, 2]),
            address([b"subject", b"service"], [3, 2]),
            address([b"subject", b"service"], [1, 3]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_device_without_its_channels_says_which() {
        let region =
            |kind, is_writable, address, size| Resource::Memory(MemoryRegion { kind, is_writable, is_executable: false, address, size });
        let mut bytes = Box::new([0; sinfo::SIZE]);
        let mut problem = |resources: &[(&str, Resource)]| {
            sinfo::emit(&mut bytes, Version::V05, 1, "subject", resources);
            Channels::open(&Sinfo::read(&bytes).unwrap(), "net").unwrap_err().to_string()
        };
        let input = ("net|in", region(kind::CHANNEL, false, 8, 4096));
        assert!(problem(&[]).contains("'…|in'"));
        assert!(problem(&[("net|in", region(kind::SUBJECT, false, 8, 4096))]).contains("'…|in'"));
        assert!(problem(&[input, ("anet|out", region(kind::CHANNEL, true, 8, 4096))]).contains("'…|out'"));
        assert!(problem(&[input, ("net|out", region(kind::CHANNEL, false, 8, 4096))]).contains("cannot write"));
        assert!(problem(&[input, ("net|out", region(kind::CHANNEL, true, 4, 4096))]).contains("multiple of 8"));
    }
}
