//! Connections as the application sees them.

use super::*;
use crate::simulation::Impairment;

async fn connected(server: &Direct, client: &Direct) -> (TcpStream, TcpStream) {
    let mut listener = server.listen(0).unwrap();
    let (client, to) = (client.clone(), at(listener.port()));
    let connect = spawn(async move { client.connect(to).await.unwrap() });
    let accepted = listener.accept().await.unwrap();
    (accepted, connect.await)
}

#[test]
fn bytes_go_both_ways_and_the_end_is_seen() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let mut listener = server.listen(80).unwrap();
        let connect = spawn(async move { client.connect(at(80)).await.unwrap() });
        let mut accepted = listener.accept().await.unwrap();
        let mut connected = connect.await;
        assert_eq!(accepted.peer(), connected.local());
        assert_eq!(connected.peer(), at(80));

        connected.write_all(b"ping").await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(accepted.read(&mut buffer).await, Ok(4));
        assert_eq!(&buffer[..4], b"ping");
        accepted.write_all(b"pong!").await.unwrap();
        assert_eq!(connected.read(&mut buffer).await, Ok(5));
        assert_eq!(&buffer[..5], b"pong!");

        drop(connected);
        assert_eq!(accepted.read(&mut buffer).await, Ok(0));
    });
}

#[test]
fn a_request_and_its_response_cost_one_frame_each() {
    simulate(1, async {
        let (switch, server, client) = network();
        serve_echo(&server, 7);
        let mut stream = client.connect(at(7)).await.unwrap();
        let mut buffer = [0; 64];
        stream.write_all(b"first").await.unwrap();
        stream.read(&mut buffer).await.unwrap();
        let before = switch.frames();
        for _ in 0..100 {
            stream.write_all(b"request").await.unwrap();
            assert_eq!(stream.read(&mut buffer).await, Ok(7));
        }
        assert_eq!(switch.frames() - before, 200);
    });
}

#[test]
fn a_burst_of_simultaneous_connects_is_accepted() {
    simulate(1, async {
        let (_switch, server, client) = network();
        serve_echo(&server, 7);
        let started = time::now();
        let tasks: Vec<_> = (0..500_u32)
            .map(|number| {
                let client = client.clone();
                spawn(async move {
                    let mut stream = client.connect(at(7)).await.unwrap();
                    stream.write_all(&number.to_be_bytes()).await.unwrap();
                    let mut buffer = [0; 8];
                    assert_eq!(stream.read(&mut buffer).await, Ok(4));
                    assert_eq!(buffer[..4], number.to_be_bytes());
                    stream
                })
            })
            .collect();
        let mut streams = Vec::new();
        for task in tasks {
            streams.push(task.await);
        }
        assert!(started.elapsed() < Duration::from_millis(50), "a connect had to be tried again: {:?}", started.elapsed());
        assert_eq!(server.statistics().connections, 500);
        assert_eq!(server.statistics().handshakes, 0);
    });
}

#[test]
fn the_other_direction_goes_on_after_a_half_close() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let (mut accepted, mut connected) = connected(&server, &client).await;
        connected.write_all(b"question").await.unwrap();
        connected.shutdown().await.unwrap();
        assert_eq!(connected.write(b"more").await, Err(StreamError::Closed));
        let mut buffer = [0; 64];
        assert_eq!(accepted.read(&mut buffer).await, Ok(8));
        assert_eq!(accepted.read(&mut buffer).await, Ok(0));
        time::sleep(Duration::from_secs(30)).await;
        accepted.write_all(b"answer").await.unwrap();
        drop(accepted);
        assert_eq!(connected.read(&mut buffer).await, Ok(6));
        assert_eq!(connected.read(&mut buffer).await, Ok(0));
    });
}

#[test]
fn what_was_read_late_is_not_lost_when_the_connection_has_long_been_closed() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let (mut accepted, mut connected) = connected(&server, &client).await;
        connected.shutdown().await.unwrap();
        settle().await;
        accepted.write_all(b"late").await.unwrap();
        drop(accepted);
        time::sleep(Duration::from_secs(60)).await;
        let mut buffer = [0; 64];
        for piece in [b"la", b"te"] {
            assert_eq!(connected.read(&mut buffer[..2]).await, Ok(2));
            assert_eq!(&buffer[..2], piece);
            settle().await;
        }
        assert_eq!(connected.read(&mut buffer).await, Ok(0));
    });
}

