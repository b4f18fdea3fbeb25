//! Two stacks at one switch, under a virtual clock.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::vec;
use std::vec::Vec;

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow::spawn;
use fogbow::time::{self, Duration};

use super::*;
use crate::simulation::Switch;
use crate::stack::{Listener, Stream, StreamError, UdpError, UdpSocket};

mod arp;
mod attacks;
mod cookies;
mod icmp;
mod limits;
mod metrics;
mod offload;
mod peer;
mod reordering;
mod rfc9293;
mod rfc_others;
mod tcp;
mod udp;
mod wire;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Runs a test under a virtual clock; it fails when it takes an hour of that.
fn simulate<F: Future<Output: 'static> + 'static>(seed: u64, test: F) -> F::Output {
    Simulation::new(seed).block_on(async { time::timeout(Duration::from_secs(3600), test).await.expect("the test has come to an end") })
}

fn config(address: Ipv4Addr) -> Config {
    let mut config = Config::new(Ipv4Cidr { address, prefix_length: 24 });
    config.set_tcp_buffer((4096, 64 * 1024));
    config
}

fn stack(switch: &Switch, config: Config) -> Direct {
    Direct::new(switch.device(1500), config).unwrap()
}

/// A switch with a server and a client.
fn network() -> (Switch, Direct, Direct) {
    let switch = Switch::new();
    let server = stack(&switch, config(SERVER));
    let client = stack(&switch, config(CLIENT));
    (switch, server, client)
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((SERVER, port))
}

/// Accepts connections forever and answers each line-less byte with itself.
fn serve_echo(server: &Direct, port: u16) {
    let mut listener = server.listen(port).unwrap();
    spawn(async move {
        loop {
            let mut stream = listener.accept().await.unwrap();
            spawn(async move {
                let mut buffer = [0; 2048];
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

/// Lets the stacks do what they have to do.
async fn settle() {
    time::sleep(Duration::from_millis(100)).await;
}
