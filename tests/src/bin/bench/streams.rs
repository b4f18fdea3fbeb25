//! One TCP stream each way over a tap, beside smoltcp as it is in a Linux process on the same kind of tap.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fogbow_tests::builder::{self, Place, Run};
use fogbow_tests::client;
use fogbow_tests::guest::Guest;
use fogbow_tests::measure::{Promise, Row, cpu_time, median};
use fogbow_tests::network::{GUEST, Namespace, TAP};

use crate::Options;

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(3);
const SINK: u16 = 5001;
const SOURCE: u16 = 5002;

/// Gbit per second, by the clock and by the server's processor time.
type Rates = (f64, f64);

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    let reference = builder::program("bare-smoltcp")?;
    let (mut ours, mut bare) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..ROUNDS {
        for (at, port) in [SINK, SOURCE].into_iter().enumerate() {
            ours[at].push(rates(port, start_image)?);
            bare[at].push(rates(port, |namespace| start_bare(namespace, &reference))?);
        }
    }
    let mut rows = Vec::new();
    for (at, direction) in ["in", "out"].into_iter().enumerate() {
        let row = |what: &str, figure: fn(&Rates) -> f64, promise| Row {
            what: format!("spt: one TCP stream {direction}, Gbit/s {what}"),
            ours: median(ours[at].iter().map(figure).collect()),
            reference: Some((median(bare[at].iter().map(figure).collect()), "bare smoltcp on a tap".into())),
            promise,
        };
        rows.push(row("by the clock", |rates| rates.0, Some(Promise::RatioAtLeast(0.9))));
        rows.push(row("per core of its processor time", |rates| rates.1, None));
    }
    Ok(rows)
}

fn start_image(namespace: &Namespace) -> Result<Guest> {
    Place::Spt.start("tests/images/throughput", &Run { namespace: Some(namespace), memory: 128, ..Run::default() })
}

fn start_bare(namespace: &Namespace, program: &Path) -> Result<Guest> {
    let mut command = namespace.command(&program.to_string_lossy());
    command.arg(TAP);
    Guest::start(command)
}

fn rates(port: u16, start: impl Fn(&Namespace) -> Result<Guest>) -> Result<Rates> {
    let namespace = Namespace::new()?;
    let guest = start(&namespace)?;
    let rates = namespace.run(|| {
        let mut stream = client::connect((GUEST, port).into())?;
        // Windows are open and caches warm after the first part.
        transfer(&mut stream, port, TIME / 4)?;
        let (begin, cpu) = (Instant::now(), cpu_time(guest.id())?);
        let bits = transfer(&mut stream, port, TIME)? * 8.0;
        let used = (cpu_time(guest.id())? - cpu).as_secs_f64();
        Ok((bits / begin.elapsed().as_secs_f64() / 1e9, bits / used.max(1e-3) / 1e9))
    });
    rates.with_context(|| format!("port {port}; the console:\n{}", guest.console()))
}

/// Moves bytes for `time` and gives their number.
fn transfer(stream: &mut TcpStream, port: u16, time: Duration) -> Result<f64> {
    let mut chunk = vec![0; 256 * 1024];
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed() < time {
        bytes += if port == SINK { stream.write(&chunk)? } else { stream.read(&mut chunk)? };
    }
    Ok(bytes as f64)
}
