use super::*;
use fogbow::simulation::Simulation;
use fogbow_block::Ram;
use fogbow_block::fault::{FaultDisk, Survivors};
use proptest::prelude::*;
use std::process::Command;

const SECTORS: u64 = 600;

fn key(text: &str) -> Key<'_> {
    Key::new(text).unwrap()
}

fn disk(sector_size: usize) -> FaultDisk {
    FaultDisk::new(Ram::new("disk", sector_size, SECTORS * 512 / sector_size as u64).unwrap(), 1)
}

async fn fill_disk(disk: &impl Block, bytes: &[u8]) {
    let mut image = bytes.to_vec();
    image.resize(SECTORS as usize * 512, 0);
    disk.write(0, &image).await.unwrap();
}

/// Each key with its value.
async fn contents<B: Block>(store: &Tar<B>) -> Vec<(String, Vec<u8>)> {
    let keys: Vec<String> = store.0.members.borrow().keys().cloned().collect();
    let mut found = Vec::new();
    for text in keys {
        let value = store.get(key(&text)).await.unwrap();
        found.push((text, value));
    }
    found
}

/// What `tar` makes of a directory, in each format, is read, long names among it.
#[test]
fn reads_what_tar_writes() {
    let directory = tempfile::tempdir().unwrap();
    // The longest that ustar has room for is a name of 100 bytes below a prefix of 155.
    let long = std::format!("{}/{}", "d".repeat(90), "n".repeat(95));
    for (name, value) in [("a", "1"), ("b/c", "two"), (long.as_str(), "three")] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }
    std::os::unix::fs::symlink("a", directory.path().join("link")).unwrap();
    for format in ["gnu", "pax", "ustar"] {
        let mut command = Command::new("tar");
        command.args([&std::format!("--format={format}"), "-cf", "-", "-C"]).arg(directory.path()).arg(".");
        let archive = command.output().unwrap().stdout;
        let long = long.clone();
        Simulation::new(1).block_on(async move {
            let disk = disk(512);
            fill_disk(&disk, &archive).await;
            let store = Tar::open(disk).await.unwrap();
            let expected = [("a".into(), b"1".to_vec()), ("b/c".into(), b"two".to_vec()), (long, b"three".to_vec())];
            assert_eq!(contents(&store).await, expected, "{format}");
            assert_eq!(store.get_partial(key("b/c"), 1, 9).await.unwrap(), b"wo");
            assert_eq!(store.exists(key("b")).await, Ok(Some(Kind::Dictionary)));
            assert_eq!(store.exists(key("link")).await, Ok(None));
            assert_eq!(store.digest(key("a")).await, Ok(Digest::of(b"1")));
        });
    }
}

