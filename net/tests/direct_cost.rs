//! The direct stack allocates nothing for a packet once a connection is up, and gives back what a connection took.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr};

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow::time::{self, Duration};
use fogbow_net::direct::{Config, Direct, Ipv4Cidr};
use fogbow_net::simulation::Switch;
use fogbow_net::{Listener, Stack, UdpSocket};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn stack(switch: &Switch, address: Ipv4Addr) -> Direct {
    let mut config = Config::new(Ipv4Cidr { address, prefix_length: 24 });
    config.set_tcp_buffer((16 * 1024, 16 * 1024));
    // Few, so that the records of closed connections reach their bound soon.
    config.time_wait_records = 16;
    Direct::new(switch.device(1500), config).unwrap()
}

/// Opens a connection so many times, and asks so many times on each.
fn allocations(connections: usize, requests: usize) -> u64 {
    let run = || {
        Simulation::new(1).block_on(async move {
            let switch = Switch::new();
            let (server, client) = (stack(&switch, SERVER), stack(&switch, CLIENT));
            let mut listener = server.listen(7).unwrap();
            for _ in 0..connections {
                let (accepted, connected) = fogbow::task::join(listener.accept(), client.connect(SocketAddr::from((SERVER, 7)))).await;
                let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
                let mut buffer = [0; 4096];
                for _ in 0..requests {
                    connected.write_all(&[7; 100]).await.unwrap();
                    let length = accepted.read(&mut buffer).await.unwrap();
                    accepted.write_all(&[8; 3000]).await.unwrap();
                    let mut total = 0;
                    while total < 30 * length {
                        total += connected.read(&mut buffer).await.unwrap();
                    }
                }
                drop((accepted, connected));
                time::sleep(Duration::from_millis(20)).await;
            }
        });
    };
    allocation_counter::measure(run).count_total
}

/// Sends so many datagrams, each answered.
fn allocations_of_datagrams(count: usize) -> u64 {
    let run = || {
        Simulation::new(1).block_on(async move {
            let switch = Switch::new();
            let (server, client) = (stack(&switch, SERVER), stack(&switch, CLIENT));
            let (answering, asking) = (server.bind(53).unwrap(), client.bind(0).unwrap());
            let mut buffer = [0; 2048];
            for _ in 0..count {
                asking.send_to(&[7; 1000], SocketAddr::from((SERVER, 53))).await.unwrap();
                let (length, from) = answering.receive_from(&mut buffer).await.unwrap();
                answering.send_to(&buffer[..length], from).await.unwrap();
                asking.receive_from(&mut buffer).await.unwrap();
            }
        });
    };
    allocation_counter::measure(run).count_total
}

#[test]
fn a_packet_allocates_nothing() {
    assert_eq!(allocations(1, 10), allocations(1, 10_000));
    assert_eq!(allocations_of_datagrams(10), allocations_of_datagrams(10_000));
}

#[test]
fn a_connection_takes_the_place_of_a_former_one() {
    let (few, many) = (allocations(100, 1), allocations(600, 1));
    assert!(many - few < 50, "500 connections more allocate {} times", many - few);
}
