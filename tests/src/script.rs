//! Scripted exchanges of raw TCP segments with whatever stack is at the other end of a tap, and what it answers in a form that can be compared.
//!
//! What is compared are flags, sequence numbers counted from each end's first, lengths and options. Not compared is what RFC 9293 leaves to an
//! implementation: PSH, the size of windows that are not closed, when an acknowledgement goes with data and when before it, into how many segments data
//! are cut; and, where no step waits for it, what is sent again because a test ran slowly.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr,
};

/// The client's address, on the peer's network.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const HARDWARE: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x77]);

/// TCP's flags (RFC 9293, section 3.1).
pub const FIN: u8 = 1;
/// Begins a connection.
pub const SYN: u8 = 2;
/// Ends one at once.
pub const RST: u8 = 4;
/// The acknowledgement number counts.
pub const ACK: u8 = 16;
/// The urgent pointer counts.
pub const URG: u8 = 32;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// Where the client's sequence numbers and time stamps begin.
const INITIAL: u32 = 0x1000_0000;
const STAMPS: u32 = 5000;
/// What a peer that has not said where its own begin is taken to have.
const UNKNOWN: u32 = 0x2000_0000;
/// For how long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Ports of connections that are only asked for: when one is answered, so is all that came before.
const QUESTIONS: std::ops::Range<u16> = 20_000..30_000;

/// One end of a wire, at whose other end a stack is.
#[derive(Debug)]
pub struct Wire {
    tap: OwnedFd,
    peer: Ipv4Addr,
    hardware: EthernetAddress,
    /// A port at which the stack listens.
    listens: u16,
    questions: std::iter::Cycle<std::ops::Range<u16>>,
}

/// What options the client's SYN has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The largest segment it takes.
    pub mss: Option<u16>,
    /// A window scale of 7.
    pub scale: bool,
    /// It knows selective acknowledgements.
    pub sack: bool,
    /// It knows time stamps.
    pub stamps: bool,
}

/// One connection's client.
#[derive(Debug)]
pub struct Client<'a> {
    wire: &'a mut Wire,
    ports: (u16, u16),
    /// The peer's first sequence number.
    peer: u32,
    /// The end of what the peer has sent so far, counted from its first.
    highest: i32,
    stamped: bool,
    seen: Vec<Answer>,
    lines: Vec<String>,
    /// What the next SYN offers.
    pub options: Options,
    /// The window that segments tell.
    pub window: u16,
    /// The time stamp of segments, where both ends know them, counted from the client's first.
    pub stamp: u32,
    /// The ranges that segments tell of, counted from the peer's first.
    pub has: [Option<(u32, u32)>; 3],
}

/// A segment of the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its flags but PSH.
    pub flags: u8,
    /// Its sequence number, counted from the peer's first.
    pub sequence: i32,
    /// Its acknowledgement number, counted from the client's first.
    pub acknowledges: i32,
    /// Bytes of data.
    pub length: i32,
    /// It repeats what has been sent before.
    pub again: bool,
    is_closed: bool,
    options: String,
}

impl Answer {
    /// The sequence number after it.
    #[must_use]
    pub fn end(&self) -> i32 {
        self.sequence + self.length + i32::from(self.flags & (SYN | FIN) != 0)
    }
}

impl Wire {
    /// A wire to the stack at `peer`, which `tap` leads to and which listens at the port `listens`.
    ///
    /// # Errors
    /// When the stack does not answer.
    pub fn new(tap: OwnedFd, peer: Ipv4Addr, listens: u16) -> Result<Self> {
        let mut wire = Self { tap, peer, hardware: EthernetAddress::BROADCAST, listens, questions: QUESTIONS.cycle() };
        let deadline = Instant::now() + PATIENCE;
        while wire.hardware == EthernetAddress::BROADCAST {
            wire.send_arp(ArpOperation::Request, EthernetAddress([0; 6]))?;
            // Asked again where the stack was not there yet.
            let again = Instant::now() + Duration::from_millis(50);
            while let Some(frame) = wire.next(again.min(deadline))? {
                if let Ok(arp) = ArpPacket::new_checked(&frame[ETHERNET..])
                    && frame[12..14] == [8, 6]
                    && arp.source_protocol_addr() == peer.octets()
                {
                    wire.hardware = EthernetAddress::from_bytes(arp.source_hardware_addr());
                }
            }
            if Instant::now() > deadline {
                bail!("{peer} does not answer");
            }
        }
        Ok(wire)
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        rustix::io::write(&self.tap, frame).context("writing a frame").map(drop)
    }

