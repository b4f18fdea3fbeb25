//! A debugger for the guest: gdb's remote protocol on a port of the loopback.
//!
//! The guest waits before its first instruction until gdb is there. `break` puts an `int3` into the guest's code; the guest's own `int3` goes on to the
//! guest. `hbreak` and `watch` are the processor's, four together. Where the
//! host's processor has neither VT-x nor SVM, KVM sees breakpoints and steps in the image's first instructions alone, those of ring 0.
//! A guest under a debugger has no sandbox around it: the debugger reads and writes its registers and memory with calls that a sandbox does not allow.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt as _;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{DisconnectReason, GdbStub, SingleThreadStopReason};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep, SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug,
    kvm_guest_debug_arch,
};
use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::errno;

use crate::hypercall::Hypercalls;
use crate::vm::{Guest, Progress, Stop};

mod points;

use points::{HIT, Point, STEPPED, debug_registers, hit};

/// The vector of `int3`.
const BREAKPOINT: u32 = 3;

/// How often a guest that runs is told that gdb wants something, until it is heard.
const NUDGE: Duration = Duration::from_millis(10);

/// Why there is no debugger.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DebugError {
    /// The port cannot be waited at.
    #[error("--gdb={port}: {source}; give another port")]
    Listen {
        /// The port.
        port: u16,
        /// What the host says.
        source: io::Error,
    },
    /// The guest's memory or signals cannot be reached.
    #[error("gdb: {0}")]
    Host(#[from] io::Error),
    /// KVM cannot set breakpoints.
    #[error("gdb: KVM: {0}; this host's KVM cannot debug guests: use spt or virtio")]
    Kvm(#[from] errno::Error),
    /// The guest was stopped.
    #[error(transparent)]
    Stop(#[from] Stop),
    /// gdb went away, or said something that cannot be understood.
    #[error("gdb: {0}")]
    Protocol(String),
}

/// Runs the guest under gdb, and gives its status; one that gdb lets go runs on.
///
/// # Errors
/// [`DebugError`].
pub(crate) fn run(guest: Guest<'_>, hypercalls: Hypercalls<'_>, port: u16) -> Result<i32, DebugError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| DebugError::Listen { port, source })?;
    let address = listener.local_addr()?;
    let memory = File::options().read(true).write(true).open("/proc/self/mem")?;
    eprintln!("fogbow-hvt-tender: waiting for gdb: target remote {address}; the sandbox is off");
    if !has_virtualization() {
        eprintln!(
            "fogbow-hvt-tender: this processor has neither VT-x nor SVM: breakpoints in the application are not hit; use spt or virtio for those"
        );
    }
    let (stream, _) = listener.accept()?;
    drop(listener);
    nudge_when_gdb_speaks(stream.try_clone()?)?;
    let mut debugged = Debugged { guest, hypercalls, memory, points: Vec::new(), traps: BTreeMap::new(), is_stepping: false };
    debugged.apply()?;
    let reason = GdbStub::new(stream).run_blocking::<Events<'_, '_>>(&mut debugged);
    match reason.map_err(|error| error.to_string()) {
        Ok(DisconnectReason::TargetExited(status)) => Ok(status.into()),
        Ok(DisconnectReason::Disconnect) => {
            debugged.points.clear();
            for (address, former) in std::mem::take(&mut debugged.traps) {
                debugged.write(address, &[former])?;
            }
            debugged.is_stepping = false;
            debugged.apply()?;
            Ok(debugged.guest.run(&mut debugged.hypercalls)?)
        }
        Ok(DisconnectReason::Kill | DisconnectReason::TargetTerminated(_)) => Ok(fogbow_tender::options::ABORT_STATUS),
        Err(error) => Err(DebugError::Protocol(error)),
    }
}

/// Whether the processor runs guests by itself. A KVM of software runs their user mode without looking for breakpoints.
fn has_virtualization() -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

