//! Power cuts at every point of a workload.
//!
//! Before each flush, every prefix of the sectors that were written since the last one is tried as what a power cut leaves, with the next sector torn, and
//! besides some random choices of them in any order. The store that is opened on what is left must hold what was acknowledged, with the change under way
//! made as a whole or not at all; with several tasks, each one's.

use core::cell::{Cell, RefCell};
use core::time::Duration;

use fogbow_block::fault::{FaultDisk, Survivors};
use fogbow_block::{BlockError, BlockInfo, Durability};

use super::*;

/// A disk that looks at what a power cut would leave, before each flush.
#[derive(Clone)]
pub(super) struct Probe {
    pub(super) disk: FaultDisk,
    /// Whether this may be left.
    is_allowed: Rc<dyn Fn(&Model) -> bool>,
    counts: Rc<Counts>,
}

#[derive(Default)]
struct Counts {
    is_formatted: Cell<bool>,
    cuts: Cell<u64>,
    flushes: Cell<u64>,
}

fn next(count: &Cell<u64>) -> u64 {
    count.set(count.get() + 1);
    count.get()
}

impl Probe {
    fn new(kib: u64, seed: u64, is_allowed: impl Fn(&Model) -> bool + 'static) -> Self {
        Self { disk: FaultDisk::new(ram(kib), seed), is_allowed: Rc::new(is_allowed), counts: Rc::default() }
    }

    /// A disk that may only hold what is expected.
    pub(super) fn expecting(kib: u64, seed: u64) -> (Self, Rc<RefCell<Expected>>) {
        let expected = Rc::new(RefCell::new(Expected::default()));
        let allowed = Rc::clone(&expected);
        let is_allowed = move |found: &Model| *found == allowed.borrow().before || *found == allowed.borrow().after;
        (Self::new(kib, seed, is_allowed), expected)
    }

    pub(super) async fn format(&self) -> LogStore<Self> {
        let store = LogStore::format(self.clone(), Config::default()).await.unwrap();
        self.counts.is_formatted.set(true);
        store
    }

    async fn look(&self) {
        if !self.counts.is_formatted.get() {
            return;
        }
        let seed = next(&self.counts.flushes);
        let pending = self.disk.pending();
        for sectors in 0..=pending {
            let torn = (seed as usize * 97 + sectors * 31) % SECTOR;
            self.open(self.disk.power_cut(Survivors::First { sectors, torn })).await;
        }
        for random in 0..4 {
            self.open(self.disk.power_cut(Survivors::Random(seed * 4 + random))).await;
        }
    }

    async fn open(&self, left: Ram) {
        let left = Rc::new(left);
        let store = LogStore::open(Rc::clone(&left), Config::default()).await.unwrap();
        let found = contents(&store).await;
        let cuts = next(&self.counts.cuts);
        assert!((self.is_allowed)(&found), "after {cuts} cuts");
        // Now and then, that it is whole and works on, and loses nothing the next time either.
        if cuts.is_multiple_of(64) {
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
            store.set(key("new"), b"after the cut").await.unwrap();
            store.checkpoint().await.unwrap();
            let store = LogStore::open(left, Config::default()).await.unwrap();
            let mut expected = found;
            expected.insert("new".to_string(), b"after the cut".to_vec());
            assert_eq!(contents(&store).await, expected);
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        }
    }
}

impl Block for Probe {
    fn name(&self) -> &str {
        self.disk.name()
    }

    fn info(&self) -> BlockInfo {
        self.disk.info()
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        self.disk.read_vectored(sector, into).await
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        self.disk.write_vectored(sector, data).await
    }

    async fn flush(&self) -> Result<(), BlockError> {
        self.look().await;
        self.disk.flush().await
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        self.disk.discard(sector, sectors).await
    }
}

/// What a store holds before and after the change under way.
#[derive(Default)]
pub(super) struct Expected {
    pub(super) before: Model,
    pub(super) after: Model,
}

fn cut_at_every_point(seed: u64, count: usize) {
    Simulation::new(seed).block_on(async move {
        let (disk, expected) = Probe::expecting(1536, seed);
        let store = disk.format().await;
        let mut steps = Steps(seed);
        let (mut model, mut made) = (Model::new(), 0);
        while made < count {
            let step = steps.step();
            let after = step.model(&model);
            expected.borrow_mut().after = after.clone().unwrap_or_else(|| model.clone());
            match step.apply(&store).await {
                Ok(()) => {
                    let after = after.unwrap();
                    made += usize::from(after != model || matches!(step, Step::Set(..)));
                    model = after;
                }
                Err(WriteError::NoSpace(_)) => {}
                Err(error) => assert!(after.is_none(), "{step:?}: {error}"),
            }
            *expected.borrow_mut() = Expected { before: model.clone(), after: model.clone() };
        }
        assert_eq!(contents(&store).await, model);
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        let (cuts, flushes) = (disk.counts.cuts.get(), disk.counts.flushes.get());
        std::println!("{made} changes, {flushes} flushes, {cuts} power cuts");
        assert!(cuts > 10 * count as u64);
    });
}

