//! Echo: sends back what it receives, over UDP and over TCP (RFC 862).
//!
//! `cargo xtask run echo --target spt`, then `nc HOST 7`
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{format, vec};

use fogbow::StartError;
use fogbow::task::{Either, select};
use fogbow_net::{Stack, Stream, StreamError, UdpError, UdpSocket, serve};

/// TCP connections served at once; further ones wait.
const CONNECTIONS: usize = 1000;

/// Bytes read from a TCP connection at once.
const CHUNK: usize = 2048;

/// The longest datagram that UDP over IPv4 can carry, in bytes (RFC 768, RFC 791: 65,535 less both headers).
const DATAGRAM: usize = 65_507;

fogbow::arguments!();

/// Echoes on `--port` until the network fails.
///
/// # Errors
/// When the port is in use, an argument is wrong, or the network fails.
pub async fn start(stack: impl Stack) -> Result<(), StartError> {
    let port = Arguments::read()?.port;
    let socket = stack.bind(port).map_err(|error| StartError::new(&format!("UDP port {port}"), error))?;
    let listener = stack.listen(port).map_err(|error| StartError::new(&format!("TCP port {port}"), error))?;
    fogbow::println!("echo: listening on port {port}");
    match select(echo_datagrams(socket), serve(listener, CONNECTIONS, echo_stream)).await {
        Either::First(ended) => ended.map_err(|error| StartError::new("UDP", error)),
        Either::Second(ended) => ended.map_err(|error| StartError::new("TCP", error)),
    }
}

async fn echo_datagrams(socket: impl UdpSocket) -> Result<(), UdpError> {
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let (length, sender) = socket.receive_from(&mut datagram).await?;
        match socket.send_to(&datagram[..length], sender).await {
            Err(UdpError::Down) => return Err(UdpError::Down),
            Err(error) => log::debug!("no answer to {sender}: {error}"),
            Ok(()) => {}
        }
    }
}

async fn echo_stream(mut stream: impl Stream) {
    let peer = stream.peer();
    if let Err(error) = echo_bytes(&mut stream).await {
        log::debug!("{peer}: {error}");
    }
}

async fn echo_bytes(stream: &mut impl Stream) -> Result<(), StreamError> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).await? {
            0 => return stream.shutdown().await,
            length => stream.write_all(&chunk[..length]).await?,
        }
        stream.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::net::SocketAddr;
    use embedded_io_async::{Read, Write};
    use fogbow::simulation::Simulation;
    use fogbow::time::Duration;
    use fogbow_net::Loopback;
    use fogbow_net::simulation::{Impairment, Network};

    /// Runs a client against the application.
    fn run(client: impl AsyncFnOnce(Loopback, SocketAddr) + 'static) {
        Simulation::new(1).with_arguments(&[Arguments::GROUP], []).block_on(async {
            let stack = Loopback::new();
            fogbow::spawn(start(stack.clone())).detach();
            fogbow::task::yield_now().await;
            client(stack, SocketAddr::from(([127, 0, 0, 1], 7))).await;
        });
    }

    #[test]
    fn echoes_streams_to_their_end() {
        run(async |stack, address| {
            let mut client = stack.connect(address).await.unwrap();
            client.write_all(b"hello").await.unwrap();
            client.shutdown().await.unwrap();
            let mut echo = [0; 9];
            assert_eq!(client.read(&mut echo).await, Ok(5));
            assert_eq!(&echo[..5], b"hello");
            assert_eq!(client.read(&mut echo).await, Ok(0));
        });
    }

    #[test]
    fn echoes_streams_over_a_bad_network() {
        Simulation::new(1).with_arguments(&[Arguments::GROUP], []).block_on(async {
            let network = Network::new();
            let (loss, delay) = (2 * Impairment::PERCENT, Duration::from_millis(10));
            network.switch().impair(Impairment { lost: loss, doubled: loss, reordered: loss, delay, ..Impairment::default() });
            fogbow::spawn(start(network.stack(1))).detach();
            fogbow::task::yield_now().await;
            let (mut reader, mut writer) = network.stack(2).connect(Network::at(1, 7)).await.unwrap().split();
            let sent: Vec<u8> = (0..100_000_u32).map(|number| (number / 7) as u8).collect();
            let mut received = vec![0; sent.len()];
            let sending = fogbow::spawn({
                let sent = sent.clone();
                async move { writer.write_all(&sent).await }
            });
            reader.read_exact(&mut received).await.unwrap();
            assert!(received == sent);
            sending.await.unwrap();
        });
    }

    #[test]
    fn echoes_datagrams() {
        run(async |stack, address| {
            let socket = stack.bind(0).unwrap();
            for text in [&b"hello"[..], b"", b"again"] {
                socket.send_to(text, address).await.unwrap();
                let mut echo = [0; 9];
                assert_eq!(socket.receive_from(&mut echo).await, Ok((text.len(), address)));
                assert_eq!(&echo[..text.len()], text);
            }
        });
    }
}
