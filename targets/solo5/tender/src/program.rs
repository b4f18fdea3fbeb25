//! What a tender says of itself, alike in all of them: its help, its version, what went wrong, and where its guest can be reached.

use std::ffi::OsString;

use crate::attach::Attached;
use crate::options::{CommandLine, ERROR_STATUS, Request, help, parse};

/// A tender, as it speaks of itself.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What it is called, in its messages too.
    pub name: &'static str,
    /// Its own version.
    pub version: &'static str,
    /// The version of what it offers to images.
    pub abi: &'static str,
    /// Lines of help on options that the others do not have.
    pub further_options: &'static str,
}

impl Program {
    /// Reads the command line, the program's own name left out. Where that asks for help or the version, or is wrong, it has been answered on standard
    /// error, and this is the status to end with.
    ///
    /// # Errors
    /// The status.
    pub fn read(&self, arguments: impl IntoIterator<Item = OsString>) -> Result<CommandLine, i32> {
        match parse(arguments) {
            Ok(Request::Run(command_line)) => Ok(command_line),
            Ok(Request::Help) => {
                eprint!("{}{}", help(self.name), self.further_options);
                Err(ERROR_STATUS)
            }
            Ok(Request::Version) => {
                eprintln!("{}, version {}\n{}", self.name, self.version, self.abi);
                Err(0)
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    /// Says what went wrong; gives the status to end with.
    pub fn fail(&self, error: &dyn core::fmt::Display) -> i32 {
        eprintln!("{}: {error}", self.name);
        ERROR_STATUS
    }

    /// Says which ports of the host lead to the guest.
    pub fn say_forwards(&self, devices: &[Attached]) {
        for forward in devices.iter().flat_map(|device| &device.forwards) {
            eprintln!("{}: forwarding {} {} to the guest's port {}", self.name, forward.protocol, forward.host, forward.guest_port);
        }
    }
}
