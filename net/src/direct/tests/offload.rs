//! Devices that complete checksums, cut segments and put them together.

use super::*;
use crate::frame::{Checksums, Offload};
use crate::simulation::{Impairment, Network};

const PERCENT: u32 = Impairment::PERCENT;

/// Sends only: what it sends large arrives in many frames elsewhere.
const CUTS: Offload = Offload { checksum: true, segmentation: crate::frame::LARGEST_PACKET, reassembly: 0 };

fn config(host: u8) -> Config {
    let mut config = Network::config(host);
    config.set_tcp_buffer((4096, 512 * 1024));
    config
}

/// The byte of a stream at a place.
fn byte(place: usize) -> u8 {
    ((place / 7) ^ (place >> 11)) as u8
}

/// Moves `length` bytes each way between two stacks at once. Gives how many frames the switch saw, and both stacks' statistics.
fn exchange(seed: u64, length: usize, offloads: [Offload; 2], impairment: Impairment) -> (u64, [Statistics; 2]) {
    simulate(seed, async move {
        let network = Network::new();
        network.switch().impair(impairment);
        let [server, client] = [(1, offloads[0]), (2, offloads[1])].map(|(host, offload)| network.stack_offloading(config(host), offload));
        let mut listener = server.listen(80).unwrap();
        let connecting = spawn({
            let client = client.clone();
            async move { client.connect(at(80)).await.unwrap() }
        });
        let (one, other) = (listener.accept().await.unwrap(), connecting.await);
        let begun = network.switch().frames();
        let move_all = |stream: TcpStream| {
            let (mut read, mut write) = stream.split();
            let sending = spawn(async move {
                let bytes: Vec<u8> = (0..length).map(byte).collect();
                for chunk in bytes.chunks(50_000) {
                    write.write_all(chunk).await.unwrap();
                }
                write.shutdown().await.unwrap();
            });
            spawn(async move {
                let (mut buffer, mut place) = (vec![0; 100_000], 0);
                while let Ok(count @ 1..) = read.read(&mut buffer).await {
                    assert!(buffer[..count].iter().enumerate().all(|(index, &found)| found == byte(place + index)), "after {place} bytes");
                    place += count;
                }
                sending.await;
                place
            })
        };
        let (there, back) = (move_all(one), move_all(other));
        assert_eq!((there.await, back.await), (length, length));
        (network.switch().frames() - begun, [server.statistics(), client.statistics()])
    })
}

#[test]
fn large_frames_carry_a_stream_whole_between_devices_that_take_them() {
    let (plain, _) = exchange(1, 3_000_000, [Offload::default(); 2], Impairment::default());
    let (large, statistics) = exchange(1, 3_000_000, [Offload::FULL; 2], Impairment::default());
    assert!(large * 10 < plain, "{large} frames instead of {plain}");
    assert_eq!(statistics.map(|statistics| statistics.retransmissions), [0, 0]);
}

#[test]
fn what_is_cut_on_the_way_arrives_whole_with_right_checksums() {
    let (_, [server, client]) = exchange(2, 1_000_000, [CUTS, Offload::default()], Impairment::default());
    assert!(client.frames_received > 690 && server.frames_sent < client.frames_received, "{server:?} {client:?}");
    let wrong = |(cause, _): &(Cause, u64)| matches!(cause, Cause::IpChecksum | Cause::TcpChecksum | Cause::Malformed);
    assert_eq!(client.drops.iter().filter(wrong).map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn loss_and_disorder_of_what_was_cut_is_repaired_segment_by_segment() {
    let delay = Duration::from_millis(5);
    for (seed, lost, reordered, corrupted, doubled) in
        [(3, PERCENT, 0, 0, 0), (4, 5 * PERCENT, 0, 0, 0), (5, 0, PERCENT, 0, 0), (6, PERCENT, PERCENT, PERCENT, PERCENT)]
    {
        let impairment = Impairment { lost, reordered, corrupted, doubled, delay, ..Impairment::default() };
        for offloads in [[CUTS, CUTS], [Offload::FULL, CUTS]] {
            let (_, statistics) = exchange(seed, 1_000_000, offloads, impairment);
            // A retransmission is one of segments, not of all that went with them.
            for statistics in statistics {
                let sent = statistics.bytes_sent;
                assert!(sent < 1_500_000, "{sent} bytes sent for a million, {impairment:?}");
            }
        }
    }
}

#[test]
fn a_wrong_checksum_is_dropped_unless_the_device_vouches_for_it() {
    simulate(7, async {
        let network = Network::new();
        let mac = EthernetAddress([2, 0, 0, 0, 0, 9]);
        let ipv4 = Ipv4Cidr { address: CLIENT, prefix_length: 24 };
        let capture = network.switch().capture();
        let (server, client) = (network.stack(1), network.stack(2));
        serve_echo(&server, 7);
        client.connect(at(7)).await.unwrap();
        let file = capture.to_pcap();
        let frames = fogbow_pcap::Records::new(&file).unwrap().map(|(_, frame)| frame.to_vec());
        let mut answer = frames.into_iter().find(|frame| frame[..6] == [2, 0, 0, 0, 0, 2] && frame[12..14] == [8, 0]).unwrap();
        answer[..6].copy_from_slice(&mac.0);
        let classify = |frame: &[u8], checksums| demultiplex::classify(frame, checksums, mac, &ipv4).map(drop);
        assert_eq!(classify(&answer, Checksums::Unknown), Ok(()));
        answer[50] ^= 1;
        assert_eq!(classify(&answer, Checksums::Unknown), Err(Cause::TcpChecksum));
        assert_eq!(classify(&answer, Checksums::Verified), Ok(()));
    });
}
