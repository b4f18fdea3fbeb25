//! What a request over TCP costs while other connections are idle: two direct stacks at a switch in memory, so both ends are in the figure.
//!
//! `cargo run --release -p fogbow-net --example idle_connections --all-features`
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow_net::direct::{Config, Direct, Ipv4Cidr};
use fogbow_net::simulation::Switch;
use fogbow_net::{Listener, Stack};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Requests are timed in batches, and the best batch counts: the others were disturbed.
const BATCHES: u32 = 40;
const REQUESTS: u32 = 5_000;

fn main() {
    println!("idle connections  ns per request (both ends)  socket polls per request (server)");
    for idle in [1, 1000, 10_000] {
        let (nanos, polls) = Simulation::new(1).block_on(measure(idle));
        println!("{idle:16}  {nanos:26.0}  {polls:33.2}");
    }
    for (length, mtu) in [(200_000_000, 1500), (1_000_000_000, 9000)] {
        let seconds = Simulation::new(1).block_on(transfer(length, mtu));
        println!("one stream, MTU {mtu}: {:.1} Gbit/s of one core for both ends", length as f64 * 8e-9 / seconds);
    }
}

fn stack(switch: &Switch, address: Ipv4Addr, buffer: usize, mtu: usize) -> Direct {
    let mut config = Config::new(Ipv4Cidr { address, prefix_length: 24 });
    config.set_tcp_buffer((buffer, buffer));
    Direct::new(switch.device(mtu), config).expect("the addresses are good")
}

fn serve(server: &Direct) {
    let mut listener = server.listen(7).expect("the port is free");
    fogbow::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            fogbow::spawn(async move {
                let mut buffer = [0; 256];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..length]).await.is_err() {
                        break;
                    }
                }
            })
            .detach();
        }
    })
    .detach();
}

async fn measure(idle: usize) -> (f64, f64) {
    let switch = Switch::new();
    let (server, client) = (stack(&switch, SERVER, 2048, 1500), stack(&switch, CLIENT, 2048, 1500));
    serve(&server);
    let at = SocketAddr::from((SERVER, 7));
    let mut connections = Vec::with_capacity(idle);
    for _ in 0..idle {
        connections.push(client.connect(at).await.expect("the server accepts"));
    }
    let mut stream = client.connect(at).await.expect("the server accepts");
    let mut buffer = [0; 256];
    let polls = server.statistics().flow_polls;
    let mut best = f64::INFINITY;
    for _ in 0..BATCHES {
        let started = Instant::now();
        for _ in 0..REQUESTS {
            stream.write_all(&[7; 100]).await.expect("the connection is up");
            stream.read(&mut buffer).await.expect("the connection is up");
        }
        best = best.min(started.elapsed().as_nanos() as f64 / f64::from(REQUESTS));
    }
    (best, (server.statistics().flow_polls - polls) as f64 / f64::from(BATCHES * REQUESTS))
}

async fn transfer(length: usize, mtu: usize) -> f64 {
    let switch = Switch::new();
    let (server, client) = (stack(&switch, SERVER, 256 * 1024, mtu), stack(&switch, CLIENT, 256 * 1024, mtu));
    let mut listener = server.listen(7).expect("the port is free");
    let sender = fogbow::spawn(async move {
        let mut stream = client.connect(SocketAddr::from((SERVER, 7))).await.expect("the server accepts");
        let data = vec![7; 128 * 1024];
        let mut left = length;
        while left > 0 {
            left -= stream.write(&data[..data.len().min(left)]).await.expect("the connection is up");
        }
    });
    let mut stream = listener.accept().await.expect("a connection comes");
    let mut buffer = vec![0; 128 * 1024];
    let (mut total, started) = (0, Instant::now());
    while total < length {
        total += stream.read(&mut buffer).await.expect("the connection is up");
    }
    sender.await;
    started.elapsed().as_secs_f64()
}
