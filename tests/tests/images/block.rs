//! Block devices: what one target writes is there, on the host and for the others.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fogbow_tender::block::{self, Access};
use fogbow_tests::Skip;
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::guest::Ended;
use libtest_mimic::Trial;

const SECTOR: u64 = 512;

/// Not a multiple of what our tenders move at once: the end of the device is reached in smaller steps.
const SECTORS: u64 = 8 * 2048 + 100;

pub(crate) fn trials() -> Vec<Trial> {
    let places = [Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Genode];
    let patterns = super::on(&places, "block_writes_and_verifies_a_pattern", writes_and_verifies);
    let layers = super::on(&places, "block_layers_keep_data_and_notice_tampering", layers_notice_tampering);
    let raw = super::on(&[Place::Unix, Place::Spt, Place::Hvt], "block_works_on_a_raw_device", works_on_a_raw_device);
    let in_use = super::on(&places, "block_a_disk_in_use_is_refused", refuses_what_is_in_use);
    // QEMU says in its own words what is wrong with a file.
    let places: Vec<Place> = places.into_iter().filter(|place| *place != Place::Virtio).collect();
    let mistakes = super::on(&places, "block_missing_and_odd_files_are_refused", odd_files_are_refused);
    let shared = super::on(&[Place::Spt, Place::Hvt], "block_a_disk_that_others_read_is_read_only", shares_what_is_read);
    let given_back = super::trial("block_discard_and_zeroes_give_the_file_s_blocks_back", Place::Virtio, gives_blocks_back);
    patterns.into_iter().chain(layers).chain(raw).chain(mistakes).chain(in_use).chain(shared).chain([given_back]).collect()
}

/// Runs `image` on a place with a file as its disk.
fn run(place: Place, image: &str, file: &Path, arguments: &[&str]) -> Result<Ended> {
    let file = file.to_str().context("a path that is text")?;
    let (option, argument) = (format!("--block:disk={file}"), format!("--disk-file={file}"));
    let mut words = arguments.to_vec();
    let is_program = place == Place::Unix;
    if is_program {
        words.push(&argument);
    }
    let tender: &[&str] = if is_program { &[] } else { &[&option] };
    place.start(image, &Run { tender, arguments: &words, ..Run::default() })?.ended()
}

fn disk() -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    file.as_file().set_len(SECTORS * SECTOR)?;
    Ok(file)
}

fn check(ended: &Ended, status: i32, texts: &[&str]) -> Result<()> {
    ensure!(ended.status == Some(status) && texts.iter().all(|text| ended.console.contains(text)), "not {status} and {texts:?}: {ended:?}");
    Ok(())
}

fn flip(file: &File, at: u64) -> Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    Ok(file.write_all_at(&[byte[0] ^ 1], at)?)
}

fn writes_and_verifies(place: Place) -> Result<()> {
    let disk = disk()?;
    // Solo5 0.6's library cannot be told to flush.
    let survived = if place == Place::Genode { "the image's end" } else { "a power cut" };
    let geometry = format!("disk: {SECTORS} sectors of 512 bytes; what is flushed survives {survived}");
    let verified = format!("verified {SECTORS} sectors");
    check(&run(place, "block", disk.path(), &["--pattern=3"])?, 0, &[&geometry, &verified])?;
    check(&run(Place::Unix, "block", disk.path(), &["--do=verify", "--pattern=3"])?, 0, &[&verified])?;
    check(&run(Place::Unix, "block", disk.path(), &["--do=write", "--pattern=4"])?, 0, &[])?;
    flip(disk.as_file(), (SECTORS - 1) * SECTOR + 7)?;
    let differs = format!("sector {} does not hold the pattern", SECTORS - 1);
    check(&run(place, "block", disk.path(), &["--do=verify", "--pattern=4"])?, 1, &[&differs])
}

/// A partition from sector 8 on, authenticated encryption in it, a cache over it.
fn layers_notice_tampering(place: Place) -> Result<()> {
    const FIRST: u64 = 8;
    let disk = disk()?;
    let mut entry = [0; 66];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&(FIRST as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&((SECTORS - FIRST) as u32).to_le_bytes());
    entry[64..].copy_from_slice(&[0x55, 0xaa]);
    disk.as_file().write_all_at(&entry, 446)?;
    let key = format!("--disk-key={}", "c0ffee11".repeat(8));
    let image = "tests/images/sealed";
    let sectors = (SECTORS - FIRST - 1) / 9;
    let geometry = format!("disk, partition 1: {sectors} sectors of 4096 bytes");
    check(&run(place, image, disk.path(), &[&key])?, 1, &["never formatted"])?;
    check(&run(place, image, disk.path(), &[&key, "--disk-format=true"])?, 0, &[&geometry, "verified"])?;
    check(&run(Place::Unix, image, disk.path(), &[&key, "--do=verify"])?, 0, &["verified"])?;
    check(&run(place, image, disk.path(), &[&format!("{key}0"), "--do=verify"])?, 1, &["is no key"])?;
    flip(disk.as_file(), (FIRST + 1 + 9 * 70) * SECTOR + 99)?;
    check(&run(place, image, disk.path(), &[&key, "--do=verify"])?, 1, &["read of 4096 bytes at sector 70", "not what was written"])
}