#[test]
fn a_peer_can_send_all_it_has_to_a_connection_that_was_dropped() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let (accepted, mut connected) = connected(&server, &client).await;
        drop(accepted);
        assert_eq!(connected.read(&mut [0; 8]).await, Ok(0));
        connected.write_all(&vec![1; 1_000_000]).await.unwrap();
        drop(connected);
        settle().await;
        assert_eq!(server.statistics().connections, 0);
    });
}

#[test]
fn what_was_written_before_a_drop_is_delivered() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let (mut accepted, mut connected) = connected(&server, &client).await;
        let data = std::vec![7; 40_000];
        let send = spawn(async move { connected.write_all(&data).await.unwrap() });
        settle().await;
        let (mut total, mut buffer) = (0, [0; 999]);
        while let Ok(length @ 1..) = accepted.read(&mut buffer).await {
            total += length;
        }
        send.await;
        assert_eq!(total, 40_000);
    });
}

#[test]
fn an_abort_resets_the_peer() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let (mut accepted, connected) = connected(&server, &client).await;
        connected.abort();
        let mut buffer = [0; 64];
        assert_eq!(accepted.read(&mut buffer).await, Err(StreamError::Reset));
        assert_eq!(accepted.write(b"x").await, Err(StreamError::Reset));
        drop(accepted);
        settle().await;
        assert_eq!(server.statistics().connections + client.statistics().connections, 0);
    });
}

#[test]
fn a_port_where_nothing_listens_refuses_at_once() {
    simulate(1, async {
        let (_switch, _server, client) = network();
        let started = time::now();
        assert_eq!(client.connect(at(81)).await.err(), Some(ConnectError::Refused));
        assert!(started.elapsed() < Duration::from_millis(10));
        settle().await;
        assert_eq!(client.statistics().connections, 0);
    });
}

#[test]
fn addresses_that_cannot_be_reached_are_named_as_such() {
    simulate(1, async {
        let (_switch, _server, client) = network();
        let connect = async |address: &str| client.connect(address.parse().unwrap()).await.err();
        assert_eq!(connect("10.0.0.99:80").await, Some(ConnectError::TimedOut));
        assert_eq!(connect("10.0.1.1:80").await, Some(ConnectError::Unreachable));
        assert_eq!(connect("10.0.0.255:80").await, Some(ConnectError::Unreachable));
        assert_eq!(connect("224.0.0.1:80").await, Some(ConnectError::Unreachable));
        assert_eq!(connect("0.0.0.0:80").await, Some(ConnectError::Unreachable));
        assert_eq!(connect("10.0.0.2:80").await, Some(ConnectError::Unreachable));
        assert_eq!(connect("10.0.0.1:0").await, Some(ConnectError::Unreachable));
        assert_eq!(connect("[::1]:80").await, Some(ConnectError::Unsupported));
        settle().await;
        assert_eq!(client.statistics().connections, 0);
    });
}

#[test]
fn a_connect_that_is_given_up_leaves_nothing() {
    simulate(1, async {
        let (_switch, _server, client) = network();
        let attempt = time::timeout(Duration::from_secs(2), client.connect("10.0.0.99:80".parse().unwrap())).await;
        assert!(attempt.is_err());
        settle().await;
        assert_eq!(client.statistics().connections, 0);
    });
}

#[test]
fn many_neighbours_are_reached_at_once() {
    simulate(1, async {
        let (switch, _server, client) = network();
        let others: Vec<_> = (10..60).map(|host| stack(&switch, config(Ipv4Addr::new(10, 0, 0, host)))).collect();
        others.iter().for_each(|other| serve_echo(other, 7));
        let started = time::now();
        let connects: Vec<_> = (10..60)
            .map(|host| {
                let client = client.clone();
                spawn(async move { client.connect(SocketAddr::from(([10, 0, 0, host], 7))).await.map(drop) })
            })
            .collect();
        for connect in connects {
            assert_eq!(connect.await, Ok(()));
        }
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    });
}

#[test]
fn a_dropped_listener_refuses_what_was_not_accepted_and_frees_the_port() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let listener = server.listen(80).unwrap();
        assert_eq!(server.listen(80).err(), Some(ListenError::InUse));
        let mut waiting = client.connect(at(80)).await.unwrap();
        drop(listener);
        assert_eq!(waiting.read(&mut [0; 8]).await, Err(StreamError::Reset));
        assert_eq!(client.connect(at(80)).await.err(), Some(ConnectError::Refused));
        server.listen(80).unwrap();
    });
}

