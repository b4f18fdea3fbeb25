//! What a request costs the HTTP server: allocations, which must be none once a connection has been used, and time and memory, which are printed
//! (`cargo test --release -p fogbow-net --test http_cost -- --nocapture`).
//!
//! Client and server talk over the loopback stack, so the figures have the cost of both ends of it in them, but of no network.
#![forbid(unsafe_code)]

use std::time::Instant;

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow_kv::embedded::Entry;
use fogbow_kv::{Digest, Embedded};
use fogbow_net::http::{self, Files, Handler, Limits, Request, Status};
use fogbow_net::{Loopback, Stack};

const PAGE: &[u8] = &[b'x'; 600];

static ENTRIES: [Entry; 1] =
    [Entry { key: "index.html", value: PAGE, digest: Digest([7; 32]), modified: fogbow::time::WallTime::from_unix_nanos(0) }];

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 10.0.0.2\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";

/// Asks `handler` for `rounds` times `depth` pages on one connection, `depth` at a time.
fn ask(handler: impl Handler, rounds: usize, depth: usize) {
    Simulation::new(1).block_on(async move {
        let stack = Loopback::new();
        let listener = stack.listen(80).unwrap();
        fogbow::spawn(http::serve(listener, Limits::default(), handler)).detach();
        let mut client = stack.connect("127.0.0.1:80".parse().unwrap()).await.unwrap();
        let mut responses = [0; 16 * 1024];
        client.write_all(REQUEST).await.unwrap();
        let one = client.read(&mut responses).await.unwrap();
        assert!(responses.starts_with(b"HTTP/1.1 200 OK\r\n") && responses[..one].ends_with(PAGE));
        let requests = REQUEST.repeat(depth);
        for _ in 0..rounds {
            client.write_all(&requests).await.unwrap();
            let mut length = 0;
            while length < one * depth {
                length += client.read(&mut responses).await.unwrap();
            }
        }
    });
}

fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

#[test]
fn a_used_connection_allocates_nothing() {
    for rounds in [100, 10_000] {
        let files = || Files::new(Embedded::new(&ENTRIES));
        assert_eq!(allocations(|| ask(files(), 10, 1)), allocations(|| ask(files(), rounds, 1)), "{rounds} requests for a file");
        let page = async |mut request: Request<'_>| request.respond(Status::OK, PAGE).with_type("text/html");
        assert_eq!(allocations(|| ask(page, 10, 1)), allocations(|| ask(page, rounds, 1)), "{rounds} requests for a page");
    }
}

#[test]
fn figures() {
    for depth in [1, 8] {
        let rounds = 50_000 / depth;
        let start = Instant::now();
        ask(Files::new(Embedded::new(&ENTRIES)), rounds, depth);
        println!("{depth} at a time: {} ns a request", start.elapsed().as_nanos() / (rounds * depth) as u128);
    }
    let connection = allocation_counter::measure(|| ask(Files::new(Embedded::new(&ENTRIES)), 1, 1));
    println!("one connection, both ends, and the simulation: {} bytes at most", connection.bytes_max);
}