/// A loop device of the host, over a file.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Result<Self> {
        let made = Command::new("/sbin/losetup").args(["--find", "--show"]).arg(file).output();
        match made {
            Ok(output) if output.status.success() => Ok(Self(String::from_utf8(output.stdout)?.trim().to_owned())),
            Ok(output) => bail!(Skip(format!("no loop device: {}", String::from_utf8_lossy(&output.stderr).trim()))),
            Err(error) => bail!(Skip(format!("no loop device: losetup: {error}"))),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("/sbin/losetup").args(["--detach", &self.0]).status();
    }
}

fn works_on_a_raw_device(place: Place) -> Result<()> {
    let disk = disk()?;
    let raw = Loop::new(disk.path())?;
    let geometry = format!("disk: {SECTORS} sectors of 512 bytes");
    check(&run(place, "block", Path::new(&raw.0), &["--pattern=5"])?, 0, &[&geometry, &format!("verified {SECTORS} sectors")])?;
    // What was flushed is in the file below.
    drop(raw);
    check(&run(Place::Unix, "block", disk.path(), &["--do=verify", "--pattern=5"])?, 0, &["verified"])
}

/// QEMU passes on what the image discards, and makes holes where it writes zeros, as far as the file's own file system can.
fn gives_blocks_back() -> Result<()> {
    let disk = disk()?;
    let blocks = || Ok::<_, anyhow::Error>(disk.as_file().metadata()?.blocks() * 512);
    for clear in ["discard", "zero"] {
        check(&run(Place::Virtio, "block", disk.path(), &["--do=write"])?, 0, &[])?;
        disk.as_file().sync_all()?;
        let full = blocks()?;
        ensure!(full >= SECTORS * SECTOR, "{full} bytes hold {SECTORS} sectors");
        check(&run(Place::Virtio, "block", disk.path(), &[&format!("--do={clear}")])?, 0, &[])?;
        let left = blocks()?;
        ensure!(left <= full / 100, "{clear}: {left} of {full} bytes are left");
        let data = std::fs::read(disk.path())?;
        ensure!(data.len() as u64 == SECTORS * SECTOR && data.iter().all(|byte| *byte == 0), "{clear} left something else than zeros");
    }
    Ok(())
}

/// Another program has the disk, as `cargo xtask kv` or another image would.
fn refuses_what_is_in_use(place: Place) -> Result<()> {
    let disk = disk()?;
    let other = block::open(disk.path(), 512, Access::Write)?;
    let text = if place == Place::Virtio { "Failed to lock byte" } else { "end that one first" };
    check(&run(place, "block", disk.path(), &[])?, 1, &["disk", text])?;
    drop(other);
    check(&run(place, "block", disk.path(), &["--do=write"])?, 0, &[])
}

/// Another program reads the disk, and the image may as well; what it would write is refused before the host is asked.
fn shares_what_is_read(place: Place) -> Result<()> {
    let disk = disk()?;
    check(&run(place, "block", disk.path(), &["--do=write"])?, 0, &[])?;
    let _other = block::open(disk.path(), 512, Access::Read)?;
    let file = format!("--block:disk={}", disk.path().display());
    let look = |arguments: &[&str]| {
        let run = Run { tender: &[&file, "--block-read-only:disk=yes"], arguments, ..Run::default() };
        place.start("block", &run)?.ended()
    };
    check(&look(&["--do=verify"])?, 0, &["sectors of 512 bytes, read-only", "verified"])?;
    check(&look(&["--do=write"])?, 1, &["at sector 0: the device is read-only"])
}

fn odd_files_are_refused(place: Place) -> Result<()> {
    let disk = disk()?;
    let missing = disk.path().with_extension("missing");
    check(&run(place, "block", &missing, &[])?, 1, &["disk", "must exist and be readable and writable"])?;
    disk.as_file().set_len(1000)?;
    check(&run(place, "block", disk.path(), &[])?, 1, &["disk", "block aligned"])
}
