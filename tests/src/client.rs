//! Clients: plain sockets with patience, and HTTP by hand, so that a test sees each byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::guest::PATIENCE;
use crate::network::{GUEST, Namespace};

/// Connects to `address`; keeps trying while the guest is still starting.
///
/// # Errors
/// The last failure, after [`PATIENCE`].
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if Instant::now() >= deadline => return Err(error).with_context(|| format!("connecting to {address}")),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Sends `length` bytes to an echo server and checks that they all come back, while they are being sent.
///
/// # Errors
/// When they do not, or the connection fails.
pub fn echo(address: SocketAddr, length: usize) -> Result<()> {
    let mut writer = connect(address)?;
    let mut reader = writer.try_clone()?;
    let data: Vec<u8> = (0..length).map(|index| (index * 31 / 7) as u8).collect();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| writer.write_all(&data).and_then(|()| writer.shutdown(Shutdown::Write)));
        reader.read_to_end(&mut back)?;
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(back == data, "{} of {length} bytes came back, or not the same", back.len());
    Ok(())
}

/// A response, taken apart.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header fields in order, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first field `name`, which is in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    /// Connects to a server.
    ///
    /// # Errors
    /// As [`connect`].
    pub fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self { stream: BufReader::new(connect(address)?) })
    }

    /// Another handle to the connection, to end it from elsewhere.
    ///
    /// # Errors
    /// When the host has no descriptor for it.
    pub fn handle(&self) -> Result<TcpStream> {
        Ok(self.stream.get_ref().try_clone()?)
    }

    /// Sends a request without a body and reads the response.
    ///
    /// # Errors
    /// When the connection fails or the response is no HTTP.
    pub fn request(&mut self, method: &str, path: &str) -> Result<Response> {
        self.send(format!("{method} {path} HTTP/1.1\r\nHost: guest\r\n\r\n").as_bytes())?;
        self.receive(method == "HEAD")
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// Reads one response; without its body if it answers a HEAD request.
    ///
    /// # Errors
    /// When the connection fails or the response is no HTTP.
    pub fn receive(&mut self, head: bool) -> Result<Response> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(|| format!("no status in {line:?}"))?;
        let mut response = Response { status, fields: Vec::new(), body: Vec::new() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("no header field: {line:?}"))?;
            response.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if head || matches!(status, 204 | 304) {
            return Ok(response);
        }
        if response.field("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.line()?;
                let length = usize::from_str_radix(&line, 16).with_context(|| format!("no chunk length: {line:?}"))?;
                let start = response.body.len();
                response.body.resize(start + length, 0);
                self.stream.read_exact(&mut response.body[start..])?;
                self.line()?;
                if length == 0 {
                    return Ok(response);
                }
            }
        }
        let length = response.field("content-length").context("a response without a length")?.parse()?;
        response.body.resize(length, 0);
        self.stream.read_exact(&mut response.body)?;
        Ok(response)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.strip_suffix("\r\n").context("a line that does not end in CR LF")?.to_owned())
    }
}

/// Sends a datagram until an answer comes, as datagrams get lost while a guest starts.
///
/// # Errors
/// When none comes within [`PATIENCE`].
pub fn exchange(address: SocketAddr, datagram: &[u8]) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = vec![0; 65536];
    loop {
        // A refusal is the ICMP answer to an earlier datagram, sent before the guest listened.
        let _ = socket.send_to(datagram, address);
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) if from == address => return Ok(buffer[..length].to_vec()),
            _ if Instant::now() >= deadline => bail!("no answer from {address}"),
            _ => {}
        }
    }
}

/// Asks the guest for `count` echoes, each as soon as the one before is there, and wants all of them.
///
/// # Errors
/// When `ping` cannot run, or an echo is lost.
pub fn flood(namespace: &Namespace, count: u32) -> Result<()> {
    let output = namespace.command("ping").args(["-f", "-q", "-W", "60", "-c", &count.to_string(), &GUEST.to_string()]).output();
    let output = output.context("running `ping` (package iputils-ping)")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !said.contains(&format!("{count} packets transmitted, {count} received, 0% packet loss")) {
        bail!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
