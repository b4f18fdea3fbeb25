//! Two direct stacks, used through edge-nal's traits alone.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use edge_nal::io::{Error as _, ErrorKind, Read, Write};
use edge_nal::{
    Close, MulticastV4, Readable, TcpAccept, TcpBind, TcpConnect, TcpShutdown, TcpSplit, UdpBind, UdpConnect, UdpReceive, UdpSend, UdpSplit,
};
use fogbow::simulation::Simulation;
use fogbow::task::join;
use fogbow::time;

use super::{Acceptor, Edge, TcpSocket};
use crate::direct::{Config, Direct, Ipv4Cidr, TcpListener, TcpStream};
use crate::simulation::Switch;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn run<F: Future<Output = ()>>(test: impl FnOnce(Edge<Direct>, Edge<Direct>) -> F + 'static) {
    Simulation::new(1).block_on(async {
        let switch = Switch::new();
        let stack = |address| Direct::new(switch.device(1500), Config::new(Ipv4Cidr { address, prefix_length: 24 })).unwrap();
        let test = test(Edge(stack(SERVER)), Edge(stack(Ipv4Addr::new(10, 0, 0, 2))));
        time::timeout(Duration::from_secs(60), test).await.unwrap();
    });
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(SERVER), port)
}

#[test]
fn tcp_through_the_traits() {
    run(|server, client| async move {
        let acceptor = server.bind_tcp(80).await;
        let (accepted, connected) = join(acceptor.accept(), client.connect_tcp(80)).await;
        let (peer, mut accepted) = accepted.unwrap();
        let mut connected = connected;
        assert_eq!(peer.ip(), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));

        connected.write_all(b"a question").await.unwrap();
        let mut buffer = [0; 64];
        accepted.readable().await.unwrap();
        accepted.readable().await.unwrap();
        let mut length = 0;
        while length < 10 {
            length += accepted.read(&mut buffer[length..]).await.unwrap();
        }
        assert_eq!(&buffer[..length], b"a question");

        {
            let (mut read, mut write) = connected.split();
            let answer = async { accepted.write_all(b"answer").await.unwrap() };
            let receive = async {
                read.readable().await.unwrap();
                read.read(&mut buffer).await.unwrap()
            };
            let ((), length) = join(answer, receive).await;
            assert_eq!(length, 6);
            write.write_all(b"more").await.unwrap();
        }
        assert_eq!(connected.close(Close::Write).await.unwrap_err().kind(), ErrorKind::Unsupported);
        connected.close(Close::Both).await.unwrap();
        accepted.readable().await.unwrap();
        assert_eq!(accepted.read(&mut buffer).await, Ok(4));
        assert_eq!(accepted.read(&mut buffer).await, Ok(0));
        accepted.close(Close::Both).await.unwrap();
    });
}

#[test]
fn several_tasks_accept_from_one_socket() {
    run(|server, client| async move {
        let acceptor = server.bind_tcp(80).await;
        let both = join(acceptor.accept(), acceptor.accept());
        let ((first, second), _) = join(both, join(client.connect_tcp(80), client.connect_tcp(80))).await;
        assert_ne!(first.unwrap().0, second.unwrap().0);
        // An accept that is given up gives the listener back.
        assert!(time::timeout(Duration::from_secs(1), acceptor.accept()).await.is_err());
        let (third, _) = join(acceptor.accept(), client.connect_tcp(80)).await;
        third.unwrap().1.abort().await.unwrap();
    });
}

#[test]
fn failures_have_their_kinds() {
    run(|server, client| async move {
        let refused = TcpConnect::connect(&client, at(81)).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let _acceptor = server.bind_tcp(80).await;
        let in_use = TcpBind::bind(&server, at(80)).await.err().unwrap();
        assert_eq!(in_use.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn udp_through_the_traits() {
    run(|server, client| async move {
        let mut socket = UdpBind::bind(&server, at(53)).await.unwrap();
        let mut asking = UdpConnect::connect(&client, at(0), at(53)).await.unwrap();
        let mut stranger = UdpBind::bind(&client, at(0)).await.unwrap();
        asking.send(at(53), b"question").await.unwrap();
        socket.readable().await.unwrap();
        let mut buffer = [0; 64];
        let (length, from) = socket.receive(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"question");
        // A connected socket hears its peer alone.
        let own = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), from.port());
        let mut other = UdpBind::bind(&server, at(54)).await.unwrap();
        other.send(own, b"not asked").await.unwrap();
        socket.split().1.send(from, b"answer").await.unwrap();
        let (length, from) = asking.split().0.receive(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"answer"[..], at(53)));
        assert_eq!(stranger.join_v4(Ipv4Addr::new(224, 0, 0, 1), SERVER).await.unwrap_err().kind(), ErrorKind::Unsupported);
    });
}

impl Edge<Direct> {
    async fn bind_tcp(&self, port: u16) -> Acceptor<TcpListener> {
        TcpBind::bind(self, at(port)).await.unwrap()
    }

    async fn connect_tcp(&self, port: u16) -> TcpSocket<TcpStream> {
        TcpConnect::connect(self, at(port)).await.unwrap()
    }
}