    fn send_arp(&self, operation: ArpOperation, to: EthernetAddress) -> Result<()> {
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: HARDWARE,
            source_protocol_addr: CLIENT,
            target_hardware_addr: to,
            target_protocol_addr: self.peer,
        };
        let mut frame = self.frame(EthernetProtocol::Arp, arp.buffer_len());
        arp.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
        self.send(&frame)
    }

    fn frame(&self, ethertype: EthernetProtocol, length: usize) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET + length];
        let header = EthernetRepr { src_addr: HARDWARE, dst_addr: self.hardware, ethertype };
        header.emit(&mut EthernetFrame::new_unchecked(&mut frame));
        frame
    }

    /// Sends a segment, whose flags `change` may change.
    fn send_tcp(&self, repr: &TcpRepr, change: impl FnOnce(&mut TcpPacket<&mut [u8]>)) -> Result<()> {
        let mut frame = self.frame(EthernetProtocol::Ipv4, IPV4 + repr.buffer_len());
        let length = repr.buffer_len();
        let ip = Ipv4Repr { src_addr: CLIENT, dst_addr: self.peer, next_header: IpProtocol::Tcp, payload_len: length, hop_limit: 64 };
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]), &ChecksumCapabilities::default());
        let (from, to) = (CLIENT.into(), self.peer.into());
        let mut tcp = TcpPacket::new_unchecked(&mut frame[ETHERNET + IPV4..]);
        repr.emit(&mut tcp, &from, &to, &ChecksumCapabilities::ignored());
        change(&mut tcp);
        tcp.fill_checksum(&from, &to);
        self.send(&frame)
    }

    /// The next frame, if one comes before `deadline`. Questions for the client's address are answered.
    fn next(&self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 65536];
        loop {
            match rustix::io::read(&self.tap, &mut buffer) {
                Ok(length) if length > ETHERNET => {
                    let frame = &buffer[..length];
                    if frame[12..14] == [8, 6] && frame[20..22] == [0, 1] && frame.get(38..42) == Some(&CLIENT.octets()) {
                        self.send_arp(ArpOperation::Reply, self.hardware)?;
                        continue;
                    }
                    return Ok(Some(frame.to_vec()));
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
                    poll(&mut [PollFd::new(&self.tap, PollFlags::IN)], Some(&left)).context("waiting for a frame")?;
                }
                Err(error) => return Err(error).context("reading a frame"),
            }
        }
    }
}

impl<'a> Client<'a> {
    /// A client that speaks from the port `from` to the port `to` of the stack at the end of `wire`.
    #[must_use]
    pub fn new(wire: &'a mut Wire, from: u16, to: u16) -> Self {
        Self {
            wire,
            ports: (from, to),
            peer: UNKNOWN,
            highest: 0,
            stamped: false,
            seen: Vec::new(),
            lines: Vec::new(),
            options: Options { mss: Some(1460), ..Options::default() },
            window: 60_000,
            stamp: 0,
            has: [None; 3],
        }
    }

    /// What the peer has answered to each step.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }

    /// Sends a segment; numbers are counted from each end's first.
    ///
    /// # Errors
    /// When the tap takes no frame.
    pub fn send(&mut self, flags: u8, sequence: u32, acknowledges: u32, payload: &[u8]) -> Result<()> {
        let is_syn = flags & SYN != 0;
        let options = if is_syn { self.options } else { Options::default() };
        let stamps = options.stamps || self.stamped && !is_syn;
        let repr = TcpRepr {
            ack_number: (flags & ACK != 0).then(|| TcpSeqNumber(self.peer.wrapping_add(acknowledges).cast_signed())),
            window_len: self.window,
            window_scale: options.scale.then_some(7),
            max_seg_size: options.mss,
            sack_permitted: options.sack,
            sack_ranges: self.has.map(|range| range.map(|(left, right)| (self.peer.wrapping_add(left), self.peer.wrapping_add(right)))),
            timestamp: stamps.then(|| TcpTimestampRepr::new(STAMPS + self.stamp, 0)),
            payload,
            ..header(self.ports, TcpControl::None, INITIAL.wrapping_add(sequence))
        };
        self.wire.send_tcp(&repr, |tcp| {
            tcp.set_syn(is_syn);
            tcp.set_fin(flags & FIN != 0);
            tcp.set_rst(flags & RST != 0);
            tcp.set_urg(flags & URG != 0);
            if flags & URG != 0 {
                tcp.set_urgent_at(payload.len() as u16);
            }
        })
    }

