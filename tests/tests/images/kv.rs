//! The key-value service: killed while a client writes, again and again, it loses nothing that it has acknowledged.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{Place, Run, served_at, xtask};
use fogbow_tests::client::Http;
use fogbow_tests::guest::Guest;
use fogbow_tests::network::Namespace;
use libtest_mimic::Trial;

/// How often the service is killed, and after how many more acknowledged changes each time.
const KILLS: usize = 12;
const CHANGES: usize = 40;

pub(crate) fn trials() -> Vec<Trial> {
    let killed = super::on(
        &[Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Genode],
        "kv_loses_nothing_acknowledged_when_killed",
        loses_nothing,
    );
    let large =
        super::on(&[Place::Spt, Place::Hvt, Place::Virtio], "kv_streams_values_larger_than_its_memory", streams_values_larger_than_memory);
    killed.into_iter().chain(large).collect()
}

/// What a client knows of the store.
#[derive(Default)]
struct Known {
    values: BTreeMap<String, Option<Vec<u8>>>,
    /// The change that was under way when the service was killed.
    unsure: Option<(String, Option<Vec<u8>>)>,
    /// Changes so far.
    count: usize,
}

impl Known {
    /// The next change: mostly a value for one of fifty keys, small or of some pages, now and then a removal.
    fn next(&mut self) -> (String, Option<Vec<u8>>) {
        self.count += 1;
        let count = self.count;
        let length = if count.is_multiple_of(7) { 5000 + count % 40_000 } else { count % 300 };
        let value = (!count.is_multiple_of(5)).then(|| (0..length).map(|index| (index * 7 + count) as u8).collect());
        (format!("/kept/key-{}", count * 31 % 50), value)
    }

    /// Makes changes until the connection breaks; `acknowledged` counts them.
    fn change(&mut self, http: &mut Http, acknowledged: &AtomicUsize) -> Result<()> {
        loop {
            let (path, value) = self.next();
            self.unsure = Some((path.clone(), value.clone()));
            let Ok(status) = send(http, &path, value.as_deref()) else { return Ok(()) };
            ensure!(status == 204, "{path}: status {status}");
            self.unsure = None;
            self.values.insert(path, value);
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Checks that everything is as it was acknowledged.
    fn check(&mut self, http: &mut Http) -> Result<()> {
        if let Some((path, value)) = self.unsure.take() {
            let found = get(http, &path)?;
            let former = self.values.get(&path).cloned().flatten();
            ensure!(found == value || found == former, "{path} is neither what it was nor what it was to be");
            self.values.insert(path, found);
        }
        for (path, value) in &self.values {
            ensure!(&get(http, path)? == value, "{path} is not what was acknowledged");
        }
        Ok(())
    }
}

fn send(http: &mut Http, path: &str, value: Option<&[u8]>) -> Result<u16> {
    let (method, value) = value.map_or(("DELETE", &[][..]), |value| ("PUT", value));
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: guest\r\nContent-Length: {}\r\n\r\n", value.len()).into_bytes();
    request.extend_from_slice(value);
    http.send(&request)?;
    Ok(http.receive(false)?.status)
}

fn get(http: &mut Http, path: &str) -> Result<Option<Vec<u8>>> {
    let response = http.request("GET", path)?;
    match response.status {
        200 => Ok(Some(response.body)),
        404 => Ok(None),
        status => anyhow::bail!("{path}: status {status}"),
    }
}

fn start(place: Place, namespace: &Namespace, disk: &Path) -> Result<Guest> {
    let disk = disk.to_str().context("a path that is not UTF-8")?;
    let (tender, argument) = (format!("--block:store={disk}"), format!("--store-file={disk}"));
    let run = Run { namespace: Some(namespace), ..Run::default() };
    match place {
        Place::Unix | Place::UnixDirect => place.start("kv", &Run { arguments: &[&argument], ..run }),
        _ => place.start("kv", &Run { tender: &[&tender], ..run }),
    }
}

fn loses_nothing(place: Place) -> Result<()> {
    let namespace = Namespace::new()?;
    let directory = tempfile::tempdir()?;
    let disk = directory.path().join("disk.img");
    std::fs::File::create(&disk)?.set_len(8 << 20)?;
    let address: SocketAddr = (served_at(place), 80).into();
    let mut known = Known::default();
    for _ in 0..KILLS {
        let guest = start(place, &namespace, &disk)?;
        let acknowledged = AtomicUsize::new(0);
        let (connected, connection) = std::sync::mpsc::channel();
        let result = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let (known, acknowledged) = (&mut known, &acknowledged);
                namespace.run(move || {
                    let mut http = Http::connect(address)?;
                    connected.send(http.handle()?)?;
                    known.check(&mut http)?;
                    known.change(&mut http, acknowledged)
                })
            });
            // In the middle of whatever it is doing.
            while acknowledged.load(Ordering::SeqCst) < CHANGES && !client.is_finished() {
                std::thread::yield_now();
            }
            let console = guest.console();
            drop(guest);
            // A guest that was killed tells its peers nothing.
            let _ = connection.recv().map(|stream| stream.shutdown(Shutdown::Both));
            let result = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
            result.with_context(|| format!("the console:\n{console}"))
        });
        result?;
    }
    let guest = start(place, &namespace, &disk)?;
    namespace.run(|| known.check(&mut Http::connect(address)?)).map_err(|error| crate::echo::with_console(error, &guest))?;
    drop(guest);
    let path = disk.to_str().context("a path that is not UTF-8")?;
    ensure!(xtask(&["kv", "check", path])?.contains("no problems"));
    Ok(())
}

/// A value, and one that takes its place, that are each several times as large as the image's memory.
fn streams_values_larger_than_memory(place: Place) -> Result<()> {
    const LENGTH: usize = 48 << 20;
    let namespace = Namespace::new()?;
    let directory = tempfile::tempdir()?;
    let disk = directory.path().join("disk.img");
    std::fs::File::create(&disk)?.set_len(160 << 20)?;
    let tender = format!("--block:store={}", disk.display());
    let run = Run { namespace: Some(&namespace), memory: 16, tender: &[&tender], arguments: &["--store-memory=1024"], ..Run::default() };
    let guest = place.start("kv", &run)?;
    let address: SocketAddr = (served_at(place), 80).into();
    let value: Vec<u8> = (0..LENGTH).map(|index| (index ^ (index >> 9)) as u8).collect();
    let exchange = move || -> Result<()> {
        let mut http = Http::connect(address)?;
        ensure!(send(&mut http, "/small", Some(b"before"))? == 204);
        for shift in 0..2 {
            ensure!(send(&mut http, "/large", Some(&value[shift..]))? == 204);
            ensure!(get(&mut http, "/large")?.as_deref() == Some(&value[shift..]), "the value is not what was put");
        }
        ensure!(get(&mut http, "/small")?.as_deref() == Some(&b"before"[..]));
        Ok(())
    };
    namespace.run(exchange).map_err(|error| crate::echo::with_console(error, &guest))
}
