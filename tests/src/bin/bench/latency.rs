//! How long 64 bytes take there and back, beside a process on a tap that does nothing but send them back; and what leaves hvt's virtual machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fogbow_tests::Skip;
use fogbow_tests::builder::{self, Place, Run};
use fogbow_tests::client;
use fogbow_tests::guest::Guest;
use fogbow_tests::measure::{Promise, Row, median};
use fogbow_tests::network::{GUEST, Namespace, TAP};

use crate::Options;

const ROUNDS: usize = 5;
const EXCHANGES: usize = 20_000;
const MESSAGE: [u8; 64] = [7; 64];
const PORT: u16 = 7000;
/// The port of the image `throughput` that takes a stream.
const SINK: u16 = 5001;
const SECONDS: u32 = 3;

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    let bare = builder::program("bare-echo")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(echo()?);
        theirs.push(ping_pong(&bare.to_string_lossy())?);
    }
    let echo = Row {
        what: "spt: TCP echo of 64 bytes, p50, us".into(),
        ours: median(ours),
        reference: Some((median(theirs), "UDP, a bare process on a tap".into())),
        promise: Some(Promise::RatioAtMost(1.5)),
    };
    let mut rows = vec![echo];
    match exits() {
        Ok(row) => rows.push(row),
        Err(error) => match error.downcast::<Skip>() {
            Ok(Skip(reason)) => println!("latency: exits from hvt: skipped: {reason}"),
            Err(error) => return Err(error),
        },
    }
    Ok(rows)
}

/// The median of many exchanges, in microseconds.
fn p50(mut exchange: impl FnMut() -> Result<()>) -> Result<f64> {
    (0..EXCHANGES / 10).try_for_each(|_| exchange())?;
    let times = (0..EXCHANGES).map(|_| {
        let begin = Instant::now();
        exchange().map(|()| begin.elapsed().as_secs_f64() * 1e6)
    });
    Ok(median(times.collect::<Result<_>>()?))
}

fn echo() -> Result<f64> {
    let namespace = Namespace::new()?;
    let port = format!("--port={PORT}");
    let guest = Place::Spt.start("echo", &Run { namespace: Some(&namespace), arguments: &[&port], ..Run::default() })?;
    let p50 = namespace.run(|| {
        let mut stream = client::connect((GUEST, PORT).into())?;
        let mut back = [0; MESSAGE.len()];
        p50(|| Ok(stream.write_all(&MESSAGE).and_then(|()| stream.read_exact(&mut back))?))
    });
    p50.with_context(|| format!("the console:\n{}", guest.console()))
}

fn ping_pong(program: &str) -> Result<f64> {
    let namespace = Namespace::new()?;
    namespace.add_neighbour(GUEST, "02:00:00:00:00:02")?;
    let mut command = namespace.command(program);
    command.arg(TAP);
    let process = Guest::start(command)?;
    process.wait_for("ready")?;
    namespace.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((GUEST, PORT))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut back = [0; 2 * MESSAGE.len()];
        p50(|| {
            // The first may be lost while the interface comes up.
            loop {
                socket.send(&MESSAGE)?;
                match socket.recv(&mut back) {
                    Ok(length) => {
                        ensure!(length == MESSAGE.len(), "another datagram came back");
                        return Ok(());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        })
    })
}

/// Exits from the virtual machine to the tender for each thousand plain frames of a stream that comes in and its acknowledgements, as KVM counts
/// them; kicks of the ring, which end in the kernel, are not among them.
fn exits() -> Result<Row> {
    let namespace = Namespace::new()?;
    let run = Run { namespace: Some(&namespace), memory: 128, tender: &["--net-offload:service=no"], ..Run::default() };
    let guest = Place::Hvt.start("tests/images/throughput", &run)?;
    let exits = namespace.run(|| {
        let mut stream = client::connect((GUEST, SINK).into())?;
        send_for(&mut stream, Duration::from_secs(1))?;
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", "kvm:kvm_userspace_exit", "-p", &guest.id().to_string(), "--", "sleep", &SECONDS.to_string()]);
        let measuring = std::thread::scope(|scope| {
            let counting = scope.spawn(move || command.output());
            let before = namespace.frames()?;
            send_for(&mut stream, Duration::from_secs(SECONDS.into()))?;
            let frames = namespace.frames()? - before;
            let output = counting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, anyhow::Error>((output.map_err(|error| Skip(format!("perf: {error} (apt-get install linux-perf)")))?, frames))
        });
        let (output, frames) = measuring?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let count = text.lines().find_map(|line| line.split_once(",,kvm:kvm_userspace_exit")?.0.parse::<f64>().ok());
        Ok(count.ok_or_else(|| Skip(format!("perf counts no exits: {}", text.trim())))? * 1000.0 / frames as f64)
    });
    let ours = exits.with_context(|| format!("the console:\n{}", guest.console()))?;
    Ok(Row { what: "hvt: exits to the tender per thousand frames of a stream".into(), ours, reference: None, promise: None })
}

fn send_for(stream: &mut TcpStream, time: Duration) -> Result<()> {
    let (chunk, begin) = (vec![0; 256 * 1024], Instant::now());
    while begin.elapsed() < time {
        stream.write_all(&chunk)?;
    }
    Ok(())
}
