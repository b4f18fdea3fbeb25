//! The HTTP server, as its users see it.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{self, Place, Run, served_at};
use fogbow_tests::client::Http;
use fogbow_tests::network::{GUEST, Namespace};
use libtest_mimic::Trial;

use crate::echo::with_console;

pub(crate) fn trials() -> Vec<Trial> {
    [
        super::on(&Place::ALL, "http_serves_every_file_to_curl", serves_every_file),
        super::on(&Place::ALL, "http_keeps_connections_and_answers_pipelined_requests", keeps_connections),
        super::on(&Place::ALL, "http_serves_a_burst_of_100_connections", serves_a_burst),
        super::on(&Place::ALL[1..], "http_host_answers_ping", answers_ping),
        super::on(&Place::IMAGES, "http_serves_a_client_in_4_mib", serves_in_little_memory),
        super::on(&[Place::Unix, Place::Hvt, Place::Virtio], "http_serves_from_the_store_that_is_chosen", serves_from_another_store),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs `test` while the server runs in a namespace.
fn with_server(place: Place, run: &Run<'_>, test: impl FnOnce(&Namespace, SocketAddr) -> Result<()>) -> Result<()> {
    let namespace = Namespace::new()?;
    let guest = place.start("http", &Run { namespace: Some(&namespace), ..*run })?;
    test(&namespace, (served_at(place), 80).into()).map_err(|error| with_console(error, &guest))
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    Ok(output.stdout)
}

fn curl(namespace: &Namespace, url: &str) -> Result<Vec<u8>> {
    let patience = ["--retry", "100", "--retry-connrefused", "--retry-delay", "0", "--max-time", "60"];
    run(namespace.command("curl").args(["--silent", "--show-error", "--fail"]).args(patience).arg(url))
}

fn serves_every_file(place: Place) -> Result<()> {
    serves_the_site(place, &Run::default())
}

/// On unix what the image embeds instead of a directory, on hvt a tar archive instead of what it embeds.
fn serves_from_another_store(place: Place) -> Result<()> {
    if place == Place::Unix {
        return serves_the_site(place, &Run { build: &["--store", "htdocs=embedded"], ..Run::default() });
    }
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("site.tar");
    let htdocs = builder::root().join("examples/http/htdocs");
    run(Command::new("tar").arg("--format=ustar").arg("-cf").arg(&archive).arg("-C").arg(htdocs).arg("."))?;
    let block = format!("--block:htdocs={}", archive.display());
    serves_the_site(place, &Run { build: &["--store", "htdocs=tar"], tender: &[&block], ..Run::default() })
}

fn serves_the_site(place: Place, run: &Run<'_>) -> Result<()> {
    with_server(place, run, |namespace, address| {
        let htdocs = builder::root().join("examples/http/htdocs");
        let mut served = 0;
        for entry in std::fs::read_dir(&htdocs)? {
            let path = entry?.path();
            if path.is_file() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let body = curl(namespace, &format!("http://{address}/{name}"))?;
                ensure!(body == std::fs::read(&path)?, "{name} is not what is in the directory");
                served += 1;
            }
        }
        ensure!(served >= 3, "only {served} files to serve");
        ensure!(curl(namespace, &format!("http://{address}/"))? == std::fs::read(htdocs.join("index.html"))?, "/ is not index.html");
        Ok(())
    })
}

fn keeps_connections(place: Place) -> Result<()> {
    with_server(place, &Run::default(), |namespace, address| {
        namespace.run(|| {
            let mut http = Http::connect(address)?;
            let first = http.request("GET", "/")?;
            ensure!(first.status == 200 && first.field("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{first:?}");
            let head = http.request("HEAD", "/")?;
            ensure!(head.status == 200 && head.field("content-length") == first.field("content-length"), "{head:?}");
            ensure!(http.request("GET", "/missing")?.status == 404);
            ensure!(http.request("GET", "/../../etc/passwd")?.status >= 400);
            http.send(&b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n".repeat(20))?;
            for _ in 0..20 {
                let response = http.receive(false)?;
                ensure!(response.status == 200 && response.body == first.body, "a pipelined response differs");
            }
            http.send(b"GET /\r\n\r\n")?;
            ensure!(http.receive(false)?.status == 400);
            Ok(())
        })
    })
}

fn serves_a_burst(place: Place) -> Result<()> {
    with_server(place, &Run::default(), |namespace, address| {
        namespace.run(|| {
            drop(Http::connect(address)?);
            let mut connections = (0..100).map(|_| Http::connect(address)).collect::<Result<Vec<_>>>()?;
            for http in &mut connections {
                http.send(b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n")?;
            }
            for http in &mut connections {
                ensure!(http.receive(false)?.status == 200);
            }
            Ok(())
        })
    })
}

fn answers_ping(place: Place) -> Result<()> {
    with_server(place, &Run::default(), |namespace, address| {
        namespace.run(|| Http::connect(address).map(drop))?;
        let answer = run(namespace.command("ping").args(["-c", "20", "-i", "0.01", "-W", "60", &GUEST.to_string()]))?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.contains(" 0% packet loss"), "{answer}");
        Ok(())
    })
}

fn serves_in_little_memory(place: Place) -> Result<()> {
    with_server(place, &Run { memory: 4, ..Run::default() }, |namespace, address| {
        namespace.run(|| {
            for _ in 0..3 {
                let mut http = Http::connect(address)?;
                for _ in 0..100 {
                    ensure!(http.request("GET", "/")?.status == 200);
                }
            }
            Ok(())
        })
    })
}
