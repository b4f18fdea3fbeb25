//! What is counted, and how it is told.

use std::collections::BTreeMap;
use std::string::String;

use smoltcp::wire::{TcpControl, TcpRepr, TcpTimestampRepr};

use super::peer::{Peer, segment};
use super::*;

/// Reads the text format of Prometheus (exposition formats, version 0.0.4), and panics at whatever the format does not allow or a linter complains of.
/// Gives the samples by their names and labels.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let is_name = |name: &str| {
        !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    assert!(text.ends_with('\n') && !text.contains(['\r', '\t']));
    let (mut samples, mut kinds, mut helped, mut current) = (BTreeMap::new(), BTreeMap::new(), Vec::new(), "");
    for line in text.strip_suffix('\n').unwrap().split('\n') {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty() && !helped.contains(&name), "{line}");
            helped.push(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.last() == Some(&name) && kinds.insert(name, kind).is_none(), "{line}");
            assert!(matches!(kind, "counter" | "gauge") && (kind == "counter") == name.ends_with("_total"), "{line}");
            current = name;
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap();
            // The samples of a metric are one group, after its head.
            assert_eq!(name, current, "{line}");
            for label in labels.strip_suffix('}').unwrap().split(',') {
                let (label, value) = label.split_once("=\"").unwrap();
                let value = value.strip_suffix('"').unwrap();
                assert!(is_name(label) && !value.contains(['"', '\\']), "{line}");
            }
            assert!(samples.insert(sample.into(), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    samples
}

#[test]
fn metrics_tell_what_was_counted() {
    simulate(1, async {
        let (_switch, server, client) = network();
        serve_echo(&server, 7);
        let mut stream = client.connect(at(7)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.read(&mut [0; 8]).await.unwrap();
        let text = server.metrics("a\"\\\nb");
        let samples = parse(&text);
        for (sample, value) in [
            ("fogbow_net_tcp_accepted_total{interface=\"ab\"}", 1),
            ("fogbow_net_tcp_connections{interface=\"ab\"}", 1),
            ("fogbow_net_frames_received_total{interface=\"ab\"}", server.statistics().frames_received),
            ("fogbow_net_dropped_total{interface=\"ab\",cause=\"ip_checksum\"}", 0),
        ] {
            assert_eq!(samples.get(sample), Some(&value), "{sample}: {text}");
        }
        let counters = stream.counters();
        assert_eq!((counters.bytes_read, counters.bytes_sent, counters.retransmissions), (5, 5, 0));
        assert!(counters.segments_sent >= 2 && counters.segments_received >= 2, "{counters:?}");
    });
}

#[test]
fn each_segment_that_is_not_taken_is_counted_by_its_cause() {
    simulate(1, async {
        let (switch, server, _client) = network();
        let mut listener = server.listen(7).unwrap();
        let mut peer = Peer::new(&switch, 1).await;
        let stamp = |value| Some(TcpTimestampRepr::new(value, 0));
        peer.send(&TcpRepr { timestamp: stamp(500), ..segment(1024, 7, TcpControl::Syn, 1000, None) });
        let next = peer.seen_now_after_a_moment().await[0].sequence + 1;
        let data =
            |sequence: u32| TcpRepr { payload: b"x", timestamp: stamp(500), ..segment(1024, 7, TcpControl::None, sequence, Some(next)) };
        peer.send(&TcpRepr { payload: b"", ..data(1001) });
        let _held = listener.accept().await.unwrap();
        let mut expected: Vec<(Cause, u64)> = Vec::new();
        let long = [7; 100];
        let cases = [
            (Cause::OutsideWindow, data(1001 + 200_000)),
            (Cause::OutsideWindow, data(900)),
            (Cause::OutsideWindow, TcpRepr { payload: &long, ..data(1001 + 65_535 - 50) }),
            (Cause::OldStamp, TcpRepr { timestamp: stamp(499), ..data(1001) }),
            (Cause::Challenged, TcpRepr { control: TcpControl::Rst, payload: b"", ..data(1005) }),
            (Cause::Challenged, TcpRepr { control: TcpControl::Syn, payload: b"", ..data(1005) }),
            (Cause::WrongAcknowledgement, TcpRepr { ack_number: Some(next + 100_000), ..data(1001) }),
            (Cause::Malformed, TcpRepr { ack_number: None, ..data(1001) }),
        ];
        let holes = (0..100).map(|hole| (Cause::NoBuffer, data(1002 + 2 * hole)));
        for (cause, sent) in cases.into_iter().chain(holes) {
            let before = server.statistics().drops;
            peer.send(&sent);
            settle().await;
            let after = server.statistics().drops;
            let counted = after.of(cause) - before.of(cause);
            assert_eq!(after.total() - before.total(), counted, "{cause:?} and no other");
            match expected.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, count)) => *count += counted,
                None => expected.push((cause, counted)),
            }
        }
        let [causes @ .., (Cause::NoBuffer, holes)] = &expected[..] else { unreachable!() };
        assert!((30..40).contains(holes), "{holes}");
        assert_eq!(
            causes,
            [
                (Cause::OutsideWindow, 3),
                (Cause::OldStamp, 1),
                (Cause::Challenged, 2),
                (Cause::WrongAcknowledgement, 1),
                (Cause::Malformed, 1)
            ]
        );
        peer.seen_now();
        let next = peer.open(1025, 7).await;
        peer.send(&TcpRepr { payload: b"x", ..segment(1025, 7, TcpControl::Fin, 1001, Some(next)) });
        peer.send(&TcpRepr { payload: b"x", ..segment(1025, 7, TcpControl::None, 1003, Some(next)) });
        settle().await;
        assert_eq!(server.statistics().drops.of(Cause::AfterEnd), 1);
    });
}
