//! Serves a small and a large page, and tells every second what it holds of its memory: for long runs.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use fogbow::StartError;
use fogbow::platform;
use fogbow::time::{Duration, Ticker};
use fogbow_kv::{Key, Memory, ReadWrite};
use fogbow_net::http::{self, Files, Limits};
use fogbow_net::{Listener, Stack};

/// Bytes of the large page.
const LARGE: u32 = 256 << 10;

/// Serves port 80 until the network fails.
///
/// # Errors
/// When the pages cannot be kept, or the network fails.
pub async fn start(stack: impl Stack) -> Result<(), StartError> {
    let pages = Memory::new();
    let large: Vec<u8> = (0..LARGE).map(|index| (index * 31 / 7) as u8).collect();
    for (name, page) in [("small", &b"small"[..]), ("large", &large)] {
        let key = Key::new(name).map_err(|error| StartError::new(name, error))?;
        pages.set(key, page).await.map_err(|error| StartError::new(name, error))?;
    }
    fogbow::spawn(async {
        let mut ticker = Ticker::new(Duration::from_secs(1));
        loop {
            ticker.tick().await;
            fogbow::println!("memory: {}", platform::memory());
        }
    })
    .detach();
    let listener = stack.listen(80).map_err(|error| StartError::new("port 80", error))?;
    fogbow::println!("steady: listening on port {}", listener.port());
    let limits = Limits { connections: usize::MAX, ..Limits::default() };
    http::serve(listener, limits, Files::new(pages)).await.map_err(|error| StartError::new("http", error))
}
