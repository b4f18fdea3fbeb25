//! Errors that are told by ICMP: RFC 792, RFC 1122, section 4.2.3.9, RFC 9293, section 3.9.2.2.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Repr, TcpControl, TcpPacket, TcpRepr};

use super::peer::{Peer, Seen, segment};
use super::*;

/// A peer that a client is about to connect to, and the outcome of that.
async fn connecting() -> (Direct, Peer, Seen, fogbow::Task<(Option<ConnectError>, Duration)>) {
    let switch = Switch::new();
    let client = stack(&switch, config(CLIENT));
    let mut peer = Peer::new_at(&switch, 1, Ipv4Addr::new(10, 0, 0, 77));
    peer.introduce_to(CLIENT, 1);
    settle().await;
    peer.seen_now();
    let (to, connecting) = (SocketAddr::from((peer.address, 80)), client.clone());
    let started = time::now();
    let outcome = spawn(async move { (connecting.connect(to).await.err(), started.elapsed()) });
    let syn = peer.seen_now_after_a_moment().await.remove(0);
    assert_eq!(syn.control, TcpControl::Syn);
    (client, peer, syn, outcome)
}

/// Says that `seen`, with its sequence number moved by so much, did not arrive.
fn say(peer: &mut Peer, seen: &Seen, moved: usize, reason: Icmpv4DstUnreachable) {
    let header = Ipv4Repr { src_addr: CLIENT, dst_addr: peer.address, next_header: IpProtocol::Tcp, payload_len: 20, hop_limit: 64 };
    let mut quoted = [0; 20];
    let mut tcp = TcpPacket::new_unchecked(&mut quoted[..]);
    tcp.set_src_port(seen.from_port);
    tcp.set_dst_port(seen.to_port);
    tcp.set_seq_number(seen.sequence + moved);
    // As much of it as every router quotes.
    let icmp = Icmpv4Repr::DstUnreachable { reason, header, data: &quoted[..8] };
    let frame = peer.packet(peer.address, IpProtocol::Icmp, icmp.buffer_len(), |payload| {
        icmp.emit(&mut Icmpv4Packet::new_unchecked(payload), &ChecksumCapabilities::default());
    });
    peer.device.send(&frame);
}

#[test]
fn rfc9293_section_3_9_2_2_a_hard_error_ends_the_opening_of_a_connection_at_once() {
    for reason in [Icmpv4DstUnreachable::PortUnreachable, Icmpv4DstUnreachable::ProtoUnreachable] {
        simulate(1, async move {
            let (client, mut peer, syn, outcome) = connecting().await;
            say(&mut peer, &syn, 0, reason);
            let (error, took) = outcome.await;
            assert_eq!(error, Some(ConnectError::Refused));
            assert!(took < Duration::from_millis(10), "{took:?}");
            settle().await;
            assert_eq!((client.statistics().connections, peer.seen_now()), (0, vec![]));
        });
    }
}

#[test]
fn rfc9293_section_3_9_2_2_a_soft_error_does_not_end_it_and_is_told_in_the_end() {
    simulate(1, async {
        let (client, mut peer, syn, outcome) = connecting().await;
        say(&mut peer, &syn, 0, Icmpv4DstUnreachable::HostUnreachable);
        time::sleep(Duration::from_secs(4)).await;
        assert!(peer.seen_now().len() >= 2, "it is tried again");
        let (error, took) = outcome.await;
        assert_eq!((error, took.as_secs()), (Some(ConnectError::Unreachable), 15));
        assert_eq!(client.statistics().drops.of(Cause::StrayError), 0);
    });
}

#[test]
fn rfc5927_section_4_a_message_about_another_segment_is_not_believed() {
    simulate(1, async {
        let (client, mut peer, syn, outcome) = connecting().await;
        say(&mut peer, &syn, 1, Icmpv4DstUnreachable::PortUnreachable);
        say(&mut peer, &Seen { from_port: syn.from_port ^ 1, ..syn.clone() }, 0, Icmpv4DstUnreachable::PortUnreachable);
        settle().await;
        assert_eq!(client.statistics().drops.of(Cause::StrayError), 2);
        assert_eq!(outcome.await.0, Some(ConnectError::TimedOut));
    });
}

#[test]
fn rfc5927_section_5_2_an_open_connection_is_not_ended() {
    simulate(1, async {
        let (client, mut peer, syn, outcome) = connecting().await;
        let answer = TcpRepr { ack_number: Some(syn.sequence + 1), ..segment(80, syn.from_port, TcpControl::Syn, 1000, None) };
        peer.send(&answer);
        assert_eq!(outcome.await.0, None);
        for moved in [0, 1] {
            say(&mut peer, &syn, moved, Icmpv4DstUnreachable::PortUnreachable);
        }
        settle().await;
        assert_eq!(client.statistics().drops.of(Cause::StrayError), 2);
    });
}
