//! `Cargo.toml` and `Cargo.lock` of a generated crate.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::application::Application;
use crate::files;
use crate::manifest::{Format, Kind, Layer, Prng};
use crate::resolve::{Implementation, Resolved};
use crate::workspace::{Library, Workspace};

use super::{Origin, source};

/// A copy of the lock file that `Cargo.lock` was begun with.
const SEED: &str = "Cargo.lock.seed";

pub(super) fn manifest(
    origin: &Origin,
    workspace: &Workspace,
    application: &Application,
    resolved: &Resolved,
    directory: &Path,
) -> anyhow::Result<String> {
    let mut text = origin.comment("#");
    let name = format!("{}-{}", application.name(), resolved.target);
    let version = &application.package.version;
    let _ = write!(text, "\n[package]\nname = {name:?}\nversion = {version:?}\nedition = \"2024\"\npublish = false\n");
    if resolved.target.is_shared_object() {
        let _ = write!(text, "autobins = false\n\n[lib]\nname = {:?}\ncrate-type = [\"cdylib\"]\n", name.replace('-', "_"));
    } else {
        let _ = write!(text, "\n[[bin]]\nname = {name:?}\n");
    }
    text.push_str("path = \"src/main.rs\"\ntest = false\nbench = false\n\n[dependencies]\n");
    let path = dependency_path(application, directory, &application.directory)?;
    let _ = writeln!(text, "application = {{ package = {:?}, path = {path:?} }}", application.package.name);
    for (library, features) in libraries(resolved) {
        let path = dependency_path(application, directory, &workspace.root().join(library.folder()))?;
        let _ = writeln!(text, "{} = {{ path = {path:?}, default-features = false{features} }}", library.package());
    }
    let profiles = workspace.profiles(application.manifest.optimize)?;
    let _ = write!(text, "\n{profiles}\n# A workspace of its own: nothing above this directory counts.\n[workspace]\n");
    Ok(text)
}

/// Begins the crate's `Cargo.lock` with the workspace's, so that images and tests are built from the same versions and nothing has to be fetched
/// twice. What cargo makes of it stays until the workspace's changes.
pub(super) fn seed_lock(workspace: &Workspace, directory: &Path) -> anyhow::Result<()> {
    let lock = workspace.lock()?;
    let seed = directory.join(SEED);
    let is_seeded = directory.join("Cargo.lock").is_file() && fs::read_to_string(&seed).is_ok_and(|present| present == lock);
    if !is_seeded {
        files::write_if_changed(&directory.join("Cargo.lock"), &lock)?;
        files::write_if_changed(&seed, &lock)?;
    }
    Ok(())
}

/// The libraries that generated code names, with the features it needs.
fn libraries(resolved: &Resolved) -> Vec<(Library, String)> {
    let has = |implementation| resolved.devices.iter().any(|device| device.implementation == implementation);
    let generator = match resolved.manifest.prng {
        Prng::Fortuna => "",
        Prng::Insecure => ", features = [\"insecure-prng\"]",
    };
    let mut libraries = vec![(Library::Runtime, generator.to_owned())];
    let has_http = resolved.devices.iter().any(|device| matches!(device.device.kind, Kind::HttpServer | Kind::HttpClient));
    match (has(Implementation::DirectStack), has_http) {
        (true, true) => libraries.push((Library::Net, ", features = [\"direct\", \"http\"]".to_owned())),
        (true, false) => libraries.push((Library::Net, ", features = [\"direct\"]".to_owned())),
        (false, true) => libraries.push((Library::Net, ", features = [\"http\"]".to_owned())),
        (false, false) => {}
    }
    let layers = || resolved.devices.iter().flat_map(source::layers);
    if layers().next().is_some() {
        let features = layers().filter_map(|layer| match layer {
            Layer::Partition => Some("partition"),
            Layer::Xts | Layer::Authenticated => Some("encryption"),
            Layer::Cache => Some("cache"),
            Layer::ReadOnly => None,
        });
        let features: BTreeSet<_> = features.chain(["layers"]).collect();
        libraries.push((Library::Block, list(&features)));
    }
    let stores: BTreeSet<_> = resolved.devices.iter().filter_map(|device| stored(device.implementation)).collect();
    if !stores.is_empty() {
        // The log store is always there.
        let features: BTreeSet<_> = stores.into_iter().filter(|name| *name != Format::Log.name()).chain(["stores"]).collect();
        libraries.push((Library::Kv, list(&features)));
    } else if has(Implementation::Embedded) || has(Implementation::Memory) {
        libraries.push((Library::Kv, String::new()));
    }
    libraries.push((Library::Target(resolved.target.name()), String::new()));
    libraries
}

fn stored(implementation: Implementation) -> Option<&'static str> {
    if let Implementation::Stored(format) = implementation { Some(format.name()) } else { None }
}

/// A list of features, as a dependency has it.
fn list(features: &BTreeSet<&str>) -> String {
    format!(", features = {features:?}").replace('{', "[").replace('}', "]")
}

/// A path that survives a move of the whole tree where both ends are in it, else an absolute one.
fn dependency_path(application: &Application, from: &Path, to: &Path) -> anyhow::Result<String> {
    let path = if to.starts_with(&application.home) { files::relative(from, to) } else { to.to_owned() };
    Ok(files::utf8(&path)?.to_owned())
}
