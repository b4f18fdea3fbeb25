//! Random and mutated frames: nothing panics, nothing runs without end, nothing leaks, and an honest client goes on being served.
//!
//! `FOGBOW_FUZZ_FRAMES` says how many frames are sent, in whole rounds; `cargo xtask soak` sends millions.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow::time::{self, Duration};
use fogbow_net::direct::{Direct, TcpStream};
use fogbow_net::simulation::{Device, Network};
use fogbow_net::{FrameDevice, Listener, Stack, UdpSocket};

/// Frames in a round, which has a network and a seed of its own.
const ROUND: u64 = 20_000;
/// What the server's connections may use, in bytes.
const LIMIT: usize = 4 * 1024 * 1024;
/// What a round may leave behind of the thread's own, in bytes: no more than a frame.
const LEFT: i64 = 1024;

fn random(below: u64) -> u64 {
    fogbow::random::next_u64().expect("a simulated node has randomness") % below.max(1)
}

fn chance(of_hundred: u64) -> bool {
    random(100) < of_hundred
}

#[test]
fn any_frames_are_survived() {
    let frames = std::env::var("FOGBOW_FUZZ_FRAMES").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUND);
    for seed in 0..frames.div_ceil(ROUND) {
        let left = allocation_counter::measure(|| Simulation::new(seed).block_on(round())).bytes_current;
        assert!(left <= LEFT, "{left} bytes are left of round {seed}");
    }
}

/// Serves echoes until what it gives is dropped.
fn serve(server: &Direct) -> [fogbow::Task<()>; 2] {
    let mut listener = server.listen(7).unwrap();
    let streams = fogbow::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            fogbow::spawn(async move {
                let mut buffer = [0; 2048];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..length]).await.is_err() {
                        break;
                    }
                }
            })
            .detach();
        }
    });
    let socket = server.bind(53).unwrap();
    let datagrams = fogbow::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.receive_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
    [streams, datagrams]
}

async fn round() {
    let network = Network::new();
    let mut config = Network::config(1);
    config.tcp_memory = LIMIT;
    config.set_tcp_buffer((4096, 64 * 1024));
    let server = network.stack_with(config);
    let serving = serve(&server);
    let capture = network.switch().capture();
    let client = network.stack(2);
    let mut stream = client.connect(Network::at(1, 7)).await.unwrap();
    let socket = client.bind(0).unwrap();
    socket.send_to(b"datagram", Network::at(1, 53)).await.unwrap();
    socket.send_to(b"datagram", Network::at(1, 54)).await.unwrap();
    check(&mut stream).await;
    let mut corpus: Vec<Vec<u8>> = fogbow_pcap::Records::new(&capture.to_pcap()).unwrap().map(|(_, frame)| frame.to_vec()).collect();
    let mut attacker = network.switch().device(1500);
    let mac = attacker.info().mac.0;
    for sent in 0..ROUND {
        let mut frame = corpus[random(corpus.len() as u64) as usize].clone();
        disguise(&mut frame, mac);
        for _ in 0..random(4) {
            mutate(&mut frame, &corpus);
        }
        if chance(80) {
            repair(&mut frame);
        }
        frame.truncate(1514);
        if claims_anothers_address(&frame) {
            continue;
        }
        attacker.send(&frame);
        if chance(30) {
            fogbow::task::yield_now().await;
        }
        if chance(1) {
            learn(&mut attacker, &mut corpus);
            time::sleep(Duration::from_millis(random(3000))).await;
        }
        if sent % 2000 == 0 {
            while attacker.try_receive().is_some() {}
            // The frames may have reset it in the client's name, which no stack can tell from the client's own.
            if time::timeout(Duration::from_secs(60), check(&mut stream)).await != Ok(true) {
                stream = connect(&client).await;
                assert!(check(&mut stream).await, "a new connection is served");
            }
            let statistics = server.statistics();
            assert!(statistics.tcp_memory <= LIMIT, "{statistics:?}");
        }
    }
    drop((stream, socket, client));
    time::sleep(Duration::from_secs(600)).await;
    let statistics = server.statistics();
    assert_eq!((statistics.connections, statistics.handshakes, statistics.reserved), (0, 0, 0), "{statistics:?}");
    assert!(statistics.tcp_memory <= LIMIT / 8, "{statistics:?}");
    // The stacks end with what holds them.
    drop((serving, server));
    time::sleep(Duration::from_secs(1)).await;
}

/// Whether an ARP message says that the server's or the client's address is somewhere else. Who lies so on a link has cut a host off for as long as an
/// entry is believed, whatever the stacks do: what this test is about is all the rest.
fn claims_anothers_address(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 6]) && matches!(frame.get(28..32), Some([10, 0, 0, 1 | 2]))
}

/// Connects, which takes no longer than a request that is lost once needs.
async fn connect(client: &Direct) -> TcpStream {
    let started = time::now();
    let stream = client.connect(Network::at(1, 7)).await;
    assert!(started.elapsed() < Duration::from_secs(5), "served after {:?} only", started.elapsed());
    stream.unwrap_or_else(|error| panic!("an honest client is not served: {error}"))
}

