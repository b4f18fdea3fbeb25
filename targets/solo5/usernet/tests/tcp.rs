//! TCP through the network, both ways, against a second smoltcp stack as guest and the host's own sockets.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::{Guest, pattern, start};
use fogbow_usernet::{DEFAULT_MTU, GATEWAY, MAX_TCP_FLOWS};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

const BUFFER: usize = 64 * 1024;
const LENGTH: usize = 8 << 20;

/// Sends all of `data` from the guest, then closes the guest's sending half.
fn send_all(guest: &mut Guest, handle: SocketHandle, data: &[u8]) {
    let mut sent = 0;
    guest.run_until(|guest| {
        let socket = guest.tcp(handle);
        while sent < data.len() && socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        }
        (sent == data.len()).then(|| socket.close())
    });
}

/// Receives in the guest until the other side closes its sending half.
fn receive_all(guest: &mut Guest, handle: SocketHandle) -> Vec<u8> {
    let mut received = Vec::new();
    guest.run_until(|guest| {
        let socket = guest.tcp(handle);
        while socket.can_recv() {
            socket.recv(|data| (data.len(), received.extend_from_slice(data))).unwrap();
        }
        let finished = !socket.may_recv() && !matches!(socket.state(), State::Listen | State::SynSent | State::SynReceived);
        finished.then_some(())
    });
    received
}

/// Runs the guest until the connection is gone on its side.
fn wait_closed(guest: &mut Guest, handle: SocketHandle) {
    guest.run_until(|guest| matches!(guest.tcp(handle).state(), State::Closed | State::TimeWait).then_some(()));
}

fn download(mtu: usize) {
    let (link, network) = start(&format!("hostfwd=0:80,mtu={mtu}"), None);
    let host = network.hosts[0];
    let client = thread::spawn(move || {
        let mut received = Vec::new();
        TcpStream::connect(host).unwrap().read_to_end(&mut received).unwrap();
        received
    });
    let mut guest = Guest::new(link, mtu);
    let handle = guest.listen(80, BUFFER);
    guest.run_until(|guest| guest.tcp(handle).may_send().then_some(()));
    let data = pattern(LENGTH);
    send_all(&mut guest, handle, &data);
    wait_closed(&mut guest, handle);
    assert!(client.join().unwrap() == data, "the client received what the guest sent");
    drop(guest);
    network.end();
}

#[test]
fn downloads_from_the_guest() {
    download(DEFAULT_MTU);
}

#[test]
fn downloads_in_large_packets() {
    download(9000);
}

#[test]
fn uploads_and_answers_after_the_client_closed_its_half() {
    let (link, network) = start("hostfwd=0:80", None);
    let host = network.hosts[0];
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(&pattern(LENGTH)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handle = guest.listen(80, BUFFER);
    let received = receive_all(&mut guest, handle);
    assert!(received == pattern(LENGTH), "the guest received what the client sent");
    assert_eq!(guest.tcp(handle).state(), State::CloseWait, "only the client's half is closed");
    send_all(&mut guest, handle, b"thank you");
    wait_closed(&mut guest, handle);
    assert_eq!(client.join().unwrap(), "thank you");
    drop(guest);
    network.end();
}

#[test]
fn the_guest_connects_out_and_is_answered_after_it_closed_its_half() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(&request).unwrap();
    });
    let (link, network) = start("", None);
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handle = guest.connect((GATEWAY, port), 50_000, BUFFER);
    guest.run_until(|guest| guest.tcp(handle).may_send().then_some(()));
    let data = pattern(1 << 20);
    send_all(&mut guest, handle, &data);
    assert!(receive_all(&mut guest, handle) == data, "the echo is what was sent");
    server.join().unwrap();
    drop(guest);
    network.end();
}

#[test]
fn a_hundred_clients_connect_at_once() {
    const CLIENTS: usize = 100;
    let (link, network) = start("hostfwd=0:80", None);
    let host = network.hosts[0];
    let clients = thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| TcpStream::connect(host).unwrap()).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            write!(stream, "client {number}").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut echo = String::new();
            stream.read_to_string(&mut echo).unwrap();
            assert_eq!(echo, format!("client {number}"));
        }
    });
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handles: Vec<SocketHandle> = (0..CLIENTS).map(|_| guest.listen(80, 1024)).collect();
    guest.run_until(|guest| {
        let mut open = CLIENTS;
        for &handle in &handles {
            let socket = guest.tcp(handle);
            if socket.can_recv() && socket.can_send() {
                let data = socket.recv(|data| (data.len(), data.to_vec())).unwrap();
                assert_eq!(socket.send_slice(&data), Ok(data.len()));
            }
            if socket.state() == State::CloseWait && !socket.can_recv() {
                socket.close();
            }
            open -= usize::from(socket.state() == State::Closed);
        }
        (open == 0).then_some(())
    });
    clients.join().unwrap();
    drop(guest);
    network.end();
}

