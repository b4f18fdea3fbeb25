//! The files that block devices are: made when that is asked for, and looked at before they are attached.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Context as _, ensure};
use fogbow_tender::block::{self, Access};
use fogbow_tender::options::DEFAULT_SECTOR_SIZE;

use crate::progress::{self, Progress};

/// Makes the files that do not exist, if a size is given, and checks that each can be a block device.
pub(super) fn prepare(files: &[(String, String)], create: Option<u64>, progress: &Progress) -> anyhow::Result<()> {
    for (name, file) in files {
        let path = Path::new(file);
        if let Some(size) = create
            && make(path, size).with_context(|| format!("device '{name}': cannot create {file}"))?
        {
            progress.say("Creating", format!("{file}, {}", progress::size(size)));
        }
        ensure!(
            path.exists(),
            "device '{name}': {file} does not exist: add --create 64M to make it, or give another file with --block {name}=FILE"
        );
        block::open(path, DEFAULT_SECTOR_SIZE, Access::Read).with_context(|| format!("device '{name}'"))?;
    }
    Ok(())
}

/// Makes a file of this size, all zeros, unless there is one; true when it was made.
fn make(path: &Path, size: u64) -> io::Result<bool> {
    match File::create_new(path) {
        Ok(file) => file.set_len(size).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(file: &Path, create: Option<u64>) -> Option<String> {
        let files = [("disk".to_owned(), file.to_str().unwrap().to_owned())];
        prepare(&files, create, &Progress::new(true)).err().map(|error| format!("{error:#}"))
    }

    #[test]
    fn files_are_made_once_and_checked() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk.img");
        let missing = problem(&disk, None).unwrap();
        assert!(missing.starts_with("device 'disk': ") && missing.contains("does not exist: add --create 64M"), "{missing}");
        assert_eq!(problem(&disk, Some(8192)), None);
        assert_eq!(problem(&disk, Some(512)), None);
        assert_eq!(disk.metadata().unwrap().len(), 8192, "what exists is left as it is");
        for (length, reason) in [(0, "at least 1 block"), (1000, "must be block aligned (512 bytes) and is 1000")] {
            File::options().write(true).open(&disk).unwrap().set_len(length).unwrap();
            let problem = problem(&disk, None).unwrap();
            assert!(problem.starts_with("device 'disk': ") && problem.contains(reason), "{problem}");
        }
        assert!(problem(&directory.path().join("no/disk.img"), Some(512)).unwrap().contains("cannot create"));
    }
}
