//! The virtual machine: what KVM is asked for, and the loop that runs the guest until it ends.
//!
//! It works with every KVM that Linux has: on VT-x, on SVM, and on software hypervisors that emulate ring 0. One processor, one memory
//! region, no interrupt controller and no timer: a guest waits by a hypercall.

use kvm_bindings::{KVM_INTERNAL_ERROR_EMULATION, KVM_MAX_CPUID_ENTRIES, kvm_debug_exit_arch, kvm_userspace_memory_region, kvm_xcrs};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VcpuExit, VcpuFd, VmFd};
use std::os::fd::{AsRawFd, RawFd};
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

use crate::cpu;
use crate::hypercall::{HypercallError, Hypercalls, Next, PORT_BASE};
use crate::memory::GuestMemory;

/// The I/O port that wakes the network ring's thread (`HVT_RING_KICK_PIO_BASE`).
const KICK_PORT: u64 = 0x600;
/// The only version of KVM's interface since Linux 2.6.22 (`KVM_API_VERSION`).
const KVM_API: i32 = 12;
/// Where a processor starts after a reset: what is left of a guest's address after a triple fault on some hardware.
const RESET_RIP: u64 = 0xfff0;
/// Bytes of the longest x86 instruction.
const INSTRUCTION_MAX: usize = 15;

/// A virtual machine with a processor and no memory yet.
#[derive(Debug)]
pub(crate) struct Machine {
    vm: VmFd,
    vcpu: VcpuFd,
    cycle_frequency: u64,
}

/// A virtual machine that is ready to run.
#[derive(Debug)]
pub(crate) struct Guest<'m> {
    _vm: VmFd,
    vcpu: VcpuFd,
    memory: &'m GuestMemory,
}

/// How far a guest came.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress {
    /// A hypercall was served.
    Served,
    /// The guest ended with this status.
    Ended(i32),
    /// A signal came.
    Interrupted,
    /// Something that the debugger waits for: a breakpoint, or the end of a step.
    Debug(kvm_debug_exit_arch),
}

/// Why this host cannot run a guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    /// There is no `/dev/kvm`.
    #[error(
        "Could not open: /dev/kvm: it does not exist; load kvm_intel or kvm_amd, turn virtualisation on in the firmware (in a virtual \
         machine: nested virtualisation), or build the image for spt, which needs no KVM"
    )]
    Missing,
    /// `/dev/kvm` is not for this user.
    #[error("Could not open: /dev/kvm: permission denied; add yourself to its group (sudo usermod -aG kvm $USER) and log in again")]
    Permission,
    /// Another program has the processor's virtualisation.
    #[error("KVM: cannot create a virtual machine: {0}; does another hypervisor (VirtualBox, VMware) hold the processor?")]
    Create(errno::Error),
    /// The host's KVM lacks something.
    #[error("KVM: this host's KVM lacks {0}; use a newer kernel")]
    Lacks(&'static str),
    /// The clock cannot be relied upon.
    #[error("KVM: host TSC is unstable, cannot continue; see `dmesg | grep -i tsc`")]
    UnstableClock,
    /// A step failed that should not have.
    #[error("KVM: cannot {step}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the host says.
        source: errno::Error,
    },
}

