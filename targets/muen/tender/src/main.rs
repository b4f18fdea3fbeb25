//! Runs muen images without Muen: QEMU emulates the processor, and this program plays the separation kernel and all other subjects.
//!
//! For development and tests. Muen itself wants a processor with VT-x, which QEMU cannot emulate; a subject, however, is an ordinary program in ring 0
//! that reaches others through shared memory alone. So the memory of the emulated machine is a file that this process maps too:
//!
//! | module | what it does |
//! |---|---|
//! | [`memory`] | the machine's memory: what lies where, and the page tables, which give the subject no more than its policy would |
//! | [`subject`] | the image, boot information, subject information, scheduling information and channels in it |
//! | [`reset`] | the machine's first instructions, in the place of a firmware: the processor as Muen hands it over |
//! | [`machine`] | QEMU |
//! | [`event`] | the event at the subject's end, which the emulated processor has no instruction for |
//! | [`world`] | afterwards: turns of the schedule, the debug log, and a network behind each pair of channels |
//!
//! The command line is that of the other tenders, and `--sinfo=04` gives subject information of that version.
//!
//! # What is not as on Muen
//! RDTSC, CPUID and MSRs are the emulated processor's; `vmcall` is replaced by another instruction in the image's code; one page more is mapped, at
//! 0xffff_f000, that the processor begins in; turns have no gaps, but begin late when the host is busy.
//!
//! # Exit status
//! What the image's last words in the debug log say; 255 when its processor shuts down instead, or when it halts without its event; 1 when it could not be started.
//!
//! # Limits
//! x86-64 Linux with QEMU (`qemu-system-x86_64`, 7.2 or later); 2 GiB of memory; block devices do not exist on Muen.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use fogbow_muen_interface::boot::COMMAND_LINE_SIZE;
use fogbow_muen_interface::sinfo::Version;
use fogbow_tender::attach::{self, AttachError};
use fogbow_tender::boot::{self, BootError};
use fogbow_tender::elf::{Abi, Image, ImageError, Target};
use fogbow_tender::options::{CommandLine, OptionsError};
use fogbow_tender::program::Program;

mod event;
mod machine;
mod memory;
mod reset;
mod subject;
mod world;

use memory::MemoryError;
use subject::SubjectError;

const PROGRAM: Program = Program {
    name: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    abi: "ABI version 4",
    further_options: "  --sinfo=04                          subject information of version 04 (05)\n",
};
/// The version of the ABI note of Solo5 0.12.1 (`bindings/muen/start.c`).
const ABI_VERSION: u32 = 4;
/// The option that the other tenders do not have.
const SINFO_OPTION: &str = "--sinfo=04";

/// Why an image cannot be run.
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
    #[error(transparent)]
    Subject(#[from] SubjectError),
    #[error("cannot start {qemu}: {0}; install QEMU (Debian: qemu-system-x86)", qemu = machine::QEMU)]
    Machine(io::Error),
    #[error("cannot play the other subjects: {0}")]
    World(io::Error),
}

fn main() -> ExitCode {
    fogbow_tender::net::main_if_child();
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let version = take_version(&mut arguments);
    let command_line = match PROGRAM.read(arguments) {
        Ok(command_line) => command_line,
        Err(status) => return ExitCode::from(status as u8),
    };
    match run(&command_line, version) {
        Ok(status) => ExitCode::from(status),
        Err(error) => ExitCode::from(PROGRAM.fail(&error) as u8),
    }
}

/// Takes the option that is this tender's own out of the tender's arguments, not the image's.
fn take_version(arguments: &mut Vec<OsString>) -> Version {
    let options = arguments.iter().position(|argument| argument == "--" || !argument.to_string_lossy().starts_with('-'));
    let options = options.unwrap_or(arguments.len());
    match arguments[..options].iter().position(|argument| argument == SINFO_OPTION) {
        Some(place) => {
            arguments.remove(place);
            Version::V04
        }
        None => Version::V05,
    }
}

/// Runs the image and gives its status.
fn run(command_line: &CommandLine, version: Version) -> Result<u8, TenderError> {
    command_line.require_no_debugger()?;
    let line = boot::command_line(&command_line.arguments, COMMAND_LINE_SIZE)?;
    let path = &command_line.image;
    let image_error = |source| TenderError::Image { image: path.clone(), source };
    let file = File::open(path).map_err(|source| TenderError::Open { image: path.clone(), source })?;
    let image = Image::read(&file).map_err(image_error)?;
    image.require(Abi { target: Target::Muen, version: ABI_VERSION }).map_err(image_error)?;
    // A channel's frames are plain.
    let manifest = image.manifest().map_err(image_error)?.with_plain_frames();
    let devices = attach::attach(command_line, &manifest)?;
    PROGRAM.say_forwards(&devices);
    let layout = image.layout(i64::MAX.cast_unsigned()).map_err(image_error)?;
    let plan = subject::Plan::new(&layout, &manifest, command_line.memory_size)?;
    let mut memory = memory::Memory::new(&plan.regions)?;
    let has_event = plan.fill(&mut memory, &image, &layout, &line, version).map_err(image_error)?;
    let world = world::World::new(&plan, &memory, devices).map_err(TenderError::World)?;
    let machine = machine::Machine::start(&memory, &plan.start).map_err(TenderError::Machine)?;
    Ok(world.run(machine, has_event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_an_option_of_the_tender_alone() {
        let taken = |words: &[&str]| {
            let mut words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let version = take_version(&mut words);
            (version, words.len())
        };
        assert_eq!(taken(&["--mem=2", "--sinfo=04", "image"]), (Version::V04, 2));
        assert_eq!(taken(&["--mem=2", "image", "--sinfo=04"]), (Version::V05, 3));
        assert_eq!(taken(&["--", "--sinfo=04"]), (Version::V05, 2));
    }
}
