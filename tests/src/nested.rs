//! Images under our hvt tender with real hardware virtualisation, on any machine: QEMU emulates a processor with AMD's SVM, Debian's
//! kernel runs on it with its own KVM, and in that the tender runs.
//!
//! One boot runs many cases, as each costs little and the boot much. Everything is slow inside: no case may ask for speed. The machine
//! needs no rights and no network, apart from the packages that its first run downloads.

mod cpio;
mod packages;

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::Skip;
use crate::builder::{self, Place};
use crate::guest::{Ended, Guest};
use cpio::Archive;

const QEMU: &str = "qemu-system-x86_64";

const INIT: &str = include_str!("nested/init.sh");

/// What the first process prints at its end.
const ALL_RAN: &str = "--- all cases ran";

/// Something to run in the nested machine.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name: letters, digits, `-` and `_`. Cases run in the order of their names.
    pub name: String,
    /// A script for busybox's `sh`, which has 120 seconds. `tender` runs an image of `/images`, the http example's files are in `/htdocs`,
    /// and `tap0` is there with the address 10.0.0.1/24.
    pub script: String,
}

/// How long a case may take until it ends. More than its script has: that is ended inside, and the cases after it run on.
const CASE_PATIENCE: Duration = Duration::from_secs(180);

/// What a machine printed.
#[derive(Clone, Debug)]
pub struct Report {
    console: String,
    /// Why it did not run to its end.
    stopped: Option<String>,
}

/// Boots a machine of two processors with `images` and runs `cases` in it.
///
/// A machine that stops on its way is booted once more, for the cases that have no result, and standard error says so: an emulated machine on
/// a host that is busy with others may lock up, which says nothing of the cases. One that stops again is no error: its report says so for each
/// case that has no result.
///
/// # Errors
/// [`Skip`] when QEMU or Debian's packages are not to be had here; what the builder prints when an image does not build.
pub fn run(images: &[&str], cases: &[Case]) -> Result<Report> {
    require_qemu()?;
    let mut report = boot(images, cases)?;
    if let Some(stopped) = report.stopped.take() {
        let left: Vec<Case> = cases.iter().filter(|case| report.find(&case.name).is_none()).cloned().collect();
        eprintln!("the nested machine stopped with {} of {} cases to go, and is booted once more: {stopped}", left.len(), cases.len());
        let again = boot(images, &left)?;
        report.console.push_str(&again.console);
        report.stopped = again.stopped;
    }
    Ok(report)
}

/// Boots a machine once.
fn boot(images: &[&str], cases: &[Case]) -> Result<Report> {
    let parts = packages::prepare()?;
    let initial = tempfile::NamedTempFile::new()?;
    std::fs::write(initial.path(), file_system(&parts, images, cases)?)?;
    let mut command = Command::new(QEMU);
    // One host thread for both processors. With a thread each, QEMU 7.2 on a busy host now and then leaves a processor that ran a guest of its
    // KVM deaf to interrupts, pending in its APIC for ever; the other then spins until it answers a call, which Linux sees as a soft lockup.
    command.args(["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "EPYC,+svm,+npt", "-smp", "2", "-m", "512"]);
    command.args(["-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(parts.join("vmlinuz")).arg("-initrd").arg(initial.path());
    // A panic reboots at once, which ends QEMU. Linux's check of the timer and its watchdog only measure how much of a processor QEMU gets: the
    // former panics at a twentieth.
    command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check nowatchdog"]);
    let guest = Guest::start(command)?;
    // Patience is for each case, not for all together.
    let ends = cases.iter().map(|case| format!("<<< {} ", case.name)).chain([ALL_RAN.to_owned()]);
    let stopped = ends.into_iter().find_map(|end| guest.wait_for_within(&end, CASE_PATIENCE).err()).map(|error| format!("{error:#}"));
    // The serial line ends its lines as terminals do.
    Ok(Report { console: guest.console().replace('\r', ""), stopped })
}

impl Report {
    /// How the script of the case `name` ended.
    ///
    /// # Errors
    /// When it did not, with all that the machine printed.
    pub fn case(&self, name: &str) -> Result<Ended> {
        self.find(name).with_context(|| match &self.stopped {
            Some(stopped) => format!("{name} has no result: {stopped}"),
            None => format!("{name} has no result; the machine's console:\n{}", self.console),
        })
    }

    fn find(&self, name: &str) -> Option<Ended> {
        let (_, rest) = self.console.split_once(&format!("\n>>> {name}\n"))?;
        let (console, rest) = rest.split_once(&format!("\n<<< {name} "))?;
        let status = rest.lines().next()?.parse().ok()?;
        Some(Ended { status: Some(status), console: console.to_owned() })
    }
}

fn require_qemu() -> Result<()> {
    match Command::new(QEMU).arg("--version").stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{QEMU} --version: {status}"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(Skip(format!("{QEMU} is not installed (package qemu-system-x86)")))
        }
        Err(error) => Err(error).with_context(|| format!("running {QEMU}")),
    }
}

/// The machine's first and only file system.
fn file_system(parts: &std::path::Path, images: &[&str], cases: &[Case]) -> Result<Vec<u8>> {
    let read = |path: &std::path::Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut archive = Archive::default();
    for directory in ["bin", "modules", "images", "htdocs", "cases", "dev", "proc", "sys", "tmp"] {
        archive.directory(directory)?;
    }
    archive.file("bin/busybox", &read(&parts.join("busybox"))?)?;
    archive.file("bin/tender", &read(&builder::tender("hvt")?)?)?;
    archive.file("init", INIT.as_bytes())?;
    for module in packages::MODULES {
        archive.file(&format!("modules/{module}"), &read(&parts.join(module))?)?;
    }
    for image in images {
        archive.file(&format!("images/{image}.hvt"), &read(&Place::Hvt.image(image)?)?)?;
    }
    for entry in std::fs::read_dir(builder::root().join("examples/http/htdocs"))? {
        let path = entry?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            archive.file(&format!("htdocs/{name}"), &read(&path)?)?;
        }
    }
    for case in cases {
        archive.file(&format!("cases/{}", case.name), case.script.as_bytes())?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_what_stands_between_a_cases_lines() {
        let console = "boot\n\n>>> a\nhello\n\n<<< a 64\n\n>>> ab\nno end".to_owned();
        let report = Report { console, stopped: None };
        assert_eq!(report.case("a").unwrap(), Ended { status: Some(64), console: "hello\n".to_owned() });
        assert!(report.case("ab").is_err());
        assert!(report.case("b").is_err());
    }
}
