//! Stores for exchange with other systems: an archive that `tar` made goes through an image to a FAT volume that `mtools` reads and to a log store.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fogbow_tests::Skip;
use fogbow_tests::builder::{Place, Run, xtask};
use libtest_mimic::Trial;

/// Where the first partition of a disk begins, in sectors.
const FIRST: u32 = 64;
const SECTOR: u64 = 512;

/// A volume: the bits of an entry of its table, its sectors, and the sectors of a cluster.
type Volume = (&'static str, u32, &'static str);

const VOLUMES: [Volume; 2] = [("16", 32 << 10, "4"), ("32", 68 << 10, "1")];

const FILES: [(&str, usize); 4] = [("NOTE.TXT", 12), ("DATA/BIG.BIN", 200_000), ("DATA/OLD/EMPTY", 0), ("DATA/OLD/ODD.BIN", 513)];

pub(crate) fn trials() -> Vec<Trial> {
    let places = [Place::Unix, Place::Spt, Place::Hvt, Place::Virtio];
    super::on(&places, "stores_are_exchanged_with_tar_and_fat", exchange)
}

/// Runs a program of the host that a test needs.
fn host(program: &str, package: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = match Command::new(program).args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(Skip(format!("{program} is not installed (package {package})")))
        }
        output => output.with_context(|| program.to_owned())?,
    };
    let said = [&output.stdout[..], &output.stderr].concat();
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&said));
    Ok(output.stdout)
}

fn contents(length: usize) -> Vec<u8> {
    (0..length).map(|index| ((index * 7) ^ (index >> 8)) as u8).collect()
}

/// A disk with one partition, which holds a volume with files of long names and short.
fn volume(disk: &Path, (bits, sectors, per_cluster): Volume) -> Result<()> {
    let file = File::create(disk)?;
    file.set_len(u64::from(FIRST + sectors) * SECTOR)?;
    let mut entry = [0; 66];
    entry[4] = 0x0e;
    entry[8..12].copy_from_slice(&FIRST.to_le_bytes());
    entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    entry[64..].copy_from_slice(&[0x55, 0xaa]);
    let offset = format!("--offset={FIRST}");
    let kibibytes = (u64::from(sectors) * SECTOR / 1024).to_string();
    host("/sbin/mkfs.fat", "dosfstools", &["-F", bits, "-s", per_cluster, &offset, text(disk)?, &kibibytes])?;
    file.write_all_at(&entry, 446)?;
    let image = image(disk)?;
    host("mmd", "mtools", &["-i", &image, "::Former things"])?;
    let former = tempfile::NamedTempFile::new()?;
    former.as_file().write_all_at(&contents(20_000), 0)?;
    // The parts of such a name take some sixth of a sector: some lie in two clusters.
    let below = (0..12).map(|number| format!("Former things/Another that is long, number {number}.text"));
    for name in below.chain(["OLD.TXT", "A name that is longer than those of old.text"].map(String::from)) {
        host("mcopy", "mtools", &["-i", &image, text(former.path())?, &format!("::{name}")])?;
    }
    Ok(())
}

/// The volume of a disk, as mtools names it.
fn image(disk: &Path) -> Result<String> {
    Ok(format!("{}@@{}", text(disk)?, u64::from(FIRST) * SECTOR))
}

/// Checks a volume, as other systems do.
fn check(disk: &Path, (_, sectors, _): Volume) -> Result<()> {
    let mut bytes = vec![0; (u64::from(sectors) * SECTOR) as usize];
    File::open(disk)?.read_exact_at(&mut bytes, u64::from(FIRST) * SECTOR)?;
    let volume = tempfile::NamedTempFile::new()?;
    volume.as_file().write_all_at(&bytes, 0)?;
    host("/sbin/fsck.fat", "dosfstools", &["-n", text(volume.path())?]).map(drop)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

fn exchange(place: Place) -> Result<()> {
    VOLUMES.into_iter().try_for_each(|volume| exchange_with(place, volume))
}

fn exchange_with(place: Place, kind: Volume) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let tree = directory.path().join("tree");
    for (name, length) in FILES {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().context("no directory")?)?;
        fs::write(path, contents(length))?;
    }
    let [archive, disk, kept] = ["archive.tar", "disk.img", "kept.img"].map(|name| directory.path().join(name));
    host("tar", "tar", &["--format=ustar", "-cf", text(&archive)?, "-C", text(&tree)?, "."])?;
    volume(&disk, kind)?;
    check(&disk, kind)?;
    File::create(&kept)?.set_len(8 << 20)?;
    let devices = [("archive", &archive), ("volume", &disk), ("kept", &kept)];
    let option = |(name, path): (&str, &std::path::PathBuf)| {
        let path = path.display();
        if place == Place::Unix { format!("--{name}-file={path}") } else { format!("--block:{name}={path}") }
    };
    let options = devices.map(option);
    let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
    let tender: Vec<&str> = if place == Place::Unix { Vec::new() } else { std::mem::take(&mut words) };
    let before = fs::read(&archive)?;
    let ended = place.start("tests/images/exchange", &Run { tender: &tender, arguments: &words, ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(0) && ended.console.contains("copied 4 values"), "{ended:?}");
    ensure!(fs::read(&archive)? == before, "a store that is only read was written");
    check(&disk, kind)?;
    let image = image(&disk)?;
    let listed = String::from_utf8_lossy(&host("mdir", "mtools", &["-i", &image, "-b", "::"])?).into_owned();
    ensure!(listed.lines().count() == 2, "on the volume is more than was copied: {listed}");
    let out = directory.path().join("out");
    xtask(&["kv", "export", text(&kept)?, text(&out)?])?;
    for (name, length) in FILES {
        let found = host("mtype", "mtools", &["-i", &image, &format!("::{name}")])?;
        ensure!(found == contents(length), "{name} on the volume is not what was in the archive");
        ensure!(fs::read(out.join(name))? == contents(length), "{name} in the log store is not what was in the archive");
    }
    Ok(())
}
