//! Images in emulated virtual machines: figures per second of QEMU's processor time, since an emulated machine is as fast as its host lets it.
//!
//! The references are what others were measured at on such a machine: Hermit 0.13 and Unikraft 0.16 with nginx, under the same emulation.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fogbow_tests::Skip;
use fogbow_tests::builder::{self, Place, Run};
use fogbow_tests::measure::{Promise, Row, cpu_time, median};
use fogbow_tests::network::Namespace;

use crate::{Options, http, streams};

const BOOTS: usize = 20;
const ROUNDS: usize = 3;

/// How long an idle image is watched.
const IDLE: Duration = Duration::from_secs(20);

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    if Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Err(Skip("wrk is not installed (apt-get install wrk)".into()).into());
    }
    let mut rows = vec![first_line()?];
    let namespace = Namespace::new()?;
    let guest = Place::Virtio.start("http", &Run { namespace: Some(&namespace), memory: 8, ..Run::default() })?;
    let loads = (0..ROUNDS).map(|_| http::requests_per_cpu_second(&namespace, guest.id())).collect::<Result<_>>()?;
    rows.push(row("http in 8 MiB, wrk -t1 -c50, requests per CPU-second", median(loads), (6200.0, "Hermit, stated")));
    let before = cpu_time(guest.id())?;
    std::thread::sleep(IDLE);
    let used = (cpu_time(guest.id())? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    rows.push(Row { what: "virtio: http idle, % of a processor".into(), ours: used, reference: None, promise: Some(Promise::AtMost(1.0)) });
    drop(guest);
    for (port, direction, reference) in
        [(streams::SINK, "in", (230.0, "Hermit, stated")), (streams::SOURCE, "out", (66.0, "Unikraft, stated"))]
    {
        let rates = (0..ROUNDS).map(|_| Ok(streams::of_image(port, Place::Virtio)?.1 * 1000.0 / 8.0)).collect::<Result<_>>()?;
        rows.push(row(&format!("one TCP stream {direction}, MB per CPU-second"), median(rates), reference));
    }
    Ok(rows)
}

fn row(what: &str, ours: f64, (reference, name): (f64, &str)) -> Row {
    Row { what: format!("virtio: {what}"), ours, reference: Some((reference, name.into())), promise: Some(Promise::RatioAtLeast(1.0)) }
}

/// From exec to the first byte on the serial port: hello, less an empty kernel, in turn.
fn first_line() -> Result<Row> {
    let directory = tempfile::tempdir()?;
    let empty = directory.path().join("empty");
    std::fs::write(&empty, empty_kernel())?;
    let hello = Place::Virtio.image("hello")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        ours.push(first_byte(&hello)?);
        theirs.push(first_byte(&empty)?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("virtio: QEMU's exec to the first byte, ms: hello {ours:.1}, an empty kernel {theirs:.1}");
    Ok(Row {
        what: "virtio: hello, exec to first line less an empty kernel's, ms".into(),
        ours: ours - theirs,
        reference: Some((120.0, "Hermit, Unikraft over firmware, stated".into())),
        promise: Some(Promise::AtMost(60.0)),
    })
}

/// The milliseconds from exec to the first byte that a kernel prints.
fn first_byte(kernel: &Path) -> Result<f64> {
    let mut command = builder::qemu(&Run::default())?;
    command.arg("-kernel").arg(kernel).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut output = child.stdout.take().context("no standard output")?;
    let length = output.read(&mut [0; 64])?;
    let time = start.elapsed().as_secs_f64() * 1e3;
    output.read_to_end(&mut Vec::new())?;
    child.wait()?;
    ensure!(length > 0, "{} printed nothing", kernel.display());
    Ok(time)
}

/// A kernel that is started by PVH, writes a byte to the serial port, and ends QEMU: the ELF header, a segment to load and a note, and 11 bytes of code.
fn empty_kernel() -> Vec<u8> {
    const LOAD: u64 = 0x10_0000;
    const NOTE: u64 = 64 + 2 * 56;
    const CODE: u64 = NOTE + 24;
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |number: u64, size: usize| bytes.extend_from_slice(&number.to_le_bytes()[..size]);
    // Executable, x86-64, version 1, entry, program headers, no sections, flags, sizes and counts.
    for (number, size) in
        [(2, 2), (62, 2), (1, 4), (LOAD + CODE, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (2, 2), (64, 2), (0, 2), (0, 2)]
    {
        put(number, size);
    }
    // A segment, and a note in it: kind, flags, offset, addresses, sizes, alignment.
    for (kind, offset, length) in [(1, 0, CODE + 16), (4, NOTE, 20)] {
        for (number, size) in [(kind, 4), (7, 4), (offset, 8), (LOAD + offset, 8), (LOAD + offset, 8), (length, 8), (length, 8), (4, 8)] {
            put(number, size);
        }
    }
    // The note that names the entry in 32-bit mode: XEN_ELFNOTE_PHYS32_ENTRY.
    for (number, size) in [(4, 4), (4, 4), (18, 4), (u64::from(u32::from_le_bytes(*b"Xen\0")), 4), (LOAD + CODE, 4), (0, 4)] {
        put(number, size);
    }
    // mov dx, 0x3f8; mov al, 'x'; out dx, al; mov dx, 0xf4; out dx, al; hlt
    bytes.extend([0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0x66, 0xba, 0xf4, 0x00, 0xee, 0xf4, 0, 0, 0]);
    bytes
}
