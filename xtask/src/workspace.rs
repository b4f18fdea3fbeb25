//! This workspace: where it is, and what generated crates take from it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::manifest::Optimize;
use crate::resolve::Target;

/// The host, and what images are compiled for: see the target crates for why no other is needed.
pub(crate) const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The Fogbow workspace.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

/// A library that generated crates may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Library {
    Runtime,
    Net,
    Kv,
    Block,
    Target(&'static str),
}

impl Library {
    pub(crate) fn package(self) -> String {
        match self {
            Self::Runtime => "fogbow".to_owned(),
            Self::Net => "fogbow-net".to_owned(),
            Self::Kv => "fogbow-kv".to_owned(),
            Self::Block => "fogbow-block".to_owned(),
            Self::Target(name) => format!("fogbow-{name}"),
        }
    }

    pub(crate) fn folder(self) -> String {
        match self {
            Self::Runtime => "runtime".to_owned(),
            Self::Net => "net".to_owned(),
            Self::Kv => "kv".to_owned(),
            Self::Block => "block".to_owned(),
            Self::Target(name) => format!("targets/{name}"),
        }
    }
}

impl Workspace {
    /// The workspace that this builder belongs to.
    pub(crate) fn find() -> anyhow::Result<Self> {
        // What cargo says as it starts the builder holds even where the checkout was moved after the builder was compiled.
        let told = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let compiled = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let places = told.into_iter().chain([compiled]).filter_map(|package| package.parent().map(Path::to_owned));
        let root = places.into_iter().find(|root| root.join("xtask").is_dir() && root.join(Library::Runtime.folder()).is_dir());
        let root = root.context("the Fogbow workspace was moved: start the builder with `cargo xtask` there")?;
        Ok(Self { root: root.canonicalize().with_context(|| format!("cannot read {}", root.display()))? })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn examples(&self) -> PathBuf {
        self.root.join("examples")
    }

    /// The linker script of a target: its own, or that of its family.
    pub(crate) fn linker_script(&self, target: Target) -> anyhow::Result<String> {
        let places = [target.name(), "solo5"].map(|folder| self.root.join("targets").join(folder).join("image.ld"));
        let path = places.into_iter().find(|path| path.exists());
        let path = path.with_context(|| format!("targets/{target}/image.ld is missing: the checkout of Fogbow is not complete"))?;
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The `[profile]` tables of the workspace, as TOML, with what an image is optimized for.
    pub(crate) fn profiles(&self, optimize: Optimize) -> anyhow::Result<String> {
        let path = self.root.join("Cargo.toml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        profiles_of(&text, optimize).with_context(|| format!("cannot read the profiles in {}", path.display()))
    }

    /// The versions that all images share.
    pub(crate) fn lock(&self) -> anyhow::Result<String> {
        let path = self.root.join("Cargo.lock");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The names of the examples.
    pub(crate) fn example_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.examples()).into_iter().flatten().flatten();
        let is_application = |path: &Path| path.join(crate::manifest::FILE).is_file();
        let mut names: Vec<String> =
            entries.filter(|entry| is_application(&entry.path())).filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }
}

fn profiles_of(manifest: &str, optimize: Optimize) -> anyhow::Result<String> {
    #[derive(Deserialize, serde::Serialize)]
    struct Profiles {
        #[serde(default)]
        profile: toml::Table,
    }
    let mut profiles: Profiles = toml::from_str(manifest)?;
    // An image need not have the packages that are singled out, and cargo warns of those that it has not.
    for profile in profiles.profile.iter_mut().filter_map(|(_, profile)| profile.as_table_mut()) {
        profile.remove("package");
    }
    let release = profiles.profile.get_mut("release").and_then(toml::Value::as_table_mut);
    if let (Optimize::Size, Some(release)) = (optimize, release) {
        release.insert("opt-level".into(), "z".into());
    }
    Ok(toml::to_string(&profiles)?)
}

/// The cargo that started this builder.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command to its end and fails when it does.
pub(crate) fn check(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{what}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_copied_and_nothing_else() {
        let text = "[workspace]\nmembers = []\n[profile.dev]\npanic = \"abort\"\n[profile.dev.package.some]\nopt-level = 3\n[profile.release]\nopt-level = 3\nlto = \"fat\"\n";
        assert_eq!(
            profiles_of(text, Optimize::Speed).unwrap(),
            "[profile.dev]\npanic = \"abort\"\n\n[profile.release]\nlto = \"fat\"\nopt-level = 3\n"
        );
        assert!(profiles_of(text, Optimize::Size).unwrap().contains("opt-level = \"z\""));
        assert_eq!(profiles_of("", Optimize::Size).unwrap(), "[profile]\n");
    }

    #[test]
    fn this_workspace_has_what_images_need() {
        let workspace = Workspace::find().unwrap();
        assert!(workspace.profiles(Optimize::Speed).unwrap().contains("panic = \"abort\""));
        for library in [Library::Runtime, Library::Net, Library::Kv, Library::Target("unix")] {
            let manifest = std::fs::read_to_string(workspace.root().join(library.folder()).join("Cargo.toml")).unwrap();
            assert!(manifest.contains(&format!("name = \"{}\"", library.package())), "{library:?}");
        }
    }
}
