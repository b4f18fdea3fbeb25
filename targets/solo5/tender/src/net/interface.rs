//! The few ioctls that network interfaces and taps need, of `<linux/sockios.h>` and `<linux/if_tun.h>`.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl};

use crate::options::INTERFACE_NAME_SIZE;

/// `SIOCGIFFLAGS`.
const GET_FLAGS: Opcode = 0x8913;
/// `SIOCGIFMTU`.
const GET_MTU: Opcode = 0x8921;
/// `TUNSETIFF`.
const SET_TAP: Opcode = 0x4004_54ca;
/// `TUNGETIFF`.
const GET_TAP: Opcode = 0x8004_54d2;
/// `TUNSETOFFLOAD`.
const SET_OFFLOAD: Opcode = 0x4004_54d0;
/// `TUNSETVNETHDRSZ`.
const SET_HEADER_SIZE: Opcode = 0x4004_54d8;
/// `sizeof(struct virtio_net_hdr)` of `<linux/virtio_net.h>`.
pub(super) const HEADER_SIZE: i32 = 10;

/// Bits of an interface's flags.
pub(super) mod flags {
    /// `IFF_UP`.
    pub(in super::super) const UP: u16 = 1;
    /// `IFF_TAP`.
    pub(super) const TAP: u16 = 0x0002;
    /// `IFF_NO_PI`: frames alone, no packet information before them.
    pub(super) const NO_PACKET_INFORMATION: u16 = 0x1000;
    /// `IFF_VNET_HDR`: virtio's header before each frame.
    pub(super) const HEADERS: u16 = 0x4000;
}

/// Bits of `TUNSETOFFLOAD`.
pub(super) struct Offload(usize);

impl Offload {
    /// Whole frames of at most the MTU, with their checksums.
    pub(super) const NONE: Self = Self(0);
    /// `TUN_F_CSUM` and `TUN_F_TSO4`: checksums to be completed, and TCP over IPv4 not cut.
    pub(super) const TCP_IPV4: Self = Self(0x01 | 0x02);
}

/// `struct ifreq`: an interface's name and the value asked for or given.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct InterfaceRequest {
    name: [u8; INTERFACE_NAME_SIZE],
    /// The union after the name: its first bytes are flags or MTU.
    value: [u8; 24],
}

impl InterfaceRequest {
    /// For this interface; a name that is too long is cut, and found by no ioctl.
    pub(super) fn new(name: &str) -> Self {
        let mut request = Self { name: [0; INTERFACE_NAME_SIZE], value: [0; 24] };
        let places = &mut request.name[..INTERFACE_NAME_SIZE - 1];
        for (place, byte) in places.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        request
    }
}

pub(super) fn get_flags(socket: BorrowedFd<'_>, mut request: InterfaceRequest) -> Result<u16, Errno> {
    // SAFETY: SIOCGIFFLAGS reads and writes one `struct ifreq`, whose size and layout InterfaceRequest has.
    unsafe { ioctl(socket, Updater::<GET_FLAGS, _>::new(&mut request)) }?;
    Ok(u16::from_le_bytes([request.value[0], request.value[1]]))
}

/// At most 65535, whatever the interface allows.
pub(super) fn get_mtu(socket: BorrowedFd<'_>, mut request: InterfaceRequest) -> Result<u16, Errno> {
    // SAFETY: SIOCGIFMTU reads and writes one `struct ifreq`, whose size and layout InterfaceRequest has.
    unsafe { ioctl(socket, Updater::<GET_MTU, _>::new(&mut request)) }?;
    let [a, b, c, d, ..] = request.value;
    Ok(u16::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(u16::MAX))
}

pub(super) fn attach_tap(tap: BorrowedFd<'_>, mut request: InterfaceRequest, headed: bool) -> Result<(), Errno> {
    let wanted = flags::TAP | flags::NO_PACKET_INFORMATION | if headed { flags::HEADERS } else { 0 };
    request.value[..2].copy_from_slice(&wanted.to_le_bytes());
    // SAFETY: TUNSETIFF reads one `struct ifreq`, whose size and layout InterfaceRequest has.
    unsafe { ioctl(tap, Setter::<SET_TAP, _>::new(request)) }
}

/// The interface behind a tap's descriptor, and whether a header stands before its frames.
pub(super) fn get_tap(tap: BorrowedFd<'_>) -> Result<(InterfaceRequest, bool), Errno> {
    let mut request = InterfaceRequest::new("");
    // SAFETY: TUNGETIFF writes one `struct ifreq`, whose size and layout InterfaceRequest has; other descriptors refuse it.
    unsafe { ioctl(tap, Updater::<GET_TAP, _>::new(&mut request)) }?;
    let headed = u16::from_le_bytes([request.value[0], request.value[1]]) & flags::HEADERS != 0;
    request.value = [0; 24];
    Ok((request, headed))
}

pub(super) fn set_header_size(tap: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { ioctl(tap, Setter::<SET_HEADER_SIZE, _>::new(HEADER_SIZE)) }
}

pub(super) fn set_offload(tap: BorrowedFd<'_>, offload: Offload) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    unsafe { ioctl(tap, IntegerSetter::<SET_OFFLOAD>::new_usize(offload.0)) }
}
