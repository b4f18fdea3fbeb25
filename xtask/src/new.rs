//! A small working application to start from.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::files;
use crate::manifest;
use crate::progress::Progress;
use crate::workspace::{Library, Workspace};

const UNIKERNEL: &str = include_str!("new/unikernel.toml");
const LIBRARY: &str = include_str!("new/lib.rs");
const GREETING: &str = "Good morning\n";
const IGNORED: &str = "/target\n/dist\n";

/// Writes an application into a new directory and says what to do with it.
pub(crate) fn create(workspace: &Workspace, path: &Path, progress: &Progress) -> anyhow::Result<()> {
    let path = std::path::absolute(path).context("cannot tell where the application is to be")?;
    let name = path.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} has no name", path.display()))?;
    manifest::check_words(name).map_err(|rule| anyhow::anyhow!("the application cannot be called \"{name}\": {rule}"))?;
    ensure!(!RESERVED.contains(&name), "the application cannot be called \"{name}\": a crate of Rust's own has that name");
    let is_empty = path.read_dir().map_or(true, |mut entries| entries.next().is_none());
    ensure!(!path.exists() || path.is_dir() && is_empty, "{} is there already and not empty: choose another place", files::display(&path));
    for (file, text) in texts(workspace, name)? {
        files::write_if_changed(&path.join(file), text)?;
    }
    let shown = files::display(&path);
    progress.say("Created", format_args!("{shown}: start with src/lib.rs and {}", manifest::FILE));
    if !progress.is_quiet() {
        let app = if shown.contains('/') { shown } else { format!("./{shown}") };
        eprintln!("Next:");
        eprintln!("  cargo xtask run {app} --target unix");
        eprintln!("  cargo xtask run {app} --target spt -- --name=Ada");
        eprintln!("  cd {app} && cargo test");
    }
    Ok(())
}

/// Names that would stand in the way of the compiler's own crates.
const RESERVED: [&str; 5] = ["alloc", "core", "std", "test", "application"];

fn texts(workspace: &Workspace, name: &str) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let texts = [
        ("Cargo.toml", cargo_manifest(workspace, name)?),
        (".cargo/config.toml", cargo_config(workspace)?),
        (".gitignore", IGNORED.to_owned()),
        (manifest::FILE, UNIKERNEL.replace("NAME", name)),
        ("src/lib.rs", LIBRARY.replace("NAME", name)),
        ("texts/greeting.txt", GREETING.to_owned()),
    ];
    Ok(texts.map(|(file, text)| (file.into(), text)).into())
}

fn cargo_manifest(workspace: &Workspace, name: &str) -> anyhow::Result<String> {
    let dependency = |library: Library| -> anyhow::Result<String> {
        let path = workspace.root().join(library.folder());
        Ok(format!("{} = {{ path = {:?}, default-features = false", library.package(), files::utf8(&path)?))
    };
    let (runtime, kv) = (dependency(Library::Runtime)?, dependency(Library::Kv)?);
    Ok(format!(
        "[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         [dependencies]\n{runtime} }}\n{kv} }}\n\n\
         # Tests run on the simulated platform.\n[dev-dependencies]\n{runtime}, features = [\"hosted\"] }}\n\n\
         # A workspace of its own.\n[workspace]\n"
    ))
}

/// Makes `cargo xtask` work in the application's directory too.
fn cargo_config(workspace: &Workspace) -> anyhow::Result<String> {
    let manifest = workspace.root().join("Cargo.toml");
    let manifest = files::utf8(&manifest)?;
    Ok(format!(
        "# `cargo xtask build . --target spt` works here too.\n[alias]\n\
         xtask = [\"run\", \"--quiet\", \"--manifest-path\", {manifest:?}, \"--package\", \"xtask\", \"--\"]\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn a_new_application_is_whole_and_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("my-app");
        let workspace = Workspace::find().unwrap();
        create(&workspace, &path, &Progress::new(true)).unwrap();
        let manifest = Manifest::read(&path.join(manifest::FILE)).unwrap();
        assert_eq!(manifest.name, "my-app");
        for device in &manifest.devices {
            assert!(path.join(device.source.as_ref().unwrap()).is_dir());
        }
        let cargo: toml::Table = std::fs::read_to_string(path.join("Cargo.toml")).unwrap().parse().unwrap();
        assert_eq!(cargo["package"]["name"].as_str(), Some("my-app"));
        let error = create(&workspace, &path, &Progress::new(true)).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
    }

    #[test]
    fn a_name_must_do_as_a_name() {
        let error = create(&Workspace::find().unwrap(), Path::new("My App"), &Progress::new(true)).unwrap_err().to_string();
        assert!(error.contains("\"My App\": write lower-case letters"), "{error}");
        assert!(create(&Workspace::find().unwrap(), Path::new("core"), &Progress::new(true)).is_err());
    }
}
