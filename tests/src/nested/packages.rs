//! What the nested machine is made of, from Debian's packages: unpacked under the target directory, never installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::Skip;
use crate::builder;

/// Depends on the current kernel for machines in clouds: small, and its KVM needs few modules.
const KERNEL: &str = "linux-image-cloud-amd64";

/// A shell and the tools of the first process, in one static program.
const TOOLS: &str = "busybox-static";

/// Kernel modules in the order in which they are inserted.
pub(super) const MODULES: [&str; 4] = ["irqbypass.ko", "kvm.ko", "kvm-amd.ko", "tun.ko"];

/// The parts of a machine: a folder with `vmlinuz`, `busybox` and [`MODULES`].
///
/// They are downloaded by the first run and kept in the target directory.
///
/// # Errors
/// [`Skip`] when the packages are not to be had here.
pub(super) fn prepare() -> Result<PathBuf> {
    let folder = builder::root().join("target/fogbow/nested");
    let kept = folder.join("debian");
    if kept.is_dir() {
        return Ok(kept);
    }
    fs::create_dir_all(&folder)?;
    let work = tempfile::tempdir_in(&folder)?;
    download(work.path())?;
    let (tree, parts) = (work.path().join("tree"), work.path().join("parts"));
    for entry in fs::read_dir(work.path())? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("deb")) {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(&tree))?;
        }
    }
    fs::create_dir(&parts)?;
    for part in MODULES.into_iter().chain(["vmlinuz-", "busybox"]) {
        let found = find(&tree, part)?.ok_or_else(|| Skip(format!("Debian's {KERNEL} and {TOOLS} hold no {part} here")))?;
        fs::copy(found, parts.join(part.trim_end_matches('-')))?;
    }
    // A run at the same time may have been faster.
    if let Err(error) = fs::rename(&parts, &kept) {
        ensure!(kept.is_dir(), "keeping the nested machine's parts: {error}");
    }
    Ok(kept)
}

/// Fetches the packages into `folder`. Without a network apt gives up by itself.
fn download(folder: &Path) -> Result<()> {
    let skip = |error: anyhow::Error| Skip(format!("the nested machine's parts cannot be downloaded: {error:#}"));
    let depends = run(Command::new("apt-cache").args(["depends", KERNEL]).env("LC_ALL", "C")).map_err(skip)?;
    let kernel = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let kernel = kernel.ok_or_else(|| Skip(format!("apt knows no {KERNEL}: run apt-get update")))?;
    let patience = ["-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20", "-o", "Acquire::Retries=1"];
    run(Command::new("apt-get").args(patience).args(["--quiet=2", "download", kernel, TOOLS]).current_dir(folder)).map_err(skip)?;
    Ok(())
}

/// The file in `tree` whose name is `name`, or begins with it if it ends in `-`.
fn find(tree: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        // Documentation and hooks are named as programs are.
        if kind.is_dir() && entry.file_name() != OsStr::new("share") {
            if let Some(found) = find(&entry.path(), name)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() {
            let file = entry.file_name();
            let file = file.to_string_lossy();
            if file == name || name.ends_with('-') && file.starts_with(name) {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
