//! Images and tenders, built by the project's own builder when a test first asks for them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};

use crate::Skip;
use crate::guest::{Guest, Output};
use crate::network::{GUEST, HOST, Namespace, TAP};

/// Where an image runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A process with the host's sockets.
    Unix,
    /// A process with the direct stack on a tap.
    UnixDirect,
    /// Our spt tender.
    Spt,
    /// Our hvt tender on `/dev/kvm`.
    Hvt,
    /// A virtual machine in QEMU, emulated: q35, or another with `-machine` among the tender's options.
    Virtio,
    /// Our simulator of Muen, which runs the image in QEMU, emulated.
    Muen,
    /// Our loader, in the place of Genode's linker and library.
    Genode,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 7] = [Self::Unix, Self::UnixDirect, Self::Spt, Self::Hvt, Self::Virtio, Self::Muen, Self::Genode];

    /// Those of them where an image runs apart from the host, with memory of its own that is the started process's.
    pub const IMAGES: [Self; 4] = [Self::Spt, Self::Hvt, Self::Virtio, Self::Genode];

    /// The builder's name of the target.
    #[must_use]
    pub const fn target(self) -> &'static str {
        match self {
            Self::Unix | Self::UnixDirect => "unix",
            Self::Spt => "spt",
            Self::Hvt => "hvt",
            Self::Virtio => "virtio",
            Self::Muen => "muen",
            Self::Genode => "genode",
        }
    }

    /// The name in a test's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnixDirect => "unix-direct",
            other => other.target(),
        }
    }

    /// Starts `image` on this place, with `arguments`.
    ///
    /// # Errors
    /// When the image does not build or start; [`Skip`] when the place is not to be had on this machine.
    pub fn start(self, image: &str, run: &Run<'_>) -> Result<Guest> {
        let path = self.image_with(image, run.build)?;
        if self == Self::Virtio {
            return boot(Some(&path), run);
        }
        let mut command = match (self, run.namespace) {
            (Self::Unix | Self::UnixDirect, namespace) => command_in(namespace, &path),
            (_, namespace) => {
                match self {
                    Self::Hvt => require_kvm()?,
                    Self::Muen => require_qemu()?,
                    _ => {}
                }
                let mut command = command_in(namespace, &tender(self.target())?);
                command.arg(format!("--mem={}", run.memory));
                command.args(run.network(self).filter(|_| !run.arguments_only));
                command.args(run.tender).arg(&path);
                command
            }
        };
        command.args(run.address(self)).args(run.arguments);
        match self {
            Self::Muen => Guest::start_on_muen(command),
            _ => Guest::start_with(command, run.output),
        }
    }

    /// The path of `image`, built for this place.
    ///
    /// # Errors
    /// What the builder prints, when it fails.
    pub fn image(self, image: &str) -> Result<PathBuf> {
        self.image_with(image, &[])
    }

    fn image_with(self, image: &str, options: &[&str]) -> Result<PathBuf> {
        let mut arguments = vec!["build", image, "--target", self.target()];
        arguments.extend(options);
        if self == Self::UnixDirect {
            arguments.extend(["--stack", "service=direct"]);
        }
        let name = format!("{}{}.{}", image.rsplit('/').next().unwrap_or(image), options.concat(), self.name());
        let copy = root().join("target/fogbow/tests").join(name);
        // Whatever the options, an image is delivered to one path; a copy keeps them apart.
        once(&arguments, |delivered| {
            std::fs::create_dir_all(root().join("target/fogbow/tests"))?;
            let fresh = copy.with_extension("new");
            let delivered = root().join(delivered.trim());
            std::fs::copy(&delivered, &fresh)?;
            std::fs::rename(fresh, &copy)?;
            std::fs::copy(with_symbols(&delivered), with_symbols(&copy))?;
            Ok(())
        })?;
        Ok(copy)
    }

    /// The path of the same image with its symbols, built with these options.
    ///
    /// # Errors
    /// As [`image`](Self::image).
    pub fn symbols(self, image: &str, options: &[&str]) -> Result<PathBuf> {
        Ok(with_symbols(&self.image_with(image, options)?))
    }
}

