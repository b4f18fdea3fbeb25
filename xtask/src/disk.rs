//! A disk that boots an image by itself, for machines and clouds that start nothing but disks: GRUB, from Debian's packages, and one partition.
//!
//! The disk is a classic one: GRUB's first sector with the table of partitions, GRUB's core right after it, and from 1 MiB on a FAT partition with
//! `grub.cfg` and the image, which GRUB starts by multiboot. Any system can open that partition, to change the arguments or to exchange the image.
//! Nothing is installed and nothing mounted: it needs no root. The same inputs make the same disk.
//!
//! Limits: BIOS, not UEFI.

use std::io::{Cursor, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::files;
use crate::workspace;

/// GRUB's parts for BIOS machines (Debian's grub-pc-bin).
const GRUB: &str = "/usr/lib/grub/i386-pc";

/// Makes GRUB's core of its parts (Debian's grub-common).
const MAKE_CORE: &str = "grub-mkimage";

/// What the core consists of: the BIOS's disks, their partitions and files, the language of `grub.cfg`, and the loader.
const MODULES: [&str; 6] = ["biosdisk", "part_msdos", "fat", "normal", "multiboot", "echo"];

const SECTOR: usize = 512;

/// Where the partition begins: at 1 MiB, as partitioning tools do it. GRUB's core lies before it.
const PARTITION: usize = 1 << 20;

/// Room in the partition beside the image, for what its user adds.
const ROOM: usize = 1 << 20;

/// The least size of the partition: with sectors for clusters a FAT of 16 bits.
const LEAST: usize = 4 << 20;

/// The partition's type: FAT, addressed by sectors.
const FAT: u8 = 0x0e;

/// Where the first sector has its table of partitions (four of 16 bytes), and the mark of a sector that boots.
const TABLE: usize = 446;
const MARK: (usize, [u8; 2]) = (510, [0x55, 0xaa]);

/// The disk of `image`, which lies at `path`, started with `arguments`.
pub(crate) fn disk(path: &Path, image: &[u8], arguments: &[String]) -> anyhow::Result<Vec<u8>> {
    let (first, core) = grub(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partition = partition(&[("boot/grub/grub.cfg", configuration(&name, arguments)?.as_bytes()), (&format!("boot/{name}"), image)])?;
    assemble(&first, &core, &partition)
}

/// GRUB's first sector, and its core.
fn grub(path: &Path) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let help = "a disk boots by GRUB, which is missing: apt-get install grub-common grub-pc-bin (Debian's packages)";
    let first = std::fs::read(Path::new(GRUB).join("boot.img")).context(help)?;
    let core = path.with_extension(format!("{}.core", std::process::id()));
    let mut command = Command::new(MAKE_CORE);
    // The prefix: the first partition of the disk that it was booted from.
    command.args(["--format=i386-pc", "--prefix=(,msdos1)/boot/grub", "--directory", GRUB, "--output"]).arg(&core).args(MODULES);
    workspace::check(&mut command, help)?;
    let bytes = std::fs::read(&core).with_context(|| format!("cannot read {}", core.display()))?;
    files::remove(&core)?;
    Ok((first, bytes))
}

/// GRUB's configuration: it starts the image at once.
fn configuration(image: &str, arguments: &[String]) -> anyhow::Result<String> {
    let mut line = format!("multiboot {}", quoted(&format!("/boot/{image}"))?);
    for argument in arguments {
        line.push(' ');
        line.push_str(&quoted(argument)?);
    }
    Ok(format!("# Starts the image with its arguments.\n{line}\nboot\n"))
}

/// A word of GRUB's language. GRUB hands words on in double quotes where they have a space, with a backslash before each quote.
fn quoted(word: &str) -> anyhow::Result<String> {
    ensure!(!word.chars().any(char::is_control), "the argument {word:?} cannot go through GRUB: it has a control character");
    // Within double quotes a backslash before a single quote stands for itself.
    ensure!(
        !(word.contains(' ') && word.contains('\'')),
        "the argument {word:?} cannot go through GRUB: it has a space and a single quote"
    );
    Ok(format!("'{}'", word.replace('\'', r"'\''")))
}

/// A FAT file system with these files.
fn partition(files: &[(&str, &[u8])]) -> anyhow::Result<Vec<u8>> {
    let contents: usize = files.iter().map(|(_, contents)| contents.len()).sum();
    let mut bytes = vec![0; (contents + ROOM).next_multiple_of(1 << 20).max(LEAST)];
    let options = fatfs::FormatVolumeOptions::new().volume_label(*b"FOGBOW     ").volume_id(0x0f09_b000);
    fatfs::format_volume(Cursor::new(&mut bytes), options).context("cannot make a FAT file system")?;
    let volume = fatfs::FileSystem::new(Cursor::new(&mut bytes), fatfs::FsOptions::new().update_accessed_date(false))?;
    for (path, contents) in files {
        let mut directory = volume.root_dir();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for folder in folders.split('/') {
            directory = directory.create_dir(folder)?;
        }
        let mut file = directory.create_file(name)?;
        file.write_all(contents)?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(bytes)
}

/// Puts the parts together.
fn assemble(first: &[u8], core: &[u8], partition: &[u8]) -> anyhow::Result<Vec<u8>> {
    ensure!(first.len() == SECTOR, "{GRUB}/boot.img has {} bytes, and a sector has {SECTOR}", first.len());
    ensure!(SECTOR + core.len() <= PARTITION, "GRUB's core of {} bytes does not fit before the partition", core.len());
    let mut disk = vec![0; PARTITION];
    disk[..SECTOR].copy_from_slice(first);
    disk[SECTOR..SECTOR + core.len()].copy_from_slice(core);
    // Active; then addresses by cylinders, which nobody reads; the type; then addresses by sectors.
    let sectors = |bytes: usize| u32::try_from(bytes / SECTOR).context("the image is too large for a disk");
    let table = [
        &[0x80, 0xfe, 0xff, 0xff, FAT, 0xfe, 0xff, 0xff][..],
        &sectors(PARTITION)?.to_le_bytes(),
        &sectors(partition.len())?.to_le_bytes(),
    ];
    disk[TABLE..MARK.0].fill(0);
    disk[TABLE..TABLE + 16].copy_from_slice(&table.concat());
    disk[MARK.0..SECTOR].copy_from_slice(&MARK.1);
    disk.extend(partition);
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn files_of_the_partition_are_read_back() {
        let image = vec![7; 3_000_000];
        let bytes = partition(&[("boot/grub/grub.cfg", b"boot"), ("boot/a-long-name.virtio", &image)]).unwrap();
        assert_eq!(bytes, partition(&[("boot/grub/grub.cfg", b"boot"), ("boot/a-long-name.virtio", &image)]).unwrap());
        let volume = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
        let mut read = Vec::new();
        volume.root_dir().open_file("boot/a-long-name.virtio").unwrap().read_to_end(&mut read).unwrap();
        assert!(read == image);
    }

    #[test]
    fn a_disk_has_its_parts_in_their_places() {
        let disk = assemble(&[1; SECTOR], &[2; 1000], &[3; 2 << 20]).unwrap();
        assert_eq!((disk.len(), disk[0], disk[SECTOR], disk[PARTITION]), (3 << 20, 1, 2, 3));
        assert_eq!(disk[TABLE + 8..TABLE + 16], [0, 8, 0, 0, 0, 16, 0, 0]);
        assert_eq!(disk[510..512], [0x55, 0xaa]);
        assert!(assemble(&[1; SECTOR], &vec![2; 1 << 20], &[3; SECTOR]).is_err());
    }

    #[test]
    fn arguments_are_words_of_grub() {
        let text = configuration("a.virtio", &["--x=1".to_owned(), "it's".to_owned(), "a b;$c".to_owned()]).unwrap();
        assert!(text.contains(r"multiboot '/boot/a.virtio' '--x=1' 'it'\''s' 'a b;$c'"), "{text}");
        for word in ["a\nb", "it's not"] {
            assert!(configuration("a", &[word.to_owned()]).unwrap_err().to_string().contains("GRUB"));
        }
    }
}
