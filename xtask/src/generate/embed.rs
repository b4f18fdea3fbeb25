//! The table of an embedded store: every file of a directory, sorted by key, with its digest and the time of its last change.
//!
//! A build is reproducible: set `SOURCE_DATE_EPOCH` (seconds of Unix time, as reproducible-builds.org specifies it), and no file counts as
//! younger than that.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, bail, ensure};
use fogbow_kv::{Digest, Key};

use crate::application::Application;
use crate::files;
use crate::manifest::Device;

use super::Origin;

/// The files of a store.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    /// Sorted by key.
    entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    key: String,
    digest: [u8; 32],
    /// Nanoseconds of Unix time.
    modified: u64,
}

/// The name of the module with a device's table.
pub(super) fn module(device: &Device) -> String {
    format!("embedded_{}", device.name)
}

/// The directory that a store is made from: absolute, without symbolic links.
pub(super) fn source_directory(application: &Application, device: &Device) -> anyhow::Result<PathBuf> {
    let source = application.directory.join(device.source.as_deref().unwrap_or_default());
    let place = || format!("device '{}' ({}): source {}", device.name, device.kind, files::display(&source));
    ensure!(source.is_dir(), "{} is no directory: make it, or correct it in {}", place(), crate::manifest::FILE);
    source.canonicalize().with_context(place)
}

impl Store {
    /// Reads the directory that `device` is made from.
    pub(super) fn read(application: &Application, device: &Device) -> anyhow::Result<Self> {
        let directory = source_directory(application, device)?;
        let latest = latest_time(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())?;
        Self::from_directory(directory, latest).with_context(|| format!("device '{}' ({})", device.name, device.kind))
    }

    fn from_directory(directory: PathBuf, latest: u64) -> anyhow::Result<Self> {
        let mut entries = Vec::new();
        collect(&directory, "", latest, &mut entries)?;
        entries.sort_unstable_by(|a: &Entry, b| a.key.cmp(&b.key));
        Ok(Self { directory, entries })
    }

    /// The module's text; `from` is the directory that it will be in.
    pub(super) fn source(&self, origin: &Origin, from: &Path) -> anyhow::Result<String> {
        let way = files::relative(from, &self.directory);
        let name = self.directory.file_name().unwrap_or_default().display();
        let mut text = format!("//! The files of {name}/ as a store.\n//!\n{}\n", origin.comment("//!"));
        let types = if self.entries.is_empty() { "" } else { "use fogbow::time::WallTime;\nuse fogbow_kv::Digest;\n" };
        let _ = write!(
            text,
            "{types}use fogbow_kv::embedded::Entry;\n\n/// Sorted by key.\npub static ENTRIES: [Entry; {}] = [\n",
            self.entries.len()
        );
        for Entry { key, digest, modified } in &self.entries {
            let path = way.join(key);
            let digest = digest.iter().fold(String::new(), |digits, byte| digits + &format!("\\x{byte:02x}"));
            let _ = writeln!(
                text,
                "    Entry {{\n        key: {key:?},\n        value: include_bytes!({:?}),\n        digest: Digest(*b\"{digest}\"),\n        \
                 modified: WallTime::from_unix_nanos({modified}),\n    }},",
                files::utf8(&path)?,
            );
        }
        text.push_str("];\n");
        Ok(text)
    }
}

fn collect(directory: &Path, prefix: &str, latest: u64, into: &mut Vec<Entry>) -> anyhow::Result<()> {
    let context = || format!("cannot read {}", files::display(directory));
    for entry in fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            bail!("the name of {} is not UTF-8: rename the file", files::display(&path));
        };
        let key = format!("{prefix}{name}");
        // A symbolic link counts as what it leads to.
        let metadata = fs::metadata(&path).with_context(|| format!("cannot read {}", files::display(&path)))?;
        if metadata.is_dir() {
            collect(&path, &format!("{key}/"), latest, into)?;
        } else if metadata.is_file() {
            Key::new(&key).with_context(|| format!("{} cannot be a key: rename the file", files::display(&path)))?;
            let value = fs::read(&path).with_context(|| format!("cannot read {}", files::display(&path)))?;
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            let modified = u64::try_from(modified).unwrap_or(u64::MAX).min(latest);
            into.push(Entry { key, digest: Digest::of(&value).0, modified });
        } else {
            bail!("{} is neither a file nor a directory: remove it", files::display(&path));
        }
    }
    Ok(())
}

/// The latest time of change that counts, in nanoseconds of Unix time.
fn latest_time(source_date_epoch: Option<&str>) -> anyhow::Result<u64> {
    let Some(text) = source_date_epoch else { return Ok(u64::MAX) };
    let seconds: u64 = text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, and is to be seconds of Unix time"))?;
    Ok(seconds.saturating_mul(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_a_sorted_table() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("site");
        for (file, text) in [("a/c", "see"), ("a-b", "dash"), ("index.html", "")] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let store = Store::from_directory(root.clone(), 7_000_000_000).unwrap();
        assert_eq!(store.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a-b", "a/c", "index.html"]);
        assert_eq!(store.entries[1].digest, Digest::of(b"see").0);
        let origin = Origin { command: "cargo xtask build x --target spt".into(), manifest: "unikernel.toml".into() };
        let text = store.source(&origin, &root.parent().unwrap().join("target/src")).unwrap();
        let expected = r#"//! The files of site/ as a store.
//!
//! Made by `cargo xtask build x --target spt` from unikernel.toml.
//! Changes here are lost.

use fogbow::time::WallTime;
use fogbow_kv::Digest;
use fogbow_kv::embedded::Entry;

/// Sorted by key.
pub static ENTRIES: [Entry; 3] = [
    Entry {
        key: "a-b",
        value: include_bytes!("../../site/a-b"),
"#;
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("modified: WallTime::from_unix_nanos(7000000000),\n    },\n    Entry {\n        key: \"a/c\","), "{text}");
    }

    #[test]
    fn source_date_epoch_is_in_seconds() {
        assert_eq!(latest_time(Some("12")).unwrap(), 12_000_000_000);
        assert_eq!(latest_time(None).unwrap(), u64::MAX);
        assert!(latest_time(Some("yesterday")).is_err());
    }
}
