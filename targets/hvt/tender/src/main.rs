//! `fogbow-hvt-tender`: runs an hvt image in a KVM virtual machine of its own.
//!
//! It takes the command line of Solo5's `solo5-hvt`, offers images the same ABI (version 2 of `hvt_abi.h`, Solo5 0.12.1, with the
//! network ring), and ends with the guest's own status; with status 1 and one line on standard error if the guest cannot be run or
//! has to be stopped.
//!
//! # Principles
//! - The guest is hostile: what it writes is copied, checked, then used ([`memory`], [`hypercall`], [`ring`]).
//! - What the tender needs of the host it takes before the guest runs; then each thread keeps only the system calls it goes on using
//!   ([`sandbox`]).
//! - It allocates nothing and makes one system call for each frame or block.
//!
//! # Limits
//! Linux with KVM on x86-64; one processor, at most 4 GiB. No core dumps.

mod boot;
mod cpu;
mod devices;
mod end;
mod gdb;
mod hypercall;
mod memory;
mod ring;
mod sandbox;
mod vm;
mod worker;

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd};
use std::thread::available_parallelism;

use fogbow_tender::attach::{AttachError, Attached, attach};
use fogbow_tender::console;
use fogbow_tender::elf::{Abi, Image, ImageError, Target};
use fogbow_tender::manifest::DeviceKind;
use fogbow_tender::options::CommandLine;
use fogbow_tender::program::Program;
use rustix::thread::set_current_timer_slack;
use vmm_sys_util::eventfd::EventFd;

use crate::boot::{LoadError, MemorySize};
use crate::devices::{Device, Devices};
use crate::hypercall::Hypercalls;
use crate::memory::{GuestMemory, PointerError};
use crate::ring::Consumer;
use crate::sandbox::{Filter, SandboxError};
use crate::vm::{Guest, Machine, MachineError};
use crate::worker::{Worker, WorkerError};

/// `HVT_ABI_VERSION`.
const ABI: Abi = Abi { target: Target::Hvt, version: 2 };

const PROGRAM: Program =
    Program { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), abi: "ABI version 2", further_options: "" };

fn main() {
    fogbow_tender::net::main_if_child();
    let command_line = PROGRAM.read(std::env::args_os().skip(1)).unwrap_or_else(|status| end::now(status));
    let Err(error) = run(&command_line);
    end::with_error(&error)
}

/// Why an image was not run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
    #[error("{image}: Could not open: {source}; give the path of a built image")]
    Open { image: String, source: io::Error },
    #[error("{image}: {source}")]
    Image { image: String, source: ImageError },
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("Error allocating guest memory: {0}; give the guest less with --mem")]
    Memory(io::Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("the network ring: {0}")]
    Ring(#[from] PointerError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Debug(#[from] gdb::DebugError),
}

/// Runs the image that the command line names. The process ends with the guest, so only errors from before come back.
fn run(command_line: &CommandLine) -> Result<Infallible, RunError> {
    end::on_signals().map_err(RunError::Signals)?;
    let name = || command_line.image.display().to_string();
    let in_image = |source| RunError::Image { image: name(), source };
    let file = File::open(&command_line.image).map_err(|source| RunError::Open { image: name(), source })?;
    let image = Image::read(&file).map_err(in_image)?;
    image.require(ABI).map_err(in_image)?;
    let manifest = image.manifest().map_err(in_image)?.on_terminal(io::stdout().is_terminal());
    let attached = attach(command_line, &manifest)?;
    if manifest.takes_console() {
        // What cannot be opened so is written to as it is.
        let _ = console::open_without_waiting();
    }
    for forward in attached.iter().flat_map(|device| &device.forwards) {
        eprintln!("fogbow-hvt-tender: forwarding {} {} to the guest's port {}", forward.protocol, forward.host, forward.guest_port);
    }

    let machine = Machine::new()?;
    let kick = manifest.devices().iter().any(|device| device.kind == DeviceKind::Net).then(|| connect_ring(&machine)).flatten();
    let size = MemorySize::new(command_line.memory_size, kick.is_some())?;
    if size.guest != command_line.memory_size {
        eprintln!("fogbow-hvt-tender: adjusting memory to {} bytes", size.guest);
    }
    let mut memory = GuestMemory::new(size.mapped, size.guest).map_err(RunError::Memory)?;
    let layout = boot::load(&mut memory, &image)?;
    let entries: Vec<_> = attached.iter().map(Attached::without_descriptor).collect();
    let manifest_bytes = manifest.emit_attached(&entries);
    let frequency = machine.cycle_frequency();
    boot::write_boot_info(&mut memory, layout.end, frequency, &manifest_bytes, &command_line.arguments, size.ring())?;
    boot::protect(&mut memory, &layout)?;

    // For the rest of the process's life, which both threads share.
    let memory: &'static GuestMemory = Box::leak(Box::new(memory));
    let devices = manifest.devices().iter().zip(attached).map(|(declared, attached)| Device::new(declared, attached));
    let devices: &'static Devices = Box::leak(Box::new(Devices::new(devices.collect())));
    let guest = machine.with_memory(memory, layout.entry)?;
    drop(file);
    confine_and_run(guest, memory, devices, kick.zip(size.ring()), command_line.gdb)
}

/// Starts the network ring's thread if there is a ring, closes the sandbox, runs the guest, and ends as it ended.
fn confine_and_run(
    mut guest: Guest<'_>,
    memory: &'static GuestMemory,
    devices: &'static Devices,
    ring: Option<(EventFd, u64)>,
    gdb: Option<u16>,
) -> Result<Infallible, RunError> {
    let stdout = io::stdout();
    let mut hypercalls = Hypercalls::new(memory, devices, stdout.as_fd());
    let filter = Filter::for_processor(guest.processor(), devices, ring.as_ref().map(|(kick, _)| kick.as_raw_fd()))?;
    let start = |(kick, address): (EventFd, u64)| -> Result<Worker, RunError> {
        let ring = Consumer::new(memory, address)?;
        let filter = Filter::for_ring(devices, kick.as_raw_fd())?;
        Ok(Worker::start(ring, devices, kick, filter, end::with_error)?)
    };
    let worker = ring.map(start).transpose()?;
    // A guest asks for deadlines in nanoseconds; the kernel's usual slack is 50 microseconds. Not worth failing for.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    end::reserve_for_messages();
    if let Some(port) = gdb {
        end::now(gdb::run(guest, hypercalls, port)?);
    }
    filter.confine_this_thread()?;
    // No way back from here: what returning would drop takes system calls that are no longer allowed.
    match guest.run(&mut hypercalls) {
        Ok(status) => {
            if let Some(worker) = worker {
                worker.finish();
            }
            end::now(status)
        }
        Err(stop) => end::with_error(&stop),
    }
}

/// Has KVM signal the network ring's kicks, if a ring is of use here: `None` leaves the guest to hypercalls.
fn connect_ring(machine: &Machine) -> Option<EventFd> {
    // A guest that waits for the ring spins. With one processor between it and the ring's thread, hypercalls are faster.
    if available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        return None;
    }
    let kick = EventFd::new(libc::EFD_CLOEXEC).ok()?;
    machine.connect_kick(&kick).ok()?;
    Some(kick)
}
