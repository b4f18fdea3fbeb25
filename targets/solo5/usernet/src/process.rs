//! The network as a process of its own: the same executable, started again with the socket pair's other end as its standard input.
//!
//! Options and listening sockets travel as the first message on that socket: the options as text, the sockets as `SCM_RIGHTS` (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command, Stdio};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::listen::Listener;
use crate::network::Network;
use crate::options::{Forward, MAX_FORWARDS, Options};
use crate::{MAX_TCP_FLOWS, MAX_UDP_FLOWS};

/// The hidden first argument by which [`main_if_child`] knows that this process is to be the network.
const CHILD_ARGUMENT: &str = "--internal-user-network";
/// The name under which the process shows in `ps`.
const PROCESS_NAME: &str = "fogbow-usernet";
/// Room for the options' text: [`MAX_FORWARDS`] times the longest forward (40 bytes), and the rest.
const MAX_OPTIONS_TEXT: usize = 8192;
/// Bytes of frames the link may hold in each direction; the kernel cuts it to `net.core.wmem_max`.
const LINK_BUFFER: usize = 1 << 20;
/// Descriptors beside those of flows and listeners: standard streams, the guest's socket, epoll, one for `resolv.conf`, and some to spare.
const SPARE_DESCRIPTORS: usize = 32;

/// A running network.
#[derive(Debug)]
pub struct Spawned {
    /// The guest's end of the link: a non-blocking `SOCK_SEQPACKET` socket, closed on exec, that carries one Ethernet frame in each message.
    ///
    /// Reading 0 bytes means that the network's process is gone. Writing fails with `EAGAIN` while the link is full: drop the frame or wait until
    /// it is writable. The network ends when this is closed, and with every copy of it.
    pub guest: OwnedFd,
    /// The network's process. It needs no care: it ends by itself when [`Spawned::guest`] is closed.
    pub child: Child,
    /// The forwarded ports as bound: where port 0 was asked for, with the port that the host chose.
    pub forwards: Vec<Forward>,
}

/// Binds the forwarded ports and starts the network's process.
///
/// The process is this executable started again, so its `main` must call [`main_if_child`] before anything else. Call this before entering a
/// sandbox; afterwards only [`Spawned::guest`] is needed.
///
/// # Errors
/// A port that cannot be bound (the message names it and says what to do, the kind is the host's, such as `AddrInUse`), or the host's refusal of a
/// socket pair or a process.
pub fn spawn(options: &Options) -> io::Result<Spawned> {
    let listeners = bind_all(options)?;
    let forwards: Vec<Forward> = listeners.iter().map(|listener| listener.forward).collect();
    let (guest, network) = link()?;
    send_setup(&guest, &Options { forwards: forwards.clone(), ..options.clone() }, &listeners)?;
    let child = Command::new("/proc/self/exe")
        .arg0(PROCESS_NAME)
        .arg(CHILD_ARGUMENT)
        .stdin(Stdio::from(network))
        .stdout(Stdio::null())
        // A process group of its own: Ctrl-C is for the tender, whose end then ends the network.
        .process_group(0)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("user network: cannot start its process from /proc/self/exe: {error}")))?;
    Ok(Spawned { guest, child, forwards })
}

/// Becomes the network if [`spawn`] started this process for that, and never returns; otherwise returns at once.
///
/// Call it first in `main`, before arguments are read and threads are started.
pub fn main_if_child() {
    if std::env::args_os().nth(1).is_none_or(|argument| argument != CHILD_ARGUMENT) {
        return;
    }
    match run_child() {
        Ok(()) => process::exit(0),
        Err(error) => {
            eprintln!("user network: {error}");
            process::exit(1)
        }
    }
}

/// A link as [`spawn`] makes it: the guest's end and the network's end.
///
/// # Errors
/// The host refused a socket pair.
pub fn link() -> io::Result<(OwnedFd, OwnedFd)> {
    let (guest, network) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
        .map_err(|error| io::Error::new(error.kind(), format!("user network: cannot make a socket pair: {error}")))?;
    for end in [&guest, &network] {
        rustix::net::sockopt::set_socket_send_buffer_size(end, LINK_BUFFER)?;
    }
    Ok((guest, network))
}

/// Binds every forwarded port of `options`.
///
/// # Errors
/// The first port that the host refused, as for [`spawn`].
pub fn bind_all(options: &Options) -> io::Result<Vec<Listener>> {
    let bind = |&forward: &Forward| Listener::bind(forward).map_err(|error| io::Error::new(error.source.kind(), error));
    options.forwards.iter().map(bind).collect()
}

fn run_child() -> io::Result<()> {
    let guest = rustix::stdio::stdin().try_clone_to_owned()?;
    let (options, listeners) = receive_setup(&guest)?;
    // Neither is needed to work; both make it work better.
    let _ = rustix::thread::set_no_new_privs(true);
    let _ = raise_descriptor_limit();
    Network::new(guest, &options, listeners)?.run()
}

fn raise_descriptor_limit() -> rustix::io::Result<()> {
    let wanted = (MAX_TCP_FLOWS + MAX_UDP_FLOWS + MAX_FORWARDS + SPARE_DESCRIPTORS) as u64;
    let limit = getrlimit(Resource::Nofile);
    match (limit.current, limit.maximum) {
        (Some(current), maximum) if current < wanted => {
            let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
            setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum })
        }
        _ => Ok(()),
    }
}

fn send_setup(link: &OwnedFd, options: &Options, listeners: &[Listener]) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FORWARDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("user network: more than {MAX_FORWARDS} forwarded ports")));
    }
    sendmsg(link, &[IoSlice::new(options.to_string().as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_setup(link: &OwnedFd) -> io::Result<(Options, Vec<Listener>)> {
    let malformed =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what}; this process is started by a tender, not by hand"));
    let mut text = vec![0; MAX_OPTIONS_TEXT];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FORWARDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(link, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(|error| malformed(&format!("standard input is not a link to a guest: {error}")))?;
    let text =
        text.get(..received.bytes).and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(|| malformed("options are not text"))?;
    let options = Options::parse(text).map_err(|error| malformed(&error.to_string()))?;
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        })
        .collect();
    if descriptors.len() != options.forwards.len() {
        return Err(malformed("listening sockets are missing"));
    }
    let pairs = options.forwards.iter().zip(descriptors);
    let listeners = pairs.map(|(&forward, descriptor)| Listener::from_descriptor(forward, descriptor)).collect::<io::Result<_>>()?;
    Ok((options, listeners))
}
