//! What a guest is left with: its own descriptors, and a handful of system calls on them.
//!
//! | system call | on |
//! |---|---|
//! | `read`, `write` | each network |
//! | `pread64`, `pwrite64` | each block device: one sector, at an offset inside the device; or up to 64 KiB, or 1 MiB, where as much follows |
//! | `fdatasync` | each block device |
//! | `write` | standard output (the console); standard error (the fault message) |
//! | `epoll_pwait`, `timerfd_settime` | the event set and the timer |
//! | `clock_gettime` | the monotonic and the wall clock |
//! | `arch_prctl` | setting FS, for the guest's thread-local storage |
//! | `exit_group` | |
//!
//! Anything else kills the process with SIGSYS. This is Solo5's list, and more: standard error, transfers of several sectors, `fdatasync`.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use fogbow_tender::attach::Attached;
use fogbow_tender::manifest::{Properties, TRANSFER_SIZES};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::events::Events;

const STANDARD_OUTPUT: RawFd = 1;
const STANDARD_ERROR: RawFd = 2;
/// `ARCH_SET_FS` of `<asm/prctl.h>`.
const ARCH_SET_FS: u64 = 0x1002;

/// Why the sandbox cannot be closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("cannot build the guest's seccomp filter: {0}")]
    Filter(#[from] BackendError),
    #[error("cannot apply the guest's seccomp filter: {0}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Apply(#[from] seccompiler::Error),
}

/// What [`confine`] is to forbid: everything but the guest's own system calls.
#[derive(Debug)]
pub(crate) struct Sandbox {
    filter: BpfProgram,
}

/// Closes every descriptor but the guest's, which stay open for good, and makes the filter ready.
pub(crate) fn prepare(devices: Vec<Attached>, events: Events) -> Result<Sandbox, SandboxError> {
    let filter = filter(&devices, &events)?;
    let mut kept: Vec<RawFd> = vec![STANDARD_OUTPUT, STANDARD_ERROR, events.epoll.into_raw_fd(), events.timer.into_raw_fd()];
    kept.extend(devices.into_iter().map(|device| device.descriptor.into_raw_fd()));
    close_all_but(kept);
    Ok(Sandbox { filter })
}

/// Forbids all that the guest may not do, for good.
///
/// The caller must not free memory afterwards, for the allocator might give some of it back to the host, which is then forbidden too.
pub(crate) fn confine(sandbox: &Sandbox) -> Result<(), SandboxError> {
    seccompiler::apply_filter(&sandbox.filter)?;
    Ok(())
}

fn filter(devices: &[Attached], events: &Events) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<libc::c_long, Vec<SeccompRule>> = BTreeMap::new();
    let mut allow = |call, conditions| -> Result<(), BackendError> {
        rules.entry(call).or_default().push(SeccompRule::new(conditions)?);
        Ok(())
    };
    // The devices first: rules are tried in order, and theirs are the frequent calls.
    for device in devices {
        let descriptor = device.descriptor.as_raw_fd();
        match device.properties {
            Properties::Net { .. } => {
                allow(libc::SYS_read, vec![is_descriptor(descriptor)?])?;
                allow(libc::SYS_write, vec![is_descriptor(descriptor)?])?;
            }
            Properties::Block { capacity, block_size, extended, .. } => {
                let block_size = u64::from(block_size);
                for call in [libc::SYS_pread64, libc::SYS_pwrite64] {
                    let whole_sector = condition(2, SeccompCmpOp::Eq, block_size)?;
                    // Offsets count as unsigned, so a negative one is beyond the end. The capacity is one sector at least.
                    let inside = condition(3, SeccompCmpOp::Le, capacity - block_size)?;
                    allow(call, vec![is_descriptor(descriptor)?, whole_sector, inside])?;
                    let sizes = TRANSFER_SIZES.into_iter().map(|power| 1_u64 << power);
                    for size in sizes.filter(|size| extended && *size <= capacity) {
                        let length = condition(2, SeccompCmpOp::Le, size)?;
                        let inside = condition(3, SeccompCmpOp::Le, capacity - size)?;
                        allow(call, vec![is_descriptor(descriptor)?, length, inside])?;
                    }
                }
                if extended {
                    allow(libc::SYS_fdatasync, vec![is_descriptor(descriptor)?])?;
                }
            }
        }
    }
    allow(libc::SYS_write, vec![is_descriptor(STANDARD_OUTPUT)?])?;
    allow(libc::SYS_write, vec![is_descriptor(STANDARD_ERROR)?])?;
    allow(libc::SYS_epoll_pwait, vec![is_descriptor(events.epoll.as_raw_fd())?])?;
    allow(libc::SYS_timerfd_settime, vec![is_descriptor(events.timer.as_raw_fd())?])?;
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
        allow(libc::SYS_clock_gettime, vec![is_descriptor(clock)?])?;
    }
    allow(libc::SYS_arch_prctl, vec![condition(0, SeccompCmpOp::Eq, ARCH_SET_FS)?])?;
    rules.insert(libc::SYS_exit_group, Vec::new());
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

/// That the first argument is this descriptor (or clock), of which the kernel looks at the lower 32 bits alone.
fn is_descriptor(descriptor: RawFd) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(descriptor.cast_unsigned()))
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
}

/// Closes every descriptor of this process that is not kept, standard input with them.
///
/// Kernels before 5.9 cannot; there what was inherited stays open and out of the guest's reach, for the filter names each descriptor.
fn close_all_but(mut kept: Vec<RawFd>) {
    kept.sort_unstable();
    let mut first: libc::c_uint = 0;
    for descriptor in kept.into_iter().map(RawFd::cast_unsigned).chain([libc::c_uint::MAX]) {
        if first < descriptor {
            // SAFETY: what this process still uses is in `kept`; everything else that held a descriptor has been closed or given up.
            unsafe { libc::close_range(first, descriptor - 1, 0) };
        }
        first = descriptor.saturating_add(1);
    }
}
