//! QEMU: how an image for the virtio target is run.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use fogbow_tender::manifest::DeviceKind;

use super::plan::{Attachment, Plan};
use crate::cli::RunArgs;
use crate::progress::Progress;

/// The program.
const QEMU: &str = "qemu-system-x86_64";

/// Memory in mebibytes, where nothing else is asked for.
const MEMORY: u32 = 64;

/// Accelerators, each with the processor that goes with it.
const KVM: [&str; 2] = ["kvm", "host"];
const TCG: [&str; 2] = ["tcg", "max"];

/// What is booted.
pub(super) enum Boot<'a> {
    /// An image with a command line.
    Kernel(&'a Path, &'a str),
    /// A disk.
    Disk(&'a Path),
}

/// The command that boots a machine with devices as planned.
pub(super) fn command(boot: &Boot<'_>, args: &RunArgs, plan: &Plan, progress: &Progress) -> anyhow::Result<Command> {
    let mut command = Command::new(QEMU);
    command.args(["-machine", "q35", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    let accelerator = Accelerator::choose(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default(), open_kvm, || starts(KVM));
    progress.say("Using", &accelerator);
    let [accelerator, processor] = accelerator.options();
    command.args(["-accel", accelerator, "-cpu", processor]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    command.args(["-m", &args.mem.unwrap_or(MEMORY).to_string()]);
    if args.gdb {
        command.args(["-gdb", &format!("tcp:127.0.0.1:{}", super::gdb::PORT), "-S"]);
    }
    for attachment in &plan.attachments {
        let [backend, device] = device(attachment, mtu)?;
        command.args(backend).args(device);
    }
    command.args(["-device", "virtio-rng-pci"]);
    match boot {
        Boot::Kernel(image, line) => command.arg("-kernel").arg(image).args(["-append", line]),
        // Not a virtio device: those are the application's.
        Boot::Disk(disk) => command.arg("-drive").arg(format!("file={},format=raw,if=ide", disk.display().to_string().replace(',', ",,"))),
    };
    Ok(command)
}

/// The MTU of a network interface of the host's, if there is one of this name. QEMU does not ask for it.
fn mtu(interface: &str) -> Option<u16> {
    std::fs::read_to_string(Path::new("/sys/class/net").join(interface).join("mtu")).ok()?.trim().parse().ok()
}

/// The options for a device: what it is attached to, and the device. The image takes them in this order.
fn device(
    Attachment { kind, name, source, is_only_read }: &Attachment,
    mtu: impl Fn(&str) -> Option<u16>,
) -> anyhow::Result<[[String; 2]; 2]> {
    let option = |name: &str, value: String| [name.to_owned(), value];
    Ok(match kind {
        DeviceKind::Net => {
            let mtu = mtu(source).map(|mtu| format!(",host_mtu={mtu}")).unwrap_or_default();
            [option("-netdev", network(name, source)?), option("-device", format!("virtio-net-pci,netdev={name},romfile={mtu}"))]
        }
        DeviceKind::Block => {
            // A comma in a file's name is written twice.
            let file = source.replace(',', ",,");
            let read = if *is_only_read { "readonly=on," } else { "" };
            let drive = format!("if=none,id={name},format=raw,{read}discard=unmap,detect-zeroes=unmap,file={file}");
            [option("-drive", drive), option("-device", format!("virtio-blk-pci,drive={name}"))]
        }
    })
}

/// What a network device is attached to: QEMU's user-mode network has the addresses of ours.
fn network(name: &str, source: &str) -> anyhow::Result<String> {
    let Some(options) = source.strip_prefix("user").filter(|rest| rest.is_empty() || rest.starts_with(',')) else {
        return Ok(format!("tap,id={name},ifname={source},script=no,downscript=no"));
    };
    let options = fogbow_usernet::Options::parse(options).with_context(|| format!("--net {name}={source}"))?;
    let mut text = format!("user,id={name}");
    if options.restrict {
        text.push_str(",restrict=on");
    }
    for forward in &options.forwards {
        let protocol = match forward.protocol {
            fogbow_usernet::Protocol::Tcp => "tcp",
            fogbow_usernet::Protocol::Udp => "udp",
        };
        text.push_str(&format!(",hostfwd={protocol}:{}:{}-:{}", forward.host.ip(), forward.host.port(), forward.guest_port));
    }
    Ok(text)
}

/// Runs it to its end, and gives the image's status.
pub(super) fn run(command: &mut Command) -> anyhow::Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot start {QEMU}: install qemu-system-x86 (Debian's package)"))?;
    Ok(ExitCode::from(status.code().map_or(255, image_status)))
}

/// The image's status by QEMU's: `isa-debug-exit` makes `2 * status + 1` of it, of which 8 bits are left; 255 is told from 127 by custom. QEMU's own
/// failures, 1, stay 1.
fn image_status(code: i32) -> u8 {
    match u8::try_from(code) {
        Ok(255) | Err(_) => 255,
        Ok(1) => 1,
        Ok(code) if code % 2 == 1 => code / 2,
        Ok(code) => code,
    }
}

/// How the machine's processor comes about, and why so.
#[derive(Debug, PartialEq, Eq)]
enum Accelerator {
    Kvm,
    /// QEMU's emulation, as the processor does not run guests by itself. Where it does not, `/dev/kvm` may be there all the same, made of software that
    /// emulates ring 0: QEMU's own emulation is faster and more complete.
    NoVirtualization,
    /// The same, as `/dev/kvm` cannot be used.
    NoDevice(String),
    /// The same, as QEMU sets no machine up by KVM, which may be so where the kernel and QEMU do not fit.
    NoMachine,
}

impl Accelerator {
    /// Chooses by what `/proc/cpuinfo` says, whether `/dev/kvm` opens, and whether QEMU sets a machine up by it. Each is asked only when the one before allows.
    fn choose(cpuinfo: &str, open: impl FnOnce() -> io::Result<()>, starts: impl FnOnce() -> bool) -> Self {
        if !has_virtualization(cpuinfo) {
            return Self::NoVirtualization;
        }
        match open() {
            Err(error) => Self::NoDevice(error.to_string()),
            Ok(()) if starts() => Self::Kvm,
            Ok(()) => Self::NoMachine,
        }
    }

    fn options(&self) -> [&'static str; 2] {
        if *self == Self::Kvm { KVM } else { TCG }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kvm => f.write_str("KVM: the processor has VT-x or SVM"),
            Self::NoVirtualization => f.write_str("emulation, not KVM: the processor has neither VT-x nor SVM, as Linux sees it"),
            Self::NoDevice(error) => {
                write!(f, "emulation, not KVM: /dev/kvm: {error} (load kvm_intel or kvm_amd; usermod -aG kvm $USER gives you access)")
            }
            Self::NoMachine => f.write_str("emulation, not KVM: QEMU sets no machine up by it; qemu-system-x86_64 -accel kvm says why"),
        }
    }
}

fn open_kvm() -> io::Result<()> {
    File::options().read(true).write(true).open("/dev/kvm").map(drop)
}

/// Whether the processor runs guests by itself.
fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

/// Whether QEMU sets up a machine; takes less than a tenth of a second.
fn starts([accelerator, processor]: [&str; 2]) -> bool {
    let mut command = Command::new(QEMU);
    command.args(["-machine", "q35", "-accel", accelerator, "-cpu", processor, "-m", "16", "-S"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "stdio"]);
    let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else { return false };
    if let Some(mut monitor) = child.stdin.take() {
        // A QEMU that has failed already does not read it, which its status tells.
        let _ = monitor.write_all(b"quit\n");
    }
    child.wait().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_come_through() {
        for (code, status) in [(0, 0), (3, 1), (129, 64), (255, 255), (1, 1), (2, 2), (-1, 255)] {
            assert_eq!(image_status(code), status, "{code}");
        }
    }

    #[test]
    fn devices_are_attached_as_asked_for() {
        let mtu = |interface: &str| (interface == "tap3").then_some(9000);
        let attachment = |kind, source: &str| Attachment { kind, name: "x".to_owned(), source: source.to_owned(), is_only_read: false };
        let device_options = |attachment: &Attachment| device(attachment, mtu).unwrap().concat().join(" ");
        let options = |kind, source: &str| device_options(&attachment(kind, source));
        let device = "-device virtio-net-pci,netdev=x,romfile=";
        assert_eq!(
            options(DeviceKind::Net, "tap3"),
            format!("-netdev tap,id=x,ifname=tap3,script=no,downscript=no {device},host_mtu=9000")
        );
        assert_eq!(options(DeviceKind::Net, "tap4"), format!("-netdev tap,id=x,ifname=tap4,script=no,downscript=no {device}"));
        assert_eq!(
            options(DeviceKind::Net, "user,hostfwd=8080:80,hostfwd=udp:0.0.0.0:53:5353,restrict=on"),
            format!("-netdev user,id=x,restrict=on,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:53-:5353 {device}")
        );
        assert_eq!(
            options(DeviceKind::Block, "a,b.img"),
            "-drive if=none,id=x,format=raw,discard=unmap,detect-zeroes=unmap,file=a,,b.img -device virtio-blk-pci,drive=x"
        );
        let read = device_options(&Attachment { is_only_read: true, ..attachment(DeviceKind::Block, "a.img") });
        assert!(read.contains(",readonly=on,"), "{read}");
    }

    #[test]
    fn a_machine_that_qemu_cannot_set_up_is_told() {
        if Command::new(QEMU).arg("--version").output().is_ok() {
            assert!(starts(TCG));
        }
        assert!(!starts(["tcg", "no-such-processor"]));
        assert!(!starts(["no-such-accelerator", "max"]));
    }

    #[test]
    fn kvm_is_chosen_where_it_works_and_the_choice_says_why() {
        const ABLE: [&str; 2] = ["processor\t: 0\nflags\t\t: fpu vmx sse\n", "flags\t\t: svm\n"];
        let refused = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        for cpuinfo in ABLE {
            let choose = |open: fn() -> io::Result<()>, starts| Accelerator::choose(cpuinfo, open, || starts);
            assert_eq!(choose(|| Ok(()), true), Accelerator::Kvm);
            assert_eq!(choose(|| Ok(()), false), Accelerator::NoMachine);
            assert!(choose(refused, true).to_string().contains("/dev/kvm: permission denied"));
        }
        for cpuinfo in ["flags\t\t: fpu vmx_tools\n", ""] {
            let unasked = || -> io::Result<()> { panic!("asked in vain") };
            assert_eq!(Accelerator::choose(cpuinfo, unasked, || panic!("asked in vain")), Accelerator::NoVirtualization);
        }
        for (accelerator, options, text) in [
            (Accelerator::Kvm, KVM, "KVM: "),
            (Accelerator::NoVirtualization, TCG, "emulation, not KVM: the processor"),
            (Accelerator::NoMachine, TCG, "emulation, not KVM: QEMU"),
            (Accelerator::NoDevice("x".into()), TCG, "emulation, not KVM: /dev/kvm: x"),
        ] {
            assert!(accelerator.options() == options && accelerator.to_string().starts_with(text), "{accelerator}");
        }
    }
}