#[test]
fn connections_follow_one_another_beyond_the_bound() {
    let (link, network) = start("hostfwd=0:80", None);
    let host = network.hosts[0];
    let count = MAX_TCP_FLOWS + 100;
    let client = thread::spawn(move || {
        for number in 0..count {
            let mut stream = TcpStream::connect(host).unwrap();
            write!(stream, "{number}").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut echo = String::new();
            stream.read_to_string(&mut echo).unwrap();
            assert_eq!(echo, number.to_string());
        }
    });
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handles: Vec<SocketHandle> = (0..4).map(|_| guest.listen(80, 1024)).collect();
    let mut served = 0;
    guest.run_until(|guest| {
        for &handle in &handles {
            let socket = guest.tcp(handle);
            if socket.can_recv() && socket.can_send() {
                let data = socket.recv(|data| (data.len(), data.to_vec())).unwrap();
                assert_eq!(socket.send_slice(&data), Ok(data.len()));
            }
            match socket.state() {
                State::CloseWait if !socket.can_recv() => socket.close(),
                State::Closed => {
                    served += 1;
                    socket.listen(80).unwrap();
                }
                _ => {}
            }
        }
        (served == count).then_some(())
    });
    client.join().unwrap();
    drop(guest);
    network.end();
}

#[test]
fn connections_beyond_the_bound_wait_for_others_to_end() {
    const EXTRA: usize = 20;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (link, network) = start("hostfwd=0:80", None);
    let host = network.hosts[0];
    let clients = thread::spawn(move || (0..MAX_TCP_FLOWS + EXTRA).map(|_| TcpStream::connect(host).unwrap()).collect::<Vec<_>>());
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handles: Vec<SocketHandle> = (0..MAX_TCP_FLOWS + EXTRA).map(|_| guest.listen(80, 64)).collect();
    let open = |guest: &mut Guest| handles.iter().filter(|&&handle| guest.tcp(handle).may_send()).count();
    guest.run_until(|guest| (open(guest) == MAX_TCP_FLOWS).then_some(()));
    // The host's kernel takes the others, and the network leaves them there.
    let mut clients = clients.join().unwrap();
    guest.run_while_busy(Duration::from_millis(300), |_| None::<()>);
    assert_eq!(open(&mut guest), MAX_TCP_FLOWS);
    // As many end as wait, and those that waited are answered too.
    let ended: Vec<TcpStream> = clients.drain(..EXTRA).collect();
    drop(ended);
    guest.run_until(|guest| {
        let mut greeted = 0;
        for &handle in &handles {
            let socket = guest.tcp(handle);
            match socket.state() {
                State::CloseWait => socket.close(),
                State::Established if socket.send_queue() == 0 => {
                    socket.send_slice(b"x").unwrap();
                    socket.close();
                }
                _ => {}
            }
            greeted += usize::from(matches!(socket.state(), State::FinWait2 | State::LastAck | State::Closed));
        }
        (greeted == handles.len()).then_some(())
    });
    for client in &mut clients {
        client.read_exact(&mut [0]).unwrap();
    }
    drop(guest);
    network.end();
}

#[test]
fn a_client_that_does_not_read_stops_the_guest() {
    const MUCH: usize = 24 << 20;
    let (link, network) = start("hostfwd=0:80", None);
    let mut client = TcpStream::connect(network.hosts[0]).unwrap();
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handle = guest.listen(80, BUFFER);
    guest.run_until(|guest| guest.tcp(handle).may_send().then_some(()));
    let data = pattern(MUCH);
    let mut sent = 0;
    let all_sent = guest.run_while_busy(Duration::from_millis(500), |guest| {
        let socket = guest.tcp(handle);
        while sent < MUCH && socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
        }
        (sent == MUCH).then_some(())
    });
    assert_eq!(all_sent, None, "the guest could send everything to a client that reads nothing");
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        received
    });
    send_all(&mut guest, handle, &data[sent..]);
    wait_closed(&mut guest, handle);
    assert!(reader.join().unwrap() == data, "nothing was lost meanwhile");
    drop(guest);
    network.end();
}

