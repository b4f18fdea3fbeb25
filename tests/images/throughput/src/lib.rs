//! Takes and gives TCP streams as fast as it can, for measurements: what arrives on port 5001 is dropped, port 5002 sends until the peer closes.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec;

use embedded_io_async::{Read, Write};
use fogbow::spawn;
use fogbow_net::{ListenError, Listener, Stack};

/// The port whose input is dropped.
pub const SINK: u16 = 5001;

/// The port that sends.
pub const SOURCE: u16 = 5002;

/// Bytes that are read or written at a time.
const CHUNK: usize = 64 * 1024;

/// Serves both ports until the image ends.
///
/// # Errors
/// [`ListenError`] when a port cannot be had.
pub async fn start(stack: impl Stack) -> Result<(), ListenError> {
    let (mut sinks, mut sources) = (stack.listen(SINK)?, stack.listen(SOURCE)?);
    let sink = spawn(async move {
        while let Ok(mut stream) = sinks.accept().await {
            spawn(async move {
                let mut chunk = vec![0; CHUNK];
                while let Ok(1..) = stream.read(&mut chunk).await {}
            })
            .detach();
        }
    });
    let source = spawn(async move {
        while let Ok(mut stream) = sources.accept().await {
            spawn(async move {
                let chunk = vec![0x5a; CHUNK];
                while stream.write_all(&chunk).await.is_ok() {}
            })
            .detach();
        }
    });
    sink.await;
    source.await;
    Ok(())
}
