//! Tries one deliberate violation, to see that the target stops it.
//!
//! `--fault=NAME` chooses; `--fault=list` prints the names. On a target that keeps its promises the image ends with a fault, and status
//! 255 where the target can report it. An image that is still alive afterwards says so, and ends with status 1.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

use alloc::string::String;
use core::fmt;

use fogbow::arguments::ArgumentError;
use fogbow::println;

fogbow::arguments!();

/// A violation that can be tried.
struct Fault {
    name: &'static str,
    what: &'static str,
    attempt: fn(),
}

const FAULTS: &[Fault] = &[
    Fault { name: "write-text", what: "write to code", attempt: fogbow_probes::write_text },
    Fault { name: "write-rodata", what: "write to a constant", attempt: fogbow_probes::write_rodata },
    Fault { name: "execute-data", what: "execute a variable", attempt: fogbow_probes::execute_data },
    Fault { name: "execute-heap", what: "execute the heap", attempt: fogbow_probes::execute_heap },
    Fault { name: "execute-stack", what: "execute the stack", attempt: fogbow_probes::execute_stack },
    Fault { name: "read-page-zero", what: "read page zero", attempt: fogbow_probes::read_page_zero },
    Fault { name: "write-page-zero", what: "write to page zero", attempt: fogbow_probes::write_page_zero },
    Fault { name: "overflow-stack", what: "overflow the stack", attempt: fogbow_probes::overflow_stack },
    Fault { name: "overflow-stack-at-once", what: "overflow the stack in one frame", attempt: fogbow_probes::overflow_stack_at_once },
    Fault { name: "divide-by-zero", what: "divide by zero", attempt: fogbow_probes::divide_by_zero },
    Fault { name: "invalid-instruction", what: "execute an instruction that does not exist", attempt: fogbow_probes::invalid_instruction },
    Fault { name: "privileged-instruction", what: "halt the processor", attempt: fogbow_probes::privileged_instruction },
    Fault { name: "exhaust-memory", what: "take all memory", attempt: fogbow_probes::exhaust_memory },
    Fault { name: "panic", what: "panic", attempt: fogbow_probes::panic },
];

/// Why the image ends without a fault.
#[derive(Debug)]
pub enum Error {
    /// The argument cannot be read.
    Argument(ArgumentError),
    /// No fault has this name.
    Unknown(String),
    /// The target let it happen.
    NotStopped(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(error) => error.fmt(f),
            Self::Unknown(name) => write!(f, "no fault is called '{name}': --fault=list prints them"),
            Self::NotStopped(what) => write!(f, "the target let the image {what}: it does not keep its promises"),
        }
    }
}

impl core::error::Error for Error {}

/// Tries the violation that `--fault` names.
///
/// # Errors
/// [`Error::NotStopped`] when the image survives it; the others when there was nothing to try.
pub async fn start() -> Result<(), Error> {
    let name = Arguments::read().map_err(Error::Argument)?.fault;
    if name == "list" {
        for fault in FAULTS {
            println!("{:24}{}", fault.name, fault.what);
        }
        return Ok(());
    }
    let fault = FAULTS.iter().find(|fault| fault.name == name).ok_or(Error::Unknown(name))?;
    println!("faults: trying to {}", fault.what);
    (fault.attempt)();
    Err(Error::NotStopped(fault.what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use fogbow::simulation::Simulation;

    #[test]
    fn lists_every_fault() {
        let simulation = Simulation::new(1).with_arguments(&[Arguments::GROUP], [""; 0]);
        assert!(simulation.block_on(start()).is_ok());
        let console = simulation.console();
        assert_eq!(console.lines().count(), FAULTS.len());
        assert!(console.contains("execute-heap"), "{console}");
    }

    #[test]
    fn an_unknown_fault_is_named() {
        let error = Simulation::new(1).with_arguments(&[Arguments::GROUP], ["--fault=none"]).block_on(start()).unwrap_err();
        assert_eq!(error.to_string(), "no fault is called 'none': --fault=list prints them");
    }

    #[test]
    fn a_fault_that_is_found_is_tried() {
        let simulation = Simulation::new(1).with_arguments(&[Arguments::GROUP], ["--fault=panic"]);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.block_on(start()).is_ok())).is_err());
    }
}