    /// Opens the connection: three segments.
    ///
    /// # Errors
    /// When the peer does not answer.
    pub fn open(&mut self) -> Result<()> {
        self.send(SYN, 0, 0, b"")?;
        self.until("a SYN", |answer| answer.flags & SYN != 0)?;
        self.send(ACK, 1, 1, b"")?;
        self.settle()
    }

    /// Takes all that the peer answers now as a step's answer.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn answers(&mut self) -> Result<()> {
        self.settle()?;
        let line = self.line();
        self.lines.push(line);
        Ok(())
    }

    /// Waits for an answer that `is_it`, which `what` names, and takes all until then as a step's answer.
    ///
    /// # Errors
    /// When none comes.
    pub fn until(&mut self, what: &str, is_it: impl Fn(&Answer) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.seen.iter().any(&is_it) {
            match self.wire.next(deadline)? {
                Some(frame) => self.take(&frame),
                None => {
                    let now = self.line();
                    bail!("{} never sent {what}; so far: {}; now: {now}", self.wire.peer, self.lines.join(" | "));
                }
            }
        }
        self.answers()
    }

    /// Waits until the peer has sent so many bytes in all, its SYN and FIN counted.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub fn until_sent(&mut self, end: i32) -> Result<()> {
        self.until(&format!("all up to {end}"), |answer| answer.end() >= end)
    }

    /// Waits until the peer sends something again, which alone is the step's answer.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub fn until_again(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = self.seen.iter().find(|answer| answer.again) {
                let line = format!("again from {}", answer.sequence);
                self.seen.clear();
                self.lines.push(line);
                return Ok(());
            }
            match self.wire.next(deadline)? {
                Some(frame) => self.take(&frame),
                None => bail!("{} sent nothing again; so far: {}", self.wire.peer, self.lines.join(" | ")),
            }
        }
    }

    /// Waits for the peer's FIN, whatever comes before it, and counts its numbers from there from now on: the FIN's own is 0.
    ///
    /// # Errors
    /// When none comes.
    pub fn until_end(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let end = loop {
            if let Some(answer) = self.seen.iter().find(|answer| answer.flags & FIN != 0) {
                break answer.end() - 1;
            }
            let frame = self.wire.next(deadline)?.context("the peer does not close")?;
            self.take(&frame);
        };
        self.settle()?;
        self.seen.clear();
        self.peer = self.peer.wrapping_add(end.cast_unsigned());
        self.highest = 1;
        Ok(())
    }

    /// Takes the peer's next SYN for that of another connection.
    pub const fn begin_anew(&mut self) {
        (self.peer, self.highest) = (UNKNOWN, 0);
    }

    /// Waits until all that the peer has to say at once has come: a stack sends what connections have to say in the order in which they have been
    /// spoken to, so another connection is asked for.
    fn settle(&mut self) -> Result<()> {
        let question = self.wire.questions.next().context("questions never end")?;
        let header = |control, sequence| header((question, self.wire.listens), control, sequence);
        let (ask, end) = (header(TcpControl::Syn, INITIAL), header(TcpControl::Rst, INITIAL + 1));
        self.wire.send_tcp(&ask, |_| {})?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.wire.next(deadline)?.with_context(|| format!("{} answers no request", self.wire.peer))?;
            if is_tcp_to(&frame, question) {
                return self.wire.send_tcp(&end, |_| {});
            }
            self.take(&frame);
        }
    }

    /// Takes a frame, if it belongs to the connection.
    fn take(&mut self, frame: &[u8]) {
        let Some(payload) = frame.get(ETHERNET..).filter(|_| frame[12..14] == [8, 0]) else { return };
        let Ok(ip) = Ipv4Packet::new_checked(payload) else { return };
        let Ok(tcp) = TcpPacket::new_checked(ip.payload()).map_err(drop) else { return };
        if ip.next_header() != IpProtocol::Tcp || (tcp.dst_port(), tcp.src_port()) != self.ports {
            return;
        }
        if !tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()) {
            self.lines.push("a wrong checksum".into());
        }
        if tcp.syn() && self.peer == UNKNOWN {
            self.peer = tcp.seq_number().0.cast_unsigned();
        }
        let flags = [(tcp.fin(), FIN), (tcp.syn(), SYN), (tcp.rst(), RST), (tcp.ack(), ACK), (tcp.urg(), URG)];
        let mut answer = Answer {
            flags: flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum(),
            sequence: tcp.seq_number().0.wrapping_sub(self.peer.cast_signed()),
            acknowledges: if tcp.ack() { tcp.ack_number().0.wrapping_sub(INITIAL.cast_signed()) } else { 0 },
            length: tcp.payload().len() as i32,
            again: false,
            is_closed: tcp.window_len() == 0 && !tcp.rst(),
            options: String::new(),
        };
        self.take_options(&tcp, &mut answer);
        answer.again = answer.end() > answer.sequence && answer.end() <= self.highest;
        self.highest = self.highest.max(answer.end());
        self.seen.push(answer);
    }

    fn take_options(&mut self, tcp: &TcpPacket<&[u8]>, answer: &mut Answer) {
        let any = (CLIENT.into(), self.wire.peer.into());
        let Ok(repr) = TcpRepr::parse(tcp, &any.1, &any.0, &ChecksumCapabilities::ignored()) else { return };
        let options = &mut answer.options;
        // Writing to a string does not fail.
        let _ = repr.max_seg_size.map(|size| write!(options, " mss={size}"));
        if repr.window_scale.is_some() {
            options.push_str(" scale");
        }
        if repr.sack_permitted {
            options.push_str(" sack");
        }
        for (left, right) in repr.sack_ranges.into_iter().flatten() {
            let _ = write!(options, " has={}..{}", left.wrapping_sub(INITIAL), right.wrapping_sub(INITIAL));
        }
        if let Some(stamp) = repr.timestamp {
            let _ = write!(options, " echoes-stamp={}", stamp.tsecr.wrapping_sub(STAMPS));
            self.stamped = true;
        }
    }

    /// What has been seen since the last step, reduced.
    fn line(&mut self) -> String {
        let mut reduced: Vec<Answer> = Vec::new();
        let seen = std::mem::take(&mut self.seen);
        for (place, answer) in seen.iter().enumerate().filter(|(_, answer)| !answer.again) {
            let is_bare = answer.flags == ACK && answer.length == 0 && !answer.options.contains("has");
            let is_said_later = seen[place + 1..].iter().any(|later| later.flags & ACK != 0 && later.acknowledges >= answer.acknowledges);
            if is_bare && is_said_later {
                continue;
            }
            match reduced.last_mut() {
                Some(last) if last.length > 0 && last.end() == answer.sequence && answer.end() > answer.sequence => {
                    last.length += answer.length;
                    last.flags |= answer.flags;
                    last.acknowledges = answer.acknowledges;
                }
                _ => reduced.push(answer.clone()),
            }
        }
        if reduced.is_empty() { "nothing".into() } else { reduced.iter().map(text).collect::<Vec<_>>().join("; ") }
    }
}

/// Whether a frame is a TCP segment to `port`.
fn is_tcp_to(frame: &[u8], port: u16) -> bool {
    frame[12..14] == [8, 0] && frame.get(23) == Some(&6) && frame.get(36..38) == Some(&port.to_be_bytes())
}

/// A header without options.
fn header((src_port, dst_port): (u16, u16), control: TcpControl, sequence: u32) -> TcpRepr<'static> {
    TcpRepr {
        src_port,
        dst_port,
        control,
        seq_number: TcpSeqNumber(sequence.cast_signed()),
        ack_number: None,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

fn text(answer: &Answer) -> String {
    let names = [(SYN, "SYN "), (FIN, "FIN "), (RST, "RST "), (ACK, "ACK "), (URG, "URG ")];
    let mut text: String = names.iter().filter(|(flag, _)| answer.flags & flag != 0).map(|(_, name)| *name).collect();
    // Writing to a string does not fail.
    let _ = write!(text, "{}..{}", answer.sequence, answer.end());
    if answer.flags & ACK != 0 {
        let _ = write!(text, " ack={}", answer.acknowledges);
    }
    if answer.is_closed {
        text.push_str(" closed");
    }
    text + &answer.options
}
