//! Finding an application: an example of the workspace, or any directory with a `unikernel.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::manifest::{self, Manifest};
use crate::suggest;
use crate::workspace::{self, Workspace};

/// An application to build.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    /// Absolute, without symbolic links.
    pub(crate) directory: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) package: Package,
    /// True for the workspace's own examples.
    pub(crate) is_example: bool,
    /// Where images go and generated crates are kept: the workspace for its own examples, else the application's directory.
    pub(crate) home: PathBuf,
}

/// What cargo knows of the application's crate.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    manifest_path: PathBuf,
    targets: Vec<CargoTarget>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct CargoTarget {
    kind: Vec<String>,
}

impl Application {
    /// Finds and reads the application that `app` names.
    pub(crate) fn find(workspace: &Workspace, app: &str) -> anyhow::Result<Self> {
        let directory = directory_of(workspace, app)?;
        let directory = directory.canonicalize().with_context(|| format!("cannot read {}", directory.display()))?;
        let manifest = Manifest::read(&crate::files::shortened(&directory.join(manifest::FILE)))?;
        let package = read_package(&directory)?;
        let is_example = directory.starts_with(workspace.examples());
        let home = if is_example { workspace.root().to_owned() } else { directory.clone() };
        Ok(Self { directory, manifest, package, is_example, home })
    }

    pub(crate) fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Everything that the builder makes but the images.
    pub(crate) fn work(&self) -> PathBuf {
        self.home.join("target/fogbow")
    }

    /// Where the images go.
    pub(crate) fn dist(&self) -> PathBuf {
        self.home.join("dist")
    }
}

fn directory_of(workspace: &Workspace, app: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(app);
    if path.join(manifest::FILE).is_file() {
        return Ok(path.to_owned());
    }
    let example = workspace.examples().join(app);
    let is_name = manifest::check_words(app).is_ok();
    if is_name && example.join(manifest::FILE).is_file() {
        return Ok(example);
    }
    if path.is_dir() || !is_name {
        bail!("there is no {} in {app}: give an example's name or the directory of an application", manifest::FILE);
    }
    let examples = workspace.example_names();
    let examples: Vec<&str> = examples.iter().map(String::as_str).collect();
    bail!("no example and no directory is called '{app}': {}", suggest::hint(app, &examples))
}

fn read_package(directory: &Path) -> anyhow::Result<Package> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let manifest_path = directory.join("Cargo.toml");
    ensure!(manifest_path.is_file(), "{} is missing: an application is a library crate", crate::files::display(&manifest_path));
    let mut command = workspace::cargo();
    command.args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"]).arg(&manifest_path);
    let output = command.stderr(std::process::Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo cannot read {}", crate::files::display(&manifest_path));
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata gave something unexpected")?;
    let package = metadata.packages.into_iter().find(|package| package.manifest_path == manifest_path);
    let package = package.with_context(|| format!("{} has no [package]", crate::files::display(&manifest_path)))?;
    let is_library = package.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "lib"));
    ensure!(is_library, "{} is no library: an application is a crate with a src/lib.rs", crate::files::display(&manifest_path));
    Ok(package)
}
