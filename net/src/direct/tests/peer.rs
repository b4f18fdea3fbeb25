//! A peer made by hand: it sends the frames that a test tells it to.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;

use super::*;
use crate::frame::FrameDevice;
use crate::simulation::Device;

/// What a test looks at in a TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) from_port: u16,
    pub(super) to_port: u16,
    pub(super) control: TcpControl,
    pub(super) sequence: TcpSeqNumber,
    pub(super) acknowledged: Option<TcpSeqNumber>,
    pub(super) payload: Vec<u8>,
    pub(super) window: u16,
    /// The maximum segment size and the window scale that it tells, and whether it allows selective acknowledgements.
    pub(super) options: (Option<u16>, Option<u8>, bool),
    pub(super) sacks: Vec<(u32, u32)>,
    pub(super) stamp: Option<TcpTimestampRepr>,
    pub(super) at: Duration,
}

pub(super) struct Peer {
    pub(super) device: Device,
    mac: EthernetAddress,
    pub(super) address: Ipv4Addr,
    to: EthernetAddress,
    server: Ipv4Addr,
}

pub(super) fn segment(port: u16, to_port: u16, control: TcpControl, sequence: u32, acknowledged: Option<TcpSeqNumber>) -> TcpRepr<'static> {
    TcpRepr {
        src_port: port,
        dst_port: to_port,
        control,
        seq_number: TcpSeqNumber(sequence as i32),
        ack_number: acknowledged,
        window_len: 64000,
        window_scale: if matches!(control, TcpControl::Syn) { Some(7) } else { None },
        max_seg_size: if matches!(control, TcpControl::Syn) { Some(1460) } else { None },
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: b"",
    }
}

impl Peer {
    /// A peer that the server knows, at the same switch.
    pub(super) async fn new(switch: &Switch, server: u8) -> Self {
        let mut peer = Self::new_at(switch, server, Ipv4Addr::new(10, 0, 0, 77));
        peer.introduce().await;
        peer
    }

    /// A peer with the address given that has not said a word yet.
    pub(super) fn new_at(switch: &Switch, server: u8, address: Ipv4Addr) -> Self {
        let device = switch.device(1500);
        let mac = EthernetAddress(device.info().mac.0);
        Self { device, mac, address, to: EthernetAddress([2, 0, 0, 0, 0, server]), server: SERVER }
    }