/// Where the builder puts an image with its symbols, beside the one without.
fn with_symbols(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".debug");
    name.into()
}

/// How an image is run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where its network is; `None` for an image without one.
    pub namespace: Option<&'a Namespace>,
    /// Guest memory in MiB.
    pub memory: u32,
    /// Further options for the tender.
    pub tender: &'a [&'a str],
    /// Further options for the builder.
    pub build: &'a [&'a str],
    /// The image's own arguments, after its addresses.
    pub arguments: &'a [&'a str],
    /// Leave out what attaches and addresses the network.
    pub arguments_only: bool,
    /// What the image's console is; everywhere but on virtio and muen.
    pub output: Output,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self { namespace: None, memory: 64, tender: &[], build: &[], arguments: &[], arguments_only: false, output: Output::Pipe }
    }
}

impl Run<'_> {
    fn network(&self, place: Place) -> Option<String> {
        (self.namespace.is_some() && !matches!(place, Place::Unix | Place::UnixDirect)).then(|| format!("--net:service={TAP}"))
    }

    fn address(&self, place: Place) -> Vec<String> {
        match (self.namespace, place) {
            _ if self.arguments_only => Vec::new(),
            (None, _) => Vec::new(),
            (Some(_), Place::Unix) => vec![format!("--bind={HOST}")],
            (Some(_), Place::UnixDirect) => {
                vec![format!("--service-tap={TAP}"), format!("--ipv4={GUEST}/24"), format!("--ipv4-gateway={HOST}")]
            }
            (Some(_), _) => vec![format!("--ipv4={GUEST}/24"), format!("--ipv4-gateway={HOST}")],
        }
    }
}

/// The address at which an image of [`Place::start`] serves, seen from its namespace.
#[must_use]
pub const fn served_at(place: Place) -> std::net::Ipv4Addr {
    match place {
        Place::Unix => HOST,
        _ => GUEST,
    }
}

/// The path of our tender for `target`.
///
/// # Errors
/// What the builder prints, when it fails.
pub fn tender(target: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(once(&["tender", target], |_| Ok(()))?.trim()))
}

/// The path of a program of this package, built in release.
///
/// # Errors
/// What cargo prints, when it fails.
pub fn program(name: &str) -> Result<PathBuf> {
    let arguments = ["build", "--quiet", "--release", "--package", "fogbow-tests", "--bin", name];
    let status = Command::new(env!("CARGO")).args(arguments).current_dir(root()).status()?;
    anyhow::ensure!(status.success(), "building {name} failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release").join(name))
}

/// The path of an example of `package`, built in release with all its features.
///
/// # Errors
/// What cargo prints, when it fails.
pub fn example(package: &str, name: &str) -> Result<PathBuf> {
    let arguments = ["build", "--quiet", "--release", "--all-features", "--package", package, "--example", name];
    let status = Command::new(env!("CARGO")).args(arguments).current_dir(root()).status()?;
    anyhow::ensure!(status.success(), "building the example {name} failed");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/examples").join(name))
}