/// What is appended is there for the next who opens it, and for `tar`.
#[test]
fn tar_reads_what_is_appended() {
    for sector_size in [512, 4096] {
        let long = std::format!("{}/{}", "d".repeat(90), "n".repeat(120));
        let value: Vec<u8> = (0..150_000).map(|index| (index / 3) as u8).collect();
        let (text, expected) = (long.clone(), value.clone());
        let image = Simulation::new(1).block_on(async move {
            let disk = disk(sector_size);
            let store = Tar::open(disk.clone()).await.unwrap();
            store.set(key("a/b"), b"former").await.unwrap();
            assert_eq!(store.set_stream(key(&text), &mut &expected[..]).await, Ok(150_000));
            store.set(key("a/b"), b"latter").await.unwrap();
            store.allocate(key("zeros"), 700).await.unwrap();
            store.set(key("empty"), b"").await.unwrap();
            assert!(matches!(store.set(key("a"), b"").await, Err(WriteError::Conflict(_))));
            assert!(matches!(store.remove(key("a")).await, Err(WriteError::Unsupported { .. })));
            assert!(matches!(store.set(key("big"), &std::vec![0; 200_000]).await, Err(WriteError::NoSpace(_))));
            let again = Tar::open(disk.clone()).await.unwrap();
            assert_eq!(contents(&again).await, contents(&store).await);
            let mut reader = again.read(key(&text)).await.unwrap();
            let mut back = std::vec![0; 150_000];
            reader.read_exact(&mut back).await.unwrap();
            assert!(back == expected && reader.read(&mut [0]).await == Ok(0));
            let mut image = std::vec![0; SECTORS as usize * 512];
            disk.read(0, &mut image).await.unwrap();
            image
        });
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("disk.img");
        std::fs::write(&archive, image).unwrap();
        let output = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(directory.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(std::fs::read(directory.path().join("a/b")).unwrap(), b"latter");
        assert!(std::fs::read(directory.path().join(&long)).unwrap() == value);
        assert_eq!(std::fs::read(directory.path().join("zeros")).unwrap(), [0; 700]);
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    Simulation::new(1).block_on(async {
        let noise = disk(512);
        fill_disk(&noise, &[7; 512]).await;
        assert!(matches!(Tar::open(noise).await, Err(TarError::Header { offset: 0, .. })));
        for (names, expected) in [(["a", "a/b"], "below another"), (["a", "../b"], "'../b' cannot be a key")] {
            let archive = disk(512);
            let headers = names.map(|name| Header::write(name, 0, WallTime::default())).concat();
            fill_disk(&archive, &headers).await;
            let error = Tar::open(archive).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let endless = disk(512);
        fill_disk(&endless, &Header::write("a", header::LARGEST, WallTime::default())).await;
        assert!(Tar::open(endless).await.is_err());
    });
}

/// A header whose checksum is made right again.
fn sealed(mut block: [u8; 512]) -> [u8; 512] {
    let sum: u32 = (0..512).map(|at| if (148..156).contains(&at) { 32 } else { u32::from(block[at]) }).sum();
    block[148..156].copy_from_slice(std::format!("{sum:06o}\0 ").as_bytes());
    block
}

fn member(name: &str, kind: u8, length: u64) -> [u8; 512] {
    let mut block = Header::write(name, length, WallTime::default());
    block[156] = kind;
    sealed(block)
}

/// A pax header with one record.
fn extended(record: &str) -> Vec<u8> {
    let length = record.len() + 4;
    let mut units = member("pax", b'x', length as u64 + 1).to_vec();
    units.extend(std::format!("{:03} {record}\n", length + 1).as_bytes());
    units.resize(1024, 0);
    units
}

#[test]
fn members_of_all_kinds_are_read_or_passed_over() {
    Simulation::new(1).block_on(async {
        let long = "n".repeat(150);
        let mut gnu = member("gnu", b'0', 0);
        gnu[257..265].copy_from_slice(b"ustar  \0");
        gnu[345..357].copy_from_slice(b"14000000000\0");
        let archive = [
            // A name that belongs to a directory is not the next file's.
            [header::names(&long), member("directory", b'5', 0).to_vec(), member("a", 0, 0).to_vec()].concat(),
            [header::names(&long), extended("mtime=1"), member("cut", b'7', 0).to_vec()].concat(),
            sealed(gnu).to_vec(),
        ]
        .concat();
        let store = disk(512);
        fill_disk(&store, &archive).await;
        let found: Vec<String> = contents(&Tar::open(store).await.unwrap()).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["a", "gnu", long.as_str()]);
        let mut damaged = member("a", b'0', 0);
        damaged[0] = b'b';
        let endless = member("././@LongLink", b'L', header::LONGEST_EXTENSION + 1);
        for (archive, expected) in [
            (damaged.to_vec(), "the header's checksum is wrong"),
            (endless.to_vec(), "a long name is longer than any key"),
            ([extended("size=9999999999"), member("a", b'0', 0).to_vec()].concat(), "8 GiB or more"),
        ] {
            let store = disk(512);
            fill_disk(&store, &archive).await;
            let error = Tar::open(store).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    });
}

/// Whatever was on the device behind the archive, and however long names are, what is appended is read again, with its time.
#[test]
fn what_is_appended_ends_the_archive() {
    Simulation::new(1).block_on(async {
        let disk = disk(512);
        let mut image = std::vec![0xaa; SECTORS as usize * 512];
        image[..512].fill(0);
        fill_disk(&disk, &image).await;
        let store = Tar::open(disk.clone()).await.unwrap();
        let names = [100, 101, 511, 512].map(|length| std::format!("{}{}", "d/".repeat(length / 2 - 20), "n".repeat(40 + length % 2)));
        let mut expected = Vec::new();
        for name in names {
            store.set(key(&name), b"1").await.unwrap();
            expected.push((name, b"1".to_vec()));
            time::sleep(time::Duration::from_secs(5)).await;
        }
        store.set(key("large"), &[7; PART + 100]).await.unwrap();
        expected.push(("large".into(), std::vec![7; PART + 100]));
        expected.sort();
        let again = Tar::open(disk.clone()).await.unwrap();
        assert!(contents(&again).await == expected);
        let latest = again.last_modified(key("large")).await.unwrap();
        let seconds = |time: WallTime| time.as_unix_nanos() / 1_000_000_000;
        assert_eq!(seconds(latest), seconds(time::wall()));
        assert_eq!(seconds(again.last_modified(key("d")).await.unwrap()) + 5, seconds(latest), "of what lies below it alone");
        disk.read(0, &mut image).await.unwrap();
        let value = image.windows(PART).position(|window| window == [7; PART]).unwrap();
        let (last, behind) = image[value + PART..].split_at(UNIT);
        assert!(last[..100] == [7; 100] && last[100..] == [0; UNIT - 100], "a value is padded by zeros");
        assert!(behind[..2 * UNIT] == [0; 2 * UNIT], "two units of zeros end the archive");
        assert_eq!(again.allocate(key("large"), 1).await, Err(WriteError::Exists("large".into())));
        assert_eq!(again.remove(key("nothing")).await, Ok(()));
        assert_eq!(again.set(key("large/below"), b"").await, Err(WriteError::Conflict("large/below".into())));
    });
}

#[test]
fn values_that_are_appended_at_once_are_all_there_until_nothing_fits() {
    Simulation::new(1).block_on(async {
        let disk = disk(512);
        disk.set_latency(time::Duration::from_micros(10)..time::Duration::from_micros(100));
        let store = Tar::open(disk.clone()).await.unwrap();
        let tasks: Vec<_> = (0..5_u8)
            .map(|number| {
                let store = store.clone();
                fogbow::spawn(async move { store.set(key(&std::format!("{number}")), &std::vec![number; 700]).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let mut count = 5;
        let error = loop {
            match store.set(key(&std::format!("{count}")), b"").await {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, WriteError::NoSpace(std::format!("{count}")));
        let again = Tar::open(disk).await.unwrap();
        assert_eq!(contents(&again).await.len(), count);
        assert_eq!(again.get(key("3")).await.unwrap(), [3; 700]);
    });
}

/// A disk of 2 PiB that remembers nothing.
struct Vast(Cell<u64>);

impl Block for Vast {
    fn name(&self) -> &str {
        "vast"
    }

    fn info(&self) -> fogbow_block::BlockInfo {
        let durability = fogbow_block::Durability::Volatile;
        fogbow_block::BlockInfo { sector_size: 512, sectors: 1 << 42, read_only: false, durability }
    }

    async fn read_vectored(&self, _: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        into.iter_mut().for_each(|buffer| buffer.fill(0));
        Ok(())
    }

    async fn write_vectored(&self, _: u64, _: &[&[u8]]) -> Result<(), BlockError> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }

    async fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    async fn discard(&self, _: u64, _: u64) -> Result<(), BlockError> {
        Ok(())
    }
}

/// What is known to have no room, in the archive or in a header, is refused before anything is written.
#[test]
fn a_value_that_has_no_room_is_refused_at_once() {
    Simulation::new(1).block_on(async {
        let vast = Rc::new(Vast(Cell::new(0)));
        let store = Tar::open(Rc::clone(&vast)).await.unwrap();
        assert_eq!(store.allocate(key("a"), header::LARGEST + 1).await, Err(WriteError::NoSpace("a".into())));
        assert!(store.0.has_room(key("a"), header::LARGEST));
        assert_eq!(vast.0.get(), 0);
        let disk = disk(512);
        let store = Tar::open(disk.clone()).await.unwrap();
        let most = (SECTORS as usize - 3) * UNIT;
        assert_eq!(store.set(key("a"), &std::vec![1; most + 1]).await, Err(WriteError::NoSpace("a".into())));
        assert_eq!(disk.counts().writes, 0);
        let error = store.set_stream(key("a"), &mut &std::vec![1; most + 1][..]).await.unwrap_err();
        assert_eq!(error, StreamError::Store(WriteError::NoSpace("a".into())));
        assert_eq!(store.exists(key("a")).await, Ok(None));
        store.set(key("a"), &std::vec![1; most]).await.unwrap();
        assert_eq!(contents(&Tar::open(disk).await.unwrap()).await, [("a".into(), std::vec![1; most])]);
    });
}

/// The power fails at every sector written, and what is left of the cache is drawn: the archive opens, with what had been set and perhaps what was
/// being set.
#[test]
fn a_power_cut_leaves_a_value_or_not() {
    Simulation::new(1).block_on(async {
        let long = std::format!("{}/{}", "d".repeat(90), "n".repeat(120));
        let cuts = [512, 4096].into_iter().flat_map(|size| (0..30).map(move |cut| (size, cut)));
        for ((sector_size, cut), name) in cuts.flat_map(|cut| [long.as_str(), "b"].map(|name| (cut, name))) {
            let disk = disk(sector_size);
            let store = Tar::open(disk.clone()).await.unwrap();
            store.set(key("a"), b"first").await.unwrap();
            let before = contents(&store).await;
            disk.cut_after(cut);
            let mut after = before.clone();
            after.push((name.into(), std::vec![3; 5000]));
            let is_set = store.set(key(name), &[3; 5000]).await.is_ok();
            for seed in 0..20 {
                let left = Tar::open(disk.power_cut(Survivors::Random(seed))).await.unwrap();
                let found = contents(&left).await;
                assert!(found == after || (found == before && !is_set), "{sector_size} {cut} {seed}");
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever headers say, opening ends, and nothing that is not on the device is read.
    #[test]
    fn damaged_archives_are_errors_or_read(changes in proptest::collection::vec((0_usize..4096, any::<u8>()), 0..12), fix in any::<bool>()) {
        Simulation::new(1).block_on(async move {
            let disk = disk(512);
            let store = Tar::open(disk.clone()).await.unwrap();
            store.set(key("a"), &[1; 700]).await.unwrap();
            store.set(key(&"n".repeat(150)), &[2; 100]).await.unwrap();
            let mut image = std::vec![0; 4096];
            disk.read(0, &mut image).await.unwrap();
            for (at, byte) in changes {
                image[at] = byte;
            }
            if fix {
                // A right checksum lets what else is wrong through.
                let sum: u32 = (0..512).map(|at| if (148..156).contains(&at) { 32 } else { u32::from(image[at]) }).sum();
                image[148..156].copy_from_slice(std::format!("{sum:06o}\0 ").as_bytes());
            }
            disk.write(0, &image).await.unwrap();
            if let Ok(store) = Tar::open(disk).await {
                contents(&store).await;
            }
        });
    }
}