/// Why a guest was stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// It made a hypercall that cannot be served.
    #[error(transparent)]
    Hypercall(#[from] HypercallError),
    /// It touched memory against the rights of its segments.
    #[error("KVM: host/guest translation fault: rip={rip:#x}: the guest wrote to read-only memory{}", at(*.address))]
    TranslationFault {
        /// The address touched, where KVM tells.
        address: Option<u64>,
        /// The instruction.
        rip: u64,
    },
    /// It touched an address that is no memory.
    #[error("the guest touched address {address:#x}, which is outside its memory: rip={rip:#x}")]
    Outside {
        /// The address touched.
        address: u64,
        /// The instruction.
        rip: u64,
    },
    /// An exception, while another exception's handler was being entered.
    #[error("guest triple fault: rip={rip:#x}{}: an exception that the guest could not handle", rip_note(*.rip))]
    TripleFault {
        /// The instruction, as far as the hardware still knows.
        rip: u64,
    },
    /// It stopped its processor, which nothing will ever start again.
    #[error("the guest executed hlt at rip={0:#x}; nothing would wake it: it has to wait by the poll hypercall")]
    Halted(u64),
    /// It used a port that means nothing.
    #[error("Invalid guest port access: port={port:#x}, rip={rip:#x}")]
    Port {
        /// The port.
        port: u16,
        /// The instruction.
        rip: u64,
    },
    /// KVM gave up on an instruction.
    #[error(
        "KVM: internal error exit: suberror=0x1, rip={rip:#x}, ring {ring}, instruction {instruction}: KVM could not emulate it; where \
         KVM has no VT-x or SVM it emulates ring 0 and fails on SSE there: run an image whose code runs in user mode, or build for spt"
    )]
    Emulation {
        /// The instruction's address.
        rip: u64,
        /// The privilege level.
        ring: u8,
        /// Its bytes, as far as KVM tells.
        instruction: Instruction,
    },
    /// KVM gave up.
    #[error("KVM: internal error exit: suberror={suberror:#x}, rip={rip:#x}; see the host's kernel log")]
    Internal {
        /// `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
        /// The instruction.
        rip: u64,
    },
    /// The hardware refuses the guest's state.
    #[error("KVM: entry failure: hw_entry_failure_reason={reason:#x}, rip={rip:#x}")]
    Entry {
        /// The hardware's reason.
        reason: u64,
        /// The instruction.
        rip: u64,
    },
    /// Something else.
    #[error("KVM: unhandled exit: {what}, rip={rip:#x}")]
    Unhandled {
        /// The exit.
        what: String,
        /// The instruction.
        rip: u64,
    },
    /// The processor cannot be run.
    #[error("KVM: ioctl (RUN) failed: {source}, rip={rip:#x}")]
    Run {
        /// What the host says.
        source: errno::Error,
        /// The instruction.
        rip: u64,
    },
}

/// An instruction's bytes, in hexadecimal when printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    bytes: [u8; INSTRUCTION_MAX],
    length: usize,
}

impl Machine {
    /// Makes a machine.
    ///
    /// # Errors
    /// [`MachineError`].
    pub(crate) fn new() -> Result<Self, MachineError> {
        let kvm = open()?;
        let vm = kvm.create_vm().map_err(MachineError::Create)?;
        let vcpu = vm.create_vcpu(0).map_err(failed("create a processor"))?;
        let features = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("read the processor's features"))?;
        vcpu.set_cpuid2(&features).map_err(failed("set the processor's features"))?;
        let cycle_frequency = u64::from(vcpu.get_tsc_khz().map_err(|error| match error.errno() {
            libc::EIO => MachineError::UnstableClock,
            _ => failed("read the clock's frequency")(error),
        })?) * 1000;
        Ok(Self { vm, vcpu, cycle_frequency })
    }

    /// How many times a second the guest's time stamp counter ticks.
    pub(crate) fn cycle_frequency(&self) -> u64 {
        self.cycle_frequency
    }

    /// Makes the guest's kicks of the network ring signal `event`, without an exit to the tender.
    ///
    /// # Errors
    /// [`MachineError::Step`] where KVM does not offer this.
    pub(crate) fn connect_kick(&self, event: &EventFd) -> Result<(), MachineError> {
        self.vm.register_ioevent(event, &IoEventAddress::Pio(KICK_PORT), NoDatamatch).map_err(failed("connect the network ring"))
    }

    /// Lets the guest use AVX where the host has it. Solo5's own tender does not, and guests are told by CPUID: they do without.
    fn offer_avx(&self) -> bool {
        let mut registers = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        registers.xcrs[0].value = cpu::XCR0_AVX;
        self.vcpu.set_xcrs(&registers).is_ok()
    }

    /// Gives the machine its memory, filled in, and sets the processor up to start at `entry`.
    ///
    /// # Errors
    /// [`MachineError::Step`].
    pub(crate) fn with_memory(self, memory: &GuestMemory, entry: u64) -> Result<Guest<'_>, MachineError> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory.size(),
            userspace_addr: memory.host_address(),
        };
        // SAFETY: the region is the guest's own mapping, which the result keeps borrowed, and which nothing in this process takes for
        // ordinary memory while it is shared.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(failed("give the guest its memory"))?;
        let mut registers = cpu::system_registers();
        if self.offer_avx() {
            registers.cr4 |= cpu::CR4_OSXSAVE;
        }
        self.vcpu.set_sregs(&registers).map_err(failed("set the system registers"))?;
        self.vcpu.set_regs(&cpu::general_registers(entry, memory.end())).map_err(failed("set the general registers"))?;
        Ok(Guest { _vm: self.vm, vcpu: self.vcpu, memory })
    }
}

