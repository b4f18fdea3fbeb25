//! Streams of a given length between Linux's stack and the image `digests`, compared by digest, and the longest stall of each.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fogbow_net::simulation::Impairment;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use crate::builder::{Place, Run};
use crate::client;
use crate::network::GUEST;
use crate::relay::Relay;

/// The image's ports, as it has them.
const TAKES: u16 = 5003;
const GIVES: u16 = 5004;
const CHUNK: usize = 64 * 1024;
/// The length of a digest, and of a number after it.
const DIGEST: usize = 32;
const NUMBER: usize = 8;

/// Which way a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From Linux to the image.
    In,
    /// From the image to Linux.
    Out,
}

/// How a stream fared.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// From the first byte until the digests had been compared.
    pub time: Duration,
    /// The longest time for which nothing reached the receiver.
    pub stall: Duration,
    /// Frames of both directions.
    pub frames: u64,
    /// Those of them that were lost on the wire.
    pub lost: u64,
}

/// Moves `length` bytes between Linux and an image on `place` over a wire with `impairment`, and compares their digests.
///
/// # Errors
/// When they differ, or the connection fails.
pub fn transfer(place: Place, direction: Direction, impairment: Impairment, length: u64) -> Result<Outcome> {
    let relay = Relay::new(impairment, 1)?;
    let run = Run { namespace: Some(relay.guest()), memory: 128, ..Run::default() };
    let guest = place.start("tests/images/digests", &run)?;
    let (time, stall) = relay
        .client()
        .run(|| {
            let port = if direction == Direction::In { TAKES } else { GIVES };
            let mut stream = client::connect((GUEST, port).into())?;
            let begun = Instant::now();
            let stall = if direction == Direction::In { give(&mut stream, length)? } else { take(&mut stream, length)? };
            Ok((begun.elapsed(), stall))
        })
        .with_context(|| format!("the guest's console:\n{}", guest.console()))?;
    Ok(Outcome { time, stall, frames: relay.frames(), lost: relay.lost() })
}

fn give(stream: &mut TcpStream, length: u64) -> Result<Duration> {
    let (mut random, mut digest, mut chunk, mut left) = (ChaCha8Rng::seed_from_u64(length), Sha256::new(), vec![0; CHUNK], length);
    while left > 0 {
        let part = &mut chunk[..left.min(CHUNK as u64) as usize];
        random.fill_bytes(part);
        digest.update(&*part);
        stream.write_all(part).with_context(|| format!("sending, with {left} bytes left"))?;
        left -= part.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; DIGEST + NUMBER];
    stream.read_exact(&mut answer).context("reading the image's digest")?;
    ensure!(answer[..DIGEST] == digest.finalize()[..], "what arrived in the image is not what was sent");
    let mut nanos = [0; NUMBER];
    nanos.copy_from_slice(&answer[DIGEST..]);
    Ok(Duration::from_nanos(u64::from_be_bytes(nanos)))
}

fn take(stream: &mut TcpStream, length: u64) -> Result<Duration> {
    stream.write_all(&length.to_be_bytes())?;
    let (mut digest, mut chunk, mut left) = (Sha256::new(), vec![0; CHUNK], length);
    let (mut last, mut stall) = (None, Duration::ZERO);
    while left > 0 {
        let part = &mut chunk[..left.min(CHUNK as u64) as usize];
        let count = stream.read(part).with_context(|| format!("receiving, with {left} bytes left"))?;
        ensure!(count > 0, "the image closed with {left} bytes left");
        digest.update(&part[..count]);
        left -= count as u64;
        let now = Instant::now();
        stall = stall.max(last.map_or(Duration::ZERO, |last| now - last));
        last = Some(now);
    }
    let mut answer = [0; DIGEST];
    stream.read_exact(&mut answer).context("reading the image's digest")?;
    ensure!(answer[..] == digest.finalize()[..], "what arrived is not what the image sent");
    Ok(stall)
}
