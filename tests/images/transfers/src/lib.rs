//! Reads a whole block device in order, then writes it, and tells how long each took. For measurements: what is on the device is lost.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec;

use fogbow::{StartError, time};
use fogbow_block::{Block, BlockInfo};

fogbow::arguments!();

/// Prints `read NANOSECONDS` and `write NANOSECONDS`, of requests of `--size` bytes.
///
/// # Errors
/// When the device fails.
pub async fn start(disk: impl Block) -> Result<(), StartError> {
    let size = Arguments::read()?.size as usize;
    let BlockInfo { sector_size, sectors, .. } = disk.info();
    let mut buffer = vec![0x5a; size];
    let step = (size / sector_size).max(1);
    for what in ["read", "write"] {
        let start = time::now();
        for sector in (0..sectors).step_by(step) {
            let moved = match what {
                "read" => disk.read(sector, &mut buffer).await,
                _ => disk.write(sector, &buffer).await,
            };
            moved.map_err(StartError::application)?;
        }
        fogbow::println!("{what} {}", start.elapsed().as_nanos());
    }
    Ok(())
}
