//! Every store that can be written does the same, and says the same where it cannot: the one in memory is the model of the others.
//!
//! Where they may differ, by their documentation: a volume and a directory keep dictionaries that nothing is left in, so these are removed after each
//! change; and a volume does not rename dictionaries.

use fogbow::simulation::Simulation;
use fogbow_block::{Block, Ram};
use fogbow_kv::log::{Config, LogStore};
use fogbow_kv::{Change, Fat, Key, Kind, Memory, ReadOnly, ReadWrite, StreamError, WriteError};
use fogbow_unix::Directory;
use proptest::prelude::*;

/// All keys of the changes, and some that nothing is ever set at.
const KEYS: [&str; 12] = ["", "A", "B", "C", "A/A", "A/B", "B/A", "B/B", "A/A/A", "A/A/B", "B/B/A", "C/C/C"];

#[derive(Clone, Debug)]
enum Step {
    Set(usize, Value),
    Stream(usize, Value),
    Part(usize, u64, Value),
    Allocate(usize, u64),
    Remove(usize),
    Rename(usize, usize),
    Batch(usize, Value, usize),
}

/// So many bytes, which count up from the first.
#[derive(Clone, Copy, Debug)]
struct Value {
    first: u8,
    length: usize,
}

impl Value {
    fn bytes(self) -> Vec<u8> {
        (0..self.length).map(|index| self.first.wrapping_add(index as u8)).collect()
    }
}

fn step() -> impl Strategy<Value = Step> {
    let index = || 0..KEYS.len();
    let length = || prop_oneof![1 => Just(0), 4 => 1_usize..20, 1 => Just(9_000)];
    let value = || (any::<u8>(), length()).prop_map(|(first, length)| Value { first, length });
    prop_oneof![
        6 => (index(), value()).prop_map(|(at, value)| Step::Set(at, value)),
        1 => (index(), value()).prop_map(|(at, value)| Step::Stream(at, value)),
        2 => (index(), 0_u64..30, value()).prop_map(|(at, offset, value)| Step::Part(at, offset, value)),
        1 => (index(), 0_u64..5_000).prop_map(|(at, size)| Step::Allocate(at, size)),
        3 => index().prop_map(Step::Remove),
        4 => (index(), index()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (index(), value(), index()).prop_map(|(at, value, removed)| Step::Batch(at, value, removed)),
    ]
}

fn key(index: usize) -> Key<'static> {
    Key::new(KEYS[index]).expect("a key of the test")
}

/// Makes a change.
async fn make(store: &impl ReadWrite, step: &Step) -> Result<(), WriteError> {
    match step {
        Step::Set(at, value) => store.set(key(*at), &value.bytes()).await,
        Step::Stream(at, value) => match store.set_stream(key(*at), &mut &value.bytes()[..]).await {
            Ok(length) => {
                assert_eq!(length, value.length as u64);
                Ok(())
            }
            Err(StreamError::Store(error)) => Err(error),
            Err(StreamError::Source(never)) => match never {},
        },
        Step::Part(at, offset, part) => store.set_partial(key(*at), *offset, &part.bytes()).await,
        Step::Allocate(at, size) => store.allocate(key(*at), *size).await,
        Step::Remove(at) => store.remove(key(*at)).await,
        Step::Rename(from, to) => store.rename(key(*from), key(*to)).await,
        Step::Batch(at, value, removed) => store.batch(&[Change::Set(key(*at), &value.bytes()), Change::Remove(key(*removed))]).await,
    }
}

/// What a store says of every key.
async fn contents(store: &impl ReadOnly) -> Vec<String> {
    let mut found = Vec::new();
    for (at, name) in KEYS.iter().enumerate() {
        let value = store.get(key(at)).await.map(|value| value.as_ref().to_vec());
        let part = store.get_partial(key(at), 3, 4).await.map(|value| value.as_ref().to_vec());
        let rest = (store.exists(key(at)).await, store.list(key(at)).await, store.size(key(at)).await, store.digest(key(at)).await);
        found.push(format!("{name} {value:?} {part:?} {rest:?} {:?}", store.last_modified(key(at)).await.map(drop)));
    }
    found
}

/// Removes the dictionaries below `at` that hold nothing.
async fn tidy(store: &impl ReadWrite, at: Key<'_>) {
    for name in store.list(at).await.expect("a dictionary") {
        let below = if at.is_root() { name.name } else { format!("{at}/{}", name.name) };
        let below = Key::new(&below).expect("a key");
        if name.kind == Kind::Dictionary {
            Box::pin(tidy(store, below)).await;
            if store.list(below).await == Ok(Vec::new()) {
                store.remove(below).await.expect("an empty dictionary");
            }
        }
    }
}

