//! Throughput of one TCP connection through the network, in process: the guest is a second smoltcp stack, the client a thread on the loopback.
//! `cargo bench -p fogbow-usernet` prints Gbit/s of wall time, and the CPU time of network, guest and client together.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{Guest, start};
use rustix::time::{ClockId, clock_gettime};
use smoltcp::socket::tcp::State;

/// Bytes carried each way.
const LENGTH: usize = 512 << 20;
/// The guest's buffers.
const BUFFER: usize = 256 * 1024;
/// Connections opened and closed one after the other.
const CONNECTIONS: usize = 5000;

fn main() {
    for mtu in [1500, 9000, 65520] {
        report(&format!("guest to host, MTU {mtu}"), || download(mtu));
        report(&format!("host to guest, MTU {mtu}"), || upload(mtu));
    }
    let begin = Instant::now();
    connections();
    let rate = CONNECTIONS as f64 / begin.elapsed().as_secs_f64();
    println!("{:<34} {rate:8.0} connections/s, one after the other", "connect, 1 byte each way, close");
}

fn report(name: &str, carry: impl FnOnce()) {
    let (begin, cpu) = (Instant::now(), cpu_time());
    carry();
    let (wall, cpu) = (begin.elapsed(), cpu_time() - cpu);
    let gigabits = LENGTH as f64 * 8.0 / 1e9;
    println!("{name:<34} {:5.2} Gbit/s, {:5.2} s CPU for {:.1} Gbit", gigabits / wall.as_secs_f64(), cpu.as_secs_f64(), gigabits);
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn download(mtu: usize) {
    let (link, network) = start(&format!("hostfwd=0:80,mtu={mtu}"), None);
    let host = network.hosts[0];
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        let mut buffer = vec![0; 1 << 18];
        let mut received = 0;
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return received,
                length => received += length,
            }
        }
    });
    let mut guest = Guest::new(link, mtu);
    let handle = guest.listen(80, BUFFER);
    let mut sent = 0;
    guest.run_until(|guest| {
        let socket = guest.tcp(handle);
        while sent < LENGTH && socket.can_send() {
            sent += socket.send(|room| (room.len(), room.len())).unwrap();
        }
        if sent >= LENGTH {
            socket.close();
        }
        (sent >= LENGTH && matches!(socket.state(), State::Closed | State::TimeWait)).then_some(())
    });
    assert_eq!(client.join().unwrap(), sent);
    drop(guest);
    network.end();
}

fn upload(mtu: usize) {
    let (link, network) = start(&format!("hostfwd=0:80,mtu={mtu}"), None);
    let client = send_from_host(network.hosts[0]);
    let mut guest = Guest::new(link, mtu);
    let handle = guest.listen(80, BUFFER);
    let mut received = 0;
    guest.run_until(|guest| {
        let socket = guest.tcp(handle);
        while socket.can_recv() {
            received += socket.recv(|data| (data.len(), black_box(data).len())).unwrap();
        }
        (socket.state() == State::CloseWait).then_some(())
    });
    assert_eq!(received, LENGTH);
    client.join().unwrap();
    drop(guest);
    network.end();
}

fn send_from_host(host: SocketAddr) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        let buffer = vec![0; 1 << 18];
        for _ in 0..LENGTH / buffer.len() {
            stream.write_all(&buffer).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

fn connections() {
    let (link, network) = start("hostfwd=0:80", None);
    let host = network.hosts[0];
    let client = thread::spawn(move || {
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(host).unwrap();
            stream.write_all(b"x").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 1);
        }
    });
    let mut guest = Guest::new(link, 1500);
    let handles = [guest.listen(80, 1024), guest.listen(80, 1024)];
    let mut served = 0;
    guest.run_until(|guest| {
        for handle in handles {
            let socket = guest.tcp(handle);
            match socket.state() {
                State::CloseWait => {
                    let _ = socket.recv(|data| (data.len(), ()));
                    socket.send_slice(b"x").unwrap();
                    socket.close();
                }
                State::Closed => {
                    served += 1;
                    socket.listen(80).unwrap();
                }
                _ => {}
            }
        }
        (served == CONNECTIONS).then_some(())
    });
    client.join().unwrap();
    drop(guest);
    network.end();
}
