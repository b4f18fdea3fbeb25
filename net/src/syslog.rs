//! Syslog: log messages to a collector, as RFC 5424 writes them, over UDP (RFC 5426) or TCP (RFC 6587, section 3.4.1, counted octets).
//!
//! ```no_run
//! # use core::net::SocketAddr;
//! # use fogbow_net::Stack;
//! # use fogbow_net::syslog::{Origin, Syslog, Transport};
//! # fn start(stack: impl Stack, collector: SocketAddr) {
//! let origin = Origin::new("web-1", "http");
//! fogbow::spawn(Syslog::new(stack, collector, Transport::Tcp, origin).run()).detach();
//! # }
//! ```
//!
//! Principle: nothing waits for the collector but the sink's own task. It holds a bounded number of messages; those beyond are lost, and the next
//! that is sent says how many. Over UDP a datagram is sent once; over TCP a message is sent again on a new connection when the old one fails
//! while it is written, so that one may arrive twice, and what the network had taken may be lost.
//!
//! Limits: no TLS (RFC 5425). Messages of this crate are left out by default, or each datagram of the sink could cause the next.

use alloc::format;
use alloc::string::String;
use core::convert::Infallible;
use core::fmt::Write as _;
use core::net::SocketAddr;

use embedded_io_async::Write as _;
use fogbow::log::{Level, LevelFilter};
use fogbow::logs::{Filter, Message, Subscription};
use fogbow::time::{self, Duration};
use jiff::Timestamp;

use crate::stack::{BindError, Stack, UdpSocket};

/// Messages held while the collector is slow or away.
const CAPACITY: usize = 256;

/// The facility `daemon` (RFC 5424, table 1): system daemons.
const FACILITY: u8 = 3;

/// The longest datagram, in bytes: what every receiver should take (RFC 5426, section 3.2). Longer messages are cut off.
const DATAGRAM: usize = 2048;

/// How long to wait before a new connection: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How messages reach the collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each. Port 514 by convention.
    #[default]
    Udp,
    /// A connection that is kept, each message after its length. Port 601 by convention.
    Tcp,
}

/// Whom the messages are from: the fields HOSTNAME and APP-NAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    host: String,
    application: String,
}

impl Origin {
    /// Characters that the fields cannot hold, which are those not printable in ASCII, become `?`; what is too long (255 and 48 characters, RFC
    /// 5424, section 6) is cut off; an empty name is left out.
    #[must_use]
    pub fn new(host: &str, application: &str) -> Self {
        Self { host: field(host, 255), application: field(application, 48) }
    }
}

/// A sink for log messages.
#[derive(Debug)]
pub struct Syslog<S> {
    stack: S,
    collector: SocketAddr,
    transport: Transport,
    origin: Origin,
    messages: Subscription,
}

impl<S: Stack> Syslog<S> {
    /// Takes messages from now on, of level `info` and worse, without those of this crate, and sends them to `collector` once it [runs](Self::run).
    ///
    /// # Panics
    /// When no runtime is running.
    #[must_use]
    pub fn new(stack: S, collector: SocketAddr, transport: Transport, origin: Origin) -> Self {
        let filter = Filter::from(LevelFilter::Info).with(env!("CARGO_CRATE_NAME"), LevelFilter::Off);
        Self::with_filter(stack, collector, transport, origin, filter)
    }

    /// As [`new`](Self::new), with messages that pass `filter`. It must not let pass what the stack writes for each packet.
    ///
    /// # Panics
    /// When no runtime is running.
    #[must_use]
    pub fn with_filter(stack: S, collector: SocketAddr, transport: Transport, origin: Origin, filter: Filter) -> Self {
        Self { stack, collector, transport, origin, messages: Subscription::new(filter, CAPACITY) }
    }

    /// Sends messages for ever. A collector that is away is tried again after a while, half a second at first and half a minute in the end.
    ///
    /// # Errors
    /// When no UDP socket can be had.
    pub async fn run(mut self) -> Result<Infallible, BindError> {
        match self.transport {
            Transport::Udp => self.run_udp().await,
            Transport::Tcp => self.run_tcp().await,
        }
    }

    async fn run_udp(&mut self) -> Result<Infallible, BindError> {
        let socket = self.stack.bind(0)?;
        loop {
            let mut text = self.next().await;
            text.truncate(text.floor_char_boundary(DATAGRAM));
            // What cannot be sent now is lost, as what the network loses is.
            let _ = socket.send_to(text.as_bytes(), self.collector).await;
        }
    }

    async fn run_tcp(&mut self) -> Result<Infallible, BindError> {
        let mut unsent: Option<String> = None;
        let mut pause = RETRY.0;
        loop {
            if let Ok(mut stream) = self.stack.connect(self.collector).await {
                pause = RETRY.0;
                loop {
                    let frame = match unsent.take() {
                        Some(frame) => frame,
                        None => {
                            let text = self.next().await;
                            format!("{} {text}", text.len())
                        }
                    };
                    let sent = stream.write_all(frame.as_bytes()).await;
                    if sent.is_err() || stream.flush().await.is_err() {
                        unsent = Some(frame);
                        break;
                    }
                }
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// The next message, formatted.
    async fn next(&mut self) -> String {
        let message = self.messages.next().await;
        format_message(&self.origin, &message)
    }
}

/// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG` (RFC 5424, section 6), without a process and structured data; MSGID is
/// the message's source. Messages that were lost before it are mentioned in it.
fn format_message(origin: &Origin, message: &Message) -> String {
    let priority = FACILITY * 8 + severity(message.level);
    let Origin { host, application } = origin;
    let mut text = format!("<{priority}>1 ");
    // TIME-SECFRAC has six digits at most. A clock beyond the calendar has no time: the nil value. A string takes everything.
    let _ = match Timestamp::from_nanosecond(message.time.as_unix_nanos().into()) {
        Ok(timestamp) => write!(text, "{timestamp:.6}"),
        Err(_) => write!(text, "-"),
    };
    let _ = write!(text, " {host} {application} - {} - ", field(&message.source, 32));
    if !message.text.is_ascii() {
        // A message in UTF-8 begins with its mark (section 6.4).
        text.push('\u{feff}');
    }
    text.push_str(&message.text);
    if message.lost > 0 {
        let _ = write!(text, " ({} messages before this one were lost)", message.lost);
    }
    text
}

/// The severity of a level (RFC 5424, table 2).
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A header field: printable ASCII, or the nil value.
fn field(text: &str, longest: usize) -> String {
    if text.is_empty() {
        return "-".into();
    }
    text.chars().take(longest).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
