//! Copies all of one store to two others, in place of what was there.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use fogbow::{StartError, println};
use fogbow_kv::{Key, Kind, ReadOnly, ReadWrite, StreamError};

/// Copies every value of `archive`, as a stream.
///
/// # Errors
/// The first that a store gives.
pub async fn start(archive: impl ReadOnly, volume: impl ReadWrite, kept: impl ReadWrite) -> Result<(), StartError> {
    volume.remove(Key::ROOT).await.map_err(StartError::application)?;
    kept.remove(Key::ROOT).await.map_err(StartError::application)?;
    let mut pending = Vec::from([String::new()]);
    let mut count = 0;
    while let Some(at) = pending.pop() {
        let dictionary = Key::new(&at).map_err(StartError::application)?;
        for name in archive.list(dictionary).await.map_err(StartError::application)? {
            let below = if at.is_empty() { name.name } else { format!("{at}/{}", name.name) };
            if name.kind == Kind::Dictionary {
                pending.push(below);
                continue;
            }
            let key = Key::new(&below).map_err(StartError::application)?;
            copy(&archive, &volume, key).await?;
            copy(&archive, &kept, key).await?;
            count += 1;
        }
    }
    println!("copied {count} values");
    Ok(())
}

async fn copy(from: &impl ReadOnly, to: &impl ReadWrite, key: Key<'_>) -> Result<(), StartError> {
    let mut reader = from.read(key).await.map_err(StartError::application)?;
    match to.set_stream(key, &mut reader).await {
        Ok(_) => Ok(()),
        Err(StreamError::Source(error)) => Err(StartError::application(error)),
        Err(StreamError::Store(error)) => Err(StartError::application(error)),
    }
}
