//! The network's loop: frames, connections and datagrams in, each to where it belongs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use smoltcp::time::{Duration, Instant};

use crate::core::{Core, Token};
use crate::frame::{self, Content, Frame, Reply};
use crate::host::Routes;
use crate::link::{Link, Received};
use crate::listen::{ListenSocket, Listener};
use crate::options::Options;
use crate::tcp::Tcp;
use crate::udp::Udp;
use crate::{DNS, GATEWAY, GUEST};

/// Frames or connections taken from one source before others have their turn.
const BATCH: usize = 64;
/// How long a forwarded port rests that could not be served: the guest has not been heard of, or the host is out of descriptors.
const RETRY: Duration = Duration::from_secs(1);

/// A network and its link to the guest, in one thread.
///
/// [`crate::spawn`] runs it in a process; it works as well in a thread of a program that has no sandbox to keep:
///
/// ```
/// use fogbow_usernet::{Network, Options, bind_all, link};
/// let options = Options::parse("hostfwd=0:80")?;
/// let (guest, network) = link()?;
/// let mut network = Network::new(network, &options, bind_all(&options)?)?;
/// let running = std::thread::spawn(move || network.run());
/// drop(guest);
/// running.join().expect("no panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Network {
    core: Core,
    tcp: Tcp,
    udp: Udp,
    routes: Routes,
    ports: Vec<Port>,
    /// When to try again what could not be done.
    retry: Option<Instant>,
    incoming: Vec<u8>,
    guest_queued: bool,
    /// The kernel reported the end of the link; frames may be left to read.
    hung_up: bool,
    guest_gone: bool,
    warned: bool,
}

/// A forwarded port.
#[derive(Debug)]
struct Port {
    listener: Listener,
    /// There may be connections or datagrams to take.
    pending: bool,
}

impl Network {
    /// A network at `guest`, the network's end of a link from [`crate::link()`], that serves `listeners` from [`crate::bind_all`].
    ///
    /// # Errors
    /// The host refused an epoll descriptor or its use.
    pub fn new(guest: OwnedFd, options: &Options, listeners: Vec<Listener>) -> io::Result<Self> {
        let link = Link::new(guest, options.mtu);
        let incoming = link.receive_buffer();
        let mut core = Core::new(link)?;
        for (index, listener) in listeners.iter().enumerate() {
            core.watch(listener, Token::Port(index), EventFlags::IN)?;
        }
        Ok(Network {
            tcp: Tcp::new(&mut core),
            udp: Udp::new(options.mtu),
            core,
            routes: Routes { restrict: options.restrict, resolver: None },
            ports: listeners.into_iter().map(|listener| Port { listener, pending: false }).collect(),
            retry: None,
            incoming,
            guest_queued: false,
            hung_up: false,
            guest_gone: false,
            warned: false,
        })
    }

    /// Answers at [`DNS`] with the name server `resolver` instead of the host's own.
    pub fn set_resolver(&mut self, resolver: SocketAddr) {
        self.routes.resolver = Some(resolver);
    }

