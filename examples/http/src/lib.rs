//! HTTP: serves the site in `htdocs`, which becomes a part of the image.
//!
//! `cargo xtask run http --target spt`
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;

use fogbow::StartError;
use fogbow_kv::ReadOnly;
use fogbow_net::http::{self, Files, Limits};
use fogbow_net::{Listener, Stack};

fogbow::arguments!();

/// Serves `htdocs` on `--port` until the network fails.
///
/// # Errors
/// When the port is in use, an argument is wrong, or the network fails.
pub async fn start(stack: impl Stack, htdocs: impl ReadOnly) -> Result<(), StartError> {
    let port = Arguments::read()?.port;
    let listener = stack.listen(port).map_err(|error| StartError::new(&format!("port {port}"), error))?;
    fogbow::println!("http: listening on port {}", listener.port());
    // The stack's own limit, which follows the memory there is, is the one that counts.
    let limits = Limits { connections: usize::MAX, ..Limits::default() };
    http::serve(listener, limits, Files::new(htdocs)).await.map_err(|error| StartError::new("http", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_io_async::{Read, Write};
    use fogbow::simulation::Simulation;
    use fogbow_kv::{Key, Memory, ReadWrite};
    use fogbow_net::Loopback;

    #[test]
    fn serves_the_store_on_the_port_that_is_asked_for() {
        Simulation::new(1).with_arguments(&[Arguments::GROUP], ["--port=8080"]).block_on(async {
            let (stack, htdocs) = (Loopback::new(), Memory::new());
            htdocs.set(Key::new("index.html").unwrap(), b"<h1>Fogbow</h1>").await.unwrap();
            fogbow::spawn(start(stack.clone(), htdocs)).detach();
            fogbow::task::yield_now().await;
            let mut client = stack.connect(([127, 0, 0, 1], 8080).into()).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut response = [0; 1024];
            let length = client.read(&mut response).await.unwrap();
            assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n") && response[..length].ends_with(b"<h1>Fogbow</h1>"));
        });
    }
}