impl Guest<'_> {
    /// The processor's descriptor, for the sandbox.
    pub(crate) fn processor(&self) -> RawFd {
        self.vcpu.as_raw_fd()
    }

    /// Runs the guest until it halts, and gives its status.
    ///
    /// # Errors
    /// [`Stop`]: it was stopped before.
    pub(crate) fn run(&mut self, hypercalls: &mut Hypercalls<'_>) -> Result<i32, Stop> {
        loop {
            if let Progress::Ended(status) = self.advance(hypercalls)? {
                return Ok(status);
            }
        }
    }

    /// Runs the guest up to its next hypercall, and serves that.
    ///
    /// # Errors
    /// [`Stop`].
    pub(crate) fn advance(&mut self, hypercalls: &mut Hypercalls<'_>) -> Result<Progress, Stop> {
        let exit = match self.vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => Exit::Out(port, data.try_into().ok().map(u32::from_le_bytes)),
            Ok(VcpuExit::Debug(debug)) => return Ok(Progress::Debug(debug)),
            Ok(exit) => Exit::from(exit),
            Err(error) if error.errno() == libc::EINTR => return Ok(Progress::Interrupted),
            Err(error) => Exit::Failed(error),
        };
        let (number, address) = match exit {
            Exit::Out(port, Some(value)) if port >= PORT_BASE => (port - PORT_BASE, value),
            exit => return Err(self.explain(exit)),
        };
        Ok(match hypercalls.serve(number, u64::from(address))? {
            Next::Halt(status) => Progress::Ended(status),
            Next::Resume => Progress::Served,
        })
    }

    /// The processor, for the debugger.
    pub(crate) fn vcpu(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// The guest's memory, for the debugger.
    pub(crate) fn memory(&self) -> &GuestMemory {
        self.memory
    }

    fn explain(&mut self, exit: Exit) -> Stop {
        let rip = self.vcpu.get_regs().map_or(0, |registers| registers.rip);
        match exit {
            Exit::Out(port, _) => Stop::Port { port, rip },
            Exit::Failed(error) if error.errno() == libc::EFAULT => Stop::TranslationFault { address: None, rip },
            Exit::Failed(source) => Stop::Run { source, rip },
            Exit::MemoryFault(address) => Stop::TranslationFault { address: Some(address), rip },
            // A KVM that emulates ring 0 takes what cannot be written for a device.
            Exit::Device(address) if address < self.memory.size() => Stop::TranslationFault { address: Some(address), rip },
            Exit::Device(address) => Stop::Outside { address, rip },
            Exit::Shutdown => Stop::TripleFault { rip },
            Exit::Hlt => Stop::Halted(rip),
            Exit::Entry(reason) => Stop::Entry { reason, rip },
            Exit::Internal => self.explain_internal(rip),
            Exit::Other(what) => Stop::Unhandled { what, rip },
        }
    }

    fn explain_internal(&mut self, rip: u64) -> Stop {
        let ring = self.vcpu.get_sregs().map_or(0, |registers| registers.cs.dpl);
        // SAFETY: KVM filled in this member of the union, as the exit was an internal error; all of its bits are valid for it.
        let internal = unsafe { self.vcpu.get_kvm_run().__bindgen_anon_1.internal };
        match internal.suberror {
            KVM_INTERNAL_ERROR_EMULATION => {
                let words = internal.ndata.min(internal.data.len() as u32) as usize;
                Stop::Emulation { rip, ring, instruction: Instruction::reported(&internal.data[..words]) }
            }
            suberror => Stop::Internal { suberror, rip },
        }
    }
}

