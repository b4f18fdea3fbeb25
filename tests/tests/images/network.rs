//! The way between an image and its tap: large frames that the host cuts, MTUs, recordings.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fogbow_tests::Skip;
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::client;
use fogbow_tests::guest::PATIENCE;
use fogbow_tests::network::{GUEST, Namespace};
use libtest_mimic::Trial;

use crate::echo::with_console;

/// Where the image has its own stack over a tap of Linux's.
const PLACES: [Place; 4] = [Place::UnixDirect, Place::Spt, Place::Hvt, Place::Virtio];

const ADDRESS: (std::net::Ipv4Addr, u16) = (GUEST, 7000);
const LENGTH: usize = 4 << 20;
/// The Ethernet header.
const HEADER: usize = 14;
/// IPv4's EtherType.
const IPV4: [u8; 2] = [8, 0];
/// The length of `struct virtio_net_hdr` with the number of buffers (virtio 1.2, section 5.1.6).
const VIRTIO: usize = 12;

pub(crate) fn trials() -> Vec<Trial> {
    [
        super::on(&PLACES, "network_the_host_cuts_and_joins_segments", |place| {
            let (largest_in, largest_out) = largest_frames(place, 1500, true)?;
            ensure!(largest_in > 4000 && largest_out > 4000, "the largest frames have {largest_in} and {largest_out} bytes");
            Ok(())
        }),
        super::on(&PLACES, "network_frames_are_plain_without_offload", |place| {
            let largest = largest_frames(place, 1500, false)?;
            ensure!(largest == (1500 + HEADER, 1500 + HEADER), "the largest frames have {largest:?} bytes");
            Ok(())
        }),
        super::on(&PLACES, "network_frames_are_as_large_as_an_mtu_of_9000", |place| {
            let largest = largest_frames(place, 9000, false)?;
            ensure!(largest == (9000 + HEADER, 9000 + HEADER), "the largest frames have {largest:?} bytes");
            Ok(())
        }),
        // On virtio it is QEMU that records.
        super::on(&[Place::UnixDirect, Place::Spt, Place::Hvt], "network_tcpdump_reads_what_is_recorded", tcpdump_reads),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The largest frames that were recorded: to the image, and from it.
fn largest_frames(place: Place, mtu: u32, offload: bool) -> Result<(usize, usize)> {
    record(place, mtu, offload, recorded)
}

/// tcpdump finds as many frames in a recording as the project's own reader, and each of them whole.
fn tcpdump_reads(place: Place) -> Result<()> {
    record(place, 1500, true, |path| {
        recorded(path)?;
        let begun = Instant::now();
        loop {
            let output = Command::new("tcpdump").args(["-n", "-r"]).arg(path).output();
            let output = output.map_err(|error| Skip(format!("tcpdump: {error} (apt-get install tcpdump)")))?;
            let file = std::fs::read(path)?;
            let ours = fogbow_pcap::Records::new(&file).map_or(0, Iterator::count);
            let text = String::from_utf8_lossy(&output.stdout);
            if output.status.success() && text.lines().count() == ours {
                let streams = text.lines().filter(|line| line.contains("10.0.0.2.7000: Flags")).count();
                ensure!(streams > 0 && !text.contains("[|") && !text.contains("bad"), "{text}");
                return Ok(());
            }
            // The recorder may be writing the last frames.
            ensure!(begun.elapsed() < PATIENCE, "{ours} frames; tcpdump: {}", String::from_utf8_lossy(&output.stderr));
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

/// Has a datagram and a stream echoed, and lets `look` see the recording of that while the image runs.
fn record<R>(place: Place, mtu: u32, offload: bool, look: impl FnOnce(&Path) -> Result<R>) -> Result<R> {
    let namespace = Namespace::with_mtu(mtu)?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("frames.pcap");
    let file = path.display();
    let word = if offload { "yes" } else { "no" };
    let (options, arguments) = match place {
        Place::UnixDirect => (vec![], vec![format!("--service-offload={word}"), format!("--service-pcap={file}")]),
        Place::Virtio => {
            let offload = if offload { "on" } else { "off" };
            let device = format!("virtio-net-pci,netdev=service,host_mtu={mtu},guest_tso4={offload},host_tso4={offload}");
            let recording = format!("filter-dump,id=recording,netdev=service,file={file}");
            (["-device".into(), device, "-object".into(), recording].into(), vec![])
        }
        _ => (vec![format!("--net-offload:service={word}"), format!("--net-pcap:service={file}")], vec![]),
    };
    let words = |texts: &[String]| texts.iter().map(|text| &*text.clone().leak()).collect::<Vec<&str>>();
    let (options, arguments) = (words(&options), [words(&arguments), vec!["--port=7000"]].concat());
    let guest = place.start("echo", &Run { namespace: Some(&namespace), tender: &options, arguments: &arguments, ..Run::default() })?;
    namespace
        .run(|| {
            let datagram = vec![7; mtu as usize - 28];
            ensure!(client::exchange(ADDRESS.into(), &datagram)? == datagram, "a datagram of {} bytes came back changed", datagram.len());
            client::echo(ADDRESS.into(), LENGTH)
        })
        .map_err(|error| with_console(error, &guest))?;
    look(&path)
}

/// The largest frames of a recording, to the image and from it, once all that was echoed is there.
fn recorded(path: &Path) -> Result<(usize, usize)> {
    let begun = Instant::now();
    loop {
        let file = std::fs::read(path)?;
        let records = fogbow_pcap::Records::new(&file).ok_or_else(|| anyhow::anyhow!("{} is no recording", path.display()))?;
        let (mut largest, mut bytes) = ((0, 0), (0, 0));
        for (_, frame) in records {
            // QEMU before 8.0 records virtio's header, too.
            let frame = if frame.get(12..14) == Some(&IPV4) || frame.get(12 + VIRTIO..14 + VIRTIO) != Some(&IPV4) {
                frame
            } else {
                &frame[VIRTIO..]
            };
            // IPv4, by the sender's address.
            let is_out = frame.get(26..30) == Some(&GUEST.octets());
            let (largest, bytes) = if is_out { (&mut largest.1, &mut bytes.1) } else { (&mut largest.0, &mut bytes.0) };
            *largest = frame.len().max(*largest);
            *bytes += frame.len();
        }
        if bytes.0 > LENGTH && bytes.1 > LENGTH {
            return Ok(largest);
        }
        // What was echoed was recorded before; it is written as soon as nothing more comes.
        ensure!(begun.elapsed() < PATIENCE, "only {bytes:?} bytes of {LENGTH} each way were recorded");
        std::thread::sleep(Duration::from_millis(1));
    }
}
