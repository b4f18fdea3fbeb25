//! The network as a process of its own. Without the test harness, because the process is this executable started again.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};

use common::Guest;
use fogbow_usernet::{DEFAULT_MTU, MAX_FORWARDS, Options, main_if_child, spawn};

fn main() -> ExitCode {
    main_if_child();
    let tests: [(&str, fn()); 4] = [
        ("a connection goes through the process, which ends with the guest", carries_a_connection),
        ("as many forwards as allowed are handed over", hands_over_many_ports),
        ("a port in use is refused at once", refuses_a_port_in_use),
        ("a process started by hand says so", refuses_to_be_started_by_hand),
    ];
    for (name, test) in tests {
        // A failed assertion ends the whole program.
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

fn carries_a_connection() {
    let mut spawned = spawn(&Options::parse("hostfwd=0:80").unwrap()).unwrap();
    let mut client = TcpStream::connect(spawned.forwards[0].host).unwrap();
    client.write_all(b"hello").unwrap();
    let mut guest = Guest::new(spawned.guest, DEFAULT_MTU);
    let handle = guest.listen(80, 4096);
    let data = guest.run_until(|guest| guest.tcp(handle).recv(|data| (data.len(), data.to_vec())).ok().filter(|data| !data.is_empty()));
    assert_eq!(data, b"hello");
    assert_eq!(guest.tcp(handle).send_slice(b"and back"), Ok(8));
    guest.tcp(handle).close();
    guest.run_until(|guest| (guest.tcp(handle).send_queue() == 0).then_some(()));
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "and back");
    drop(guest);
    assert!(spawned.child.wait().unwrap().success());
}

fn hands_over_many_ports() {
    let text = vec!["hostfwd=0:80"; MAX_FORWARDS].join(",");
    let mut spawned = spawn(&Options::parse(&text).unwrap()).unwrap();
    for forward in &spawned.forwards {
        TcpStream::connect(forward.host).unwrap();
    }
    drop(spawned.guest);
    assert!(spawned.child.wait().unwrap().success());
}

fn refuses_a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = spawn(&Options::parse(&format!("hostfwd={}:80", address.port())).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

fn refuses_to_be_started_by_hand() {
    let child = Command::new("/proc/self/exe").arg("--internal-user-network").stdin(Stdio::null()).output().unwrap();
    assert_eq!(child.status.code(), Some(1));
    let message = String::from_utf8(child.stderr).unwrap();
    assert!(message.contains("not by hand"), "{message}");
}
