//! The devices a guest was given, by handle: what hypercalls and the network ring act on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fogbow_tender::attach::Attached;
use fogbow_tender::manifest::{Device as Declared, Properties};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::memory::{Sink, Source};
use crate::ring::{Frames, Status};

/// How long a frame waits for a device that has no room before it is dropped, as a full Ethernet queue drops it.
const SEND_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// All of a guest's devices. A device's handle is its entry's index in the manifest, whose first entry is no device.
#[derive(Debug, Default)]
pub(crate) struct Devices(Vec<Device>);

/// A device, attached.
#[derive(Debug)]
pub(crate) enum Device {
    /// Gives and takes whole Ethernet frames; never blocks.
    Net {
        /// As the application calls it.
        name: String,
        /// A tap, or whatever else passes frames.
        descriptor: OwnedFd,
    },
    /// A file or a block device.
    Block {
        /// Open for reading and writing.
        descriptor: OwnedFd,
        /// In bytes.
        capacity: u64,
    },
}

/// Why a network device can no longer be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetError {
    /// The host refuses to take frames.
    #[error("network device '{name}': cannot write: {source}")]
    Write {
        /// The device.
        name: String,
        /// What the host says.
        source: io::Error,
    },
    /// The host refuses to give frames.
    #[error("network device '{name}': cannot read: {source}")]
    Read {
        /// The device.
        name: String,
        /// What the host says.
        source: io::Error,
    },
    /// The tap was removed, or the process behind the descriptor has ended.
    #[error("network device '{0}' is gone: its tap was removed, or the process behind it has ended")]
    Gone(String),
}

impl Device {
    /// A device that the manifest declares and the command line has attached.
    pub(crate) fn new(declared: &Declared, attached: Attached) -> Self {
        let descriptor = attached.descriptor;
        match attached.properties {
            Properties::Net { .. } => Self::Net { name: declared.name.to_string(), descriptor },
            Properties::Block { capacity, .. } => Self::Block { descriptor, capacity },
        }
    }
}

impl Devices {
    /// Devices in the order of the manifest: the first gets handle 1.
    pub(crate) fn new(devices: Vec<Device>) -> Self {
        Self(devices)
    }

    /// Every network device: handle, name, descriptor.
    pub(crate) fn networks(&self) -> impl Iterator<Item = (u64, &str, BorrowedFd<'_>)> {
        (1..).zip(&self.0).filter_map(|(handle, device)| match device {
            Device::Net { name, descriptor } => Some((handle, name.as_str(), descriptor.as_fd())),
            Device::Block { .. } => None,
        })
    }

    /// The descriptors of all block devices.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(|device| match device {
            Device::Block { descriptor, .. } => Some(descriptor.as_fd()),
            Device::Net { .. } => None,
        })
    }

    /// Writes to a block device. A range that is not all inside the device is [`Status::Invalid`], and nothing is written.
    pub(crate) fn block_write(&self, handle: u64, offset: u64, data: Source<'_>) -> Status {
        let Some(device) = self.block(handle, offset, data.len()) else { return Status::Invalid };
        all(data.len(), |done| data.skip(done).write_at(device, offset + done as u64))
    }

    /// Reads from a block device, as [`block_write`](Self::block_write) writes.
    pub(crate) fn block_read(&self, handle: u64, offset: u64, buffer: Sink<'_>) -> Status {
        let Some(device) = self.block(handle, offset, buffer.len()) else { return Status::Invalid };
        all(buffer.len(), |done| buffer.skip(done).read_at(device, offset + done as u64))
    }

    /// Waits until what was written to a block device is on stable storage.
    pub(crate) fn block_flush(&self, handle: u64) -> Status {
        let Some(Device::Block { descriptor, .. }) = self.get(handle) else { return Status::Invalid };
        loop {
            match rustix::fs::fdatasync(descriptor) {
                Ok(()) => return Status::Ok,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Status::Unspecified,
            }
        }
    }

    fn get(&self, handle: u64) -> Option<&Device> {
        self.0.get(usize::try_from(handle).ok()?.checked_sub(1)?)
    }

    fn block(&self, handle: u64, offset: u64, length: usize) -> Option<BorrowedFd<'_>> {
        match self.get(handle)? {
            Device::Block { descriptor, capacity } if offset < *capacity && length as u64 <= capacity - offset => Some(descriptor.as_fd()),
            _ => None,
        }
    }
}

impl Frames for Devices {
    type Error = NetError;

