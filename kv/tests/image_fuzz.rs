//! Mutated images of the log store: nothing panics, nothing runs without end or takes memory without bound, whatever is done with what opens.
//!
//! The corpus (`corpus/`) has small stores in many states. An image is one of them with some of its bytes changed, and mostly with its checksums put right
//! again, so that what lies behind them is reached. `FOGBOW_FUZZ_IMAGES` says how many are tried; `cargo xtask soak` tries very many.
#![forbid(unsafe_code)]

mod image;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fogbow::simulation::Simulation;
use fogbow_block::fault::{FaultDisk, Survivors};
use fogbow_block::{Block, BlockError, BlockInfo, Ram};
use fogbow_kv::log::Config;
use fogbow_kv::{Change, Key, LogStore, ReadOnly as _, ReadWrite as _};
use image::{DATA, HALVES, Image, MAPS, PAGE, PAGES, SECTOR, random};

const IMAGES: u64 = 2000;

/// What no use of an image of 64 pages needs.
const MOST_REQUESTS: u64 = 1_000_000;
const MOST_MEMORY: u64 = 256 << 20;

fn key(text: &str) -> Key<'_> {
    Key::new(text).unwrap()
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The corpus, in the order of its names.
fn files() -> Vec<(String, Image)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), Image::parse(&fs::read(path).unwrap()))).collect()
}

/// A disk that counts what is asked of it.
struct Counting(Ram, Cell<u64>);

impl Counting {
    fn count(&self) -> &Ram {
        self.1.set(self.1.get() + 1);
        assert!(self.1.get() < MOST_REQUESTS, "it does not end");
        &self.0
    }
}

impl Block for Counting {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn info(&self) -> BlockInfo {
        self.0.info()
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        self.count().read_vectored(sector, into).await
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        self.count().write_vectored(sector, data).await
    }

    async fn flush(&self) -> Result<(), BlockError> {
        self.count().flush().await
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        self.count().discard(sector, sectors).await
    }
}

fn ram() -> Ram {
    Ram::new("ram", SECTOR, (PAGES * PAGE / SECTOR) as u64).unwrap()
}

/// Reads all that there is to read.
async fn read_all<B: Block>(store: &LogStore<B>) {
    let mut pending = vec![String::new()];
    for _ in 0..60 {
        let Some(at) = pending.pop() else { break };
        for name in store.list(key(&at)).await.unwrap_or_default().iter().take(20) {
            let below = if at.is_empty() { name.name.clone() } else { format!("{at}/{}", name.name) };
            let Ok(key) = Key::new(&below) else { continue };
            let _ = (store.size(key).await, store.last_modified(key).await, store.get_partial(key, 65_000, 2000).await.is_ok());
            // No value of such an image is long, but a damaged one may say so, and holes cost nothing.
            if store.size(key).await.is_ok_and(|size| size < 1 << 20) {
                let _ = (store.get(key).await.is_ok(), store.digest(key).await.is_ok());
            }
            pending.push(below);
        }
    }
}

/// Opens an image and does with it whatever can be done. True when it opened.
async fn use_image(image: &Image) -> bool {
    let disk = ram();
    disk.write(0, &image.0).await.unwrap();
    let Ok(store) = LogStore::open(Counting(disk, Cell::new(0)), Config { cache: 64 << 10 }).await else { return false };
    read_all(&store).await;
    let _ = store.check(|_, _| {}).await;
    for name in ["a", "b/c", "zz"] {
        let _ = (store.set(key(name), &[1; 2000]).await, store.set_partial(key(name), 70_000, b"x").await);
        let _ = (store.rename(key(name), key("other")).await, store.remove(key(name)).await);
    }
    let _ = store.batch(&[Change::Set(key("m/n"), b"1"), Change::Rename(key("m"), key("o")), Change::Remove(key("small"))]).await;
    let _ = (store.remove(key("large")).await, store.checkpoint().await, store.remove(Key::ROOT).await, store.checkpoint().await);
    true
}

/// Tells which image it was that failed.
struct Tried(u64);

impl Drop for Tried {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was image {}", self.0);
        }
    }
}

fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() << 10
}

