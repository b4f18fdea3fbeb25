//! What each thread may still ask of the host once the guest runs: the system calls it needs, on the descriptors it needs them for.
//!
//! Anything else kills the process with SIGSYS. The filters name descriptors, so a guest that took over a thread could still open
//! nothing, map nothing, and read or write nothing but its own devices and the console. Solo5's tender allows its list of calls on any
//! descriptor, and one list for all threads.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter,
};

use crate::devices::Devices;

// Requests of `<linux/kvm.h>`, as `_IO` and `_IOR` make them on x86-64.
const KVM_RUN: u64 = 0xae80;
const KVM_GET_REGS: u64 = 0x8090_ae81;
const KVM_GET_SREGS: u64 = 0x8138_ae83;

const CONSOLE: [RawFd; 2] = [libc::STDOUT_FILENO, libc::STDERR_FILENO];

/// A filter, ready to be applied.
#[derive(Debug)]
pub(crate) struct Filter(BpfProgram);

/// Why a thread cannot be confined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// The list of calls cannot be made into a filter.
    #[error("sandbox: cannot build the filter: {0}")]
    Build(#[from] BackendError),
    /// The host refuses the filter.
    #[error("sandbox: the host refuses the filter: {0}; its kernel needs CONFIG_SECCOMP_FILTER")]
    Apply(#[from] seccompiler::Error),
}

impl Filter {
    /// For the thread that runs the guest and serves its hypercalls. `kick` is the descriptor that wakes the ring's thread.
    ///
    /// # Errors
    /// [`SandboxError::Build`].
    pub(crate) fn for_processor(processor: RawFd, devices: &Devices, kick: Option<RawFd>) -> Result<Self, SandboxError> {
        let networks = || numbers(devices.networks().map(|(_, _, descriptor)| descriptor));
        let blocks = || numbers(devices.blocks());
        let mut rules = Rules::common();
        for request in [KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS] {
            rules.on_descriptor_with(libc::SYS_ioctl, processor, request)?;
        }
        rules.on_descriptors(libc::SYS_read, networks())?;
        rules.on_descriptors(libc::SYS_write, networks().chain(kick).chain(CONSOLE))?;
        rules.on_descriptors(libc::SYS_pread64, blocks())?;
        rules.on_descriptors(libc::SYS_pwrite64, blocks())?;
        rules.on_descriptors(libc::SYS_fdatasync, blocks())?;
        rules.build()
    }

    /// For the thread that serves the network ring, woken by `kick`.
    ///
    /// # Errors
    /// [`SandboxError::Build`].
    pub(crate) fn for_ring(devices: &Devices, kick: RawFd) -> Result<Self, SandboxError> {
        let networks = || numbers(devices.networks().map(|(_, _, descriptor)| descriptor));
        let mut rules = Rules::common();
        rules.on_descriptors(libc::SYS_read, networks().chain([kick]))?;
        rules.on_descriptors(libc::SYS_write, networks().chain(CONSOLE))?;
        rules.build()
    }

    /// Confines the calling thread, for good.
    ///
    /// # Errors
    /// [`SandboxError::Apply`].
    pub(crate) fn confine_this_thread(&self) -> Result<(), SandboxError> {
        Ok(apply_filter(&self.0)?)
    }
}

fn numbers<'a>(descriptors: impl Iterator<Item = BorrowedFd<'a>>) -> impl Iterator<Item = RawFd> {
    descriptors.map(|descriptor| descriptor.as_raw_fd())
}

struct Rules(BTreeMap<i64, Vec<SeccompRule>>);

impl Rules {
    /// What every thread may do: wait, read the clocks, wake another thread, return from a signal, end the process.
    fn common() -> Self {
        let calls = [
            libc::SYS_ppoll,
            libc::SYS_clock_gettime,
            libc::SYS_futex,
            libc::SYS_rt_sigreturn,
            libc::SYS_restart_syscall,
            libc::SYS_exit_group,
        ];
        // No rule at all allows every use of a call.
        Self(calls.into_iter().map(|call| (call, Vec::new())).collect())
    }

    fn on_descriptors(&mut self, call: i64, descriptors: impl Iterator<Item = RawFd>) -> Result<(), BackendError> {
        for descriptor in descriptors {
            let rule = SeccompRule::new(vec![equals(0, descriptor as u64)?])?;
            self.0.entry(call).or_default().push(rule);
        }
        Ok(())
    }

    fn on_descriptor_with(&mut self, call: i64, descriptor: RawFd, request: u64) -> Result<(), BackendError> {
        let rule = SeccompRule::new(vec![equals(0, descriptor as u64)?, equals(1, request)?])?;
        self.0.entry(call).or_default().push(rule);
        Ok(())
    }

    fn build(self) -> Result<Filter, SandboxError> {
        let filter = SeccompFilter::new(self.0, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;
        Ok(Filter(filter.try_into()?))
    }
}

/// The kernel looks at the low 32 bits of a descriptor and of an ioctl's request; so does this.
fn equals(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    /// Runs one of the ignored tests below in a process of its own, and gives the signal that ended it.
    fn signal_of(test: &str) -> Option<i32> {
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).args(["--exact", &format!("sandbox::tests::{test}"), "--ignored", "--nocapture"]).output();
        output.unwrap().status.signal()
    }

    #[test]
    fn a_confined_thread_does_its_work_and_no_more() {
        assert_eq!(signal_of("works"), None);
        for forbidden in ["opens_a_file", "writes_elsewhere", "asks_for_another_ioctl", "maps_memory"] {
            assert_eq!(signal_of(forbidden), Some(libc::SIGSYS), "{forbidden}");
        }
    }

    fn confine() {
        Filter::for_processor(libc::STDIN_FILENO, &Devices::default(), None).unwrap().confine_this_thread().unwrap();
    }

    #[test]
    #[ignore = "ends its process: run by another test"]
    fn works() {
        confine();
        // SAFETY: these calls have no preconditions; the first fails, as standard input is no processor.
        unsafe {
            libc::ioctl(libc::STDIN_FILENO, KVM_RUN);
            libc::write(libc::STDOUT_FILENO, c"".as_ptr().cast(), 0);
        }
        crate::end::now(0)
    }

    #[test]
    #[ignore = "ends its process: run by another test"]
    fn opens_a_file() {
        confine();
        // SAFETY: the path is a C string.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY) };
        crate::end::now(0)
    }

    #[test]
    #[ignore = "ends its process: run by another test"]
    fn writes_elsewhere() {
        confine();
        // SAFETY: nothing is written.
        unsafe { libc::write(9, c"".as_ptr().cast(), 0) };
        crate::end::now(0)
    }

    #[test]
    #[ignore = "ends its process: run by another test"]
    fn asks_for_another_ioctl() {
        confine();
        // SAFETY: this call has no preconditions.
        unsafe { libc::ioctl(libc::STDIN_FILENO, KVM_RUN + 1) };
        crate::end::now(0)
    }

    #[test]
    #[ignore = "ends its process: run by another test"]
    fn maps_memory() {
        confine();
        drop(core::hint::black_box(Vec::<u8>::with_capacity(64 << 20)));
        crate::end::now(0)
    }
}
