//! Everything that can be tested on this machine: style, lints and documentation, the workspace's own tests, then whole images.
//!
//! Images and tenders are built first, so that what does not build is seen as that.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;

use crate::application::Application;
use crate::cli::BuildArgs;
use crate::progress::Progress;
use crate::resolve::{Resolved, Target};
use crate::workspace::{self, Workspace};
use crate::{build, tender};

/// The package that boots images.
const IMAGE_TESTS: &str = "fogbow-tests";

/// Programs and files that the tests of images need, with Debian's package of each.
const PROGRAMS: [(&str, &str); 11] = [
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("ping", "iputils-ping"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("grub-mkimage", "grub-common"),
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("virt-xml-validate", "libvirt-clients"),
    ("gdb", "gdb"),
    ("gdbserver", "gdbserver"),
    ("mkfs.fat", "dosfstools"),
    ("mtype", "mtools"),
];

/// A check that is made before anything is run.
struct Check {
    name: &'static str,
    /// The arguments of cargo.
    arguments: &'static [&'static str],
    /// Flags for rustdoc.
    rustdoc_flags: Option<&'static str>,
}

const CHECKS: [Check; 4] = [
    Check { name: "rustfmt", arguments: &["fmt", "--all", "--check"], rustdoc_flags: None },
    Check {
        name: "clippy",
        arguments: &["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"],
        rustdoc_flags: None,
    },
    Check {
        name: "clippy, of the runtime as images have it",
        arguments: &["clippy", "--quiet", "--package", "fogbow", "--", "--deny", "warnings"],
        rustdoc_flags: None,
    },
    Check {
        name: "rustdoc",
        arguments: &["doc", "--quiet", "--workspace", "--all-features", "--no-deps"],
        rustdoc_flags: Some("--deny warnings"),
    },
];

/// Results, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs all tests; the exit code tells whether all passed.
pub(crate) fn test(workspace: &Workspace, arguments: &[String], progress: &Progress) -> anyhow::Result<ExitCode> {
    install_missing(progress)?;
    for Check { name, arguments, rustdoc_flags } in CHECKS {
        progress.say("Checking", name);
        let mut cargo = workspace::cargo();
        cargo.current_dir(workspace.root()).args(arguments).envs(rustdoc_flags.map(|flags| ("RUSTDOCFLAGS", flags)));
        workspace::check(&mut cargo, &format!("{name} is not content: see above"))?;
    }
    build_all(workspace, progress)?;
    progress.say("Testing", "the workspace");
    let units = run(workspace, &["--workspace", "--all-features", "--exclude", IMAGE_TESTS], arguments)?;
    progress.say("Testing", "images");
    let images = run(workspace, &["--package", IMAGE_TESTS], arguments)?;
    let all = Counts {
        passed: units.0.passed + images.0.passed,
        failed: units.0.failed + images.0.failed,
        ignored: units.0.ignored + images.0.ignored,
    };
    for (what, counts) in [("workspace", units.0), ("images", images.0), ("together", all)] {
        println!("{what:>9}: {} passed, {} failed, {} ignored", counts.passed, counts.failed, counts.ignored);
    }
    Ok(if units.1 && images.1 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds tenders, and examples for every target.
fn build_all(workspace: &Workspace, progress: &Progress) -> anyhow::Result<()> {
    for target in Target::ALL.into_iter().filter(|target| target.has_tender()) {
        tender::build(workspace, target, progress)?;
    }
    for app in workspace.example_names() {
        let application = Application::find(workspace, &app)?;
        for target in Target::ALL {
            let build =
                BuildArgs { app: app.clone(), target, debug: false, stack: Vec::new(), store: Vec::new(), prng: None, set: Vec::new() };
            match Resolved::new(&application.manifest, target, &build.stack) {
                Ok(_) => drop(build::build(workspace, &build, progress)?),
                // Everything else must be offered everywhere.
                Err(error) if target == Target::Muen => progress.say("Skipping", format_args!("{app} for {target}: {error:#}")),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Installs the programs that are missing where that is allowed, and says so either way.
fn install_missing(progress: &Progress) -> anyhow::Result<()> {
    let missing: Vec<&str> = PROGRAMS.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    let command = format!("apt-get install --yes --no-install-recommends {packages}");
    let output = Command::new("id").arg("-u").output().context("cannot start id")?;
    if output.stdout.trim_ascii() != b"0" {
        progress.say("Missing", format_args!("{packages}: what needs them will be skipped; to have them: sudo {command}"));
        return Ok(());
    }
    progress.say("Installing", format_args!("{packages}, which the tests need ({command})"));
    let mut update = Command::new("apt-get");
    workspace::check(update.args(["update", "--quiet=2"]), "apt-get update failed: see above")?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet=2", "--no-install-recommends"]).args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
    workspace::check(install.stdout(Stdio::null()), &format!("{command} failed: see above"))
}

fn is_installed(program: &str) -> bool {
    // A plain user's PATH may lack the directories of the system's programs, where ip can be.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|directory: PathBuf| Path::is_file(&directory.join(program)))
}

/// Runs `cargo test`, passing on what it prints; gives the counts and whether cargo was content.
fn run(workspace: &Workspace, selection: &[&str], arguments: &[String]) -> anyhow::Result<(Counts, bool)> {
    let mut cargo = workspace::cargo();
    cargo.current_dir(workspace.root()).args(["test", "--no-fail-fast"]).args(selection).arg("--").args(arguments);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let mut counts = Counts::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read what cargo test prints")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            counts.add(&line);
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    Ok((counts, status.success()))
}

impl Counts {
    /// Adds a line such as `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let result = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for part in result.split("; ") {
            let Some((number, what)) = part.trim().split_once(' ') else { continue };
            let number = number.parse::<u64>().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 15, failed: 2, ignored: 1 });
    }

    #[test]
    fn programs_are_found() {
        assert!(is_installed("sh"));
        assert!(!is_installed("fogbow-no-such-program"));
    }
}