#[test]
fn nothing_is_lost_when_the_power_fails_at_any_point_of_2000_changes() {
    cut_at_every_point(1, 2000);
}

/// What several tasks know: for each key the value that was acknowledged, and that of the change under way.
#[derive(Default)]
struct Known {
    values: Model,
    changing: BTreeMap<String, Option<Vec<u8>>>,
}

impl Known {
    fn allows(&self, found: &Model) -> bool {
        let names = found.keys().chain(self.values.keys()).chain(self.changing.keys());
        names.into_iter().all(|name| {
            let found = found.get(name);
            found == self.values.get(name) || self.changing.get(name).is_some_and(|changing| found == changing.as_ref())
        })
    }
}

/// Large values take pages of their own while others commit and make checkpoints: what the last superblock leads to is left alone all the same. On the
/// smaller device pages are used again as soon as they are free.
#[test]
fn nothing_is_lost_when_the_power_fails_while_several_tasks_write() {
    cut_while_several_tasks_write(1536);
    cut_while_several_tasks_write(420);
}

fn cut_while_several_tasks_write(kib: u64) {
    Simulation::new(7).block_on(async move {
        let known = Rc::new(RefCell::new(Known::default()));
        let allowed = Rc::clone(&known);
        let disk = Probe::new(kib, 7, move |found| allowed.borrow().allows(found));
        let store = disk.format().await;
        disk.disk.set_latency(Duration::from_micros(10)..Duration::from_micros(200));
        let write = async |store: LogStore<Probe>, known: Rc<RefCell<Known>>, task: u64| {
            let mut steps = Steps(task + 1);
            for _ in 0..120 {
                let name = format!("task-{task}/key-{}", steps.next(4));
                let length = if task < 2 { 4_500 + steps.next(5_000) } else { steps.next(700) } as usize;
                let value = (steps.next(6) > 0).then(|| alloc::vec![steps.next(256) as u8; length]);
                known.borrow_mut().changing.insert(name.clone(), value.clone());
                match &value {
                    Some(value) => store.set(key(&name), value).await.unwrap(),
                    None => store.remove(key(&name)).await.unwrap(),
                }
                let mut known = known.borrow_mut();
                known.changing.remove(&name);
                match value {
                    Some(value) => drop(known.values.insert(name, value)),
                    None => drop(known.values.remove(&name)),
                }
            }
        };
        let tasks: Vec<_> = (0..5).map(|task| fogbow::spawn(write(store.clone(), Rc::clone(&known), task))).collect();
        for task in tasks {
            task.await;
        }
        assert_eq!(contents(&store).await, known.borrow().values);
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        assert!(disk.counts.cuts.get() > 1000 && store.0.state.borrow().superblock.generation > 10);
    });
}

/// A disk that cannot be flushed, as Solo5's own tenders give one.
#[derive(Clone)]
struct Unflushed(FaultDisk);

impl Block for Unflushed {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn info(&self) -> BlockInfo {
        BlockInfo { durability: Durability::Image, ..self.0.info() }
    }

    async fn read_vectored(&self, sector: u64, into: &mut [&mut [u8]]) -> Result<(), BlockError> {
        self.0.read_vectored(sector, into).await
    }

    async fn write_vectored(&self, sector: u64, data: &[&[u8]]) -> Result<(), BlockError> {
        self.0.write_vectored(sector, data).await
    }

    async fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    async fn discard(&self, sector: u64, sectors: u64) -> Result<(), BlockError> {
        self.0.discard(sector, sectors).await
    }
}

/// Where nothing can be flushed, the host's power cut may take any record. The store goes on with what was before it, and what came after never comes back.
#[test]
fn a_store_goes_on_when_a_host_that_cannot_flush_has_lost_records() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(512), 1);
        LogStore::format(disk.clone(), Config::default()).await.unwrap().set(key("a"), b"0").await.unwrap();
        disk.flush().await.unwrap();
        let store = LogStore::open(Unflushed(disk.clone()), Config::default()).await.unwrap();
        for value in 1..5_u8 {
            store.set(key("a"), &[value; 3]).await.unwrap();
        }
        for seed in 0..100 {
            let left = Unflushed(FaultDisk::new(disk.power_cut(Survivors::Random(seed)), 1));
            let store = LogStore::open(left.clone(), Config::default()).await.unwrap();
            let found = store.get(key("a")).await.unwrap().as_ref().to_vec();
            assert!(found == b"0" || (1..5).any(|value| found == [value; 3]), "{seed}: {found:?}");
            store.set(key("b"), b"1").await.unwrap();
            let again = LogStore::open(left, Config::default()).await.unwrap();
            assert_eq!(
                (again.get(key("a")).await.unwrap().as_ref().to_vec(), again.get(key("b")).await.unwrap().as_ref().to_vec()),
                (found, b"1".to_vec()),
                "{seed}"
            );
            again.set(key("b"), b"2").await.unwrap();
        }
    });
}
