//! More clients than there are places: those that take their time give way.

use core::net::SocketAddr;

use super::*;

const LIMIT: usize = 20;
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A server with [`LIMIT`] places, and connections to it.
struct Crowd<S: Stack> {
    stack: S,
    server: SocketAddr,
}

impl Crowd<Loopback> {
    fn new() -> Self {
        let stack = Loopback::new();
        let listener = stack.listen(80).unwrap();
        fogbow::spawn(async move { serve(listener, Limits { connections: LIMIT, ..Limits::default() }, site).await }).detach();
        Self { stack, server: "127.0.0.1:80".parse().unwrap() }
    }
}

impl<S: Stack> Crowd<S> {
    async fn connect(&self) -> S::Stream {
        self.stack.connect(self.server).await.unwrap()
    }

    /// So many connections that each send `bytes` and nothing more.
    async fn fill(&self, count: usize, bytes: &[u8]) -> Vec<S::Stream> {
        let mut crowd = Vec::new();
        for _ in 0..count {
            let mut stream = self.connect().await;
            stream.write_all(bytes).await.unwrap();
            stream.flush().await.unwrap();
            crowd.push(stream);
            time::sleep(Duration::from_millis(1)).await;
        }
        crowd
    }

    /// A new client is served at once.
    async fn check(&self) {
        let start = time::now();
        assert!(is_served(&mut self.connect().await).await);
        assert!(start.elapsed() < Duration::from_millis(20), "served after {:?}", start.elapsed());
    }
}

async fn is_served(stream: &mut impl Stream) -> bool {
    let mut response = [0; 1024];
    if stream.write_all(GET).await.is_err() || stream.flush().await.is_err() {
        return false;
    }
    matches!(stream.read(&mut response).await, Ok(length) if response[..length].starts_with(b"HTTP/1.1 200"))
}

#[test]
fn silent_and_slow_ones_keep_nobody_out_and_end_nobody_that_is_served() {
    for begun in [&b""[..], b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"] {
        Simulation::new(1).block_on(async move {
            let crowd = Crowd::new();
            let mut kept = crowd.connect().await;
            assert!(is_served(&mut kept).await);
            for _ in 0..5 {
                let held = crowd.fill(3 * LIMIT, begun).await;
                crowd.check().await;
                assert!(is_served(&mut kept).await, "the one that was there");
                drop(held);
            }
        });
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_gains_no_time() {
    Simulation::new(1).block_on(async {
        let crowd = Crowd::new();
        let mut slow = crowd.fill(LIMIT, b"G").await;
        for stream in &mut slow {
            // The first is the last that has sent something, and still the first to go.
            let _ = stream.write_all(b"E").await;
        }
        time::sleep(Duration::from_millis(1)).await;
        let _ = slow[0].write_all(b"T").await;
        time::sleep(Duration::from_millis(1)).await;
        crowd.check().await;
        assert_eq!(slow[0].read(&mut [0; 8]).await, Ok(0));
    });
}

#[test]
fn those_that_do_not_read_keep_nobody_out() {
    Simulation::new(1).block_on(async {
        let crowd = Crowd::new();
        let mut kept = crowd.connect().await;
        assert!(is_served(&mut kept).await);
        let _held = crowd.fill(3 * LIMIT, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await;
        crowd.check().await;
        assert!(is_served(&mut kept).await, "the one that was there");
    });
}

#[test]
fn those_that_send_half_a_body_keep_nobody_out() {
    Simulation::new(1).block_on(async {
        let crowd = Crowd::new();
        let _held = crowd.fill(3 * LIMIT, b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf").await;
        crowd.check().await;
    });
}

#[test]
fn idle_ones_give_way_to_new_ones_the_longest_idle_first() {
    Simulation::new(1).block_on(async {
        let crowd = Crowd::new();
        let mut idle = Vec::new();
        for _ in 0..LIMIT {
            let mut stream = crowd.connect().await;
            assert!(is_served(&mut stream).await);
            idle.push(stream);
        }
        // All places are taken, and all are served.
        assert!(is_served(&mut idle[0]).await);
        crowd.check().await;
        assert!(!is_served(&mut idle[1]).await, "the longest idle has given way");
        assert!(is_served(&mut idle[0]).await && is_served(&mut idle[2]).await);
    });
}

#[test]
fn those_that_are_being_served_do_not_give_way() {
    Simulation::new(1).block_on(async {
        let crowd = Crowd::new();
        let mut busy = crowd.fill(LIMIT, b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let start = time::now();
        assert!(is_served(&mut crowd.connect().await).await);
        assert!(start.elapsed() > Duration::from_secs(5), "there was no place before");
        for stream in &mut busy {
            let text = read_all(stream).await.unwrap();
            assert!(text.ends_with(b"3\r\ntwo\r\n0\r\n\r\n"));
        }
    });
}

#[cfg(all(feature = "direct", feature = "simulation"))]
#[test]
fn a_stack_with_few_places_keeps_one_for_new_clients() {
    use crate::simulation::Network;

    Simulation::new(1).block_on(async {
        let network = Network::new();
        let mut config = Network::config(1);
        config.set_max_connections(40);
        let server = network.stack_with(config);
        let listener = server.listen(80).unwrap();
        fogbow::spawn(async move { serve(listener, Limits { connections: usize::MAX, ..Limits::default() }, site).await }).detach();
        // Its windows are small, so that not all of a large response goes at once.
        let mut config = Network::config(2);
        config.set_tcp_buffer((4096, 4096));
        let attackers = Crowd { stack: network.stack_with(config), server: Network::at(1, 80) };
        let honest = Crowd { stack: network.stack(3), server: Network::at(1, 80) };
        let mut kept = honest.connect().await;
        assert!(is_served(&mut kept).await);
        for begun in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let _held = attackers.fill(200, begun).await;
            honest.check().await;
            assert!(is_served(&mut kept).await, "the one that was there");
            assert!(server.statistics().connections <= 40);
        }
    });
}
