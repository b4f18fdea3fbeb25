//! Attaching a net device: a tap interface, an inherited descriptor, or the user-mode network.
//!
//! A program that opens networks calls [`main_if_child`] before anything else: the user-mode network and the recording of frames are processes of
//! their own, made of the same executable.
//!
//! Whatever it is, the guest's side is one non-blocking descriptor that gives and takes one Ethernet frame per read and write.
//!
//! A tap has to exist and be up, as with Solo5's tenders: a tender that made one would leave its address to chance. A guest that takes
//! frames with virtio's header has them from a tap: the host's kernel then cuts what the guest sends and sums it, and gives it what it sends
//! itself uncut and unsummed. For any other guest these offloads are switched off on our end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use fogbow_usernet::Forward;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketType};

use crate::options::NetSource;

mod capture;
mod interface;

use interface::{InterfaceRequest, Offload, flags};

/// The MTU where the network has none of its own to ask for: Ethernet's.
pub const DEFAULT_MTU: u16 = 1500;

/// A net device that has been opened.
#[derive(Debug)]
pub struct NetDevice {
    /// Non-blocking; one frame per read and write; closed on exec.
    pub descriptor: OwnedFd,
    /// Largest payload of a frame in bytes, the Ethernet header not counted.
    pub mtu: u16,
    /// Whether `struct virtio_net_hdr`, 10 bytes long, stands before each frame, and frames may be longer than the MTU allows: TCP over IPv4.
    pub headed: bool,
    /// The host's ports that lead to the guest, as bound; empty but for the user-mode network.
    pub forwards: Vec<Forward>,
}

/// What frames a guest can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Ethernet frames alone.
    Plain,
    /// Ethernet frames, or with virtio's header before each.
    Any,
}

/// Why a network cannot be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// There is no such interface.
    #[error("Could not attach interface: {0}: there is no such interface; create it: ip tuntap add {0} mode tap && ip link set {0} up")]
    NoInterface(String),
    /// The interface is down.
    #[error("Could not attach interface: {0}: it is down; bring it up: ip link set {0} up")]
    Down(String),
    /// The tap belongs to another user.
    #[error("Could not attach interface: {0}: permission denied; let its user have it: ip tuntap add {0} mode tap user NAME")]
    Permission(String),
    /// Another process has it.
    #[error("Could not attach interface: {0}: another process uses it; end that one or create another tap")]
    Busy(String),
    /// The interface is no single-queue tap.
    #[error("Could not attach interface: {0}: it is not a tap interface with one queue; create one: ip tuntap add {0} mode tap")]
    NotTap(String),
    /// The host has no tap driver.
    #[error("Could not attach interface: {interface}: /dev/net/tun: {source}; load the driver (modprobe tun) and check its permissions")]
    Driver {
        /// The interface.
        interface: String,
        /// What the host says.
        source: io::Error,
    },
    /// A step failed that should not have.
    #[error("Could not attach interface: {interface}: {step}: {source}")]
    Interface {
        /// The interface.
        interface: String,
        /// What was tried.
        step: &'static str,
        /// What the host says.
        source: io::Error,
    },
    /// The descriptor was not passed.
    #[error(
        "Could not attach interface: @{0}: no such descriptor was passed, or it is used twice; open it in the program that starts the tender"
    )]
    NoDescriptor(RawFd),
    /// Descriptors 0, 1 and 2 are the console.
    #[error("Could not attach interface: @{0}: descriptors 0 to 2 are the console; pass the network as 3 or above")]
    Console(RawFd),
    /// The descriptor is a tap's with headers, which the guest does not know or has no room for.
    #[error(
        "Could not attach interface: @{0}: its tap puts a header before each frame (IFF_VNET_HDR), which this guest cannot take: open it without, or give an image that knows the header 16 MB"
    )]
    Headed(RawFd),
    /// Frames cannot be recorded.
    #[error("Could not record frames in {}: {source}", .path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// The user-mode network did not start.
    #[error("Could not attach interface: {0}")]
    User(String),
}

/// Opens a network for a guest that can take such `frames`.
///
/// # Errors
/// One of [`NetError`].
pub fn open(source: &NetSource, frames: Frames) -> Result<NetDevice, NetError> {
    match source {
        NetSource::Tap(name) => open_tap(name, frames),
        NetSource::Descriptor(number) => adopt_descriptor(*number, frames),
        NetSource::User(options) => start_user_network(options),
    }
}

/// Records all frames of a network that has been opened in the file `path`, for Wireshark and tcpdump.
///
/// # Errors
/// [`NetError::Capture`].
pub fn record(device: NetDevice, path: &Path) -> Result<NetDevice, NetError> {
    capture::interpose(device, path).map_err(|source| NetError::Capture { path: path.to_owned(), source })
}

