//! A long run through a bad wire: an image serves pages on a virtual machine while frames get lost both ways.
//!
//! Every response is checked and timed, and the image tells what it holds of its memory. The bounds follow from retransmission: Linux and the image
//! wait 0.2 s at least before they send again what was lost at a transfer's end, and twice as long each time that is lost again; 1 s for the first
//! packet of a connection (RFC 6298).

use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fogbow_net::simulation::Impairment;

use crate::builder::{Place, Run};
use crate::client::Http;
use crate::guest::Guest;
use crate::measure::resident;
use crate::network::GUEST;
use crate::relay::Relay;

/// Clients at a time, each with a connection.
const CLIENTS: usize = 8;

/// Requests on a connection before it is made anew; the last of them is for the large page.
const REQUESTS: u32 = 25;

/// The longest that a response may take on a connection that is there: three losses in a row of one packet, and the rest of the page.
const LONGEST: Duration = Duration::from_secs(4);

/// The longest that a connection may take to be made: three losses in a row (1, 2 and 4 s).
const LONGEST_TO_CONNECT: Duration = Duration::from_secs(8);

/// One packet of a hundred is lost, each way, on a way of 5 ms.
const WIRE: Impairment = Impairment {
    lost: Impairment::PERCENT,
    doubled: 0,
    corrupted: 0,
    delay: Duration::from_millis(5),
    jitter: Duration::ZERO,
    reordered: 0,
    rate: None,
};

/// What a client saw.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    requests: u64,
    connections: u64,
    bytes: u64,
    /// The longest that a response and a connection took.
    response: Duration,
    connection: Duration,
}

/// Serves for `time` on virtio, and prints what was seen.
///
/// # Errors
/// When a response is wrong, one takes too long, or the image's memory grows.
pub fn run(time: Duration) -> Result<()> {
    let relay = Relay::new(WIRE, 1)?;
    let guest = Place::Virtio.start("tests/images/steady", &Run { namespace: Some(relay.guest()), memory: 16, ..Run::default() })?;
    guest.wait_for("steady: listening")?;
    let (start, lost_before) = (Instant::now(), relay.lost());
    let served = relay.client().run(|| {
        let pages = Pages { small: page("/small")?, large: page("/large")? };
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| pages.ask(start + time))).collect();
            std::thread::sleep(time / 4);
            let before = resident(guest.id())?;
            let join = |client: ScopedJoinHandle<'_, Result<Seen>>| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let seen = clients.into_iter().map(join).collect::<Result<Vec<_>>>()?;
            Ok((seen, before, resident(guest.id())?))
        })
    });
    let (seen, before, after) = served.with_context(|| format!("the guest's console:\n{}", last_lines(&guest)))?;
    let seen = seen.into_iter().fold(Seen::default(), Seen::and);
    let held = held(&guest.console());
    let (early, late) = floors(&held);
    println!(
        "virtio through a wire that loses 1 % each way, {:.0} s: {} responses ({:.0} MB) on {} connections, all whole; {} of {} frames lost; the longest \
         response took {:.2} s, connection {:.2} s; heap held {early:.0} -> {late:.0} KiB at its tenth, QEMU's memory {before} -> {after} KiB",
        start.elapsed().as_secs_f64(),
        seen.requests,
        seen.bytes as f64 / 1e6,
        seen.connections,
        relay.lost() - lost_before,
        relay.frames(),
        seen.response.as_secs_f64(),
        seen.connection.as_secs_f64(),
    );
    ensure!(seen.response <= LONGEST && seen.connection <= LONGEST_TO_CONNECT, "a stall: {seen:?}");
    ensure!(late <= early * 1.02, "the image holds more and more memory: {held:?} KiB");
    ensure!(after <= before + before / 50, "QEMU's memory grew from {before} to {after} KiB");
    Ok(())
}

/// What an image holds when little is under way, in the second quarter of a run and in the last: the lowest tenth of the samples ends there. What is under
/// way comes and goes by hundreds of KiB; what is never given back lifts the floor.
fn floors(held: &[f64]) -> (f64, f64) {
    let quarter = held.len() / 4;
    let floor = |part: &[f64]| {
        let mut part = part.to_vec();
        part.sort_unstable_by(f64::total_cmp);
        part.get(part.len() / 10).copied().unwrap_or_default()
    };
    (floor(&held[quarter..2 * quarter]), floor(&held[held.len() - quarter..]))
}

/// What the pages are.
struct Pages {
    small: Vec<u8>,
    large: Vec<u8>,
}

fn page(path: &str) -> Result<Vec<u8>> {
    Ok(Http::connect((GUEST, 80).into())?.request("GET", path)?.body)
}

impl Pages {
    /// Asks for pages until `end`.
    fn ask(&self, end: Instant) -> Result<Seen> {
        let mut seen = Seen::default();
        while Instant::now() < end {
            let start = Instant::now();
            let mut http = Http::connect((GUEST, 80).into())?;
            seen.connection = seen.connection.max(start.elapsed());
            seen.connections += 1;
            for number in 1..=REQUESTS {
                let (path, page) = if number == REQUESTS { ("/large", &self.large) } else { ("/small", &self.small) };
                let start = Instant::now();
                let response = http.request("GET", path)?;
                ensure!(response.status == 200 && response.body == *page, "response {} differs", seen.requests);
                seen.response = seen.response.max(start.elapsed());
                seen.requests += 1;
                seen.bytes += page.len() as u64;
            }
        }
        Ok(seen)
    }
}

impl Seen {
    fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            connections: self.connections + other.connections,
            bytes: self.bytes + other.bytes,
            response: self.response.max(other.response),
            connection: self.connection.max(other.connection),
        }
    }
}

/// The KiB of the heap that the image said it held, in the order in which it did.
fn held(console: &str) -> Vec<f64> {
    console.lines().filter_map(|line| line.strip_prefix("memory: ")?.split(' ').next()?.parse().ok()).collect()
}

fn last_lines(guest: &Guest) -> String {
    let console = guest.console();
    let lines: Vec<&str> = console.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::floors;

    /// Samples of two thousand KiB, and up to eight times 64 KiB under way, with so much lost in the course of the run.
    fn samples(lost: f64) -> Vec<f64> {
        (0..600_u32).map(|number| 2000.0 + f64::from(number * 7919 % 97 % 9) * 64.0 + lost * f64::from(number) / 600.0).collect()
    }

    #[test]
    fn a_leak_lifts_the_floor_and_nothing_else_does() {
        let (early, late) = floors(&samples(0.0));
        assert!(late <= early * 1.02, "{early} {late}");
        let (early, late) = floors(&samples(100.0));
        assert!(late > early * 1.02, "{early} {late}");
    }
}
