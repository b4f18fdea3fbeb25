//! One connection: reads requests, has them handled one after the other, and sends the responses.
//!
//! Requests that are in the buffer already are answered together, in one write if they fit. A small request costs one read, one write and, once
//! the connection's buffers have grown, no allocation.

use alloc::vec::Vec;
use core::mem;
use core::net::SocketAddr;

use fogbow::time;

use super::head::{Head, Scan, Scanner};
use super::input::Input;
use super::request::{Incoming, Progress};
use super::seats::Wait;
use super::send::{self, Exchange};
use super::wire::{Broken, Patience, Wire};
use super::{Handler, Request, Response, Service, Status};
use crate::Stream;

/// Serves the requests of a connection until it closes.
pub(super) async fn run<S: Stream, H: Handler>(stream: S, service: &Service<H>) {
    let seat = service.seats.take().await;
    let peer = stream.peer();
    let patience = Patience { body: service.limits.body_timeout, write: service.limits.write_timeout };
    let mut connection =
        Connection { wire: Wire::seated(stream, patience, seat), input: Input::new(), peer, service, scratch: Vec::new(), is_first: true };
    let outcome = connection.serve().await;
    let outcome = match outcome {
        Ok(()) => connection.wire.close().await,
        // Dropping it closes it in order, without waiting for the client.
        Err(Broken::Crowded) => Err(Broken::Crowded),
        Err(broken) => {
            connection.wire.abort();
            Err(broken)
        }
    };
    if let Err(broken) = outcome {
        log::debug!("{peer}: {broken:?}");
    }
}

struct Connection<'s, S, H> {
    wire: Wire<S>,
    input: Input,
    peer: SocketAddr,
    service: &'s Service<H>,
    scratch: Vec<u8>,
    is_first: bool,
}

/// What comes next on a connection.
enum Next {
    /// A request whose head has so many bytes.
    Request(usize),
    /// A request that cannot be served.
    Refused(Status),
    /// Nothing more.
    End,
}

impl<S: Stream, H: Handler> Connection<'_, S, H> {
    /// Serves requests until the connection should be closed in order.
    async fn serve(&mut self) -> Result<(), Broken> {
        loop {
            match self.next().await? {
                Next::Request(head) => {
                    if !self.exchange(head).await? {
                        return Ok(());
                    }
                }
                Next::Refused(status) => return self.refuse(status, Exchange::REFUSED).await,
                Next::End => return Ok(()),
            }
        }
    }

    /// Waits until the head of a request is in the buffer.
    async fn next(&mut self) -> Result<Next, Broken> {
        let limits = self.service.limits;
        let mut scanner = Scanner::default();
        let mut head_due = None;
        loop {
            if self.input.skip_empty_lines() {
                match scanner.scan(self.input.pending(), limits.head) {
                    Scan::Complete(length) => {
                        self.wire.go_on();
                        return Ok(Next::Request(length));
                    }
                    Scan::Refused(status) => return Ok(Next::Refused(status)),
                    Scan::Incomplete => {}
                }
            }
            let has_begun = !self.input.pending().is_empty();
            let allowance = if has_begun || self.is_first { limits.header_timeout } else { limits.idle_timeout };
            let due = || *head_due.get_or_insert_with(|| time::now() + allowance);
            let wait = if has_begun || self.is_first { Wait::Head } else { Wait::Idle };
            match self.wire.read_until(self.input.room(), wait, due).await {
                Ok(0) => return Ok(Next::End),
                Ok(length) => {
                    self.input.to += length;
                    // The time for the head begins with its first byte, wherever that falls within the time to be idle.
                    if !has_begun && !self.is_first {
                        head_due = None;
                    }
                }
                Err(Broken::TimedOut) if has_begun => return Ok(Next::Refused(Status::REQUEST_TIMEOUT)),
                Err(Broken::TimedOut) => return Ok(Next::End),
                Err(broken) => return Err(broken),
            }
        }
    }

    /// Serves one request. False when the connection is to be closed after it.
    async fn exchange(&mut self, head_length: usize) -> Result<bool, Broken> {
        self.is_first = false;
        self.input.keep_free_behind(head_length);
        let Input { bytes, from, to } = &mut self.input;
        let (head, buffer) = bytes[*from..].split_at_mut(head_length);
        let (head, framing) = match Head::parse(head, self.service.limits.body) {
            Ok(parsed) => parsed,
            Err(status) => return self.refuse(status, Exchange::REFUSED).await.map(|()| false),
        };
        let mut progress = Progress {
            framing,
            from: 0,
            to: *to - *from - head_length,
            allowance: self.service.limits.body,
            expects_continue: head.expects_continue,
            failed: None,
        };
        let body = Incoming { progress: &mut progress, buffer, source: &mut self.wire };
        let response = self.service.handler.handle(Request { head: &head, body, peer: self.peer, scratch: &mut self.scratch }).await;
        let skipped = Incoming { progress: &mut progress, buffer, source: &mut self.wire }.skip().await;
        let mut exchange = Exchange { method: head.method, is_1_1: head.is_1_1, keep_alive: head.keep_alive };
        *to = *from + head_length + progress.to;
        *from += head_length + progress.from;
        match skipped {
            Ok(is_whole) => exchange.keep_alive &= is_whole,
            Err(error) => return self.refuse(error.status(), exchange).await.map(|()| false),
        }
        let keep_alive = self.send(response, exchange).await?;
        Ok(keep_alive)
    }

    /// Answers a request that cannot be served; the connection has to be closed then.
    async fn refuse(&mut self, status: Status, exchange: Exchange) -> Result<(), Broken> {
        let text = alloc::format!("{status}\n");
        let response = Response { status, fields: mem::take(&mut self.scratch), body: text }.with_type("text/plain; charset=utf-8");
        self.send(response, Exchange { keep_alive: false, ..exchange }).await.map(drop)
    }

    async fn send<B: super::Body>(&mut self, mut response: Response<B>, exchange: Exchange) -> Result<bool, Broken> {
        let keep_alive = send::send(&mut self.wire, &mut response, exchange, &self.service.date).await?;
        self.scratch = response.fields;
        self.scratch.clear();
        Ok(keep_alive)
    }
}
