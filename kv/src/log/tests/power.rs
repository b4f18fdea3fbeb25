//! Power cuts at every point of a workload.
//!
//! Before each flush, every prefix of the sectors that were written since the last one is tried as what a power cut leaves, with the next sector torn, and
//! besides some random choices of them in any order. The store that is opened on what is left must hold what was acknowledged, with the change under way
//! made as a whole or not at all.

use core::cell::RefCell;

use fogbow_block::fault::{FaultDisk, Survivors};
use fogbow_block::{BlockError, BlockInfo};

use super::*;

/// A disk that looks at what a power cut would leave, before each flush.
#[derive(Clone)]
struct Probe {
    disk: FaultDisk,
    expected: Rc<RefCell<Expected>>,
}

#[derive(Default)]
struct Expected {
    before: Model,
    after: Model,
    is_formatted: bool,
    cuts: u64,
    flushes: u64,
}

impl Probe {
    async fn look(&self) {
        let seed = {
            let mut expected = self.expected.borrow_mut();
            if !expected.is_formatted {
                return;
            }
            expected.flushes += 1;
            expected.flushes
        };
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
        let cuts = {
            let mut expected = self.expected.borrow_mut();
            assert!(found == expected.before || found == expected.after, "after {} cuts", expected.cuts);
            expected.cuts += 1;
            expected.cuts
        };
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

fn cut_at_every_point(seed: u64, count: usize) {
    Simulation::new(seed).block_on(async move {
        let expected = Rc::new(RefCell::new(Expected::default()));
        let disk = Probe { disk: FaultDisk::new(ram(1536), seed), expected: Rc::clone(&expected) };
        let store = LogStore::format(disk, Config::default()).await.unwrap();
        expected.borrow_mut().is_formatted = true;
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
            *expected.borrow_mut() = Expected { before: model.clone(), after: model.clone(), ..expected.take() };
        }
        assert_eq!(contents(&store).await, model);
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        let Expected { cuts, flushes, .. } = expected.take();
        std::println!("{made} changes, {flushes} flushes, {cuts} power cuts");
        assert!(cuts > 10 * count as u64);
    });
}

#[test]
fn nothing_is_lost_when_the_power_fails_at_any_point_of_2000_changes() {
    cut_at_every_point(1, 2000);
}
