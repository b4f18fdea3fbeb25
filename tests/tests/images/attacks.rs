//! A hostile host on the same tap: honest clients, one connected before and new ones, go on being served, and memory stays within its limit.
//!
//! The same attacks on the stack alone, under a virtual clock and with tight bounds, are in `fogbow_net::direct`'s tests.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fogbow_tests::attacker::{Attacker, Segment};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::client::{self, Http};
use fogbow_tests::guest::Guest;
use fogbow_tests::measure::resident;
use fogbow_tests::network::{GUEST, Namespace, TAP};
use libtest_mimic::Trial;
use smoltcp::wire::TcpControl;

use crate::echo::with_console;

const PORT: u16 = 80;
/// What connections may use together, in bytes, which makes 195 connections at most; and what else may come into use in KiB: tables of what is half there, and the application's tasks.
const LIMIT: usize = 4_000_000;
const BESIDE: u64 = 4096;
/// Connections of an attacker: more than there may be in all.
const MANY: u16 = 400;
/// How long an honest client may wait. On a quiet machine it is a millisecond; tests share theirs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the attacker's hosts are, on the tap's network and elsewhere.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);

type Attack = fn(&mut Scene<'_>) -> Result<()>;

const ATTACKS: [(&str, Attack); 12] = [
    ("attack_by_a_flood_of_requests", requests),
    ("attack_by_connections_that_say_nothing", silence),
    ("attack_by_slow_requests", slow_requests),
    ("attack_by_storms_of_resets_and_ends", resets_and_ends),
    ("attack_by_connections_that_come_and_go", churn),
    ("attack_by_windows_that_close", closed_windows),
    ("attack_by_peers_that_vanish", vanishing),
    ("attack_by_floods_of_addresses", addresses),
    ("attack_beside_a_host_that_changes_its_address", changed_address),
    ("attack_by_fragments", fragments),
    ("attack_by_wrong_checksums", wrong_checksums),
    ("attack_by_every_port_there_is", every_port),
];

pub(crate) fn trials() -> Vec<Trial> {
    ATTACKS.into_iter().map(|(name, attack)| super::trial(name, Place::Spt, move || run(attack))).collect()
}

struct Scene<'a> {
    attacker: Attacker,
    kept: Http,
    guest: &'a Guest,
    /// The guest's memory before the attack, and what may come to it, in KiB.
    before: u64,
    allowed: u64,
    page: Vec<u8>,
}

fn run(attack: Attack) -> Result<()> {
    let namespace = Namespace::new()?;
    let limit = format!("--tcp-memory={LIMIT}");
    // Room for many neighbours: the network is wider than the namespace's part of it.
    let arguments = ["--ipv4=10.0.0.2/8", &limit];
    let guest = Place::Spt.start("http", &Run { namespace: Some(&namespace), arguments: &arguments, ..Run::default() })?;
    let attacked = namespace.run(|| {
        let mut kept = Http::connect(at())?;
        let page = kept.request("GET", "/")?.body;
        let mut scene = Scene {
            attacker: Attacker::new()?,
            kept,
            guest: &guest,
            before: resident(guest.id())?,
            allowed: LIMIT as u64 / 1024 + BESIDE,
            page,
        };
        scene.attacker.claim(STRANGER)?;
        scene.check().context("before the attack")?;
        attack(&mut scene)?;
        scene.check().context("after the attack")
    });
    attacked.map_err(|error| with_console(error, &guest))
}

fn at() -> SocketAddr {
    (GUEST, PORT).into()
}

impl Scene<'_> {
    /// The connection that was there and a new one are served.
    fn check(&mut self) -> Result<()> {
        let begun = Instant::now();
        ensure!(self.kept.request("GET", "/").context("the connection that was there")?.body == self.page);
        let mut new = Http::connect(at()).context("a new connection")?;
        ensure!(new.request("GET", "/").context("a new connection")?.body == self.page);
        ensure!(begun.elapsed() < PATIENCE, "served after {:?}", begun.elapsed());
        let gained = resident(self.guest.id())?.saturating_sub(self.before);
        ensure!(gained <= self.allowed, "{gained} KiB gained");
        Ok(())
    }

    /// Sends so many frames, each made from its number, and looks after honest clients between.
    fn send(&mut self, count: u32, mut make: impl FnMut(&mut Attacker, u32) -> Vec<u8>) -> Result<()> {
        for number in 0..count {
            let frame = make(&mut self.attacker, number);
            self.attacker.send(&frame)?;
            if number % (count / 8) == 0 {
                self.check().with_context(|| format!("after {number} frames"))?;
            }
        }
        Ok(())
    }
}

