//! Images under gdb, as docs/debugging.md shows it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use fogbow_tests::Skip;
use fogbow_tests::builder::{self, Place, Run};
use fogbow_tests::guest::Guest;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        super::trial("gdb_stops_in_the_application", Place::Virtio, on_virtio),
        super::trial("gdb_stops_in_the_application", Place::Spt, on_spt),
        super::trial("gdb_steps_through_the_first_instructions", Place::Hvt, on_hvt),
        super::trial("fault_double_is_stopped", Place::Virtio, double_fault),
    ]
}

/// Without optimisation, where every line has code of its own.
const BUILD: &[&str] = &["--debug"];

/// Runs gdb with these commands to its end, with the symbols of `image`.
fn gdb(target: &str, image: &str, place: Place, commands: &[&str]) -> Result<String> {
    let symbols = place.symbols(image, BUILD)?;
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "--batch", "-ex", &format!("target remote {target}"), "-ex", &format!("add-symbol-file {}", symbols.display())]);
    gdb.args(commands.iter().flat_map(|command| ["-ex", command])).current_dir(builder::root());
    let output = gdb.stdin(Stdio::null()).output().map_err(|error| Skip(format!("gdb: {error}; install gdb")))?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// A session that stops where hello prints its line.
const SESSION: [&str; 5] = ["hbreak examples/hello/src/lib.rs:14", "continue", "backtrace 2", "delete", "continue"];

fn shows_the_session(said: &str) -> Result<()> {
    for text in ["Breakpoint 1, ", "src/lib.rs:14", "fogbow::println!"] {
        ensure!(said.contains(text), "no {text:?} in what gdb said:\n{said}");
    }
    Ok(())
}

/// QEMU waits for gdb before its first instruction.
fn start_in_qemu(image: &str, arguments: &[&str]) -> Result<(tempfile::TempDir, String, Guest)> {
    let folder = tempfile::tempdir()?;
    let line = folder.path().join("gdb").display().to_string();
    let options = ["-gdb", &format!("unix:{line},server=on,wait=off"), "-S"];
    let guest = Place::Virtio.start(image, &Run { tender: &options, build: BUILD, arguments, ..Run::default() })?;
    while !std::path::Path::new(&line).exists() {
        std::thread::yield_now();
    }
    Ok((folder, line, guest))
}

fn on_virtio() -> Result<()> {
    let (_folder, line, guest) = start_in_qemu("hello", &[])?;
    shows_the_session(&gdb(&line, "hello", Place::Virtio, &SESSION)?)?;
    let ended = guest.ended()?;
    ensure!(ended.console == "Hello from Fogbow!\n", "{ended:?}");
    Ok(())
}

fn on_spt() -> Result<()> {
    if Command::new("gdbserver").arg("--version").output().is_err() {
        return Err(Skip("gdbserver is not installed (package gdbserver)".into()).into());
    }
    let (tender, image) = (builder::tender("spt")?, Place::Spt.symbols("hello", BUILD)?.with_extension(""));
    let target = format!("| gdbserver --once --no-startup-with-shell - {} --mem=16 {}", tender.display(), image.display());
    let said = gdb(&target, "hello", Place::Spt, &SESSION)?;
    ensure!(said.contains("exited normally"), "{said}");
    shows_the_session(&said)
}

/// In ring 0, which every KVM can debug; the nested machine has the rest.
fn on_hvt() -> Result<()> {
    let guest = Place::Hvt.start("hello", &Run { tender: &["--gdb=0"], build: BUILD, ..Run::default() })?;
    guest.wait_for("; the sandbox is off")?;
    let console = guest.console();
    let (_, rest) = console.split_once("target remote ").with_context(|| format!("no address in {console}"))?;
    let address = rest.split(';').next().unwrap_or_default();
    let said = gdb(address, "hello", Place::Hvt, &["info symbol $rip", "stepi 2", "info symbol $rip", "info registers cs", "continue"])?;
    for text in ["_start in section", "enter", "cs             0x8", "exited normally"] {
        ensure!(said.contains(text), "no {text:?} in what gdb said:\n{said}");
    }
    let ended = guest.ended()?;
    ensure!(ended.status == Some(0) && ended.console.ends_with("Hello from Fogbow!\n"), "{ended:?}");
    Ok(())
}

/// A page fault whose gate is gone: gdb removes it, once the image has its descriptors and is about to fault.
fn double_fault() -> Result<()> {
    let source = std::fs::read_to_string(builder::root().join("examples/faults/src/lib.rs"))?;
    let line = source.lines().position(|line| line.contains("trying to")).context("no place to stop at")? + 1;
    let (_folder, socket, guest) = start_in_qemu("faults", &["--fault=read-page-zero"])?;
    let place = format!("hbreak examples/faults/src/lib.rs:{line}");
    let remove = "python import re; table = int(re.search(r'IDT=\\s+(\\w+)', gdb.execute('monitor info registers', to_string=True)).group(1), 16); \
                  gdb.execute('set {unsigned long}%d = 0' % (table + 14 * 16))";
    let said = gdb(&socket, "faults", Place::Virtio, &[&place, "continue", "set language c", remove, "delete", "continue"])?;
    let ended = guest.ended()?;
    ensure!(ended.status == Some(255) && ended.console.contains("fault: double fault, "), "{ended:?}\n{said}");
    Ok(())
}