#[test]
fn a_guest_that_does_not_read_stops_the_client() {
    let (link, network) = start("hostfwd=0:80", None);
    let mut client = TcpStream::connect(network.hosts[0]).unwrap();
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handle = guest.listen(80, BUFFER);
    guest.run_until(|guest| guest.tcp(handle).may_recv().then_some(()));
    client.set_nonblocking(true).unwrap();
    let data = pattern(24 << 20);
    let mut sent = 0;
    // Each time the network goes silent the client fills what room there is, until there is none.
    loop {
        let before = sent;
        while sent < data.len() {
            match client.write(&data[sent..]) {
                Ok(length) => sent += length,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        if sent == before {
            break;
        }
        guest.run_while_busy(Duration::from_millis(200), |_| None::<()>);
    }
    assert!(sent < data.len(), "the client could send everything to a guest that reads nothing");
    client.set_nonblocking(false).unwrap();
    let expected = data.clone();
    let writer = thread::spawn(move || client.write_all(&data[sent..]).unwrap());
    assert!(receive_all(&mut guest, handle) == expected, "nothing was lost meanwhile");
    writer.join().unwrap();
    drop(guest);
    network.end();
}

#[test]
fn refusals_and_resets_reach_the_other_side() {
    let (link, network) = start("hostfwd=0:80,hostfwd=0:81", None);
    let mut guest = Guest::new(link, DEFAULT_MTU);
    // Nobody listens on the host's side: the port was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let handle = guest.connect((GATEWAY, free), 50_001, BUFFER);
    guest.run_until(|guest| {
        assert!(!guest.tcp(handle).may_send(), "the guest was told that it is connected");
        (guest.tcp(handle).state() == State::Closed).then_some(())
    });
    // Nobody listens on the guest's side.
    let mut client = TcpStream::connect(network.hosts[0]).unwrap();
    let refused = thread::spawn(move || client.read(&mut [0]).unwrap_err().kind());
    let mut client = TcpStream::connect(network.hosts[1]).unwrap();
    let handle = guest.listen(81, BUFFER);
    guest.run_until(|guest| guest.tcp(handle).may_send().then_some(()));
    assert_eq!(refused.join().unwrap(), ErrorKind::ConnectionReset);
    // The guest resets an open connection.
    guest.tcp(handle).abort();
    let reset = thread::spawn(move || client.read(&mut [0]).unwrap_err().kind());
    guest.run_while_busy(Duration::from_millis(100), |_| None::<()>);
    assert_eq!(reset.join().unwrap(), ErrorKind::ConnectionReset);
    drop(guest);
    network.end();
}

#[test]
fn a_client_that_resets_resets_the_guest() {
    let (link, network) = start("hostfwd=0:80", None);
    let mut client = TcpStream::connect(network.hosts[0]).unwrap();
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handle = guest.listen(80, BUFFER);
    guest.run_until(|guest| guest.tcp(handle).may_send().then_some(()));
    // Closing with unread data resets the connection.
    send_all_open(&mut guest, handle, b"unread");
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    guest.run_until(|guest| (guest.tcp(handle).state() == State::Closed).then_some(()));
    drop(guest);
    network.end();
}

/// Sends `data` from the guest and keeps the connection open.
fn send_all_open(guest: &mut Guest, handle: SocketHandle, data: &[u8]) {
    assert_eq!(guest.tcp(handle).send_slice(data), Ok(data.len()));
    guest.run_until(|guest| (guest.tcp(handle).send_queue() == 0).then_some(()));
}

#[test]
fn the_last_words_of_a_guest_that_ends_are_passed_on() {
    let (link, network) = start("hostfwd=0:80", None);
    let mut client = TcpStream::connect(network.hosts[0]).unwrap();
    let mut guest = Guest::new(link, DEFAULT_MTU);
    let handle = guest.listen(80, BUFFER);
    guest.run_until(|guest| guest.tcp(handle).may_send().then_some(()));
    assert_eq!(guest.tcp(handle).send_slice(b"goodbye"), Ok(7));
    guest.tcp(handle).close();
    guest.run_until(|_| Some(()));
    drop(guest);
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "goodbye");
    network.end();
}
