//! What loss, delay and reordering cost a TCP stream between two direct stacks: goodput, and the longest time for which nothing arrived.
//!
//! `cargo run --release -p fogbow-net --example impaired_transfer --all-features -- [MEGABYTES [SEED]]`
//!
//! Time is virtual: a run depends on its seed alone. The link carries a gigabit a second.
#![forbid(unsafe_code)]

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow::time::{self, Duration};
use fogbow_net::simulation::{Impairment, Network};
use fogbow_net::{Listener, Stack};

const LINK: u64 = 1_000_000_000;

struct Outcome {
    goodput: f64,
    stall: Duration,
    repeated: u64,
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let (megabytes, seed) = (arguments.next().unwrap_or(20), arguments.next().unwrap_or(1));
    println!("{:24} {:>6} {:>14} {:>18} {:>9}", "path", "RTT", "Mbit/s", "longest stall, ms", "repeated");
    for rtt in [2, 20, 100] {
        for (name, lost, reordered) in
            [("clean", 0, 0), ("0.1 % lost", 1_000, 0), ("1 % lost", 10_000, 0), ("3 % lost", 30_000, 0), ("1 % reordered", 0, 10_000)]
        {
            let impairment =
                Impairment { lost, reordered, delay: Duration::from_millis(rtt / 2), rate: Some(LINK), ..Impairment::default() };
            let Outcome { goodput, stall, repeated } = Simulation::new(seed as u64).block_on(transfer(megabytes * 1_000_000, impairment));
            println!("{name:24} {rtt:4} ms {goodput:14.1} {:18} {repeated:9}", stall.as_millis());
        }
    }
}

async fn transfer(length: usize, impairment: Impairment) -> Outcome {
    let network = Network::new();
    let (server, client) = (network.stack(1), network.stack(2));
    let mut listener = server.listen(7).expect("the port is free");
    network.switch().impair(Impairment { lost: 0, reordered: 0, ..impairment });
    let connecting = fogbow::spawn(async move { client.connect(Network::at(1, 7)).await.expect("the server accepts") });
    let mut stream = listener.accept().await.expect("a connection comes");
    let mut sender = connecting.await;
    network.switch().impair(impairment);
    let sending = fogbow::spawn(async move {
        let data = vec![7; 64 * 1024];
        let mut left = length;
        while left > 0 {
            left -= sender.write(&data[..data.len().min(left)]).await.expect("the connection is up");
        }
        sender
    });
    let mut buffer = vec![0; 64 * 1024];
    let (mut total, started, mut last, mut stall) = (0, time::now(), time::now(), Duration::ZERO);
    while total < length {
        total += stream.read(&mut buffer).await.expect("the connection is up");
        stall = stall.max(last.elapsed());
        last = time::now();
    }
    let seconds = started.elapsed().as_secs_f64();
    let repeated = sending.await.counters().retransmissions;
    Outcome { goodput: length as f64 * 8e-6 / seconds, stall, repeated }
}
