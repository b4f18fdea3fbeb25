//! UDP and TCP echo.

use std::io::{Read, Write};
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use fogbow_tests::builder::{Place, Run, served_at};
use fogbow_tests::client;
use fogbow_tests::guest::Guest;
use fogbow_tests::network::Namespace;
use libtest_mimic::Trial;

const PORT: u16 = 7000;

pub(crate) fn trials() -> Vec<Trial> {
    [
        super::on(&Place::ALL, "echo_returns_datagrams", returns_datagrams),
        super::on(&Place::ALL, "echo_returns_streams_whole", returns_streams_whole),
        super::on(&Place::ALL, "echo_serves_a_burst_of_100_connections", serves_a_burst),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn with_echo(place: Place, client: impl FnOnce(SocketAddr) -> Result<()> + Send) -> Result<()> {
    let namespace = Namespace::new()?;
    let port = format!("--port={PORT}");
    let run = Run { namespace: Some(&namespace), arguments: &[&port], ..Run::default() };
    let guest = place.start("echo", &run)?;
    namespace.run(|| client((served_at(place), PORT).into())).map_err(|error| with_console(error, &guest))
}

pub(crate) fn with_console(error: anyhow::Error, guest: &Guest) -> anyhow::Error {
    error.context(format!("the guest's console:\n{}", guest.console()))
}

fn returns_datagrams(place: Place) -> Result<()> {
    with_echo(place, |address| {
        for length in [0, 1, 100, 1472] {
            let datagram: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            ensure!(client::exchange(address, &datagram)? == datagram, "{length} bytes came back changed");
        }
        Ok(())
    })
}

fn returns_streams_whole(place: Place) -> Result<()> {
    with_echo(place, |address| client::echo(address, 4 << 20))
}

fn serves_a_burst(place: Place) -> Result<()> {
    with_echo(place, |address| {
        drop(client::connect(address)?);
        // All of them open before the first is used.
        let mut streams = (0..100).map(|_| client::connect(address)).collect::<Result<Vec<_>>>()?;
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&[number as u8; 100])?;
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut back = [0; 100];
            stream.read_exact(&mut back)?;
            ensure!(back == [number as u8; 100], "connection {number} gave another's bytes");
        }
        Ok(())
    })
}
