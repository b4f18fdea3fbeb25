//! Runs spt images: as code in this very process, under a seccomp filter that leaves the guest almost nothing of the host.
//!
//! The command line, the checks on the image, the devices, and the message of a guest's fault are the library's, `fogbow_tender`. What is particular to spt is here:
//!
//! | module | what it does |
//! |---|---|
//! | [`memory`] | maps the guest's memory at the guest's own addresses, and gives segments their rights |
//! | [`events`] | the epoll set and the timer that a guest waits with |
//! | [`sandbox`] | closes every descriptor that is not the guest's, then forbids every system call that is not |
//! | [`launch`] | the boot information, and the jump |
//!
//! The interface is Solo5 0.12.1's (`spt_abi.h`, ABI version 2); its own guests run here, and images made for this tender run under Solo5's.
//!
//! # Exit status
//! What the guest ends with; 255 when it faults (Solo5's tender dies of the signal instead, which a shell shows as 139); killed by
//! SIGSYS (159 in a shell) when it makes a system call it may not; 1 when it could not be started, with one line that says why.
//!
//! # Start-up
//! From exec to the exit of a small guest most of the time is the dynamic loader's. Linked statically the tender needs a third less:
//! `cargo rustc --release -p fogbow-spt-tender --bin fogbow-spt-tender -- -C target-feature=+crt-static`.
//!
//! # Limits
//! x86-64 Linux, vm.mmap_min_addr at most 65536. A guest's own memory rights are fixed at start: it cannot ask for others. The guest
//! shares its address space with what remains of this process; the boundary is the system call, not the address.

#![no_main]

use core::convert::Infallible;
use core::ffi::{c_char, c_int};
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use fogbow_tender::attach::{self, AttachError};
use fogbow_tender::boot::BootError;
use fogbow_tender::console;
use fogbow_tender::elf::{Abi, Image, ImageError, Target};
use fogbow_tender::fault;
use fogbow_tender::options::CommandLine;
use fogbow_tender::program::Program;

mod events;
mod launch;
mod memory;
mod sandbox;

use events::EventError;
use launch::Start;
use memory::MemoryError;
use sandbox::{Sandbox, SandboxError};

/// `SPT_ABI_VERSION` of `spt_abi.h`.
const ABI_VERSION: u32 = 2;

const PROGRAM: Program =
    Program { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), abi: "ABI version 2", further_options: "" };

/// The C library's `main`, not Rust's: the Rust runtime's preparations (a signal stack, its guard page found by reading /proc, handlers for
/// memory faults, SIGPIPE ignored) cost more than all that a tender does, and a guest would have to be rid of them again.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    become_user_network();
    let command_line = match PROGRAM.read(std::env::args_os().skip(1)) {
        Ok(command_line) => command_line,
        Err(status) => return status,
    };
    match run(&command_line) {
        Ok(never) => match never {},
        Err(error) => PROGRAM.fail(&error),
    }
}

/// Why a guest cannot be started.
#[derive(Debug, thiserror::Error)]
enum TenderError {
    #[error("{}: Could not open: {source}; give the path of a built image", .image.display())]
    Open { image: PathBuf, source: io::Error },
    #[error("{}: {source}", .image.display())]
    Image { image: PathBuf, source: ImageError },
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Events(#[from] EventError),
    #[error("--gdb: an spt image is a process, which gdbserver debugs: gdbserver 127.0.0.1:{0} fogbow-spt-tender IMAGE")]
    Gdb(u16),
    #[error("cannot catch the guest's faults: {0}")]
    Fault(io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// Becomes the guest, or says why not.
fn run(command_line: &CommandLine) -> Result<Infallible, TenderError> {
    let (start, sandbox) = prepare(command_line)?;
    sandbox::confine(&sandbox)?;
    start.enter()
}

/// Everything up to the guest's first instruction but the sandbox's last step.
fn prepare(command_line: &CommandLine) -> Result<(Start, Sandbox), TenderError> {
    if let Some(port) = command_line.gdb {
        return Err(TenderError::Gdb(port));
    }
    let path: &Path = &command_line.image;
    let image_error = |source| TenderError::Image { image: path.to_owned(), source };
    let file = File::open(path).map_err(|source| TenderError::Open { image: path.to_owned(), source })?;
    let image = Image::read(&file).map_err(image_error)?;
    image.require(Abi { target: Target::Spt, version: ABI_VERSION }).map_err(image_error)?;
    let manifest = image.manifest().map_err(image_error)?.on_terminal(io::stdout().is_terminal());
    let devices = attach::attach(command_line, &manifest)?;
    if manifest.takes_console() {
        // What cannot be opened so is written to as it is.
        let _ = console::open_without_waiting();
    }
    PROGRAM.say_forwards(&devices);

    let mut memory = memory::map(command_line.memory_size)?;
    let layout = image.load(&mut memory).map_err(image_error)?;
    memory::protect(&layout.segments)?;
    drop(file);

    let events = events::create(&devices)?;
    let start = launch::place(&mut memory, &layout, &manifest, &devices, &events, &command_line.arguments)?;
    fault::install(PROGRAM.name, fault::stack_guard(&layout.segments)).map_err(TenderError::Fault)?;
    let sandbox = sandbox::prepare(devices, events)?;
    Ok((start, sandbox))
}

/// Becomes the user-mode network's process, if this is the one started for that.
///
/// The network wants SIGPIPE ignored, as Rust programs have it; a guest keeps what this process was started with.
fn become_user_network() {
    // SAFETY: ignoring a signal runs no code of this process.
    let inherited = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    fogbow_tender::net::main_if_child();
    if inherited != libc::SIG_ERR {
        // SAFETY: the action is the one found above, of a process that has set no handler yet: to ignore, or the default.
        unsafe { libc::signal(libc::SIGPIPE, inherited) };
    }
}
