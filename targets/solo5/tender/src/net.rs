//! Attaching a net device: a tap interface, an inherited descriptor, or the user-mode network.
//!
//! A tender whose guests may use the user-mode network calls [`fogbow_usernet::main_if_child`] before anything else.
//!
//! Whatever it is, the guest's side is one non-blocking descriptor that gives and takes one Ethernet frame per read and write.
//!
//! A tap has to exist and be up, as with Solo5's tenders: a tender that made one would leave its address to chance. The tap's offloads
//! are switched off on our end, so that the host's kernel cuts what it sends to the MTU and sums it before the guest reads it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use fogbow_usernet::Forward;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketType};

use crate::options::NetSource;

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
    /// The host's ports that lead to the guest, as bound; empty but for the user-mode network.
    pub forwards: Vec<Forward>,
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
    /// The user-mode network did not start.
    #[error("Could not attach interface: {0}")]
    User(String),
}

/// Opens a network.
///
/// # Errors
/// One of [`NetError`].
pub fn open(source: &NetSource) -> Result<NetDevice, NetError> {
    match source {
        NetSource::Tap(name) => open_tap(name),
        NetSource::Descriptor(number) => adopt_descriptor(*number),
        NetSource::User(options) => start_user_network(options),
    }
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

fn open_tap(name: &str) -> Result<NetDevice, NetError> {
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
    interface::attach_tap(tap.as_fd(), request).map_err(|errno| match errno {
        Errno::PERM | Errno::ACCESS => NetError::Permission(name.to_owned()),
        Errno::BUSY => NetError::Busy(name.to_owned()),
        Errno::INVAL => NetError::NotTap(name.to_owned()),
        errno => failed("attaching")(errno),
    })?;
    interface::set_offload(tap.as_fd(), Offload::NONE).map_err(failed("switching its offloads off"))?;
    Ok(NetDevice { descriptor: tap, mtu, forwards: Vec::new() })
}

/// Takes over a descriptor that this process was started with. Those never carry the close-on-exec flag, and all that this process opens
/// itself do: so the flag tells the two apart, and marks a descriptor as taken.
fn adopt_descriptor(number: RawFd) -> Result<NetDevice, NetError> {
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
    let mtu = match interface::get_tap(descriptor.as_fd()) {
        Ok(request) => {
            let socket = query_socket().map_err(failed("opening a socket"))?;
            interface::get_mtu(socket.as_fd(), request).map_err(failed("reading its MTU"))?
        }
        Err(_) => DEFAULT_MTU,
    };
    Ok(NetDevice { descriptor, mtu, forwards: Vec::new() })
}

fn start_user_network(options: &str) -> Result<NetDevice, NetError> {
    let options = fogbow_usernet::Options::parse(options).map_err(|error| NetError::User(error.to_string()))?;
    let network = fogbow_usernet::spawn(&options).map_err(|error| NetError::User(error.to_string()))?;
    let mtu = u16::try_from(options.mtu).unwrap_or(u16::MAX);
    Ok(NetDevice { descriptor: network.guest, mtu, forwards: network.forwards })
}

/// A socket to ask about interfaces with.
fn query_socket() -> Result<OwnedFd, Errno> {
    let flags = rustix::net::SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
}

#[cfg(test)]
mod tests;
