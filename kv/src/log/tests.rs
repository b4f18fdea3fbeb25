use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use fogbow::simulation::Simulation;
use fogbow_block::{Block, Ram};

use super::{Config, LogStore};
use crate::{Change, Key, Kind, ReadOnly, ReadWrite, WriteError};

mod answers;
mod arbitrary;
mod broken;
mod checkpoints;
mod checks;
mod damage;
mod faults;
mod forge;
mod forged;
mod full;
mod model;
mod power;
mod promises;
mod reopened;
mod reserve;
mod shape;
mod stalls;
mod values;
mod work;

/// What a store should hold.
type Model = BTreeMap<String, Vec<u8>>;

const SECTOR: usize = 512;

fn ram(kib: u64) -> Ram {
    Ram::new("ram", SECTOR, kib * 2).unwrap()
}

fn key(text: &str) -> Key<'_> {
    Key::new(text).unwrap()
}

/// All that a store holds, found by listing it.
async fn contents<B: Block>(store: &LogStore<B>) -> Model {
    let mut found = Model::new();
    let mut pending = Vec::from([String::new()]);
    while let Some(at) = pending.pop() {
        for name in store.list(key(&at)).await.unwrap() {
            let below = if at.is_empty() { name.name } else { format!("{at}/{}", name.name) };
            match name.kind {
                Kind::Dictionary => pending.push(below),
                Kind::Value => {
                    let value = store.get(key(&below)).await.unwrap().as_ref().to_vec();
                    found.insert(below, value);
                }
            }
        }
    }
    found
}

/// A change, made to a store and to a model alike.
#[derive(Clone, Debug)]
enum Step {
    Set(String, Vec<u8>),
    Stream(String, Vec<u8>),
    Part(String, u64, Vec<u8>),
    Allocate(String, u64),
    Remove(String),
    Rename(String, String),
    Batch(Vec<Step>),
    Checkpoint,
    Reopen,
}

impl Step {
    async fn apply<B: Block>(&self, store: &LogStore<B>) -> Result<(), WriteError> {
        match self {
            Self::Set(name, value) => store.set(key(name), value).await,
            Self::Stream(name, value) => match store.set_stream(key(name), &mut &value[..]).await {
                Ok(_) => Ok(()),
                Err(crate::StreamError::Store(error)) => Err(error),
                Err(crate::StreamError::Source(never)) => match never {},
            },
            Self::Part(name, offset, part) => store.set_partial(key(name), *offset, part).await,
            Self::Allocate(name, size) => store.allocate(key(name), *size).await,
            Self::Remove(name) => store.remove(key(name)).await,
            Self::Rename(from, to) => store.rename(key(from), key(to)).await,
            Self::Batch(steps) => {
                let changes: Vec<Change<'_>> = steps.iter().filter_map(Self::change).collect();
                store.batch(&changes).await
            }
            Self::Checkpoint => store.checkpoint().await,
            Self::Reopen => Ok(()),
        }
    }

    fn change(&self) -> Option<Change<'_>> {
        match self {
            Self::Set(name, value) => Some(Change::Set(key(name), value)),
            Self::Remove(name) => Some(Change::Remove(key(name))),
            Self::Rename(from, to) => Some(Change::Rename(key(from), key(to))),
            _ => None,
        }
    }

    /// The model after this change, and whether it can be made.
    fn model(&self, model: &Model) -> Option<Model> {
        let mut after = model.clone();
        match self {
            Self::Set(name, value) | Self::Stream(name, value) => {
                can_hold(model, name).then(|| after.insert(name.clone(), value.clone()))?;
            }
            Self::Part(name, offset, part) => {
                can_hold(model, name).then_some(())?;
                let value = after.entry(name.clone()).or_default();
                let (start, end) = (*offset as usize, *offset as usize + part.len());
                value.resize(value.len().max(end), 0);
                value[start..end].copy_from_slice(part);
            }
            Self::Allocate(name, size) => {
                (can_hold(model, name) && !model.contains_key(name)).then_some(())?;
                after.insert(name.clone(), alloc::vec![0; *size as usize]);
            }
            Self::Remove(name) => after.retain(|other, _| !is_at_or_below(other, name)),
            Self::Rename(from, to) => {
                let is_value = model.contains_key(from);
                let moved: Vec<_> = model.keys().filter(|other| is_at_or_below(other, from)).cloned().collect();
                if from == to && !moved.is_empty() {
                    return Some(after);
                }
                let nested = is_at_or_below(to, from) || is_at_or_below(from, to);
                let free = can_hold(model, to) && (is_value || !model.contains_key(to));
                (!moved.is_empty() && !nested && free).then_some(())?;
                for name in moved {
                    let value = after.remove(&name).unwrap_or_default();
                    after.insert(format!("{to}{}", &name[from.len()..]), value);
                }
            }
            Self::Batch(steps) => {
                for step in steps {
                    after = step.model(&after)?;
                }
            }
            Self::Checkpoint | Self::Reopen => {}
        }
        Some(after)
    }
}