#[test]
fn any_images_are_survived() {
    let count = std::env::var("FOGBOW_FUZZ_IMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(IMAGES);
    let files = files();
    for (name, image) in &files {
        let image = image.clone();
        let opens = Simulation::new(0).block_on(async move { use_image(&image).await });
        assert_eq!(opens, !name.starts_with("refused"), "{name}");
    }
    let opened = Rc::new(Cell::new(0));
    for seed in 0..count {
        let mut image = files[seed as usize % files.len()].1.clone();
        let opened = Rc::clone(&opened);
        let _tried = Tried(seed);
        Simulation::new(seed).block_on(async move {
            let former = image.page_sums();
            for _ in 0..1 + random(6) {
                image.mutate();
            }
            if random(5) > 0 {
                image.seal(&former);
            }
            opened.set(opened.get() + u64::from(use_image(&image).await));
        });
    }
    println!("{} of {count} opened; {} MiB of memory at most", opened.get(), peak_memory() >> 20);
    assert!(opened.get() > count / 2);
    assert!(peak_memory() < MOST_MEMORY);
}

/// The seal is what the store itself writes, when the corpus was made and now: made again, it is the same.
#[test]
fn a_seal_is_the_stores_own() {
    let files = files();
    assert!(files.len() >= 12);
    let made = Simulation::new(1).block_on(make_images());
    for (name, image) in files.into_iter().chain(made) {
        assert!(Image::parse(&image.emit()) == image, "{name}");
        if name.starts_with("whole") {
            let mut again = image.clone();
            again.seal(&image.page_sums());
            let (superblock, map) = (image.superblock(), image.map());
            for range in [superblock..superblock + PAGE, HALVES[0]..MAPS[0], map..map + PAGE, DATA..PAGES * PAGE] {
                assert!(again.0[range.clone()] == image.0[range.clone()], "{name}, bytes {range:?}");
            }
        }
    }
}

type Store = LogStore<FaultDisk>;

/// The image that a workload leaves.
async fn image_after(work: impl AsyncFn(&Store)) -> Image {
    let disk = FaultDisk::new(ram(), 1);
    let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
    work(&store).await;
    drop(store);
    contents(&disk.power_cut(Survivors::All)).await
}

async fn contents(disk: &Ram) -> Image {
    let mut image = Image(vec![0; PAGES * PAGE]);
    disk.read(0, &mut image.0).await.unwrap();
    image
}

async fn set_many(store: &Store, count: usize, length: usize) {
    for number in 0..count {
        let name = format!("d{}/key-{number}", number % 3);
        store.set(key(&name), &vec![number as u8; length]).await.unwrap();
    }
}

async fn one_level(store: &Store) {
    set_many(store, 12, 300).await;
    store.checkpoint().await.unwrap();
}

async fn two_levels(store: &Store) {
    set_many(store, 60, 150).await;
    store.checkpoint().await.unwrap();
    store.set(key("small"), b"in the log").await.unwrap();
}

async fn large(store: &Store) {
    store.set(key("large"), &[7; 40_000]).await.unwrap();
    store.allocate(key("hole"), 200_000).await.unwrap();
    store.set_partial(key("hole"), 150_000, b"island").await.unwrap();
    store.set(key("logged"), &[8; 3000]).await.unwrap();
    store.checkpoint().await.unwrap();
}

async fn garbage(store: &Store) {
    store.set(key("large"), &[7; 60_000]).await.unwrap();
    store.checkpoint().await.unwrap();
    store.remove(key("large")).await.unwrap();
}

async fn replaced(store: &Store) {
    for round in 0..4 {
        store.set(key("logged"), &[round; 2000]).await.unwrap();
        store.remove(key("moved")).await.unwrap();
        store.set(key("small"), &[round; 20]).await.unwrap();
        store.rename(key("small"), key("moved")).await.unwrap();
    }
}

async fn full(store: &Store) {
    let mut number = 0;
    while store.set(key(&format!("full-{number}")), &[9; 900]).await.is_ok() {
        number += 1;
    }
}

/// In the middle of a checkpoint.
async fn torn() -> Image {
    let disk = FaultDisk::new(ram(), 1);
    let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
    set_many(&store, 40, 100).await;
    disk.cut_after(9);
    let _ = store.checkpoint().await;
    contents(&disk.power_cut(Survivors::First { sectors: 5, torn: 100 })).await
}

async fn make_images() -> Vec<(String, Image)> {
    let levels = image_after(two_levels).await;
    let changed = |change: fn(&mut Image)| {
        let mut image = levels.clone();
        change(&mut image);
        image
    };
    let mut blank = Image(vec![0; PAGES * PAGE]);
    blank.0[..8].copy_from_slice(b"FogbowKV");
    let images = [
        ("whole-empty", image_after(async |_| ()).await),
        ("whole-log", image_after(async |store| set_many(store, 6, 40).await).await),
        ("whole-halves", image_after(async |store| set_many(store, 30, 100).await).await),
        ("whole-tree", image_after(one_level).await),
        ("whole-levels", levels.clone()),
        ("whole-large", image_after(large).await),
        ("whole-garbage", image_after(garbage).await),
        ("whole-replaced", image_after(replaced).await),
        ("whole-full", image_after(full).await),
        ("torn-checkpoint", torn().await),
        ("damaged-map", changed(|image| image.0[MAPS[0]..DATA].fill(0xff))),
        ("damaged-node", changed(|image| image.0[DATA..DATA + PAGE].fill(0))),
        ("refused-version", changed(Image::make_newer)),
        ("refused-superblocks", changed(|image| (0..4).for_each(|page| image.0[page * PAGE + 60] ^= 1))),
        ("refused-magic", blank),
    ];
    images.map(|(name, image)| (name.to_owned(), image)).into()
}

#[test]
#[ignore = "writes the corpus"]
fn make_corpus() {
    fs::create_dir_all(corpus()).unwrap();
    for (name, image) in Simulation::new(1).block_on(make_images()) {
        fs::write(corpus().join(name), image.emit()).unwrap();
    }
}