/// Any host but the honest one.
fn anyone(attacker: &mut Attacker) -> (Ipv4Addr, u16) {
    let number = attacker.random();
    (Ipv4Addr::from_bits(0x0b00_0000 | number as u32 & 0x00ff_ffff), (number >> 32) as u16 | 1)
}

fn any_segment(attacker: &mut Attacker, control: TcpControl) -> Segment {
    let (from, number) = (anyone(attacker), attacker.random());
    Segment { from, port: PORT, control, sequence: number as u32, acknowledges: Some((number >> 32) as u32), window: 1000 }
}

fn requests(scene: &mut Scene<'_>) -> Result<()> {
    scene.send(20_000, |attacker, number| {
        let segment = any_segment(attacker, TcpControl::Syn);
        // Half of them from a neighbour whose hardware address is known, which is answered at once.
        let from = if number % 2 == 0 { (STRANGER, number as u16 | 1) } else { segment.from };
        attacker.segment(&Segment { from, acknowledges: None, ..segment }, &[])
    })
}

fn silence(scene: &mut Scene<'_>) -> Result<()> {
    for number in 0..MANY {
        scene.attacker.connect((STRANGER, 10_000 + number), PORT)?;
        if number % 50 == 0 {
            scene.check().with_context(|| format!("after {number}"))?;
        }
    }
    Ok(())
}

/// Slowloris: requests that never come to an end.
fn slow_requests(scene: &mut Scene<'_>) -> Result<()> {
    let mut slow: Vec<TcpStream> = Vec::new();
    for number in 0..MANY {
        let begun = Instant::now();
        slow.push(client::connect(at())?);
        ensure!(begun.elapsed() < PATIENCE, "connection {number} was made after {:?}", begun.elapsed());
        slow[usize::from(number)].write_all(b"G")?;
        if number % 50 == 0 {
            scene.check().with_context(|| format!("after {number}"))?;
        }
    }
    for piece in ["ET / HT", "TP/1.1\r\n", "Host: x\r\n", "X-a: b\r\n"] {
        // The server may have given up some of them.
        slow.iter_mut().for_each(|stream| drop(stream.write_all(piece.as_bytes())));
        scene.check()?;
    }
    Ok(())
}

fn resets_and_ends(scene: &mut Scene<'_>) -> Result<()> {
    let local = scene.kept.handle()?.local_addr()?;
    scene.send(20_000, |attacker, number| {
        let control = if number % 2 == 0 { TcpControl::Rst } else { TcpControl::Fin };
        let segment = any_segment(attacker, control);
        // Every fourth in the name of the honest connection, without knowing its sequence numbers.
        let from = if number % 4 < 2 { (Ipv4Addr::new(10, 0, 0, 1), local.port()) } else { segment.from };
        attacker.segment(&Segment { from, ..segment }, &[])
    })
}

fn churn(scene: &mut Scene<'_>) -> Result<()> {
    for number in 0..2000 {
        let stream = client::connect(at())?;
        if number % 3 == 0 {
            // Ends with a reset, as bytes are left unread.
            (&stream).write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        }
        drop(stream);
        if number % 250 == 0 {
            scene.check()?;
        }
    }
    Ok(())
}

fn closed_windows(scene: &mut Scene<'_>) -> Result<()> {
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for number in 0..MANY {
        let from = (STRANGER, 20_000 + number);
        let next = scene.attacker.connect(from, PORT)?;
        let segment = Segment { from, port: PORT, control: TcpControl::None, sequence: 1001, acknowledges: Some(next), window: 0 };
        let frame = scene.attacker.segment(&segment, request);
        scene.attacker.send(&frame)?;
        if number % 50 == 0 {
            scene.check().with_context(|| format!("after {number}"))?;
        }
    }
    scene.check()?;
    // Honest ones may close theirs too: what was asked for is there when they read at last.
    let mut late = client::connect(at())?;
    // So that Linux cannot take all the answers, which have half a million bytes, before they are read.
    rustix::net::sockopt::set_socket_recv_buffer_size(&late, 8192)?;
    let requests = request.repeat(400);
    late.write_all(&requests)?;
    scene.check()?;
    late.shutdown(std::net::Shutdown::Write)?;
    let (mut all, mut chunk, begun) = (Vec::new(), vec![0; 65_536], Instant::now());
    loop {
        match late.read(&mut chunk)? {
            0 => break,
            length => all.extend_from_slice(&chunk[..length]),
        }
        // A window that is only probed lets a byte through now and then.
        ensure!(begun.elapsed() < 6 * PATIENCE, "{} bytes came in {:?}", all.len(), begun.elapsed());
    }
    let answers = all.windows(15).filter(|window| window.starts_with(b"HTTP/1.1 200 OK")).count();
    ensure!(answers == 400, "{answers} of 400 answers came after the window had opened again");
    Ok(())
}