/// Interrupts the guest, which runs on the calling thread, whenever gdb has said something that it has not read.
fn nudge_when_gdb_speaks(stream: TcpStream) -> io::Result<()> {
    // SAFETY: an all-zero `sigaction` is a valid one: no flags, so that calls are interrupted, and an empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: both pointers are valid or null; the handler does nothing.
    if unsafe { libc::sigaction(libc::SIGUSR1, &action, core::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it has no preconditions.
    let processor = unsafe { libc::pthread_self() };
    std::thread::Builder::new().name("gdb".into()).spawn(move || {
        while let Ok(1) = poll(&mut [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)], None) {
            if !matches!(stream.peek(&mut [0]), Ok(1..)) {
                return;
            }
            // SAFETY: the thread is the process's first, which lives as long as the process does.
            unsafe { libc::pthread_kill(processor, libc::SIGUSR1) };
            std::thread::sleep(NUDGE);
        }
    })?;
    Ok(())
}

extern "C" fn nothing(_: libc::c_int) {}

/// A guest under a debugger.
struct Debugged<'m, 'd> {
    guest: Guest<'m>,
    hypercalls: Hypercalls<'d>,
    /// This process's memory, whose pages of the guest can be written whatever their rights are.
    memory: File,
    points: Vec<Point>,
    /// Where an `int3` of the debugger's is, and what was there.
    traps: BTreeMap<u64, u8>,
    is_stepping: bool,
}

/// `int3`.
const TRAP: u8 = 0xcc;

impl Debugged<'_, '_> {
    /// Tells KVM of breakpoints and stepping.
    fn apply(&self) -> Result<(), errno::Error> {
        self.apply_with(0)
    }

    fn apply_with(&self, mut control: u32) -> Result<(), errno::Error> {
        if !self.traps.is_empty() {
            control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
        }
        if self.is_stepping {
            control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
        }
        if !self.points.is_empty() {
            control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        }
        let arch = kvm_guest_debug_arch { debugreg: debug_registers(&self.points) };
        self.guest.vcpu().set_guest_debug(&kvm_guest_debug { control, pad: 0, arch })
    }

    /// Whether the `int3` at `address` is the debugger's; the guest's own goes on to the guest. QEMU's emulation of SVM tells the address after it.
    fn trapped(&self, address: u64) -> Result<bool, errno::Error> {
        if self.traps.contains_key(&address) {
            return Ok(true);
        }
        let before = address.wrapping_sub(1);
        if self.traps.contains_key(&before) {
            let mut registers = self.guest.vcpu().get_regs()?;
            registers.rip = before;
            self.guest.vcpu().set_regs(&registers)?;
            return Ok(true);
        }
        self.apply_with(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP)?;
        Ok(false)
    }

    /// Sets a point; false when there are four.
    fn add(&mut self, point: Point) -> bool {
        if self.points.len() == 4 {
            return false;
        }
        self.points.push(point);
        true
    }

    fn remove(&mut self, point: Point) -> bool {
        let found = self.points.iter().position(|present| *present == point);
        found.map(|index| self.points.remove(index)).is_some()
    }

    /// Reads the guest's memory.
    fn read(&self, address: u64, data: &mut [u8]) -> io::Result<()> {
        self.memory.read_exact_at(data, self.place(address, data.len()).ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// Writes the guest's memory.
    fn write(&self, address: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write_all_at(data, self.place(address, data.len()).ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// Where these addresses of the guest are in the file of this process's memory: it maps all of its memory to itself.
    fn place(&self, address: u64, length: usize) -> Option<u64> {
        let end = address.checked_add(length as u64)?;
        (end <= self.guest.memory().size()).then(|| self.guest.memory().host_address() + address)
    }
}

impl Target for Debugged<'_, '_> {
    type Arch = X86_64_SSE;
    type Error = DebugError;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Debugged<'_, '_> {
    fn read_registers(&mut self, registers: &mut X86_64CoreRegs) -> TargetResult<(), Self> {
        let vcpu = self.guest.vcpu();
        let (general, system, float) = (vcpu.get_regs().map_err(fatal)?, vcpu.get_sregs().map_err(fatal)?, vcpu.get_fpu().map_err(fatal)?);
        registers.regs = [
            general.rax,
            general.rbx,
            general.rcx,
            general.rdx,
            general.rsi,
            general.rdi,
            general.rbp,
            general.rsp,
            general.r8,
            general.r9,
            general.r10,
            general.r11,
            general.r12,
            general.r13,
            general.r14,
            general.r15,
        ];
        registers.rip = general.rip;
        registers.eflags = general.rflags as u32;
        let selectors = &mut registers.segments;
        (selectors.cs, selectors.ss, selectors.ds) = (system.cs.selector.into(), system.ss.selector.into(), system.ds.selector.into());
        (selectors.es, selectors.fs, selectors.gs) = (system.es.selector.into(), system.fs.selector.into(), system.gs.selector.into());
        for (register, value) in registers.st.iter_mut().zip(float.fpr) {
            register.copy_from_slice(&value[..10]);
        }
        registers.xmm = float.xmm.map(u128::from_le_bytes);
        registers.mxcsr = float.mxcsr;
        Ok(())
    }

    fn write_registers(&mut self, registers: &X86_64CoreRegs) -> TargetResult<(), Self> {
        let vcpu = self.guest.vcpu();
        let (mut general, mut float) = (vcpu.get_regs().map_err(fatal)?, vcpu.get_fpu().map_err(fatal)?);
        [
            general.rax,
            general.rbx,
            general.rcx,
            general.rdx,
            general.rsi,
            general.rdi,
            general.rbp,
            general.rsp,
            general.r8,
            general.r9,
            general.r10,
            general.r11,
            general.r12,
            general.r13,
            general.r14,
            general.r15,
        ] = registers.regs;
        general.rip = registers.rip;
        general.rflags = registers.eflags.into();
        float.xmm = registers.xmm.map(u128::to_le_bytes);
        float.mxcsr = registers.mxcsr;
        vcpu.set_regs(&general).map_err(fatal)?;
        vcpu.set_fpu(&float).map_err(fatal)
    }

    fn read_addrs(&mut self, address: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        self.read(address, data).map_err(|_| TargetError::NonFatal)?;
        Ok(data.len())
    }

    fn write_addrs(&mut self, address: u64, data: &[u8]) -> TargetResult<(), Self> {
        self.write(address, data).map_err(|_| TargetError::NonFatal)
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

fn fatal<E>(error: errno::Error) -> TargetError<E>
where
    E: From<errno::Error>,
{
    TargetError::Fatal(error.into())
}

impl SingleThreadResume for Debugged<'_, '_> {
    fn resume(&mut self, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.is_stepping = false;
        Ok(self.apply()?)
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Debugged<'_, '_> {
    fn step(&mut self, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.is_stepping = true;
        Ok(self.apply()?)
    }
}

impl Breakpoints for Debugged<'_, '_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debugged<'_, '_> {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let mut former = [0];
        let is_set = self.read(address, &mut former).is_ok() && self.write(address, &[TRAP]).is_ok();
        if is_set {
            self.traps.insert(address, former[0]);
        }
        Ok(is_set)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let Some(former) = self.traps.remove(&address) else { return Ok(false) };
        Ok(self.write(address, &[former]).is_ok())
    }
}

impl HwBreakpoint for Debugged<'_, '_> {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.add(Point::code(address)))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove(Point::code(address)))
    }
}

impl HwWatchpoint for Debugged<'_, '_> {
    fn add_hw_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(Point::data(address, length, kind).is_some_and(|point| self.add(point)))
    }

    fn remove_hw_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(Point::data(address, length, kind).is_some_and(|point| self.remove(point)))
    }
}

type Reason = SingleThreadStopReason<u64>;

/// How the guest's and gdb's doings are waited for.
struct Events<'m, 'd>(core::marker::PhantomData<(&'m (), &'d ())>);

impl<'m, 'd> BlockingEventLoop for Events<'m, 'd> {
    type Target = Debugged<'m, 'd>;
    type Connection = TcpStream;
    type StopReason = Reason;

    fn wait_for_stop_reason(
        target: &mut Self::Target,
        connection: &mut TcpStream,
    ) -> Result<Event<Reason>, WaitForStopReasonError<DebugError, io::Error>> {
        loop {
            let progress = target.guest.advance(&mut target.hypercalls).map_err(|stop| WaitForStopReasonError::Target(stop.into()))?;
            let reason = match progress {
                Progress::Ended(status) => Reason::Exited(status as u8),
                Progress::Debug(debug) if debug.exception == BREAKPOINT => {
                    let is_ours = target.trapped(debug.pc).map_err(|error| WaitForStopReasonError::Target(error.into()))?;
                    if !is_ours {
                        continue;
                    }
                    Reason::SwBreak(())
                }
                Progress::Debug(debug) if debug.dr6 & HIT != 0 => hit(&target.points, debug.dr6),
                Progress::Debug(debug) if debug.dr6 & STEPPED != 0 || target.is_stepping => Reason::DoneStep,
                Progress::Debug(_) => Reason::Signal(Signal::SIGTRAP),
                Progress::Served | Progress::Interrupted => {
                    if connection.peek().map_err(WaitForStopReasonError::Connection)?.is_some() {
                        let byte = connection.read().map_err(WaitForStopReasonError::Connection)?;
                        return Ok(Event::IncomingData(byte));
                    }
                    continue;
                }
            };
            return Ok(Event::TargetStopped(reason));
        }
    }

    fn on_interrupt(_: &mut Self::Target) -> Result<Option<Reason>, DebugError> {
        Ok(Some(Reason::Signal(Signal::SIGINT)))
    }
}
