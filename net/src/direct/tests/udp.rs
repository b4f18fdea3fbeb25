//! Datagrams.

use fogbow::entropy::{Source, noted};

use super::*;

#[test]
fn datagrams_go_both_ways() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let socket = server.bind(53).unwrap();
        assert_eq!(server.bind(53).err(), Some(BindError::InUse));
        let asking = client.bind(0).unwrap();
        asking.send_to(b"question", at(53)).await.unwrap();
        let mut buffer = [0; 64];
        let (length, from) = socket.receive_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"question"[..], SocketAddr::from((CLIENT, asking.port()))));
        socket.send_to(b"a longer answer", from).await.unwrap();
        assert_eq!(asking.receive_from(&mut buffer[..8]).await, Ok((8, at(53))));
        assert_eq!(&buffer[..8], b"a longer");
        drop(socket);
        server.bind(53).unwrap();
    });
}

#[test]
fn a_burst_is_queued_and_sent_in_order() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let socket = server.bind(53).unwrap();
        let asking = client.bind(0).unwrap();
        // The first waits for the server's hardware address.
        asking.send_to(&[0], at(53)).await.unwrap();
        assert_eq!(socket.receive_from(&mut [0; 8]).await.unwrap().0, 1);
        let sender = spawn(async move {
            for number in 1..=250_u8 {
                asking.send_to(&[number; 1000], at(53)).await.unwrap();
            }
        });
        let mut buffer = [0; 1500];
        let mut last = 0;
        while last < 250 {
            assert_eq!(socket.receive_from(&mut buffer).await.unwrap().0, 1000);
            assert_eq!(buffer[0], last + 1);
            last = buffer[0];
        }
        sender.await;
    });
}

#[test]
fn what_can_never_be_sent_is_refused() {
    simulate(1, async {
        let (_switch, _server, client) = network();
        let socket = client.bind(0).unwrap();
        assert_eq!(socket.send_to(&[0; 1473], at(53)).await, Err(UdpError::TooLong));
        assert_eq!(socket.send_to(&[0; 1472], at(53)).await, Ok(()));
        let send = async |to: &str| socket.send_to(b"x", to.parse().unwrap()).await;
        assert_eq!(send("10.0.1.1:53").await, Err(UdpError::Unreachable));
        assert_eq!(send("0.0.0.0:53").await, Err(UdpError::Unreachable));
        assert_eq!(send("10.0.0.1:0").await, Err(UdpError::Unreachable));
        assert_eq!(send("[::1]:53").await, Err(UdpError::Unsupported));
    });
}

#[test]
fn a_neighbour_that_does_not_answer_keeps_back_no_other() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let socket = server.bind(53).unwrap();
        let asking = client.bind(0).unwrap();
        for _ in 0..100 {
            asking.send_to(b"x", "10.0.0.99:53".parse().unwrap()).await.unwrap();
        }
        let started = time::now();
        asking.send_to(b"through", at(53)).await.unwrap();
        assert_eq!(socket.receive_from(&mut [0; 64]).await.unwrap().0, 7);
        assert!(started.elapsed() < Duration::from_millis(10));
        time::sleep(Duration::from_secs(5)).await;
        client.0.with(|engine| assert_eq!(engine.neighbours.next(), None));
    });
}

#[test]
fn broadcasts_are_sent_and_received() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let socket = server.bind(67).unwrap();
        let asking = client.bind(68).unwrap();
        for to in ["255.255.255.255:67", "10.0.0.255:67"] {
            asking.send_to(b"anyone?", to.parse().unwrap()).await.unwrap();
            assert_eq!(socket.receive_from(&mut [0; 64]).await, Ok((7, SocketAddr::from((CLIENT, 68)))));
        }
    });
}

#[test]
fn the_moments_of_packets_reach_the_generator() {
    simulate(1, async {
        let (_switch, server, client) = network();
        let receiver = server.bind(7).unwrap();
        let sender = client.bind(0).unwrap();
        settle().await;
        let before = noted(Source::Packet);
        sender.send_to(b"x", at(7)).await.unwrap();
        receiver.receive_from(&mut [0; 8]).await.unwrap();
        settle().await;
        // An ARP request, its answer, and the datagram.
        assert_eq!(noted(Source::Packet) - before, 3);
    });
}
