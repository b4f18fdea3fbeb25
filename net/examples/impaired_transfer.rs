//! What loss, delay and reordering cost a TCP stream between two direct stacks: goodput, and the longest time for which nothing arrived.
//!
//! `cargo run --release -p fogbow-net --example impaired_transfer --all-features -- [MEGABYTES [SEED]]`
//!
//! Time is virtual: a run depends on its seed alone. The link carries a gigabit a second. Where some frames are overtaken, they take twice as long as the
//! others; where all are, each takes up to twice as long, every one for itself.
#![forbid(unsafe_code)]

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow::time::{self, Duration};
use fogbow_net::simulation::{Impairment, Network};
use fogbow_net::{Listener, Stack};

const LINK: u64 = 1_000_000_000;
const PERCENT: u32 = Impairment::PERCENT;

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
        let way = Duration::from_millis(rtt / 2);
        let link = Impairment { delay: way, rate: Some(LINK), ..Impairment::default() };
        for (name, impairment) in [
            ("clean", link),
            ("0.1 % lost", Impairment { lost: PERCENT / 10, ..link }),
            ("1 % lost", Impairment { lost: PERCENT, ..link }),
            ("3 % lost", Impairment { lost: 3 * PERCENT, ..link }),
            ("1 % overtaken", Impairment { reordered: PERCENT, ..link }),
            ("5 % overtaken", Impairment { reordered: 5 * PERCENT, ..link }),
            ("all overtaken", Impairment { jitter: way, ..link }),
            ("10 % twice", Impairment { doubled: 10 * PERCENT, ..link }),
        ] {
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
