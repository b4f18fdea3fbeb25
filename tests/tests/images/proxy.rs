//! The proxy: an HTTP server and an HTTP client that share a stack, between real clients and a server of the host.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use fogbow_tests::builder::{self, Place, Run, served_at};
use fogbow_tests::client::Http;
use fogbow_tests::network::{HOST, Namespace};
use libtest_mimic::Trial;

use crate::echo::with_console;

pub(crate) fn trials() -> Vec<Trial> {
    super::on(&Place::ALL, "proxy_passes_on_what_the_origin_serves", passes_on)
}

fn passes_on(place: Place) -> Result<()> {
    let namespace = Namespace::new()?;
    let origin_run = Run { namespace: Some(&namespace), arguments: &["--port=8000"], ..Run::default() };
    let origin = Place::Unix.start("http", &origin_run)?;
    namespace.run(|| Http::connect((HOST, 8000).into()).map(drop))?;
    let address = format!("--origin={HOST}:8000");
    let guest = place.start("proxy", &Run { namespace: Some(&namespace), arguments: &[&address], ..Run::default() })?;
    let index = std::fs::read(builder::root().join("examples/http/htdocs/index.html"))?;
    let conversation = namespace.run(|| {
        let mut http = Http::connect(SocketAddr::from((served_at(place), 80)))?;
        for _ in 0..20 {
            let response = http.request("GET", "/")?;
            ensure!(response.status == 200 && response.body == index, "the page is not the origin's: {}", response.status);
            ensure!(response.field("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{response:?}");
        }
        ensure!(http.request("GET", "/missing")?.status == 404);
        let head = http.request("HEAD", "/")?;
        ensure!(head.field("content-length") == Some(&index.len().to_string()), "{head:?}");
        drop(origin);
        ensure!(http.request("GET", "/")?.status == 502, "an origin that is gone is a bad gateway");
        Ok(())
    });
    conversation.map_err(|error| with_console(error, &guest))
}
