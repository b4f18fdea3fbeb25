//! Compiling a generated crate, and putting the result where people look for it.
//!
//! Images are linked by rust-lld alone, which comes with the toolchain: what asks for a C library then fails to link instead of going unnoticed.
//! The flags reach cargo in `CARGO_ENCODED_RUSTFLAGS`, which stands above every other source of flags, and the build has a target directory of its
//! own: neither the user's `RUSTFLAGS` nor `CARGO_TARGET_DIR` counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use fogbow_genode_tender::image;

use crate::application::Application;
use crate::files;
use crate::generate::{Generated, LINKER_SCRIPT};
use crate::progress::Progress;
use crate::resolve::Target;
use crate::workspace::{self, TRIPLE, Workspace};

/// Compiles the crate and gives the path of its executable or shared object, with debug information.
pub(crate) fn compile(
    workspace: &Workspace,
    application: &Application,
    target: Target,
    generated: &Generated,
    debug: bool,
    progress: &Progress,
) -> anyhow::Result<PathBuf> {
    let target_directory = application.work().join(match target {
        _ if target.is_shared_object() => "build-shared",
        _ if target.is_image() => "build-image",
        _ => "build-process",
    });
    if target.is_shared_object() {
        link_stub(workspace, target, generated)?;
    }
    let mut cargo = workspace::cargo();
    cargo.arg("build").current_dir(&generated.directory);
    cargo.arg("--target").arg(TRIPLE).arg("--target-dir").arg(&target_directory);
    if !debug {
        cargo.arg("--release");
    }
    if progress.is_quiet() {
        cargo.arg("--quiet");
    }
    for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_BUILD_TARGET_DIR"] {
        cargo.env_remove(variable);
    }
    if target.is_image() {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, application, target).join("\u{1f}"));
    }
    let what = format!("{} does not compile for {target}: the compiler says why above", application.name());
    workspace::check(&mut cargo, &what)?;
    let profile = if debug { "debug" } else { "release" };
    let file = if target.is_shared_object() { format!("lib{}.so", generated.name.replace('-', "_")) } else { generated.name.clone() };
    Ok(target_directory.join(TRIPLE).join(profile).join(file))
}

/// Links what stands for the host's library where an image is linked: a shared object of that name, with its symbols and no code.
fn link_stub(workspace: &Workspace, target: Target, generated: &Generated) -> anyhow::Result<()> {
    let script = workspace.root().join("targets").join(target.name()).join("solo5.lib.ld");
    let linker = sysroot()?.join("lib/rustlib").join(TRIPLE).join("bin/rust-lld");
    let mut command = Command::new(&linker);
    command.args(["-flavor", "gnu", "-m", "elf_x86_64", "-shared", "-soname", image::LIBRARY]);
    // The script defines the symbols; a linker wants one more input, which may as well be its text.
    command.arg("-o").arg(generated.directory.join(image::LIBRARY)).arg(&script).args(["-b", "binary"]).arg(&script);
    workspace::check(&mut command, &format!("{} failed on {}", linker.display(), files::display(&script)))
}

/// Flags for every crate of an image.
fn flags(workspace: &Workspace, application: &Application, target: Target) -> Vec<String> {
    let kind = if target.is_shared_object() {
        [
            "-Crelocation-model=pic",
            // Where the linker runs, beside the linker script.
            "-Clink-arg=solo5.lib.so",
            "-Clink-arg=--hash-style=sysv",
            // What the image has itself it does not look for elsewhere.
            "-Clink-arg=-Bsymbolic",
            "-Clink-arg=-znorelro",
            "-Crelro-level=off",
        ]
        .as_slice()
    } else {
        ["-Crelocation-model=static", "-Clink-arg=-static"].as_slice()
    };
    let mut flags: Vec<String> = [
        "-Clinker=rust-lld",
        "-Clinker-flavor=ld.lld",
        "-Clink-arg=--nostdlib",
        "-Clink-arg=-zmax-page-size=4096",
        // Nothing unwinds.
        "-Cforce-unwind-tables=no",
        // Every crate draws from the image's own generator.
        "--cfg=getrandom_backend=\"custom\"",
        // SHA-256 where the processor has no instructions for it: nine kilobytes less, for a generator's pools quick enough.
        "--cfg=sha2_backend_soft=\"compact\"",
    ]
    .map(str::to_owned)
    .to_vec();
    flags.extend(kind.iter().map(|flag| (*flag).to_owned()));
    flags.push(format!("-Clink-arg=-T{LINKER_SCRIPT}"));
    // Messages and debug information name places inside the trees, wherever those are on this machine.
    let trees = [(cargo_home().join("registry/src"), "registry"), (workspace.root().to_owned(), "fogbow"), (application.home.clone(), "")];
    flags.extend(trees.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    flags
}

fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo");
    std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

/// A copy of an image without symbols and debug information.
pub(crate) fn strip(image: &Path) -> anyhow::Result<Vec<u8>> {
    let stripped = image.with_extension("stripped");
    let sysroot = sysroot()?;
    let objcopy = sysroot.join("lib/rustlib").join(TRIPLE).join("bin/rust-objcopy");
    ensure!(objcopy.exists(), "{} is missing: install Rust with rustup, whose toolchains have it", objcopy.display());
    let mut command = Command::new(&objcopy);
    // Its own libraries are the compiler's.
    command.env("LD_LIBRARY_PATH", sysroot.join("lib")).arg("--strip-all").arg(image).arg(&stripped);
    workspace::check(&mut command, &format!("{} failed on {}", objcopy.display(), files::display(image)))?;
    let bytes = fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))?;
    files::remove(&stripped)?;
    Ok(bytes)
}

/// Where the toolchain is: it has the objcopy that rustc strips with too.
fn sysroot() -> anyhow::Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().context("cannot start rustc")?;
    let sysroot = String::from_utf8(output.stdout).context("the sysroot's path is not UTF-8")?;
    Ok(PathBuf::from(sysroot.trim()))
}

/// Puts an executable file at `path`, unless the same one is there. A program that runs from there goes on undisturbed.
pub(crate) fn install(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::read(path).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    files::write_if_changed(&new, contents)?;
    let finish = || fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).and_then(|()| fs::rename(&new, path));
    finish().with_context(|| format!("cannot write {}", path.display()))
}