/// Moves what is below a dictionary, value by value.
async fn move_values(store: &impl ReadWrite, from: Key<'_>, to: Key<'_>) {
    for name in store.list(from).await.expect("a dictionary") {
        let [from, to] = [from, to].map(|above| format!("{above}/{}", name.name));
        let [from, to] = [&from, &to].map(|text| Key::new(text).expect("a key"));
        match name.kind {
            Kind::Dictionary => Box::pin(move_values(store, from, to)).await,
            Kind::Value => {
                let value = store.get(from).await.expect("a value");
                store.set(to, value.as_ref()).await.expect("a place");
                store.remove(from).await.expect("a value");
            }
        }
    }
}

/// An empty FAT16 volume of one sector to a cluster, one table and 512 entries in the root.
async fn volume() -> Fat<Ram> {
    const SECTORS: u16 = 6000;
    let disk = Ram::new("disk", 512, SECTORS.into()).expect("a disk");
    let mut first = [0; 512];
    for (at, value) in [(11, 512_u16), (14, 1), (17, 512), (19, SECTORS), (22, 24)] {
        first[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    (first[13], first[16], first[21]) = (1, 1, 0xf8);
    first[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.write(0, &first).await.expect("a sector");
    let mut table = [0; 512];
    table[..4].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff]);
    disk.write(1, &table).await.expect("a sector");
    Fat::open(disk, 4 << 20).await.expect("a volume")
}

/// An error without what a store says of itself.
fn kind(error: WriteError) -> (&'static str, String) {
    match error {
        WriteError::NotFound(key) => ("not found", key),
        WriteError::Exists(key) => ("exists", key),
        WriteError::Conflict(key) => ("conflict", key),
        WriteError::NoSpace(key) => ("no space", key),
        WriteError::Unsupported { key, .. } => ("unsupported", key),
        other => panic!("{other}"),
    }
}

async fn agree(steps: Vec<Step>, directory: Directory) {
    let model = Memory::new();
    let log = LogStore::format(Ram::new("disk", 512, 16 << 10).expect("a disk"), Config { cache: 64 << 10 }).await.expect("a store");
    let volume = volume().await;
    for step in steps {
        let moved = match step {
            Step::Rename(from, to) if model.exists(key(from)).await == Ok(Some(Kind::Dictionary)) => Some((key(from), key(to))),
            _ => None,
        };
        let expected = make(&model, &step).await.map_err(kind);
        assert_eq!(make(&log, &step).await.map_err(kind), expected, "log store: {step:?}");
        match (&step, moved) {
            (Step::Batch(..), _) => {
                assert!(matches!(make(&directory, &step).await, Err(WriteError::Unsupported { .. })), "directory: {step:?}");
                assert_eq!(make(&volume, &step).await.map_err(kind), expected, "volume: {step:?}");
                let Step::Batch(at, value, removed) = step else { continue };
                if expected.is_ok() {
                    make(&directory, &Step::Set(at, value)).await.expect("a place");
                    make(&directory, &Step::Remove(removed)).await.expect("a value");
                }
            }
            (_, Some((from, to))) => {
                assert_eq!(make(&directory, &step).await.map_err(kind), expected, "directory: {step:?}");
                assert!(make(&volume, &step).await.is_err(), "volume: {step:?}");
                if expected.is_ok() && from != to {
                    move_values(&volume, from, to).await;
                }
            }
            _ => {
                assert_eq!(make(&directory, &step).await.map_err(kind), expected, "directory: {step:?}");
                assert_eq!(make(&volume, &step).await.map_err(kind), expected, "volume: {step:?}");
            }
        }
        tidy(&directory, Key::ROOT).await;
        tidy(&volume, Key::ROOT).await;
    }
    let expected = contents(&model).await;
    for (name, found) in
        [("log store", contents(&log).await), ("directory", contents(&directory).await), ("volume", contents(&volume).await)]
    {
        found.iter().zip(&expected).for_each(|(found, expected)| assert_eq!(found, expected, "{name}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_store_does_the_same(steps in proptest::collection::vec(step(), 0..40)) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Directory::open(directory.path()).expect("a directory");
        Simulation::new(1).block_on(agree(steps, store));
    }
}
