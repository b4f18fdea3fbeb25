//! Takes and gives TCP streams and tells their digests, for tests: port 5003 answers a stream with the digest of what came and the longest time for
//! which nothing did, port 5004 sends as many random bytes as it is asked for, then their digest.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec;

use fogbow::time::{self, Duration};
use fogbow::{random, spawn};
use fogbow_net::{ListenError, Listener, Stack, Stream};
use sha2::{Digest, Sha256};

/// The port that takes a stream, and answers its end with SHA-256 (32 bytes) and nanoseconds (8 bytes, big-endian).
pub const TAKES: u16 = 5003;

/// The port that reads a number (8 bytes, big-endian), sends that many bytes, then their SHA-256.
pub const GIVES: u16 = 5004;

/// Bytes that are read or written at a time.
const CHUNK: usize = 64 * 1024;

/// Serves both ports until the image ends.
///
/// # Errors
/// [`ListenError`] when a port cannot be had.
pub async fn start(stack: impl Stack) -> Result<(), ListenError> {
    let (mut takers, mut givers) = (stack.listen(TAKES)?, stack.listen(GIVES)?);
    let taking = spawn(async move {
        while let Ok(stream) = takers.accept().await {
            // A connection that fails is the client's to notice.
            spawn(async move {
                let _ = take(stream).await;
            })
            .detach();
        }
    });
    while let Ok(stream) = givers.accept().await {
        spawn(async move {
            let _ = give(stream).await;
        })
        .detach();
    }
    taking.await;
    Ok(())
}

async fn take<S: Stream>(mut stream: S) -> Result<(), S::Error> {
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    let (mut last, mut stall) = (None, Duration::ZERO);
    while let length @ 1.. = stream.read(&mut chunk).await? {
        digest.update(&chunk[..length]);
        let now = time::now();
        stall = stall.max(last.map_or(Duration::ZERO, |last| now - last));
        last = Some(now);
    }
    stream.write_all(&digest.finalize()).await?;
    stream.write_all(&(stall.as_nanos() as u64).to_be_bytes()).await?;
    stream.shutdown().await.or(Ok(()))
}

async fn give<S: Stream>(mut stream: S) -> Result<(), S::Error> {
    let mut length = [0; 8];
    if stream.read_exact(&mut length).await.is_err() {
        return Ok(());
    }
    let (mut digest, mut chunk, mut left) = (Sha256::new(), vec![0; CHUNK], u64::from_be_bytes(length));
    while left > 0 {
        let part = &mut chunk[..left.min(CHUNK as u64) as usize];
        if random::fill(part).is_err() {
            return Ok(());
        }
        digest.update(&*part);
        stream.write_all(part).await?;
        left -= part.len() as u64;
    }
    stream.write_all(&digest.finalize()).await?;
    stream.shutdown().await.or(Ok(()))
}
