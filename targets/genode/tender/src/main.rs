//! Runs genode images as a Linux process: in the place of Genode's dynamic linker ([`memory`]) and of `solo5.lib.so` ([`library`]).
//!
//! For development and tests. What Genode's linker refuses is refused, and what the library leaves undefined ends the image with a message. Sessions are the
//! host's: LOG is standard output, Nic a tap or the user-mode network, Block a file. The command line is that of the other tenders.
//!
//! # Exit status
//! The image's exit value; 255 when it faults or calls the library in a way that is undefined; 1 when it could not be started.
//!
//! # Limits
//! x86-64 Linux. Nothing is sandboxed: what the user may do, an image may do.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use fogbow_genode_tender::{Image, ImageError};
use fogbow_tender::attach::{self, AttachError};
use fogbow_tender::boot::{self, BootError};
use fogbow_tender::fault;
use fogbow_tender::options::{ABORT_STATUS, CommandLine, OptionsError};
use fogbow_tender::program::Program;

mod library;
mod memory;

use library::{Library, StartInfo};
use memory::MemoryError;

const PROGRAM: Program =
    Program { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), abi: "Solo5 0.6's library", further_options: "" };
/// Bytes of the stack that an image has: `Component::stack_size` of `bindings/genode`.
const STACK: usize = 512 * 1024;
/// Bytes of the image's memory that are not its heap: `Component::construct` of `bindings/genode`.
const RESERVED: u64 = 512 * 1024;

/// Bytes that a command line may have, its terminator included: `Platform::Cmdline` of `bindings/genode`, which cuts a longer one.
const COMMAND_LINE_SIZE: usize = 1024;

/// Why an image cannot be started.
#[derive(Debug, thiserror::Error)]
enum TenderError {
    #[error("{}: Could not open: {source}; give the path of a built image", .image.display())]
    Open { image: PathBuf, source: io::Error },
    #[error("{}: {source}", .image.display())]
    Image { image: PathBuf, source: ImageError },
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    CommandLine(#[from] BootError),
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("cannot wait for the image's network devices: {0}")]
    Events(io::Error),
    #[error("cannot start the image's thread: {0}")]
    Thread(io::Error),
}

fn main() -> ExitCode {
    fogbow_tender::net::main_if_child();
    let command_line = match PROGRAM.read(std::env::args_os().skip(1)) {
        Ok(command_line) => command_line,
        Err(status) => return ExitCode::from(status as u8),
    };
    match run(&command_line) {
        Ok(status) => ExitCode::from(status),
        Err(error) => ExitCode::from(PROGRAM.fail(&error) as u8),
    }
}

/// Runs the image and gives its exit value, as a status.
fn run(command_line: &CommandLine) -> Result<u8, TenderError> {
    command_line.require_no_debugger()?;
    let line = boot::command_line(&command_line.arguments, COMMAND_LINE_SIZE)?;
    let path = &command_line.image;
    let image_error = |source| TenderError::Image { image: path.clone(), source };
    let file = std::fs::read(path).map_err(|source| TenderError::Open { image: path.clone(), source })?;
    let image = Image::read(&file).map_err(image_error)?;
    // A Nic session's frames are plain.
    let manifest = image.manifest().clone().with_plain_frames();
    let devices = attach::attach(command_line, &manifest)?;
    PROGRAM.say_forwards(&devices);
    let library = Library::new(manifest, devices).map_err(TenderError::Events)?;
    library::install(library);

    let addresses = image.addresses();
    let mut memory = memory::map(&addresses)?;
    let main = image.load(&mut memory, library::address).map_err(image_error)?;
    for segment in image.segments() {
        memory::protect(segment)?;
    }
    let heap_size = command_line.memory_size.saturating_sub(addresses.end - addresses.start).saturating_sub(RESERVED);
    let start = StartInfo::new(line, memory::heap(heap_size)?);
    let guest = std::thread::Builder::new().name("image".to_owned()).stack_size(STACK);
    let guest = guest.spawn(move || {
        if let Err(error) = fault::install(PROGRAM.name, memory::stack_guard()) {
            eprintln!("{}: faults of the image will not be told: {error}", PROGRAM.name);
        }
        // SAFETY: `main` is the image's `solo5_app_main`: it was loaded, relocated and made executable, and stays.
        unsafe { memory::enter(main, &start) }
    });
    let status = guest.map_err(TenderError::Thread)?.join();
    // Only the low byte of an exit value reaches a parent on Linux.
    Ok(status.map_or(ABORT_STATUS as u8, |status| status as u8))
}