fn vanishing(scene: &mut Scene<'_>) -> Result<()> {
    for number in 0..MANY {
        let from = (Ipv4Addr::from_bits(0x0a00_0100 + u32::from(number)), 30_000);
        scene.attacker.claim(from.0)?;
        let next = scene.attacker.connect(from, PORT)?;
        let segment = Segment { from, port: PORT, control: TcpControl::None, sequence: 1001, acknowledges: Some(next), window: 60_000 };
        let frame = scene.attacker.segment(&segment, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        // It never acknowledges the answer.
        scene.attacker.send(&frame)?;
        if number % 50 == 0 {
            scene.check().with_context(|| format!("after {number}"))?;
        }
    }
    Ok(())
}

fn addresses(scene: &mut Scene<'_>) -> Result<()> {
    // Connections take nothing here; the table of neighbours a quarter of this.
    scene.allowed = 1536;
    for number in 0..100_000_u32 {
        // Ever new addresses, of which there is room for a few thousand, and the same ones with ever new claims.
        let stranger = if number % 5 == 0 { number % 250 } else { number };
        scene.attacker.claim(Ipv4Addr::from_bits(0x0a00_0003 + stranger))?;
        if number % 10_000 == 0 {
            scene.check().with_context(|| format!("after {number} claims"))?;
        }
    }
    Ok(())
}

/// The honest host gets another hardware address while strangers claim theirs anew.
fn changed_address(scene: &mut Scene<'_>) -> Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{TAP}/arp_notify"), "1").context("having the host announce its address")?;
    for last in 1..=8 {
        let hardware = format!("02:00:00:00:77:{last:02x}");
        let status = Command::new("ip").args(["link", "set", TAP, "address", &hardware]).status()?;
        ensure!(status.success(), "changing the address of {TAP}");
        for _ in 0..100 {
            scene.attacker.claim(STRANGER)?;
        }
        scene.check().with_context(|| format!("as {hardware}"))?;
    }
    Ok(())
}

fn fragments(scene: &mut Scene<'_>) -> Result<()> {
    scene.send(20_000, |attacker, number| {
        let control = [TcpControl::Syn, TcpControl::None][number as usize / 3 % 2];
        let acknowledges = (control == TcpControl::None).then_some(number);
        let from = (STRANGER, number as u16 % 1000 + 1);
        let segment = Segment { from, port: PORT, control, sequence: number, acknowledges, window: 1000 };
        let mut frame = attacker.segment(&segment, &[7; 1000]);
        // First, middle and last fragments (RFC 791: flags and offset), each with the right sum.
        let field: u16 = [0x2000, 0x2000 | (number % 8000) as u16, (number % 8000 + 1) as u16][number as usize % 3];
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        frame[24..26].fill(0);
        let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    })?;
    unanswered(scene)
}

/// None of what was sent in the name of the stranger from its lower ports was answered.
fn unanswered(scene: &mut Scene<'_>) -> Result<()> {
    let answered = scene.attacker.answered(STRANGER, 50_000, PORT)?;
    ensure!(answered.is_empty(), "{} answers, the first to port {}", answered.len(), answered[0]);
    Ok(())
}

fn wrong_checksums(scene: &mut Scene<'_>) -> Result<()> {
    scene.send(20_000, |attacker, number| {
        let control = [TcpControl::Syn, TcpControl::None][number as usize / 3 % 2];
        let acknowledges = (control == TcpControl::None).then_some(number);
        let from = (STRANGER, number as u16 % 1000 + 1);
        let mut frame = attacker.segment(&Segment { from, port: PORT, control, sequence: number, acknowledges, window: 1000 }, b"payload");
        let place = [24, 50, 54 + number as usize % 7][number as usize % 3];
        frame[place] ^= 1 << (number % 8);
        frame
    })?;
    unanswered(scene)
}

/// A request from each port of a host, and so more connections than there are ports at either end alone.
fn every_port(scene: &mut Scene<'_>) -> Result<()> {
    scene.send(131_070, |attacker, number| {
        let port = (number % 65_535 + 1) as u16;
        let control = if number < 65_535 { TcpControl::Syn } else { TcpControl::Rst };
        let segment = Segment { from: (STRANGER, port), port: PORT, control, sequence: 1, acknowledges: None, window: 1000 };
        attacker.segment(&segment, &[])
    })?;
    // Each can be used again.
    for port in (1..=65_535).step_by(500) {
        scene.attacker.connect((STRANGER, port), PORT).with_context(|| format!("from port {port}"))?;
    }
    Ok(())
}
