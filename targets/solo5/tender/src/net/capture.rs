//! Recording a net device's frames: a process between the guest and its network, which passes each frame on and writes it to a file.
//!
//! A process of its own, as the guest's may not open files and, on spt, moves its frames itself. It is this executable started again; the network and
//! the file travel as the first message on its standard input (`SCM_RIGHTS` of unix(7)), which is the link to the guest.
//!
//! Limits: a frame that the other side does not take within [`PATIENCE`] is recorded and lost. What the guest sends while the link is full is lost and
//! not recorded. Frames that the host is to finish ([`NetDevice::headed`]) are recorded as they are: large, with sums of their pseudo-headers alone.

use std::fs::File;
use std::io::{self, BufWriter, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recvmsg, sendmsg, socketpair, sockopt,
};

use super::{NetDevice, interface};

/// The hidden first argument by which [`main_if_child`] knows what this process is to be.
const CHILD_ARGUMENT: &str = "--internal-capture";
/// The name under which the process shows in `ps`.
const PROCESS_NAME: &str = "fogbow-capture";
/// Bytes of frames that the link may hold in each direction; the kernel cuts it to `net.core.wmem_max` for all but root.
const LINK_BUFFER: usize = 4 << 20;
/// The largest frame: the largest IPv4 packet, an Ethernet header and a VLAN tag.
const LARGEST: usize = 65_535 + 14 + 4;
/// How long a frame waits for the side that is to take it.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Puts a process that records all frames in the file `path` between `device` and the guest, and gives the guest's side.
///
/// The program's `main` calls [`main_if_child`] before anything else.
pub(super) fn interpose(device: NetDevice, path: &Path) -> io::Result<NetDevice> {
    let mut file = File::create(path)?;
    file.write_all(&fogbow_pcap::HEADER)?;
    let (guest, ours) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    for end in [&guest, &ours] {
        if sockopt::set_socket_send_buffer_size_force(end, LINK_BUFFER).is_err() {
            sockopt::set_socket_send_buffer_size(end, LINK_BUFFER)?;
        }
    }
    let header = if device.headed { interface::HEADER_SIZE.to_string() } else { "0".to_owned() };
    send_setup(&guest, &header, [device.descriptor.as_fd(), file.as_fd()])?;
    // It ends by itself when the guest's side is closed. A process group of its own: Ctrl-C is for the guest.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(PROCESS_NAME).arg(CHILD_ARGUMENT).stdin(Stdio::from(ours)).stdout(Stdio::null()).process_group(0).spawn()?;
    Ok(NetDevice { descriptor: guest, ..device })
}

/// Becomes the recording process if [`interpose`] started this one for that, and never returns; otherwise returns at once.
pub(super) fn main_if_child() {
    if std::env::args_os().nth(1).is_none_or(|argument| argument != CHILD_ARGUMENT) {
        return;
    }
    match run() {
        Ok(()) => process::exit(0),
        Err(error) => {
            eprintln!("{PROCESS_NAME}: {error}");
            process::exit(1)
        }
    }
}

fn send_setup(link: &OwnedFd, header: &str, descriptors: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // There is room for both.
    let _ = control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(link, &[IoSlice::new(header.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_setup(link: &OwnedFd) -> io::Result<(usize, OwnedFd, File)> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "this process is started by a tender, not by hand");
    let mut text = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(link, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let header = str::from_utf8(&text[..received.bytes]).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    let network = descriptors.next().ok_or_else(malformed)?;
    Ok((header, network, descriptors.next().ok_or_else(malformed)?.into()))
}

fn run() -> io::Result<()> {
    let link = rustix::stdio::stdin().try_clone_to_owned()?;
    let (header, network, file) = receive_setup(&link)?;
    let mut relay = Relay { header, file: BufWriter::new(file), buffer: vec![0; header + LARGEST] };
    loop {
        let sides = [(&link, &network), (&network, &link)];
        let mut moved = false;
        for (from, to) in sides {
            match relay.pass_on(from, to)? {
                Passed::Frames => moved = true,
                Passed::Nothing => {}
                Passed::End => return relay.file.flush(),
            }
        }
        if !moved {
            // What has been seen is in the file before this process waits, however the guest ends.
            relay.file.flush()?;
            let mut waiting = [PollFd::new(&link, PollFlags::IN), PollFd::new(&network, PollFlags::IN)];
            match poll(&mut waiting, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if waiting
                .iter()
                .any(|side| side.revents().intersects(PollFlags::HUP | PollFlags::ERR) && !side.revents().contains(PollFlags::IN))
            {
                return Ok(());
            }
        }
    }
}

struct Relay {
    /// Bytes before each frame that are not recorded.
    header: usize,
    file: BufWriter<File>,
    buffer: Vec<u8>,
}

/// What came from one side.
enum Passed {
    Frames,
    Nothing,
    End,
}

/// Frames passed on from one side before the other has its turn.
const TURN: usize = 64;

impl Relay {
    fn pass_on(&mut self, from: &OwnedFd, to: &OwnedFd) -> io::Result<Passed> {
        for passed in 0..TURN {
            let length = match rustix::io::read(from, &mut self.buffer[..]) {
                Ok(0) => return Ok(Passed::End),
                Ok(length) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if passed > 0 => return Ok(Passed::Frames),
                // A tap that is down; its end is told by the wait.
                Err(Errno::AGAIN | Errno::IO) => return Ok(Passed::Nothing),
                Err(Errno::CONNRESET) => return Ok(Passed::End),
                Err(errno) => return Err(errno.into()),
            };
            let given = &self.buffer[..length];
            let frame = given.get(self.header..).unwrap_or_default();
            let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
            self.file.write_all(&fogbow_pcap::record(time, frame.len()))?;
            self.file.write_all(frame)?;
            match rustix::io::write(to, given) {
                Err(Errno::AGAIN) => {
                    let _ = poll(&mut [PollFd::new(to, PollFlags::OUT)], Some(&PATIENCE));
                    let _ = rustix::io::write(to, given);
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(Passed::End),
                // Taken, or lost as on a wire.
                _ => {}
            }
        }
        Ok(Passed::Frames)
    }
}