    /// Runs until the guest's end of the link closes.
    ///
    /// # Errors
    /// The host refused to wait or to read the link. What happens to single connections is no error.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.guest_gone {
            self.turn()?;
        }
        self.tcp.close();
        Ok(())
    }

    /// Waits for something to do and does it, once round.
    fn turn(&mut self) -> io::Result<()> {
        let deadline = [self.tcp.next_timer(), self.udp.next_timer(), self.retry].into_iter().flatten().min();
        for index in 0..self.core.wait(deadline)? {
            let (token, events) = self.core.event(index);
            match token {
                Token::Guest => {
                    self.hung_up |= events.intersects(EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR);
                    self.queue_guest();
                }
                Token::Port(index) => self.port_has_news(index),
                Token::Tcp(id) => self.tcp.host_event(&mut self.core, id, events),
                Token::Udp(_) => self.core.ready.push_back(token),
            }
        }
        self.expire();
        for _ in 0..self.core.ready.len() {
            match self.core.ready.pop_front() {
                Some(Token::Guest) => self.serve_guest()?,
                Some(Token::Port(index)) => self.serve_port(index),
                Some(Token::Tcp(id)) => self.tcp.serve(&mut self.core, id),
                Some(Token::Udp(id)) => self.udp.outside_datagrams(&mut self.core, id),
                None => break,
            }
        }
        if std::mem::take(&mut self.core.room) {
            self.queue_pending_ports();
        }
        Ok(())
    }

    fn expire(&mut self) {
        self.tcp.expire(&mut self.core);
        self.udp.expire(self.core.now);
        if self.retry.is_some_and(|retry| retry <= self.core.now) {
            self.retry = None;
            self.queue_pending_ports();
        }
    }

    fn queue_guest(&mut self) {
        if !std::mem::replace(&mut self.guest_queued, true) {
            self.core.ready.push_back(Token::Guest);
        }
    }

    /// Sends what is held back for the guest, and takes what it sent.
    fn serve_guest(&mut self) -> io::Result<()> {
        self.guest_queued = false;
        if self.core.link.is_blocked() {
            self.core.link.flush();
            if !self.core.link.is_blocked() {
                self.tcp.link_has_room(&mut self.core);
            }
        }
        let mut incoming = std::mem::take(&mut self.incoming);
        let mut more = true;
        for _ in 0..BATCH {
            match self.core.link.receive(&mut incoming)? {
                Received::Frame(length) => self.frame(&incoming[..length]),
                Received::Empty if self.hung_up => {
                    self.guest_gone = true;
                    more = false;
                }
                Received::Empty | Received::Nothing => {}
                Received::WouldBlock => more = false,
            }
            if !more {
                break;
            }
        }
        self.incoming = incoming;
        if more {
            self.queue_guest();
        }
        Ok(())
    }

    /// Takes one frame of the guest's.
    fn frame(&mut self, bytes: &[u8]) {
        let Some(Frame { sender, source, content }) = frame::parse(bytes) else { return };
        if source != GUEST {
            return self.stranger(source);
        }
        if self.core.link.learn_guest(sender) {
            self.retry = None;
            self.queue_pending_ports();
        }
        let Network { core, tcp, udp, routes, ports, .. } = self;
        match content {
            Content::ArpRequest { target } if target != GUEST => core.link.send(&Reply::arp(target, source, sender)),
            Content::ArpRequest { .. } | Content::ArpReply => {}
            Content::Echo { target, ident, sequence, data } if [GATEWAY, DNS].contains(&target) => {
                core.link.send(&Reply::Echo { source: target, guest: source, ident, sequence, data });
            }
            Content::Echo { .. } => {}
            Content::Tcp { key, opens, packet } => tcp.guest_segment(core, key, opens, packet, |remote| routes.route(remote)),
            Content::Udp { key, payload } => {
                let answer = |client: crate::udp::Client, payload: &[u8]| {
                    if let Some(ListenSocket::Udp(socket)) = ports.get(client.port).map(|port| &port.listener.socket) {
                        // A full buffer loses the datagram: UDP promises nothing.
                        let _ = socket.send_to(payload, client.address);
                    }
                };
                udp.guest_datagram(core, key, payload, |remote| routes.route(remote), &answer);
            }
        }
    }

    /// Says once that the guest has the wrong address: nothing else would show why it is not heard.
    fn stranger(&mut self, source: Ipv4Addr) {
        // Without an address of its own a guest probes for one (RFC 5227) or asks for one (DHCP).
        if !self.warned && !source.is_unspecified() {
            self.warned = true;
            eprintln!(
                "user network: the guest sends from {source}; only {GUEST} is served here: give the guest that address, and {GATEWAY} as gateway"
            );
        }
    }

    fn port_has_news(&mut self, index: usize) {
        if let Some(port) = self.ports.get_mut(index) {
            port.pending = true;
            self.core.ready.push_back(Token::Port(index));
        }
    }

    fn queue_pending_ports(&mut self) {
        let pending = self.ports.iter().enumerate().filter(|(_, port)| port.pending);
        self.core.ready.extend(pending.map(|(index, _)| Token::Port(index)));
    }

    /// Takes connections or datagrams from a forwarded port. What cannot be taken now waits in the kernel.
    fn serve_port(&mut self, index: usize) {
        let Some(port) = self.ports.get_mut(index).filter(|port| port.pending) else { return };
        if !self.core.link.knows_guest() {
            if self.retry.is_none() {
                self.core.link.send(&Reply::arp_request(GATEWAY, GUEST));
                self.retry = Some(self.core.now + RETRY);
            }
            return;
        }
        let guest_port = port.listener.forward.guest_port;
        port.pending = match &port.listener.socket {
            ListenSocket::Udp(socket) => self.udp.client_datagrams(&mut self.core, index, socket, guest_port),
            ListenSocket::Tcp(listener) => match accept(&mut self.core, &mut self.tcp, listener, guest_port) {
                Accepted::All => false,
                Accepted::Some => true,
                Accepted::TableFull => {
                    // The next connection that ends makes room.
                    port.pending = true;
                    return;
                }
                Accepted::HostFull => {
                    self.retry = Some(self.core.now + RETRY);
                    return;
                }
            },
        };
        if port.pending {
            self.core.ready.push_back(Token::Port(index));
        }
    }
}

/// How far a listener's connections were accepted.
enum Accepted {
    All,
    Some,
    TableFull,
    HostFull,
}

fn accept(core: &mut Core, tcp: &mut Tcp, listener: &std::net::TcpListener, guest_port: u16) -> Accepted {
    for _ in 0..BATCH {
        if tcp.is_full() {
            return Accepted::TableFull;
        }
        match listener.accept() {
            // A connection that cannot be registered is dropped, and its client sees a reset.
            Ok((stream, _)) => drop(tcp.host_connection(core, stream, guest_port)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Accepted::All,
            // A client that gave up while it waited.
            Err(error) if [io::ErrorKind::ConnectionAborted, io::ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(_) => return Accepted::HostFull,
        }
    }
    Accepted::Some
}

#[cfg(test)]
mod tests;