/// Whether the server echoes.
async fn check(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 9];
    stream.write_all(b"are there").await.is_ok() && stream.read_exact(&mut buffer).await.is_ok() && &buffer == b"are there"
}

/// Sends a frame of the corpus to the server from the attacker, in its own name or in the client's.
fn disguise(frame: &mut [u8], mac: [u8; 6]) {
    if frame.len() < 34 {
        return;
    }
    if chance(90) {
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    }
    frame[6..12].copy_from_slice(&mac);
    let own = Ipv4Addr::new(10, 0, 0, if chance(80) { 77 } else { random(256) as u8 }).octets();
    match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0800 => {
            if chance(95) {
                frame[26..30].copy_from_slice(&own);
                frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
            }
        }
        _ => frame[28..32].copy_from_slice(&own),
    }
}

/// Changes something: a bit, a field to a value at its edge, the length, or a part for one of another frame.
fn mutate(frame: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    if frame.is_empty() {
        return;
    }
    let place = 12 + random(frame.len().min(80) as u64) as usize;
    match random(8) {
        0 | 1 => {
            if let Some(byte) = frame.get_mut(place) {
                *byte ^= 1 << random(8);
            }
        }
        2 | 3 => {
            let edges: [&[u8]; 6] = [&[0, 0], &[255, 255], &[0, 1], &[127, 255], &[128, 0], &[0, 0, 0, 0]];
            for (byte, &edge) in frame.iter_mut().skip(place).zip(edges[random(6) as usize]) {
                *byte = edge;
            }
        }
        // The flags of TCP.
        4 => {
            if let Some(byte) = frame.get_mut(47) {
                *byte = random(64) as u8;
            }
        }
        // Sequence numbers near those that were.
        5 => {
            let field = 38 + 4 * random(2) as usize;
            if let Some(bytes) = frame.get_mut(field..field + 4) {
                let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                bytes.copy_from_slice(&number.wrapping_add(random(200_000) as u32).wrapping_sub(100_000).to_be_bytes());
            }
        }
        6 => frame.resize(random(1600) as usize, random(256) as u8),
        _ => {
            let other = &corpus[random(corpus.len() as u64) as usize];
            let from = random(other.len() as u64) as usize;
            frame.truncate(place);
            frame.extend_from_slice(&other[from..]);
        }
    }
}

fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
    let total = words.fold(start, |total, word| total.wrapping_add(word));
    let folded = (total & 0xffff) + (total >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Makes lengths and checksums right, so that what is wrong elsewhere is looked at.
fn repair(frame: &mut [u8]) {
    if frame.len() < 34 || frame[12..14] != [8, 0] {
        return;
    }
    let header = usize::from(frame[14] & 15) * 4;
    let packet = &mut frame[14..];
    if !(20..=packet.len()).contains(&header) {
        return;
    }
    let length = packet.len();
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[10..12].fill(0);
    let checksum = sum(&packet[..header], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let (protocol, addresses) = (packet[9], packet[12..20].to_vec());
    let payload = &mut packet[header..];
    let place = match protocol {
        1 => 2,
        6 => 16,
        17 => 6,
        _ => return,
    };
    if payload.len() < place + 2 {
        return;
    }
    if protocol == 17 {
        let length = payload.len() as u16;
        payload[4..6].copy_from_slice(&length.to_be_bytes());
    }
    payload[place..place + 2].fill(0);
    let pseudo = if protocol == 1 {
        0
    } else {
        u32::from(protocol)
            + payload.len() as u32
            + addresses.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>()
    };
    let checksum = sum(payload, pseudo);
    payload[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Takes what the server has answered into the corpus, turned round, so that connections go further.
fn learn(attacker: &mut Device, corpus: &mut Vec<Vec<u8>>) {
    for _ in 0..20 {
        let Some(mut frame) = attacker.try_receive() else { return };
        if frame.len() >= 54 && frame[12..14] == [8, 0] && frame[23] == 6 {
            let (source, destination) = ([frame[34], frame[35]], [frame[36], frame[37]]);
            frame[34..36].copy_from_slice(&destination);
            frame[36..38].copy_from_slice(&source);
            // The answer to a SYN is acknowledged; anything else too.
            let (sequence, acknowledged) = (frame[38..42].to_vec(), frame[42..46].to_vec());
            let is_syn = frame[47] & 2 != 0;
            let next = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]).wrapping_add(u32::from(is_syn));
            frame[38..42].copy_from_slice(&acknowledged);
            frame[42..46].copy_from_slice(&next.to_be_bytes());
            frame[47] = 0x18;
        }
        if corpus.len() < 500 {
            corpus.push(frame);
        } else {
            let place = random(corpus.len() as u64) as usize;
            corpus[place] = frame;
        }
    }
}
