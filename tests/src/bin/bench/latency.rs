//! How long 64 bytes take there and back, beside a process on a tap that does nothing but send them back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{self, Place, Run, require_kvm};
use fogbow_tests::client;
use fogbow_tests::guest::Guest;
use fogbow_tests::measure::{Promise, Row, median};
use fogbow_tests::network::{GUEST, Namespace, TAP};

use crate::Options;

const ROUNDS: usize = 5;
const EXCHANGES: usize = 20_000;
const MESSAGE: [u8; 64] = [7; 64];
const PORT: u16 = 7000;

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    let mut rows = vec![beside_bare(Place::Spt, Some(Promise::RatioAtMost(1.5)))?];
    crate::add_hvt(&mut rows, require_kvm().and_then(|()| Ok(vec![beside_bare(Place::Hvt, None)?])))?;
    Ok(rows)
}

fn beside_bare(place: Place, promise: Option<Promise>) -> Result<Row> {
    let bare = builder::program("bare-echo")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(echo(place)?);
        theirs.push(ping_pong(&bare.to_string_lossy())?);
    }
    Ok(Row {
        what: format!("{}: TCP echo of 64 bytes, p50, us", place.name()),
        ours: median(ours),
        reference: Some((median(theirs), "UDP, a bare process on a tap".into())),
        promise,
    })
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

fn echo(place: Place) -> Result<f64> {
    let namespace = Namespace::new()?;
    let port = format!("--port={PORT}");
    let guest = place.start("echo", &Run { namespace: Some(&namespace), arguments: &[&port], ..Run::default() })?;
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
