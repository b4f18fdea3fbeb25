//! A guest for the tests: a second smoltcp stack at the other end of the link, and a network in a thread.

#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fogbow_usernet::{ETHERNET_HEADER, GATEWAY, GUEST, Network, Options, PREFIX_LENGTH, bind_all, link};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{EthernetAddress, IpCidr};

/// The guest's Ethernet address.
pub const GUEST_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
/// A test that waits longer than this for one event has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network in a thread of its own.
pub struct Running {
    /// The host's addresses of the forwarded ports, in order.
    pub hosts: Vec<SocketAddr>,
    thread: JoinHandle<std::io::Result<()>>,
}

/// Starts a network with `options`; `resolver` answers at the DNS address.
pub fn start(options: &str, resolver: Option<SocketAddr>) -> (OwnedFd, Running) {
    let options = Options::parse(options).unwrap();
    let listeners = bind_all(&options).unwrap();
    let hosts = listeners.iter().map(|listener| listener.forward.host.into()).collect();
    let (guest, end) = link().unwrap();
    let mut network = Network::new(end, &options, listeners).unwrap();
    if let Some(resolver) = resolver {
        network.set_resolver(resolver);
    }
    (guest, Running { hosts, thread: std::thread::spawn(move || network.run()) })
}

impl Running {
    /// Waits for the network to end, which it does when the guest's end of the link is closed.
    pub fn end(self) {
        self.thread.join().unwrap().unwrap();
    }
}

/// Waits until `socket` can be read, or for `timeout`; tells whether it can.
pub fn readable(socket: &OwnedFd, timeout: Duration) -> bool {
    let timeout = timeout.try_into().unwrap();
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

/// The next frame that the network sends.
pub fn next_frame(socket: &OwnedFd) -> Vec<u8> {
    assert!(readable(socket, PATIENCE), "the network is silent");
    let mut frame = vec![0; 70_000];
    let (length, _) = rustix::net::recv(socket, &mut frame[..], RecvFlags::empty()).unwrap();
    assert!(length > 0, "the network ended");
    frame.truncate(length);
    frame
}

/// A guest's stack.
pub struct Guest {
    pub sockets: SocketSet<'static>,
    pub interface: Interface,
    device: Device,
    started: Instant,
}

impl Guest {
    /// A guest at the address that the network expects.
    pub fn new(socket: OwnedFd, mtu: usize) -> Self {
        let mut device = Device { socket, mtu };
        let now = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(Config::new(GUEST_MAC.into()), &mut device, now);
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(GUEST.into(), PREFIX_LENGTH)).unwrap());
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Guest { sockets: SocketSet::new(Vec::new()), interface, device, started: Instant::now() }
    }

    pub fn add_tcp(&mut self, buffer: usize) -> SocketHandle {
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; buffer]), tcp::SocketBuffer::new(vec![0; buffer]));
        socket.set_ack_delay(None);
        self.sockets.add(socket)
    }

    pub fn listen(&mut self, port: u16, buffer: usize) -> SocketHandle {
        let handle = self.add_tcp(buffer);
        self.tcp(handle).listen(port).unwrap();
        handle
    }

    pub fn connect(&mut self, remote: (std::net::Ipv4Addr, u16), port: u16, buffer: usize) -> SocketHandle {
        let handle = self.add_tcp(buffer);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.interface.context(), remote, port).unwrap();
        handle
    }

    pub fn bind_udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 65536]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Runs the stack until `done` gives something.
    pub fn run_until<R>(&mut self, mut done: impl FnMut(&mut Self) -> Option<R>) -> R {
        self.run_while_busy(PATIENCE, &mut done).unwrap_or_else(|| panic!("nothing happened for {PATIENCE:?}"))
    }

    /// Runs the stack until `done` gives something, or until the network has been silent for `silence`.
    pub fn run_while_busy<R>(&mut self, silence: Duration, mut done: impl FnMut(&mut Self) -> Option<R>) -> Option<R> {
        let mut heard = Instant::now();
        loop {
            let now = smoltcp::time::Instant::from_micros(self.started.elapsed().as_micros() as i64);
            self.interface.poll(now, &mut self.device, &mut self.sockets);
            if let Some(result) = done(self) {
                // What `done` wrote last is sent too.
                self.interface.poll(now, &mut self.device, &mut self.sockets);
                return Some(result);
            }
            let delay = self.interface.poll_delay(now, &self.sockets).map_or(silence, |delay| Duration::from(delay).min(silence));
            if readable(&self.device.socket, delay) {
                heard = Instant::now();
            } else if heard.elapsed() >= silence {
                return None;
            }
        }
    }
}

struct Device {
    socket: OwnedFd,
    mtu: usize,
}

struct Received(Vec<u8>);
struct Sender<'a>(&'a OwnedFd);

impl phy::Device for Device {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Received, Sender<'_>)> {
        let mut frame = vec![0; self.mtu + ETHERNET_HEADER];
        let (length, _) = rustix::net::recv(&self.socket, &mut frame[..], RecvFlags::empty()).ok()?;
        frame.truncate(length);
        (length > 0).then_some((Received(frame), Sender(&self.socket)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Sender<'_>> {
        Some(Sender(&self.socket))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER;
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        // The network always reads on, whatever it has to write, so this ends.
        while rustix::net::send(self.0, &frame, SendFlags::NOSIGNAL) == Err(rustix::io::Errno::AGAIN) {
            poll(&mut [PollFd::new(self.0, PollFlags::OUT)], None).unwrap();
        }
        result
    }
}

/// Data of which no part looks like another.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
