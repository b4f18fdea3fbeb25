//! Requests per second, beside nginx with one worker that serves the same page: `wrk -t1 -c50`, keep-alive, in turn.
//!
//! Both are reached over the kernel's network: our images over a tap, nginx over a veth pair into a namespace of its own. On hvt nothing is promised:
//! what an exit costs is the hypervisor's.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fogbow_tests::Skip;
use fogbow_tests::builder::{self, Place, Run, require_kvm};
use fogbow_tests::client::Http;
use fogbow_tests::guest::Guest;
use fogbow_tests::measure::{Promise, Row, cpu_time, median};
use fogbow_tests::network::{GUEST, Namespace, Pair};

use crate::Options;

const ROUNDS: usize = 5;
const SECONDS: u32 = 4;

/// The page asked for: a small one, so that requests count and not bytes.
pub(crate) const PAGE: &str = "/logo.svg";

/// What a server did.
pub(crate) struct Load {
    pub(crate) requests_per_second: f64,
    cpu_micros_per_request: f64,
    /// Of 100 requests 99 took no longer, milliseconds.
    p99: f64,
}

/// Looks whether wrk is there.
pub(crate) fn require_wrk() -> Result<()> {
    require("wrk")
}

fn require(program: &str) -> Result<()> {
    match Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(_) => Ok(()),
        Err(_) => bail!(Skip(format!("{program} is not installed (apt-get install {program})"))),
    }
}

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    require_wrk()?;
    require("nginx")?;
    let (spt, nginx) = beside_nginx(Place::Spt)?;
    let mut rows = vec![
        row(Place::Spt, REQUESTS, &spt, &nginx, Some(Promise::RatioAtLeast(1.3))),
        row(Place::Spt, P99, &spt, &nginx, Some(Promise::RatioAtMost(1.0))),
        row(Place::Spt, PROCESSOR, &spt, &nginx, None),
    ];
    crate::add_hvt(&mut rows, on_hvt())?;
    Ok(rows)
}

fn on_hvt() -> Result<Vec<Row>> {
    require_kvm()?;
    let (hvt, nginx) = beside_nginx(Place::Hvt)?;
    Ok([REQUESTS, P99, PROCESSOR].map(|figure| row(Place::Hvt, figure, &hvt, &nginx, None)).into())
}

/// What a load tells, and its name.
type Figure = (&'static str, fn(&Load) -> f64);

const REQUESTS: Figure = ("requests per second", |load| load.requests_per_second);
const P99: Figure = ("p99, ms", |load| load.p99);
const PROCESSOR: Figure = ("processor time per request, us", |load| load.cpu_micros_per_request);

fn row(place: Place, (name, figure): Figure, ours: &[Load], theirs: &[Load], promise: Option<Promise>) -> Row {
    let figure = |loads: &[Load]| median(loads.iter().map(figure).collect());
    Row {
        what: format!("{}: http, wrk -t1 -c50, {name}", place.name()),
        ours: figure(ours),
        reference: Some((figure(theirs), "nginx, one worker, over veth".into())),
        promise,
    }
}

/// Loads an image and nginx in turn.
fn beside_nginx(place: Place) -> Result<(Vec<Load>, Vec<Load>)> {
    let namespace = Namespace::new()?;
    let guest = place.start("http", &Run { namespace: Some(&namespace), ..Run::default() })?;
    let pair = Pair::new()?;
    let nginx = Nginx::start(&pair)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(load(&namespace, &format!("http://{GUEST}{PAGE}"), guest.id())?);
        theirs.push(load(pair.client(), &format!("http://{}{PAGE}", pair.server_address()), nginx.worker)?);
    }
    Ok((ours, theirs))
}

/// Requests that an image answers per second of the processor time of `process`.
pub(crate) fn requests_per_cpu_second(namespace: &Namespace, process: u32) -> Result<f64> {
    Ok(1e6 / load(namespace, &format!("http://{GUEST}{PAGE}"), process)?.cpu_micros_per_request)
}

/// Loads a server for a while.
pub(crate) fn load(namespace: &Namespace, url: &str, process: u32) -> Result<Load> {
    let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let host: std::net::IpAddr = address.parse()?;
    namespace.run(|| Http::connect((host, 80).into())?.request("GET", PAGE))?;
    let (start, cpu) = (Instant::now(), cpu_time(process)?);
    let output = namespace.command("wrk").args(["-t1", "-c50", "--latency", &format!("-d{SECONDS}s"), url]).output()?;
    let (elapsed, used) = (start.elapsed(), cpu_time(process)? - cpu);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let requests =
        text.lines().find_map(|line| line.trim().split_once(" requests in ")).with_context(|| format!("no count from wrk: {text}"))?.0;
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("the server failed under load: {text}");
    }
    let requests: f64 = requests.parse()?;
    let p99 = text.lines().find_map(|line| line.trim().strip_prefix("99%")).and_then(|time| milliseconds(time.trim()));
    Ok(Load {
        requests_per_second: requests / elapsed.as_secs_f64(),
        cpu_micros_per_request: used.as_secs_f64() * 1e6 / requests,
        p99: p99.with_context(|| format!("no p99 from wrk: {text}"))?,
    })
}

/// A time as wrk writes it.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = match (text.strip_suffix("us"), text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), ..) => (number, 1e-3),
        (_, Some(number), _) => (number, 1.0),
        (.., number) => (number?, 1e3),
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// nginx with one worker and no log, in the pair's server namespace; ended when dropped.
struct Nginx {
    master: Option<Guest>,
    worker: u32,
    _directory: tempfile::TempDir,
}

impl Nginx {
    fn start(pair: &Pair) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        std::fs::write(
            path.join("nginx.conf"),
            format!(
                "daemon off; master_process on; worker_processes 1; pid {0}/pid; error_log {0}/error.log; user root;\n\
                 events {{ worker_connections 1024; }}\n\
                 http {{ access_log off; default_type text/html; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=100;\n\
                 server {{ listen 80; root {1}; }} }}\n",
                path.display(),
                builder::root().join("examples/http/htdocs").display()
            ),
        )?;
        let mut command = pair.server().command("nginx");
        command.arg("-p").arg(path).arg("-c").arg(path.join("nginx.conf"));
        let master = Guest::start(command)?;
        pair.client().run(|| Http::connect((pair.server_address(), 80).into())?.request("GET", PAGE))?;
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", master.id()))?;
        let worker = children.split_whitespace().next().context("nginx has no worker")?.parse()?;
        Ok(Self { master: Some(master), worker, _directory: directory })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(master) = self.master.take() {
            // The worker goes with its master only if the master can tell it to; a killed one cannot. One that is gone already needs neither.
            let _ = master.interrupt().and_then(|()| master.ended());
        }
    }
}
