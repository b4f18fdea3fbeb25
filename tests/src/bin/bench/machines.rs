//! From QEMU's exec to the application's first line on virtio, over that of an empty kernel: the smallest image that PVH starts and that prints a
//! character. What is left is the image's own time, loading it included.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::Place;
use fogbow_tests::measure::{Promise, Row, median};

const ROUNDS: usize = 20;

pub(crate) fn rows(_options: &crate::Options) -> Result<Vec<Row>> {
    let empty = tempfile::NamedTempFile::new()?;
    std::fs::write(empty.path(), empty_kernel())?;
    let hello = Place::Virtio.image("hello")?;
    ["q35", "microvm"].into_iter().map(|machine| row(machine, &hello, empty.path())).collect()
}

/// Ours and the empty kernel in turn.
fn row(machine: &str, hello: &Path, empty: &Path) -> Result<Row> {
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        reference.push(first_output(machine, empty, ".")?);
        ours.push(first_output(machine, hello, "Hello from Fogbow!")?);
    }
    let (ours, reference) = (median(ours), median(reference));
    Ok(Row {
        what: format!("virtio on {machine}: hello's first line after an empty kernel's, ms"),
        ours: ours - reference,
        reference: Some((reference, "empty kernel, from exec".into())),
        promise: Some(Promise::AtMost(60.0)),
    })
}

/// Runs an image to its end and gives the milliseconds from exec to `text` on the console.
fn first_output(machine: &str, image: &Path, text: &str) -> Result<f64> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", machine, "-accel", "tcg", "-cpu", "max", "-m", "64", "-nodefaults", "-no-user-config", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-kernel"]).arg(image);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().context("starting QEMU (package qemu-system-x86)")?;
    let mut output = child.stdout.take().context("no standard output")?;
    let (mut printed, mut buffer) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&printed).contains(text) {
        let length = output.read(&mut buffer)?;
        ensure!(length > 0, "{} did not print {text:?} on {machine}", image.display());
        printed.extend_from_slice(&buffer[..length]);
    }
    let time = start.elapsed().as_secs_f64() * 1e3;
    output.read_to_end(&mut printed)?;
    child.wait()?;
    Ok(time)
}

/// An ELF file of one segment, at 1 MiB, that is entered by PVH, prints a dot on the serial port, and ends QEMU.
fn empty_kernel() -> Vec<u8> {
    const AT: u32 = 0x10_0000;
    const HEADERS: u32 = 64 + 2 * 56;
    // `XEN_ELFNOTE_PHYS32_ENTRY`: sizes of name and description, type, name, description.
    let code_at = HEADERS + 24;
    let note = [4_u32, 8, 18, u32::from_le_bytes(*b"Xen\0"), AT + code_at, 0].map(u32::to_le_bytes).concat();
    let code = [
        &[0xba, 0xf8, 0x03, 0, 0, 0xb0, b'.', 0xee][..], // mov edx, 0x3f8; mov al, '.'; out dx, al
        &[0xba, 0xf4, 0, 0, 0, 0x30, 0xc0, 0xee],        // mov edx, 0xf4; xor al, al; out dx, al
        &[0xf4, 0xeb, 0xfd],                             // hlt; jmp
    ]
    .concat();
    let size = u64::from(code_at) + code.len() as u64;
    let header = |kind: u32, flags: u32, offset: u32, size: u64, align: u64| {
        let address = u64::from(AT + offset);
        let words = [offset.into(), address, address, size, size, align].map(u64::to_le_bytes).concat();
        [&kind.to_le_bytes()[..], &flags.to_le_bytes(), &words].concat()
    };
    // 64 bits, little-endian; an executable for x86-64.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    file.extend([u64::from(AT + code_at), 64, 0].map(u64::to_le_bytes).concat());
    file.extend([0_u8, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(header(1, 7, 0, size, 0x1000));
    file.extend(header(4, 4, HEADERS, 24, 4));
    file.extend([note, code].concat());
    file
}
