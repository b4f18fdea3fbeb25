//! One TCP stream each way over a tap, beside smoltcp as it is in a Linux process on the same kind of tap, and, with offload, beside Linux's own TCP
//! between two namespaces without.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fogbow_tests::builder::{self, Place, Run};
use fogbow_tests::client;
use fogbow_tests::guest::Guest;
use fogbow_tests::measure::{Promise, Row, cpu_time, median};
use fogbow_tests::network::{GUEST, Namespace, Pair, TAP};

use crate::Options;

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(3);
pub(crate) const SINK: u16 = 5001;
pub(crate) const SOURCE: u16 = 5002;
const PORTS: [u16; 2] = [SINK, SOURCE];

/// Gbit per second, by the clock and by the server's processor time.
pub(crate) type Rates = (f64, f64);

/// The rates of each round, in and out.
type Rounds = [Vec<Rates>; 2];

/// What keeps frames plain, as under Solo5's tenders.
pub(crate) const PLAIN: &[&str] = &["--net-offload:service=no"];

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    let reference = builder::program("bare-smoltcp")?;
    let (mut ours, mut bare) = (Rounds::default(), Rounds::default());
    let (mut spt, mut hvt, mut unix, mut kernel) = (Rounds::default(), Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        for (at, port) in PORTS.into_iter().enumerate() {
            ours[at].push(rates(port, |namespace| start_image(namespace, Place::Spt, PLAIN))?);
            bare[at].push(rates(port, |namespace| start_bare(namespace, &reference))?);
            spt[at].push(rates(port, |namespace| start_image(namespace, Place::Spt, &[]))?);
            kernel[at].push(kernel_rates(port)?);
            hvt[at].push(rates(port, |namespace| start_image(namespace, Place::Hvt, &[]))?);
            unix[at].push(rates(port, |namespace| start_image(namespace, Place::UnixDirect, &[]))?);
        }
    }
    let mut rows = Vec::new();
    for (at, direction) in ["in", "out"].into_iter().enumerate() {
        let row = |what: &str, rates: &Rounds, reference: Option<(&Rounds, &str)>, figure: fn(&Rates) -> f64, promise| Row {
            what: format!("{what} {direction}"),
            ours: median(rates[at].iter().map(figure).collect()),
            reference: reference.map(|(rates, name)| (median(rates[at].iter().map(figure).collect()), name.into())),
            promise,
        };
        let (smoltcp, linux) = (Some((&bare, "bare smoltcp on a tap")), Some((&kernel, "Linux over veth, TSO off")));
        rows.push(row("spt: one TCP stream, plain frames, Gbit/s", &ours, smoltcp, by_the_clock, Some(Promise::RatioAtLeast(0.9))));
        rows.push(row("spt: the same per core of its processor time", &ours, smoltcp, per_core, None));
        rows.push(row("spt: one TCP stream, offload, Gbit/s", &spt, linux, by_the_clock, Some(Promise::RatioAtLeast(1.0))));
        rows.push(row("spt: the same per core of its processor time", &spt, None, per_core, Some(Promise::AtLeast(25.0))));
        rows.push(row("hvt: one TCP stream, offload, Gbit/s", &hvt, linux, by_the_clock, None));
        rows.push(row("unix on a tap: one TCP stream, offload, Gbit/s", &unix, linux, by_the_clock, None));
        rows.push(row("unix: the same per core of its processor time", &unix, None, per_core, None));
    }
    Ok(rows)
}

/// The rates of an image on `place`.
pub(crate) fn of_image(port: u16, place: Place) -> Result<Rates> {
    rates(port, |namespace| start_image(namespace, place, &[]))
}

fn start_image(namespace: &Namespace, place: Place, tender: &[&str]) -> Result<Guest> {
    place.start("tests/images/throughput", &Run { namespace: Some(namespace), memory: 128, tender, ..Run::default() })
}

fn start_bare(namespace: &Namespace, program: &Path) -> Result<Guest> {
    let mut command = namespace.command(&program.to_string_lossy());
    command.arg(TAP);
    Guest::start(command)
}

fn rates(port: u16, start: impl Fn(&Namespace) -> Result<Guest>) -> Result<Rates> {
    let namespace = Namespace::new()?;
    let guest = start(&namespace)?;
    let rates = namespace.run(|| measure(port, || cpu_time(guest.id())));
    rates.with_context(|| format!("port {port}; the console:\n{}", guest.console()))
}

/// Linux's TCP at both ends of a pair of interfaces that cut what they send before it goes over. Its processor time is not told apart.
fn kernel_rates(port: u16) -> Result<Rates> {
    let pair = Pair::new()?;
    pair.switch_offload_off()?;
    let listener = pair.server().run(|| Ok(std::net::TcpListener::bind((GUEST, port))?))?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut chunk = vec![0; 256 * 1024];
            // Ends with the connection.
            while (if port == SINK { stream.read(&mut chunk) } else { stream.write(&chunk) }).is_ok_and(|count| count > 0) {}
        });
        pair.client().run(|| measure(port, || Ok(Duration::ZERO)))
    })
}

fn measure(port: u16, cpu_time: impl Fn() -> Result<Duration>) -> Result<Rates> {
    let mut stream = client::connect((GUEST, port).into())?;
    // Windows are open and caches warm after the first part.
    transfer(&mut stream, port, TIME / 4)?;
    let (begin, cpu) = (Instant::now(), cpu_time()?);
    let bits = transfer(&mut stream, port, TIME)? * 8.0;
    let used = (cpu_time()? - cpu).as_secs_f64();
    Ok((bits / begin.elapsed().as_secs_f64() / 1e9, bits / used.max(1e-3) / 1e9))
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

fn by_the_clock(rates: &Rates) -> f64 {
    rates.0
}

fn per_core(rates: &Rates) -> f64 {
    rates.1
}
