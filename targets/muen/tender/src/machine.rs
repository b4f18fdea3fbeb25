//! QEMU: a processor, this memory, and nothing else.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::fs::MemfdFlags;
use rustix::process::Signal;

use crate::event;
use crate::memory::Memory;
use crate::reset::{self, Start};

/// The program.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// A machine that runs; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    qemu: Child,
    // QEMU opens it by its number, when it starts.
    _rom: File,
}

impl Machine {
    /// Starts the subject in this memory.
    pub(crate) fn start(memory: &Memory, start: &Start) -> io::Result<Self> {
        let mut rom = File::from(rustix::fs::memfd_create("rom", MemfdFlags::empty())?);
        rom.write_all(&reset::rom(memory.root(), start))?;
        let mut command = Command::new(QEMU);
        command.args(["-machine", "microvm,memory-backend=ram,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off,auto-kernel-cmdline=off"]);
        command.args(["-object", &format!("memory-backend-file,id=ram,share=on,size={},mem-path={}", memory.size(), memory.path())]);
        command.args(["-m", &format!("size={}b", memory.size()), "-bios", &format!("/proc/self/fd/{}", rom.as_raw_fd())]);
        command.args(["-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-device", &format!("isa-debug-exit,iobase={:#x},iosize=1", event::PORT)]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: between fork and exec the closure makes one system call, and touches no memory.
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        Ok(Self { qemu: command.spawn()?, _rom: rom })
    }

    /// How QEMU ended, if it has: the subject raised its event, its processor shut down, or QEMU could not start.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.qemu.try_wait().ok().flatten()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