    /// Sends an ARP message to everyone.
    pub(super) fn say(&mut self, operation: ArpOperation, sender: Ipv4Addr, target: Ipv4Addr) {
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: self.mac,
            source_protocol_addr: sender,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        };
        let mut frame = vec![0; 14 + arp.buffer_len()];
        let ethernet = EthernetRepr { src_addr: self.mac, dst_addr: EthernetAddress::BROADCAST, ethertype: EthernetProtocol::Arp };
        ethernet.emit(&mut EthernetFrame::new_unchecked(&mut frame));
        arp.emit(&mut ArpPacket::new_unchecked(&mut frame[14..]));
        self.device.send(&frame);
    }

    /// Asks for the server's address, and checks the answer.
    pub(super) async fn introduce(&mut self) {
        self.say(ArpOperation::Request, self.address, SERVER);
        loop {
            let answer = self.device.receive().await;
            let answer = EthernetFrame::new_checked(&answer[..]).unwrap();
            if answer.dst_addr() == self.mac && answer.ethertype() == EthernetProtocol::Arp {
                let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, .. } =
                    ArpRepr::parse(&ArpPacket::new_checked(answer.payload()).unwrap()).unwrap()
                else {
                    unreachable!()
                };
                assert_eq!((operation, source_hardware_addr, source_protocol_addr), (ArpOperation::Reply, self.to, SERVER));
                return;
            }
        }
    }

    /// Answers who asks for this peer's address.
    fn answer_arp(&mut self, message: &[u8]) {
        let message = ArpRepr::parse(&ArpPacket::new_checked(message).unwrap()).unwrap();
        if let ArpRepr::EthernetIpv4 { operation: ArpOperation::Request, target_protocol_addr, source_protocol_addr, .. } = message
            && target_protocol_addr == self.address
        {
            self.say(ArpOperation::Reply, self.address, source_protocol_addr);
        }
    }

    /// An IPv4 frame from `source` to the server with a payload that `fill` writes.
    pub(super) fn packet(&self, source: Ipv4Addr, protocol: IpProtocol, length: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let ip = Ipv4Repr { src_addr: source, dst_addr: self.server, next_header: protocol, payload_len: length, hop_limit: 64 };
        let mut frame = vec![0; 14 + ip.buffer_len() + length];
        let ethernet = EthernetRepr { src_addr: self.mac, dst_addr: self.to, ethertype: EthernetProtocol::Ipv4 };
        ethernet.emit(&mut EthernetFrame::new_unchecked(&mut frame));
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &ChecksumCapabilities::default());
        fill(&mut frame[34..]);
        frame
    }

    pub(super) fn tcp_frame(&self, source: Ipv4Addr, tcp: &TcpRepr<'_>) -> Vec<u8> {
        let (from, to) = (IpAddress::Ipv4(source), IpAddress::Ipv4(self.server));
        self.packet(source, IpProtocol::Tcp, tcp.buffer_len(), |payload| {
            tcp.emit(&mut TcpPacket::new_unchecked(payload), &from, &to, &ChecksumCapabilities::default());
        })
    }

    pub(super) fn send(&mut self, tcp: &TcpRepr<'_>) {
        let frame = self.tcp_frame(self.address, tcp);
        self.device.send(&frame);
    }

    /// The TCP segments that have come after a while, anything else left out.
    pub(super) async fn seen(&mut self) -> Vec<Seen> {
        settle().await;
        self.seen_now()
    }

    /// The TCP segments that come within `time`, with when each came, to ten milliseconds.
    pub(super) async fn seen_for(&mut self, time: Duration) -> Vec<Seen> {
        let (started, mut all) = (time::now(), Vec::new());
        while started.elapsed() < time {
            time::sleep(Duration::from_millis(10)).await;
            let at = started.elapsed();
            all.extend(self.seen_now().into_iter().map(|seen| Seen { at, ..seen }));
        }
        all
    }

    /// The TCP segments that have come after a millisecond, before anything is delayed for longer.
    pub(super) async fn seen_now_after_a_moment(&mut self) -> Vec<Seen> {
        time::sleep(Duration::from_millis(1)).await;
        self.seen_now()
    }

    /// Tells the stack with the address given, at that port of the switch, who this is, and talks to it from now on.
    pub(super) fn introduce_to(&mut self, address: Ipv4Addr, port: u8) {
        self.server = address;
        self.to = EthernetAddress([2, 0, 0, 0, 0, port]);
        self.say(ArpOperation::Request, self.address, address);
    }

    /// The TCP segments that have come.
    pub(super) fn seen_now(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        while let Some(frame) = self.device.try_receive() {
            let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
            if frame.ethertype() == EthernetProtocol::Arp {
                self.answer_arp(frame.payload());
            }
            if frame.ethertype() != EthernetProtocol::Ipv4 || frame.dst_addr() != self.mac {
                continue;
            }
            let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
            assert!(ip.verify_checksum());
            if ip.next_header() != IpProtocol::Tcp {
                continue;
            }
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            let (from, to) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
            let tcp = TcpRepr::parse(&tcp, &from, &to, &ChecksumCapabilities::default()).unwrap();
            seen.push(Seen {
                from_port: tcp.src_port,
                to_port: tcp.dst_port,
                control: tcp.control,
                sequence: tcp.seq_number,
                acknowledged: tcp.ack_number,
                payload: tcp.payload.to_vec(),
                window: tcp.window_len,
                options: (tcp.max_seg_size, tcp.window_scale, tcp.sack_permitted),
                sacks: tcp.sack_ranges.into_iter().flatten().collect(),
                stamp: tcp.timestamp,
                at: Duration::ZERO,
            });
        }
        seen
    }

    /// Opens a connection from `port` with the initial sequence number 1000. Gives the server's next sequence number.
    pub(super) async fn open(&mut self, port: u16, to_port: u16) -> TcpSeqNumber {
        self.send(&segment(port, to_port, TcpControl::Syn, 1000, None));
        let seen = self.seen().await;
        assert_eq!((seen.len(), seen[0].control, seen[0].acknowledged), (1, TcpControl::Syn, Some(TcpSeqNumber(1001))), "{seen:?}");
        let next = seen[0].sequence + 1;
        self.send(&segment(port, to_port, TcpControl::None, 1001, Some(next)));
        next
    }
}