/// Runs the builder and gives what it prints on standard output.
///
/// # Errors
/// What it prints on standard error, when it fails.
pub fn xtask(arguments: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO"))
        .args(["xtask", "--quiet"])
        .args(arguments)
        .current_dir(root())
        .output()
        .with_context(|| format!("running cargo xtask {}", arguments.join(" ")))?;
    if !output.status.success() {
        bail!("cargo xtask {}:\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The workspace.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// As [`xtask`], but each command is run once by all tests of a process, and `after` it has succeeded once too.
fn once(arguments: &[&str], after: impl FnOnce(&str) -> Result<()>) -> Result<String> {
    static DONE: LazyLock<Mutex<HashMap<String, Result<String, String>>>> = LazyLock::new(Mutex::default);
    // Held while the builder runs: its own parallelism is enough.
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = done.entry(arguments.join(" ")).or_insert_with(|| {
        let outcome = xtask(arguments).and_then(|output| after(&output).map(|()| output));
        outcome.map_err(|error| format!("{error:#}"))
    });
    outcome.clone().map_err(|error| anyhow!(error))
}

fn command_in(namespace: Option<&Namespace>, program: &Path) -> Command {
    match namespace {
        Some(namespace) => namespace.command(&program.to_string_lossy()),
        None => Command::new(program),
    }
}

/// Starts QEMU as [`Place::Virtio`] does, with the image at `kernel`, or with none where a disk among the tender's options has one.
///
/// # Errors
/// When QEMU does not start; [`Skip`] when it is not to be had on this machine.
pub fn boot(kernel: Option<&Path>, run: &Run<'_>) -> Result<Guest> {
    let mut command = qemu(run)?;
    if let Some(kernel) = kernel {
        let arguments = run.address(Place::Virtio).into_iter().chain(run.arguments.iter().map(|argument| (*argument).to_owned()));
        command.arg("-kernel").arg(kernel).args(["-append", &arguments.collect::<Vec<_>>().join(" ")]);
    }
    Guest::start_in_qemu(command)
}

/// The command of QEMU with the machine and the devices of `run`, but for what it boots.
///
/// # Errors
/// As [`boot`].
pub fn qemu(run: &Run<'_>) -> Result<Command> {
    require_qemu()?;
    let mut command = command_in(run.namespace, Path::new(QEMU));
    for default in [["-machine", "q35"], ["-accel", "tcg"], ["-cpu", "max"]].iter().filter(|default| !run.tender.contains(&default[0])) {
        command.args(default);
    }
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-m", &run.memory.to_string()]);
    for option in run.tender {
        command.args(qemu_options(option)?);
    }
    if run.namespace.is_some() && !run.arguments_only {
        command.args(["-netdev", &format!("tap,id=service,ifname={TAP},script=no,downscript=no")]);
        if !run.tender.iter().any(|option| option.contains("netdev=service")) {
            command.args(["-device", "virtio-net-pci,netdev=service"]);
        }
    }
    Ok(command)
}

/// A tender's option as QEMU wants it: `--net:NAME=user` with or without `,hostfwd=...`, and `--block:NAME=FILE`; others are QEMU's own.
fn qemu_options(option: &str) -> Result<Vec<String>> {
    let device = |option: &str, text: String| [option.to_owned(), text];
    if let Some((name, file)) = option.strip_prefix("--block:").and_then(|option| option.split_once('=')) {
        let drive = device("-drive", format!("if=none,id={name},format=raw,discard=unmap,file={file}"));
        return Ok([drive, device("-device", format!("virtio-blk-pci,drive={name}"))].concat());
    }
    if let Some((name, forwards)) = option.strip_prefix("--net:").and_then(|option| option.split_once("=user")) {
        let mut network = format!("user,id={name}");
        for forward in forwards.split(',').skip(1) {
            let ports = forward.strip_prefix("hostfwd=").with_context(|| format!("no forward: {forward}"))?;
            let (protocol, ports) = ports.split_once(':').filter(|(protocol, _)| *protocol == "udp").unwrap_or(("tcp", ports));
            let (host, guest) = ports.split_once(':').with_context(|| format!("no ports: {ports}"))?;
            network.push_str(&format!(",hostfwd={protocol}:127.0.0.1:{host}-:{guest}"));
        }
        return Ok([device("-netdev", network), device("-device", format!("virtio-net-pci,netdev={name}"))].concat());
    }
    Ok(vec![option.to_owned()])
}

const QEMU: &str = "qemu-system-x86_64";

fn require_qemu() -> Result<()> {
    let found = Command::new(QEMU).arg("--version").output();
    found.map(drop).map_err(|error| Skip(format!("{QEMU}: {error}")).into())
}

/// Checks once that a guest runs on `/dev/kvm`.
///
/// # Errors
/// [`Skip`] when none does.
pub fn require_kvm() -> Result<()> {
    static WORKS: LazyLock<Result<(), String>> = LazyLock::new(|| {
        let open = std::fs::File::options().read(true).write(true).open("/dev/kvm");
        open.map(drop).map_err(|error| format!("/dev/kvm: {error}"))
    });
    WORKS.clone().map_err(|reason| Skip(reason).into())
}
