//! Our tenders, built when they are needed.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::progress::Progress;
use crate::resolve::Target;
use crate::workspace::{self, Workspace};

/// Builds our tender of a target in the release profile and gives its path.
pub(crate) fn build(workspace: &Workspace, target: Target, progress: &Progress) -> anyhow::Result<PathBuf> {
    ensure!(target.is_image(), "{target} needs no tender: its images are programs");
    ensure!(target.has_tender(), "{target} has no tender of ours: its images run in QEMU");
    let package = format!("fogbow-{target}-tender");
    progress.say("Building", &package);
    let mut cargo = workspace::cargo();
    cargo.current_dir(workspace.root()).args(["rustc", "--release", "--message-format=json-render-diagnostics", "--package", &package]);
    cargo.args(["--bin", &package]);
    if progress.is_quiet() {
        cargo.arg("--quiet");
    }
    // A tender without shared libraries starts in two thirds of the time: there is nothing to look up, map and relocate.
    cargo.args(["--", "-C", "target-feature=+crt-static"]);
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "{package} does not compile: the compiler says why above");
    executable(&output.stdout, &package).with_context(|| format!("cargo does not say where it put {package}"))
}

/// The executable among cargo's messages.
fn executable(messages: &[u8], package: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<MessageTarget>,
    }
    #[derive(Deserialize)]
    struct MessageTarget {
        name: String,
    }
    let messages = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    messages.filter(|message| message.target.as_ref().is_some_and(|target| target.name == package)).find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"libc"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"fogbow-spt-tender"},"executable":"/t/release/fogbow-spt-tender"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executable(messages, "fogbow-spt-tender"), Some("/t/release/fogbow-spt-tender".into()));
        assert_eq!(executable(messages, "fogbow-hvt-tender"), None);
    }
}