fn is_at_or_below(name: &str, dictionary: &str) -> bool {
    name == dictionary || name.strip_prefix(dictionary).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a name can have a value: it is no dictionary and lies below no value.
fn can_hold(model: &Model, name: &str) -> bool {
    let below = model.keys().any(|other| other != name && is_at_or_below(other, name));
    let above = key(name).ancestors().any(|above| model.contains_key(above.as_str()));
    !below && !above
}

/// Changes drawn from a seed: mostly small values under few names, now and then large ones, parts, dictionaries and batches.
struct Steps(u64);

impl Steps {
    fn next(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }

    fn name(&mut self) -> String {
        match self.next(10) {
            0 => format!("d{}/e{}", self.next(4), self.next(6)),
            1 => format!("d{}", self.next(5)),
            _ => format!("key-{}", self.next(40)),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let length = match self.next(100) {
            0..80 => self.next(200),
            80..93 => self.next(3000),
            93..98 => self.next(20_000),
            _ => 60_000 + self.next(20_000),
        };
        let salt = self.next(256);
        (0..length).map(|index| (index.wrapping_mul(31) ^ salt ^ (index >> 8)) as u8).collect()
    }

    fn step(&mut self) -> Step {
        match self.next(100) {
            0..60 => Step::Set(self.name(), self.value()),
            60..72 => Step::Remove(self.name()),
            72..80 => Step::Rename(self.name(), self.name()),
            80..86 => Step::Part(self.name(), self.next(5000), self.value()),
            86..88 => Step::Allocate(self.name(), self.next(70_000)),
            88..91 => Step::Stream(self.name(), self.value()),
            91..99 => Step::Batch((0..1 + self.next(5)).map(|_| self.small()).collect()),
            _ => Step::Checkpoint,
        }
    }

    fn small(&mut self) -> Step {
        match self.next(10) {
            0..7 => Step::Set(self.name(), self.value()),
            7..9 => Step::Remove(self.name()),
            _ => Step::Rename(self.name(), self.name()),
        }
    }
}

#[test]
fn values_of_every_size_come_back() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(8192));
        let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        let sizes = [0, 1, 100, 1023, 1024, 1025, 4096, 32767, 32768, 32769, 65535, 65536, 65537, 200_000, 2_000_000];
        let value = |size: usize| (0..size).map(|index| (index / 3) as u8).collect::<Vec<u8>>();
        for size in sizes {
            store.set(key(&size.to_string()), &value(size)).await.unwrap();
        }
        for store in [&store, &LogStore::open(Rc::clone(&disk), Config { cache: 0 }).await.unwrap()] {
            for size in sizes {
                let name = size.to_string();
                assert_eq!(store.get(key(&name)).await.unwrap().as_ref(), value(size));
                assert_eq!(store.size(key(&name)).await.unwrap(), size as u64);
                assert_eq!(store.digest(key(&name)).await.unwrap(), crate::Digest::of(&value(size)));
                let part = store.get_partial(key(&name), 60_000, 10_000).await.unwrap();
                assert_eq!(part.as_ref(), &value(size)[size.min(60_000)..size.min(70_000)]);
            }
            let report = store.check(|_, _| {}).await;
            assert_eq!(report.problems, [""; 0]);
        }
    });
}