    fn send(&self, handle: u64, frame: Source<'_>) -> Result<Status, NetError> {
        let Some(Device::Net { name, descriptor }) = self.get(handle) else { return Ok(Status::Invalid) };
        let mut waited = false;
        loop {
            let error = match frame.write(descriptor.as_fd()) {
                Ok(sent) if sent == frame.len() => return Ok(Status::Ok),
                Ok(_) => return Ok(Status::Unspecified),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) if waited => return Ok(Status::Ok),
                Some(libc::EAGAIN) => {
                    // An interrupted wait only means an earlier drop.
                    let _ = poll(&mut [PollFd::new(descriptor, PollFlags::OUT)], Some(&SEND_PATIENCE));
                    waited = true;
                }
                // Too short or too long for a frame.
                Some(libc::EINVAL | libc::EMSGSIZE) => return Ok(Status::Invalid),
                // The interface is down, or the host is out of memory: such a frame is lost, as on a cable that is unplugged.
                Some(libc::EIO | libc::ENETDOWN | libc::ENOBUFS | libc::ENOMEM) => return Ok(Status::Unspecified),
                Some(libc::EPIPE | libc::ECONNRESET | libc::ECONNREFUSED | libc::ENOTCONN) => return Err(NetError::Gone(name.clone())),
                _ => return Err(NetError::Write { name: name.clone(), source: error }),
            }
        }
    }

    fn receive(&self, handle: u64, buffer: Sink<'_>) -> Result<(Status, u32), NetError> {
        let Some(Device::Net { name, descriptor }) = self.get(handle) else { return Ok((Status::Invalid, 0)) };
        loop {
            let error = match buffer.read(descriptor.as_fd()) {
                Ok(0) => return Ok((Status::Again, 0)),
                // A frame's length is that of a guest's buffer at most: less than 4 GiB.
                Ok(received) => return Ok((Status::Ok, received as u32)),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Ok((Status::Again, 0)),
                Some(libc::ECONNRESET | libc::ECONNREFUSED | libc::ENOTCONN) => return Err(NetError::Gone(name.clone())),
                _ => return Err(NetError::Read { name: name.clone(), source: error }),
            }
        }
    }
}

/// Repeats a transfer until all of it is done. A transfer that ends early (a file that was cut short, a disk that fails) is the guest's
/// to handle, like any failing disk.
fn all(length: usize, mut transfer: impl FnMut(usize) -> io::Result<usize>) -> Status {
    let mut done = 0;
    while done < length {
        match transfer(done) {
            Ok(0) => return Status::Unspecified,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Status::Unspecified,
        }
    }
    Status::Ok
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::GuestMemory;
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::unix::net::UnixDatagram;

    fn memory() -> GuestMemory {
        GuestMemory::new(2 << 20, 2 << 20).unwrap()
    }

    fn disk(content: &[u8], capacity: u64) -> Devices {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Devices::new(vec![Device::Block { descriptor: file.into(), capacity }])
    }

    fn net() -> (Devices, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Devices::new(vec![Device::Net { name: "service".into(), descriptor: ours.into() }]), theirs)
    }

    #[test]
    fn a_block_is_read_back() {
        let memory = memory();
        let disk = disk(&[0; 4096], 4096);
        memory.store(0x1000, &[7; 512]).unwrap();
        assert_eq!(disk.block_write(1, 3584, memory.source(0x1000, 512).unwrap()), Status::Ok);
        assert_eq!(disk.block_read(1, 3584, memory.sink(0x3000, 512).unwrap()), Status::Ok);
        assert_eq!(memory.load::<512>(0x3000).unwrap(), [7; 512]);
    }

    #[test]
    fn a_file_cut_short_is_an_error_for_the_guest() {
        let memory = memory();
        assert_eq!(disk(&[1; 512], 1024).block_read(1, 512, memory.sink(0, 512).unwrap()), Status::Unspecified);
    }

    proptest! {
        #[test]
        fn only_what_is_inside_a_disk_is_read(handle in 0..3_u64, offset in prop_oneof![0..5000_u64, any::<u64>()], length in 0..5000_u64) {
            let memory = memory();
            let status = disk(&[0; 4096], 4096).block_read(handle, offset, memory.sink(0, length).unwrap());
            let inside = handle == 1 && offset < 4096 && length <= 4096 - offset;
            prop_assert_eq!(status, if inside { Status::Ok } else { Status::Invalid });
        }
    }

    #[test]
    fn frames_pass_both_ways() {
        let memory = memory();
        let (devices, peer) = net();
        assert_eq!(devices.receive(1, memory.sink(0, 100).unwrap()).unwrap(), (Status::Again, 0));
        peer.send(b"ping").unwrap();
        assert_eq!(devices.receive(1, memory.sink(0, 100).unwrap()).unwrap(), (Status::Ok, 4));
        assert_eq!(devices.send(1, memory.source(0, 4).unwrap()).unwrap(), Status::Ok);
        let mut buffer = [0; 10];
        assert_eq!(peer.recv(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"ping");
    }

    #[test]
    fn frames_for_a_device_without_room_are_dropped_and_never_block_for_long() {
        let memory = memory();
        let (devices, peer) = net();
        let has_room = || {
            let (_, _, descriptor) = devices.networks().next().unwrap();
            poll(&mut [PollFd::new(&descriptor, PollFlags::OUT)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        };
        let frame = memory.source(0, 1514).unwrap();
        while has_room() {
            assert_eq!(devices.send(1, frame).unwrap(), Status::Ok);
        }
        assert_eq!(devices.send(1, frame).unwrap(), Status::Ok);
        assert!(!has_room());
        drop(peer);
    }

    #[test]
    fn a_device_whose_peer_ended_ends_the_run() {
        let memory = memory();
        let (devices, peer) = net();
        drop(peer);
        assert!(matches!(devices.send(1, memory.source(0, 60).unwrap()), Err(NetError::Gone(name)) if name == "service"));
    }

    #[test]
    fn handles_are_of_their_kind() {
        let memory = memory();
        let (devices, _peer) = net();
        for handle in [0, 2, u64::MAX] {
            assert_eq!(devices.send(handle, memory.source(0, 60).unwrap()).unwrap(), Status::Invalid);
        }
        assert_eq!(devices.block_read(1, 0, memory.sink(0, 0).unwrap()), Status::Invalid);
    }
}
