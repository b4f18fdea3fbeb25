//! Files and paths.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;

/// Writes a file unless it has these contents already: cargo goes by the time of the last change.
pub(crate) fn write_if_changed(path: &Path, contents: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let contents = contents.as_ref();
    if fs::read(path).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    let write = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, contents)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The way from a directory to a place; both absolute and without `..`.
pub(crate) fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to.components().skip(shared)).collect();
    if way.as_os_str().is_empty() { PathBuf::from(".") } else { way }
}

/// A path as a person in the current directory would write it.
pub(crate) fn display(path: &Path) -> String {
    shortened(path).display().to_string()
}

/// A path seen from the current directory where it is below it.
pub(crate) fn shortened(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).to_owned()
}

/// A path as UTF-8, which generated files need.
pub(crate) fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("the path {} is not UTF-8: move the directory", path.display()))
}

/// Removes a file or a directory with all that is in it; says whether there was one.
pub(crate) fn remove(path: &Path) -> anyhow::Result<bool> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_lead_from_one_place_to_another() {
        for (from, to, way) in [("/a/b", "/a/c/d", "../c/d"), ("/a", "/a/b", "b"), ("/a", "/a", "."), ("/a/b", "/c", "../../c")] {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(way));
        }
    }

    #[test]
    fn a_file_with_the_same_contents_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/file");
        write_if_changed(&path, "one").unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        write_if_changed(&path, "one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
        write_if_changed(&path, "two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }
}