impl Instruction {
    /// What KVM reports with an emulation failure: flags, of which the first says that a size and bytes follow.
    fn reported(data: &[u64]) -> Self {
        let mut bytes = [0; INSTRUCTION_MAX];
        let Some((flags, rest)) = data.split_first() else { return Self { bytes, length: 0 } };
        let mut reported = rest.iter().flat_map(|word| word.to_le_bytes());
        let length = if flags & 1 == 0 { 0 } else { reported.next().map_or(0, usize::from).min(INSTRUCTION_MAX) };
        bytes.iter_mut().zip(reported).for_each(|(byte, value)| *byte = value);
        Self { bytes, length }
    }
}

impl core::fmt::Display for Instruction {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.length == 0 {
            return formatter.write_str("unknown");
        }
        self.bytes[..self.length].iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// An exit without what it borrows from the processor.
enum Exit {
    /// A write to a port, with its value if it was one of 32 bits.
    Out(u16, Option<u32>),
    Failed(errno::Error),
    MemoryFault(u64),
    /// An access to an address that is no memory, or may not be accessed like this.
    Device(u64),
    Shutdown,
    Hlt,
    Entry(u64),
    Internal,
    Other(String),
}

impl From<VcpuExit<'_>> for Exit {
    fn from(exit: VcpuExit<'_>) -> Self {
        match exit {
            VcpuExit::IoIn(port, _) | VcpuExit::IoOut(port, _) => Self::Out(port, None),
            VcpuExit::MmioRead(address, _) | VcpuExit::MmioWrite(address, _) => Self::Device(address),
            VcpuExit::MemoryFault { gpa, .. } => Self::MemoryFault(gpa),
            VcpuExit::Shutdown => Self::Shutdown,
            VcpuExit::Hlt => Self::Hlt,
            VcpuExit::FailEntry(reason, _) => Self::Entry(reason),
            VcpuExit::InternalError => Self::Internal,
            other => Self::Other(format!("{other:?}")),
        }
    }
}

fn open() -> Result<Kvm, MachineError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => MachineError::Missing,
        libc::EACCES | libc::EPERM => MachineError::Permission,
        _ => failed("open /dev/kvm")(error),
    })?;
    if kvm.get_api_version() != KVM_API {
        return Err(MachineError::Lacks("version 12 of its interface"));
    }
    let needed = [(Cap::UserMemory, "memory regions"), (Cap::GetTscKhz, "the clock's frequency"), (Cap::ExtCpuid, "processor features")];
    match needed.into_iter().find(|(capability, _)| !kvm.check_extension(*capability)) {
        Some((_, name)) => Err(MachineError::Lacks(name)),
        None => Ok(kvm),
    }
}

fn failed(step: &'static str) -> impl Fn(errno::Error) -> MachineError {
    move |source| MachineError::Step { step, source }
}

fn at(address: Option<u64>) -> String {
    address.map_or_else(String::new, |address| format!(" at {address:#x}"))
}

fn rip_note(rip: u64) -> &'static str {
    if rip == RESET_RIP { " (the hardware forgot where)" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_printed_as_kvm_reports_them() {
        // flags, then size and bytes: 0f 57 c0 is xorps xmm0, xmm0.
        let data = [1, u64::from_le_bytes([3, 0x0f, 0x57, 0xc0, 9, 9, 9, 9]), 0];
        assert_eq!(Instruction::reported(&data).to_string(), "0f57c0");
        assert_eq!(Instruction::reported(&[0, data[1], 0]).to_string(), "unknown");
        assert_eq!(Instruction::reported(&[]).to_string(), "unknown");
        assert_eq!(Instruction::reported(&[1, u64::MAX, u64::MAX]).to_string(), "ff".repeat(15));
    }
}
