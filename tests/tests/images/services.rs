//! Two stacks in an image, and its log messages at a syslog collector.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::guest::{Guest, Output, PATIENCE};
use fogbow_tests::network::Namespace;
use libtest_mimic::Trial;

const IMAGE: &str = "tests/images/services";
const PLACES: [Place; 4] = [Place::Unix, Place::Spt, Place::Hvt, Place::Virtio];

pub(crate) fn trials() -> Vec<Trial> {
    [
        super::on(
            &[Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Muen, Place::Genode],
            "services_gives_each_stack_its_own_address",
            addresses,
        ),
        super::on(&PLACES, "services_is_not_held_up_by_a_console_that_nobody_reads", with_unread_console),
        super::on(&PLACES, "services_sends_its_log_over_udp", over_udp),
        super::on(&PLACES, "services_sends_its_log_over_tcp", over_tcp),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Starts the image with a user-mode network behind each stack.
fn start(place: Place, collector: SocketAddr, further: &[&str]) -> Result<Guest> {
    start_with(place, collector, further, Output::Pipe)
}

fn start_with(place: Place, collector: SocketAddr, further: &[&str], output: Output) -> Result<Guest> {
    let is_image = place != Place::Unix;
    // The gateway of the user-mode network leads to the host's loopback.
    let address = if is_image { "10.0.2.2" } else { "127.0.0.1" };
    let syslog = format!("--public-syslog={address}:{}", collector.port());
    let mut arguments = vec![syslog.as_str()];
    if is_image {
        arguments.extend(["--public-ipv4=10.0.2.15/24", "--public-ipv4-gateway=10.0.2.2", "--private-ipv4=192.168.7.2/24"]);
    }
    arguments.extend(further);
    place.start(IMAGE, &Run { tender: &["--net:outside=user", "--net:inside=user"], arguments: &arguments, output, ..Run::default() })
}

fn addresses(place: Place) -> Result<()> {
    let namespace;
    let guest = match place {
        Place::Unix => {
            namespace = Namespace::new()?;
            namespace.add_tap("tap1")?;
            on_two_taps(&namespace)?
        }
        _ => start(place, (Ipv4Addr::LOCALHOST, 514).into(), &[])?,
    };
    guest.wait_for("services: public Some(10.0.2.15), private Some(192.168.7.2)\n")
}

/// The program with a direct stack over each of the namespace's taps.
fn on_two_taps(namespace: &Namespace) -> Result<Guest> {
    let run = Run {
        namespace: Some(namespace),
        arguments_only: true,
        build: &["--stack", "outside=direct", "--stack", "inside=direct"],
        arguments: &[
            "--public-syslog=10.0.2.2:514",
            "--public-ipv4=10.0.2.15/24",
            "--private-ipv4=192.168.7.2/24",
            "--outside-tap=tap0",
            "--inside-tap=tap1",
        ],
        ..Run::default()
    };
    Place::Unix.start(IMAGE, &run)
}

fn over_udp(place: Place) -> Result<()> {
    let collector = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    collector.set_read_timeout(Some(PATIENCE))?;
    let guest = start(place, collector.local_addr()?, &[])?;
    let mut datagram = [0; 2048];
    let length = collector.recv(&mut datagram).with_context(|| guest.console())?;
    check(std::str::from_utf8(&datagram[..length])?)
}

/// Two megabytes of messages, and a pipe that takes 64 KiB: the image still serves its network.
fn with_unread_console(place: Place) -> Result<()> {
    let collector = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    collector.set_read_timeout(Some(PATIENCE))?;
    let _guest = start_with(place, collector.local_addr()?, &["--storm=40000"], Output::Unread)?;
    let mut datagram = [0; 2048];
    let length = collector.recv(&mut datagram).context("the image is held up by its console")?;
    check(std::str::from_utf8(&datagram[..length])?)
}

fn over_tcp(place: Place) -> Result<()> {
    let collector = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let guest = start(place, collector.local_addr()?, &["--tcp"])?;
    guest.wait_for("services: public")?;
    let (mut stream, _) = collector.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    let mut length = String::new();
    while stream.read(&mut byte)? == 1 && byte != *b" " {
        length.push(byte[0].into());
    }
    let mut message = vec![0; length.parse().with_context(|| format!("the length {length:?}"))?];
    stream.read_exact(&mut message)?;
    check(std::str::from_utf8(&message)?)
}

fn check(message: &str) -> Result<()> {
    let is_whole = message.starts_with("<30>1 20") && message.ends_with("Z guest services - services - a message from the image");
    ensure!(is_whole, "{message}");
    Ok(())
}
