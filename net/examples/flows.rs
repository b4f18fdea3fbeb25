//! Requests over many TCP connections in turn, in memory: for counting the instructions that one takes (callgrind).
//!
//! `flows CONNECTIONS REQUESTS`, run by `cargo xtask bench connections`.
#![forbid(unsafe_code)]

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow_net::simulation::Network;
use fogbow_net::{Listener, Stack};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse().expect("usage: flows CONNECTIONS REQUESTS"));
    let (connections, requests) = (numbers.next().unwrap_or(10), numbers.next().unwrap_or(1000));
    Simulation::new(1).block_on(run(connections, requests));
}

async fn run(connections: usize, requests: usize) {
    let network = Network::new();
    let [server, client] = [1, 2].map(|host| {
        let mut config = Network::config(host);
        config.set_tcp_buffer((2048, 2048));
        network.stack_with(config)
    });
    let mut listener = server.listen(7).expect("the port is free");
    fogbow::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            fogbow::spawn(async move {
                let mut buffer = [0; 128];
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
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        streams.push(client.connect(Network::at(1, 7)).await.expect("the server accepts"));
    }
    let mut buffer = [0; 128];
    for request in 0..requests {
        // Not the neighbour of the last one, as it would be in a cache.
        let stream = &mut streams[request * 7919 % connections];
        stream.write_all(&[7; 100]).await.expect("the connection is up");
        stream.read_exact(&mut buffer[..100]).await.expect("the connection is up");
    }
}
