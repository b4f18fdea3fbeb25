//! What a stack counts: frames, connections, and everything that it drops, by cause.

/// Declares the causes with the names that they have in metrics.
macro_rules! causes {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame, a connection request or a datagram was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Cause { $($(#[$doc])+ $variant,)+ }

        impl Cause {
            /// All causes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The cause's name in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

causes! {
    /// A frame to another hardware address, or a packet to another address, or of a protocol that the stack does not speak.
    NotForUs = "not_for_us",
    /// Headers that contradict themselves or the frame's length, or a source that no host can have.
    Malformed = "malformed",
    /// A wrong IP header checksum.
    IpChecksum = "ip_checksum",
    /// A wrong TCP checksum.
    TcpChecksum = "tcp_checksum",
    /// A wrong UDP checksum.
    UdpChecksum = "udp_checksum",
    /// A wrong ICMP checksum.
    IcmpChecksum = "icmp_checksum",
    /// A fragment of a packet: the stack does not put them together.
    Fragment = "fragment",
    /// Sent to everyone, and not to be answered (RFC 1122, sections 3.2.2 and 4.2.3.10).
    Broadcast = "broadcast",
    /// A TCP segment outside of the window, such as a copy of one that has arrived before, or the part of one beyond it.
    OutsideWindow = "outside_window",
    /// A TCP segment with a time stamp from the past (RFC 7323, section 5).
    OldStamp = "old_stamp",
    /// A reset or a SYN within a connection that was answered and not believed (RFC 5961).
    Challenged = "challenged",
    /// A TCP segment that acknowledges what was not sent, or what was long ago.
    WrongAcknowledgement = "wrong_acknowledgement",
    /// What a peer has sent after its FIN.
    AfterEnd = "after_end",
    /// Bytes of a TCP segment for which there is no memory, or that leave one more hole than may be.
    NoBuffer = "no_buffer",
    /// A segment to a closed connection whose address pair is still reserved, with nothing to acknowledge.
    TimeWait = "time_wait",
    /// An ICMP message that a segment did not arrive, but for one that was to open a connection.
    StrayError = "stray_error",
    /// A connection request while the listener's queue is full.
    BacklogFull = "backlog_full",
    /// A handshake whose place a connection took that was made by a SYN cookie.
    HandshakeReplaced = "handshake_replaced",
    /// A handshake that was not completed in time.
    HandshakeTimeout = "handshake_timeout",
    /// A connection that the application has dropped and that the peer does not close, whose place a new one took.
    OrphanReplaced = "orphan_replaced",
    /// A connection request while as many connections as allowed are there.
    ConnectionLimit = "connection_limit",
    /// A connection request while connections take all the memory that they may.
    MemoryLimit = "memory_limit",
    /// A datagram to a socket whose queue is full.
    ReceiveQueueFull = "receive_queue_full",
    /// A datagram of the application's that waited for a neighbour's hardware address, and whose socket's queue is full by then.
    SendQueueFull = "send_queue_full",
    /// A datagram of the application's to a neighbour that does not answer or that too many wait for.
    NoNeighbour = "no_neighbour",
}

/// How much was dropped for each cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; Cause::ALL.len()]);

impl Drops {
    pub(super) fn count(&mut self, cause: Cause) {
        self.0[cause as usize] += 1;
    }

    /// How much was dropped for `cause`.
    #[must_use]
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// Each cause and its count.
    pub fn iter(&self) -> impl Iterator<Item = (Cause, u64)> + '_ {
        Cause::ALL.iter().map(|&cause| (cause, self.of(cause)))
    }

    /// All that was dropped.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// What a [`Direct`](super::Direct) stack has done since its start, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Frames taken from the device.
    pub frames_received: u64,
    /// Bytes of these frames, Ethernet headers counted.
    pub bytes_received: u64,
    /// Frames given to the device.
    pub frames_sent: u64,
    /// Bytes of these frames, Ethernet headers counted.
    pub bytes_sent: u64,
    /// What was dropped, by cause.
    pub drops: Drops,
    /// How often smoltcp was let work on a socket: the measure of work that does not depend on the machine.
    pub flow_polls: u64,
    /// Connections that peers have opened.
    pub connections_accepted: u64,
    /// Connections that this end has begun to open.
    pub connections_begun: u64,
    /// Connection requests that were answered with a SYN cookie.
    pub cookies_sent: u64,
    /// Connections that were made when one came back.
    pub cookies_accepted: u64,
    /// TCP segments with bytes that had been sent before.
    pub retransmissions: u64,
    /// Messages of others who claim this stack's address (RFC 5227, section 2.4).
    pub address_conflicts: u64,
    /// TCP connections now, handshakes and closing ones included.
    pub connections: usize,
    /// Of these, connections in their handshake.
    pub handshakes: usize,
    /// Closed connections whose address pair is still reserved.
    pub reserved: usize,
    /// Neighbours whose hardware address is known.
    pub neighbours: usize,
    /// Memory that TCP connections take, in bytes, with what is kept for new ones.
    pub tcp_memory: usize,
}

/// What went over one TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowCounters {
    /// Segments received, whatever became of them.
    pub segments_received: u64,
    /// Bytes that the application has read.
    pub bytes_read: u64,
    /// Segments sent.
    pub segments_sent: u64,
    /// Bytes in these segments, repeated ones counted each time.
    pub bytes_sent: u64,
    /// Of these segments, those with bytes that had been sent before.
    pub retransmissions: u64,
}
