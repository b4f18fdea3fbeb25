//! The user-mode network: a guest that anybody can run and reach over the host's loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, ensure};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::client::{self, Http};
use fogbow_tests::guest::Guest;
use libtest_mimic::Trial;

use crate::echo::with_console;

pub(crate) fn trials() -> Vec<Trial> {
    [
        super::on(&[&Place::IMAGES[..], &[Place::Muen]].concat(), "user_network_serves_http_on_the_hosts_loopback", serves_http),
        super::on(&Place::IMAGES, "user_network_forwards_streams_and_datagrams", forwards_both_ways),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A port of the loopback that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn start(place: Place, image: &str, forwards: &str, arguments: &[&str]) -> Result<Guest> {
    let net = format!("--net:service=user,{forwards}");
    let addresses = ["--ipv4=10.0.2.15/24", "--ipv4-gateway=10.0.2.2"];
    place.start(image, &Run { tender: &[&net], arguments: &[&addresses, arguments].concat(), ..Run::default() })
}

fn serves_http(place: Place) -> Result<()> {
    let port = free_port()?;
    let guest = start(place, "http", &format!("hostfwd={port}:80"), &[])?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let client = || {
        // Until the guest listens, the network accepts for it and then resets.
        let first = loop {
            if let Ok(response) = Http::connect(address)?.request("GET", "/") {
                break response;
            }
        };
        ensure!(first.status == 200 && !first.body.is_empty());
        // Each is used before the next is opened: QEMU's network lets no more than one wait to be accepted.
        let connection = |_| {
            let mut http = Http::connect(address)?;
            ensure!(http.request("GET", "/")?.status == 200);
            Ok(http)
        };
        let mut connections = (0..50).map(connection).collect::<Result<Vec<_>>>()?;
        for http in &mut connections {
            ensure!(http.request("GET", "/")?.body == first.body);
        }
        Ok(())
    };
    client().map_err(|error| with_console(error, &guest))
}

fn forwards_both_ways(place: Place) -> Result<()> {
    let (tcp, udp) = (free_port()?, free_port()?);
    let guest = start(place, "echo", &format!("hostfwd={tcp}:7,hostfwd=udp:{udp}:7"), &[])?;
    let client = || {
        let datagram = client::exchange((Ipv4Addr::LOCALHOST, udp).into(), b"over and back")?;
        ensure!(datagram == b"over and back");
        let mut stream = client::connect((Ipv4Addr::LOCALHOST, tcp).into())?;
        let data = vec![42; 100_000];
        let mut back = vec![0; data.len()];
        std::thread::scope(|scope| {
            let mut writer = stream.try_clone()?;
            let sender = scope.spawn({
                let data = &data;
                move || writer.write_all(data)
            });
            stream.read_exact(&mut back)?;
            sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        ensure!(back == data);
        Ok(())
    };
    client().map_err(|error| with_console(error, &guest))
}