/// Becomes a process that [`open`] or [`record`] has started this executable again for, and never returns; otherwise returns at once.
pub fn main_if_child() {
    fogbow_usernet::main_if_child();
    capture::main_if_child();
}

/// A random Ethernet address: unicast and locally administered.
///
/// # Errors
/// As the host's random device gives them.
pub fn random_mac() -> io::Result<[u8; 6]> {
    let mut mac = [0; 6];
    let count = rustix::rand::getrandom(&mut mac, rustix::rand::GetRandomFlags::empty())?;
    if count != mac.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    mac[0] = mac[0] & 0xfe | 0x02;
    Ok(mac)
}

fn open_tap(name: &str, frames: Frames) -> Result<NetDevice, NetError> {
    let failed = |step| move |errno: Errno| NetError::Interface { interface: name.to_owned(), step, source: errno.into() };
    let request = InterfaceRequest::new(name);
    let socket = query_socket().map_err(failed("opening a socket"))?;
    // Asked first, because opening a tap that does not exist would create it.
    let state = interface::get_flags(socket.as_fd(), request).map_err(|errno| match errno {
        Errno::NODEV => NetError::NoInterface(name.to_owned()),
        errno => failed("reading its flags")(errno),
    })?;
    if state & flags::UP == 0 {
        return Err(NetError::Down(name.to_owned()));
    }
    let mtu = interface::get_mtu(socket.as_fd(), request).map_err(failed("reading its MTU"))?;
    let options = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = rustix::fs::open("/dev/net/tun", options, Mode::empty())
        .map_err(|errno| NetError::Driver { interface: name.to_owned(), source: errno.into() })?;
    let headed = frames == Frames::Any;
    interface::attach_tap(tap.as_fd(), request, headed).map_err(|errno| match errno {
        Errno::PERM | Errno::ACCESS => NetError::Permission(name.to_owned()),
        Errno::BUSY => NetError::Busy(name.to_owned()),
        Errno::INVAL => NetError::NotTap(name.to_owned()),
        errno => failed("attaching")(errno),
    })?;
    set_offload(tap.as_fd(), headed).map_err(failed("switching its offloads"))?;
    Ok(NetDevice { descriptor: tap, mtu, headed, forwards: Vec::new() })
}

/// A tap keeps what another process has set before.
fn set_offload(tap: BorrowedFd<'_>, headed: bool) -> Result<(), Errno> {
    if headed {
        interface::set_header_size(tap)?;
    }
    interface::set_offload(tap, if headed { Offload::TCP_IPV4 } else { Offload::NONE })
}

/// Takes over a descriptor that this process was started with. Those never carry the close-on-exec flag, and all that this process opens
/// itself do: so the flag tells the two apart, and marks a descriptor as taken.
fn adopt_descriptor(number: RawFd, frames: Frames) -> Result<NetDevice, NetError> {
    if number <= 2 {
        return Err(NetError::Console(number));
    }
    // SAFETY: borrowed only to ask whether it is open, which the call answers with an error if it is not.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let inherited = rustix::io::fcntl_getfd(borrowed).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC));
    if !inherited {
        return Err(NetError::NoDescriptor(number));
    }
    // SAFETY: it is open, and nothing in this process owns it: see the function's comment.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    let failed = |step| move |errno: Errno| NetError::Interface { interface: format!("@{number}"), step, source: errno.into() };
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC).map_err(failed("setting close-on-exec"))?;
    rustix::fs::fcntl_setfl(&descriptor, OFlags::NONBLOCK).map_err(failed("setting non-blocking"))?;
    let (mtu, headed) = match interface::get_tap(descriptor.as_fd()) {
        Ok((request, headed)) => {
            let socket = query_socket().map_err(failed("opening a socket"))?;
            (interface::get_mtu(socket.as_fd(), request).map_err(failed("reading its MTU"))?, headed)
        }
        Err(_) => (DEFAULT_MTU, false),
    };
    if headed && frames == Frames::Plain {
        return Err(NetError::Headed(number));
    }
    if headed {
        set_offload(descriptor.as_fd(), headed).map_err(failed("switching its offloads"))?;
    }
    Ok(NetDevice { descriptor, mtu, headed, forwards: Vec::new() })
}

fn start_user_network(options: &str) -> Result<NetDevice, NetError> {
    let options = fogbow_usernet::Options::parse(options).map_err(|error| NetError::User(error.to_string()))?;
    let network = fogbow_usernet::spawn(&options).map_err(|error| NetError::User(error.to_string()))?;
    let mtu = u16::try_from(options.mtu).unwrap_or(u16::MAX);
    Ok(NetDevice { descriptor: network.guest, mtu, headed: false, forwards: network.forwards })
}

/// A socket to ask about interfaces with.
fn query_socket() -> Result<OwnedFd, Errno> {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
}

#[cfg(test)]
mod tests;
