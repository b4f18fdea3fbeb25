//! The measure for latency: a process on a tap that sends each UDP datagram back as it came, headers turned round, and does nothing else.
//!
//! `bare-echo TAP`. Answers at once, from a loop that blocks in nothing but the wait for the next frame.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use smoltcp::phy::{Device, Medium, RxToken, TunTapInterface, TxToken, wait};
use smoltcp::time::Instant;

/// The Ethernet header, and the IPv4 header without options.
const HEADERS: usize = 14 + 20;

fn main() -> Result<()> {
    let tap = std::env::args().nth(1).context("usage: bare-echo TAP")?;
    let mut device = TunTapInterface::new(&tap, Medium::Ethernet).with_context(|| format!("opening {tap}"))?;
    println!("ready");
    loop {
        wait(device.as_raw_fd(), None).context("waiting")?;
        while let Some((received, transmit)) = device.receive(Instant::ZERO) {
            received.consume(|frame| {
                // UDP over IPv4, and nothing else.
                if frame.len() > HEADERS + 8 && frame[12..14] == [8, 0] && frame[23] == 17 {
                    transmit.consume(frame.len(), |answer| turn_round(frame, answer));
                }
            });
        }
    }
}

/// Sums stay right, as what they sum is the same.
fn turn_round(frame: &[u8], answer: &mut [u8]) {
    answer.copy_from_slice(frame);
    for (first, length) in [(0, 6), (26, 4), (HEADERS, 2)] {
        let (one, other) = (first..first + length, first + length..first + 2 * length);
        answer[one.clone()].copy_from_slice(&frame[other.clone()]);
        answer[other].copy_from_slice(&frame[one]);
    }
}