#[test]
fn halves_live_in_two_tasks_and_close_together() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let (accepted, mut connected) = connected(&server, &client).await;
        let (mut read, mut write) = accepted.split();
        let writer = spawn(async move { write.write_all(b"from the other half").await });
        let mut buffer = [0; 64];
        assert_eq!(connected.read(&mut buffer).await, Ok(19));
        writer.await.unwrap();
        connected.write_all(b"still open").await.unwrap();
        assert_eq!(read.read(&mut buffer).await, Ok(10));
        drop(read);
        assert_eq!(connected.read(&mut buffer).await, Ok(0));
    });
}

#[test]
fn a_peer_that_vanishes_is_noticed() {
    simulate(1, async {
        let (switch, server, client) = network();
        let (mut accepted, mut connected) = connected(&server, &client).await;
        // Idle for long, and still there: keep-alives keep it up.
        time::sleep(Duration::from_secs(900)).await;
        connected.write_all(b"still here").await.unwrap();
        assert_eq!(accepted.read(&mut [0; 64]).await, Ok(10));
        switch.impair(Impairment { lost: 1_000_000, ..Impairment::default() });
        let started = time::now();
        assert_eq!(accepted.read(&mut [0; 8]).await, Err(StreamError::TimedOut));
        assert!(started.elapsed() <= Duration::from_secs(170), "{:?}", started.elapsed());
    });
}

#[test]
fn a_peer_that_never_closes_does_not_keep_a_dropped_connection() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let (accepted, _connected) = connected(&server, &client).await;
        drop(accepted);
        time::sleep(Duration::from_secs(59)).await;
        assert_eq!(server.statistics().connections, 1);
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!(server.statistics().connections, 0);
    });
}

#[test]
fn the_stack_stops_when_nobody_needs_it() {
    simulate(1, async {
        let (switch, server, client) = network();
        serve_echo(&server, 7);
        let mut stream = client.connect(at(7)).await.unwrap();
        let engine = Rc::downgrade(&client.0.0);
        drop(client);
        stream.write_all(b"after").await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await, Ok(5));
        drop(stream);
        settle().await;
        assert_eq!(engine.strong_count(), 0);
        drop(switch);
    });
}

/// Sends `length` bytes across a switch, and compares what arrives.
fn transfer(seed: u64, length: usize, impairment: Impairment) -> Duration {
    simulate(seed, async move {
        let (switch, server, client) = network();
        let (mut accepted, mut connected) = connected(&server, &client).await;
        switch.impair(impairment);
        let started = time::now();
        let byte = |index: usize| (index.wrapping_mul(2_654_435_761) >> 16) as u8;
        let sender = spawn(async move {
            let data: Vec<u8> = (0..length).map(byte).collect();
            for chunk in data.chunks(10_000) {
                connected.write_all(chunk).await.unwrap();
            }
            connected.shutdown().await.unwrap();
            connected
        });
        let (mut position, mut buffer) = (0, std::vec![0; 8000]);
        loop {
            let read = accepted.read(&mut buffer).await.unwrap();
            if read == 0 {
                break;
            }
            assert!(buffer[..read].iter().enumerate().all(|(index, &value)| value == byte(position + index)), "at {position}");
            position += read;
        }
        assert_eq!(position, length);
        sender.await;
        started.elapsed()
    })
}

#[test]
fn megabytes_arrive_as_they_were_sent() {
    transfer(1, 8_000_000, Impairment::default());
}

#[test]
fn loss_doubling_and_reordering_change_nothing() {
    for seed in 1..=10 {
        let impairment = Impairment {
            lost: 2 * Impairment::PERCENT,
            doubled: 2 * Impairment::PERCENT,
            delay: Duration::from_millis(1),
            jitter: Duration::from_micros(300 * (seed % 4)),
            ..Impairment::default()
        };
        transfer(seed, 300_000, impairment);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let impairment = Impairment {
        lost: 3 * Impairment::PERCENT,
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(1),
        ..Impairment::default()
    };
    assert_eq!(transfer(3, 100_000, impairment), transfer(3, 100_000, impairment));
    assert_ne!(transfer(3, 100_000, impairment), transfer(4, 100_000, impairment));
}
