//! The crate that is compiled for an application and a target: `target/fogbow/NAME-TARGET/`, made to be read.
//!
//! A file that would not change is not written, so that a second build has nothing to do.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::application::Application;
use crate::files;
use crate::resolve::{Implementation, Resolved};
use crate::workspace::Workspace;

mod embed;
mod package;
mod source;

pub(crate) use source::is_only_read;

/// The linker script's name, beside the crate's `Cargo.toml`: where the linker runs.
pub(crate) const LINKER_SCRIPT: &str = "image.ld";

/// A generated crate.
#[derive(Clone, Debug)]
pub(crate) struct Generated {
    pub(crate) directory: PathBuf,
    /// The name of the package and of its binary.
    pub(crate) name: String,
}

/// Writes the crate.
pub(crate) fn generate(workspace: &Workspace, application: &Application, resolved: &Resolved) -> anyhow::Result<Generated> {
    let name = format!("{}-{}", application.name(), resolved.target);
    let directory = application.work().join(&name);
    let origin = Origin::new(workspace, application, resolved);
    let mut sources = vec![("main.rs".to_owned(), source::main(&origin, application, resolved, &directory)?)];
    for device in resolved.devices.iter().filter(|device| device.implementation == Implementation::Embedded) {
        let store = embed::Store::read(application, &device.device)?;
        sources.push((format!("{}.rs", embed::module(&device.device)), store.source(&origin, &directory.join("src"))?));
    }
    files::write_if_changed(&directory.join("Cargo.toml"), package::manifest(&origin, workspace, application, resolved, &directory)?)?;
    package::seed_lock(workspace, &directory)?;
    if resolved.target.is_image() {
        files::write_if_changed(&directory.join(LINKER_SCRIPT), workspace.linker_script(resolved.target)?)?;
    }
    for (file, text) in &sources {
        files::write_if_changed(&directory.join("src").join(file), format(workspace, text))?;
    }
    remove_others(&directory.join("src"), &sources)?;
    Ok(Generated { directory, name })
}

/// What the generated files say of their making.
#[derive(Clone, Debug)]
struct Origin {
    command: String,
    manifest: String,
}

impl Origin {
    fn new(workspace: &Workspace, application: &Application, resolved: &Resolved) -> Self {
        let manifest = application.directory.join(crate::manifest::FILE);
        let manifest =
            manifest.strip_prefix(workspace.root()).or_else(|_| manifest.strip_prefix(&application.directory)).unwrap_or(&manifest);
        let app = if application.is_example { application.name() } else { "." };
        Self { command: format!("cargo xtask build {app} --target {}", resolved.target), manifest: manifest.display().to_string() }
    }

    /// The lines of a header comment, each after `lead`.
    fn comment(&self, lead: &str) -> String {
        format!("{lead} Made by `{}` from {}.\n{lead} Changes here are lost.\n", self.command, self.manifest)
    }
}

/// Formats source text as the workspace's own, where rustfmt is installed.
fn format(workspace: &Workspace, text: &str) -> String {
    let run = || -> std::io::Result<Option<String>> {
        let mut rustfmt = Command::new("rustfmt");
        rustfmt.args(["--edition=2024", "--config-path"]).arg(workspace.root());
        let mut child = rustfmt.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        child.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()))?;
        let output = child.wait_with_output()?;
        Ok(String::from_utf8(output.stdout).ok().filter(|_| output.status.success()))
    };
    // Without rustfmt the text is as correct, only less pretty.
    run().ok().flatten().unwrap_or_else(|| text.to_owned())
}

/// Removes source files of devices that the application no longer has.
fn remove_others(directory: &Path, sources: &[(String, String)]) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        if !sources.iter().any(|(file, _)| entry.file_name() == file.as_str()) {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
