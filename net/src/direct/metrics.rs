//! What a stack counts, in the text format of Prometheus.

use alloc::string::String;
use core::fmt::Write as _;

use super::Direct;

/// The content type of [`Direct::metrics`] (Prometheus, exposition formats, version 0.0.4).
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Direct {
    /// What the stack has done and holds, in the text format of Prometheus, for an application to serve; `interface` becomes a label of each line.
    ///
    /// ```
    /// use fogbow_net::direct::{Direct, METRICS_TYPE};
    /// use fogbow_net::http::{self, Limits, Request, Status};
    /// use fogbow_net::{AcceptError, Stack};
    ///
    /// async fn serve_metrics(stack: Direct) -> Result<(), AcceptError> {
    ///     let listener = stack.listen(9100).expect("the port is free");
    ///     let report = async move |mut request: Request<'_>| match request.path() {
    ///         "/metrics" => request.respond(Status::OK, stack.metrics("service")).with_type(METRICS_TYPE),
    ///         _ => request.respond(Status::NOT_FOUND, String::new()),
    ///     };
    ///     http::serve(listener, Limits::default(), report).await
    /// }
    /// ```
    #[must_use]
    pub fn metrics(&self, interface: &str) -> String {
        let statistics = self.statistics();
        let label: String = interface.chars().filter(|character| !matches!(character, '"' | '\\' | '\n')).collect();
        let mut text = String::new();
        let rows = [
            ("frames_received_total", "counter", "Frames taken from the device", statistics.frames_received),
            ("received_bytes_total", "counter", "Bytes of these frames", statistics.bytes_received),
            ("frames_sent_total", "counter", "Frames given to the device", statistics.frames_sent),
            ("sent_bytes_total", "counter", "Bytes of these frames", statistics.bytes_sent),
            ("tcp_accepted_total", "counter", "Connections that peers have opened", statistics.connections_accepted),
            ("tcp_begun_total", "counter", "Connections that this end has begun to open", statistics.connections_begun),
            ("tcp_syn_cookies_sent_total", "counter", "Connection requests answered with a SYN cookie", statistics.cookies_sent),
            ("tcp_syn_cookies_accepted_total", "counter", "Connections made when one came back", statistics.cookies_accepted),
            ("tcp_retransmissions_total", "counter", "TCP segments sent again", statistics.retransmissions),
            ("address_conflicts_total", "counter", "Messages of others who claim the address", statistics.address_conflicts),
            ("tcp_connections", "gauge", "TCP connections", statistics.connections as u64),
            ("tcp_handshakes", "gauge", "Connections in their handshake", statistics.handshakes as u64),
            ("tcp_time_wait", "gauge", "Closed connections whose addresses are reserved", statistics.reserved as u64),
            ("tcp_memory_bytes", "gauge", "Memory that connections take", statistics.tcp_memory as u64),
            ("neighbours", "gauge", "Neighbours whose hardware address is known", statistics.neighbours as u64),
        ];
        for (name, kind, help, value) in rows {
            // Writing to a string does not fail.
            let _ = write!(text, "# HELP fogbow_net_{name} {help}.\n# TYPE fogbow_net_{name} {kind}\n");
            let _ = writeln!(text, "fogbow_net_{name}{{interface=\"{label}\"}} {value}");
        }
        let name = "fogbow_net_dropped_total";
        let _ = write!(text, "# HELP {name} Frames, requests and connections dropped, by cause.\n# TYPE {name} counter\n");
        for (cause, count) in statistics.drops.iter() {
            let _ = writeln!(text, "{name}{{interface=\"{label}\",cause=\"{}\"}} {count}", cause.name());
        }
        text
    }
}
