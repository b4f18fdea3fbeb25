//! A hostile host on a tap: sends any frame, in any host's name, by a raw socket.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use smoltcp::phy::{ChecksumCapabilities, Device, Medium, RawSocket, RxToken, TxToken};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::network::{GUEST, TAP};

/// The Ethernet header, and the IPv4 header without options.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// When a question is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// The hardware address that the attacker gives as its own.
const HARDWARE: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x66]);

/// A hostile host.
#[derive(Debug)]
pub struct Attacker {
    socket: RawSocket,
    guest: EthernetAddress,
    random: u64,
}

/// A TCP segment of the attacker's, from an address and port of its choice.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Who it claims to be from.
    pub from: (Ipv4Addr, u16),
    /// The guest's port.
    pub port: u16,
    /// SYN, FIN, RST or none.
    pub control: TcpControl,
    /// Its sequence number.
    pub sequence: u32,
    /// What it acknowledges, if it does.
    pub acknowledges: Option<u32>,
    /// The window it tells.
    pub window: u16,
}

impl Attacker {
    /// A host at the tap of the namespace that this thread is in, which knows the guest's hardware address.
    ///
    /// # Errors
    /// When the host gives no raw socket, or the guest does not answer.
    pub fn new() -> Result<Self> {
        let socket = RawSocket::new(TAP, Medium::Ethernet).context("opening a raw socket")?;
        let mut attacker = Self { socket, guest: EthernetAddress::BROADCAST, random: 0x9e37_79b9_7f4a_7c15 };
        let claim = attacker.claiming(Ipv4Addr::new(10, 0, 0, 66));
        attacker.guest = attacker.ask(&claim, |frame| {
            let arp = ArpPacket::new_checked(frame.get(ETHERNET..)?).ok()?;
            (frame[12..14] == [8, 6] && arp.source_protocol_addr() == GUEST.octets())
                .then(|| EthernetAddress::from_bytes(arp.source_hardware_addr()))
        })?;
        Ok(attacker)
    }

    /// A number that follows from the ones before.
    pub fn random(&mut self) -> u64 {
        // xorshift64 (Marsaglia 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Puts bytes on the wire.
    ///
    /// # Errors
    /// When the host has no room for them.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        let token = self.socket.transmit(smoltcp::time::Instant::ZERO).context("the raw socket takes nothing")?;
        token.consume(frame.len(), |place| place.copy_from_slice(frame));
        Ok(())
    }

    /// Asks the guest for its address in the name of `address`, so that the guest takes the attacker for that host.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn claim(&mut self, address: Ipv4Addr) -> Result<()> {
        let frame = self.claiming(address);
        self.send(&frame)
    }

    fn claiming(&self, address: Ipv4Addr) -> Vec<u8> {
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: HARDWARE,
            source_protocol_addr: address,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: GUEST,
        };
        let mut frame = vec![0; ETHERNET + arp.buffer_len()];
        self.address(&mut frame, EthernetProtocol::Arp);
        arp.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
        frame
    }

    /// A frame with a TCP segment and its right checksums.
    #[must_use]
    pub fn segment(&self, segment: &Segment, payload: &[u8]) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: segment.from.1,
            dst_port: segment.port,
            control: segment.control,
            seq_number: TcpSeqNumber(segment.sequence.cast_signed()),
            ack_number: segment.acknowledges.map(|number| TcpSeqNumber(number.cast_signed())),
            window_len: segment.window,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let length = tcp.buffer_len();
        let ip = Ipv4Repr { src_addr: segment.from.0, dst_addr: GUEST, next_header: IpProtocol::Tcp, payload_len: length, hop_limit: 64 };
        let mut frame = vec![0; ETHERNET + IPV4 + length];
        self.address(&mut frame, EthernetProtocol::Ipv4);
        let sums = ChecksumCapabilities::default();
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]), &sums);
        let (from, to) = (IpAddress::Ipv4(segment.from.0), IpAddress::Ipv4(GUEST));
        tcp.emit(&mut TcpPacket::new_unchecked(&mut frame[ETHERNET + IPV4..]), &from, &to, &sums);
        frame
    }

    /// Makes a connection that the host knows nothing of, in the name of `from`, which the attacker has claimed. Gives the sequence number of what the
    /// guest sends next.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn connect(&mut self, from: (Ipv4Addr, u16), port: u16) -> Result<u32> {
        let syn = Segment { from, port, control: TcpControl::Syn, sequence: 1000, acknowledges: None, window: 1024 };
        let frame = self.segment(&syn, &[]);
        let next = self.ask(&frame, |frame| {
            let tcp = TcpPacket::new_checked(frame.get(ETHERNET + IPV4..)?).ok()?;
            let is_answer =
                frame[12..14] == [8, 0] && frame[30..34] == from.0.octets() && tcp.dst_port() == from.1 && tcp.syn() && tcp.ack();
            is_answer.then(|| tcp.seq_number().0.cast_unsigned().wrapping_add(1))
        })?;
        let acknowledgement = Segment { control: TcpControl::None, sequence: 1001, acknowledges: Some(next), ..syn };
        let frame = self.segment(&acknowledgement, &[]);
        self.send(&frame)?;
        Ok(next)
    }

    /// To which ports of `host`, but for `own`, the guest has sent TCP segments since they were last looked at. What it has not answered by the time that a
    /// connection of `own` is made, it does not answer.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn answered(&mut self, host: Ipv4Addr, own: u16, port: u16) -> Result<Vec<u16>> {
        let mut ports = Vec::new();
        let syn = Segment { from: (host, own), port, control: TcpControl::Syn, sequence: 1000, acknowledges: None, window: 1024 };
        let frame = self.segment(&syn, &[]);
        let end = self.ask(&frame, |frame| {
            let tcp = TcpPacket::new_checked(frame.get(ETHERNET + IPV4..)?).ok()?;
            if frame[12..14] != [8, 0] || frame[23] != u8::from(IpProtocol::Tcp) || frame[30..34] != host.octets() {
                return None;
            }
            if tcp.dst_port() == own {
                return Some(());
            }
            ports.push(tcp.dst_port());
            None
        });
        // Where there were so many that the last one was lost, there were some.
        if ports.is_empty() { end.map(|()| ports) } else { Ok(ports) }
    }

    fn address(&self, frame: &mut [u8], ethertype: EthernetProtocol) {
        EthernetRepr { src_addr: HARDWARE, dst_addr: self.guest, ethertype }.emit(&mut EthernetFrame::new_unchecked(frame));
    }

    /// Sends a frame, again and again as it may be lost beside others, and waits for one of which `look` makes something.
    fn ask<R>(&mut self, frame: &[u8], mut look: impl FnMut(&[u8]) -> Option<R>) -> Result<R> {
        let begun = Instant::now();
        let mut asked = 0;
        while begun.elapsed() < Duration::from_secs(10) {
            if begun.elapsed() >= asked * AGAIN {
                self.send(frame)?;
                asked += 1;
            }
            if let Some((received, _)) = self.socket.receive(smoltcp::time::Instant::ZERO) {
                if let Some(found) = received.consume(&mut look) {
                    return Ok(found);
                }
            } else {
                std::thread::yield_now();
            }
        }
        anyhow::bail!("the guest does not answer the attacker")
    }
}
