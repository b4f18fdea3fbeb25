//! After a failed write or flush, what the device holds is unknown: nothing more is written until the store is opened again, and whoever asks for it is told.

use core::time::Duration;

use fogbow_block::Operation;
use fogbow_block::fault::{Fault, FaultDisk, Survivors};

use super::*;

#[test]
fn after_a_failed_write_only_reads_go_on_until_it_is_opened_again() {
    Simulation::new(1).block_on(async {
        for operation in [Operation::Write, Operation::Flush] {
            let disk = FaultDisk::new(ram(1024), 1);
            let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
            store.set(key("a"), b"1").await.unwrap();
            disk.fail(operation, 1, Fault::Error);
            assert!(matches!(store.set(key("b"), b"2").await, Err(WriteError::Unavailable { key, .. }) if key == "b"));
            assert!(matches!(store.set(key("c"), b"3").await, Err(WriteError::Unavailable { .. })));
            assert_eq!(store.get(key("a")).await.unwrap().as_ref(), b"1");
            assert_eq!(store.exists(key("b")).await, Ok(None), "what was not acknowledged is not shown");
            assert!(store.checkpoint().await.is_err() && store.set(key("d"), &[4; 100_000]).await.is_err());
            let report = store.check(|_, _| {}).await;
            assert!(report.read_only.is_some_and(|reason| reason.contains("the host or the device failed")));
            let store = LogStore::open(disk, Config::default()).await.unwrap();
            store.set(key("c"), b"3").await.unwrap();
            assert_eq!(store.get(key("a")).await.unwrap().as_ref(), b"1");
        }
    });
}

/// Changes that meet each kind of write on which others build: of records, of nodes, of checkpoints.
fn changes() -> Vec<Step> {
    let mut steps = Steps(11);
    let mut small = core::iter::from_fn(|| Some(steps.step())).filter(is_small);
    (1..150).filter_map(|number| if number % 50 == 0 { Some(Step::Checkpoint) } else { small.next() }).collect()
}

/// Whether all of it goes through the log.
fn is_small(step: &Step) -> bool {
    const MOST: usize = 3000;
    match step {
        Step::Set(_, value) | Step::Stream(_, value) => value.len() <= MOST,
        Step::Part(_, offset, part) => *offset as usize + part.len() <= MOST,
        Step::Allocate(_, size) => *size as usize <= MOST,
        Step::Batch(steps) => steps.iter().all(is_small),
        _ => true,
    }
}

/// Everything that writes is refused, and the device hears nothing of it.
async fn refuses_all(store: &LogStore<FaultDisk>, disk: &FaultDisk) {
    let before = disk.counts();
    let name = || "refused".to_string();
    let calls = [
        Step::Set(name(), alloc::vec![1; 10]),
        Step::Set(name(), alloc::vec![1; 100_000]),
        Step::Stream(name(), alloc::vec![1; 100_000]),
        Step::Part(name(), 70_000, alloc::vec![1; 10]),
        Step::Allocate(name(), 10),
        Step::Batch([Step::Set(name(), Vec::new())].into()),
        Step::Rename(name(), "other".to_string()),
        Step::Remove(name()),
        Step::Checkpoint,
    ];
    for call in calls {
        let result = call.apply(store).await;
        assert!(matches!(result, Err(WriteError::Unavailable { .. })), "{call:?}: {result:?}");
    }
    assert_eq!((disk.counts().writes, disk.counts().flushes), (before.writes, before.flushes));
}

/// Makes changes until the `nth` operation of the device fails, and looks at what is left. False when it never does.
async fn fail_at(operation: Operation, nth: u64) -> bool {
    let disk = FaultDisk::new(ram(512), 1);
    let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
    let done = || if operation == Operation::Write { disk.counts().writes } else { disk.counts().flushes };
    let failing = done() + nth;
    disk.fail(operation, nth, Fault::Error);
    let (mut model, mut allowed) = (Model::new(), Model::new());
    for step in changes() {
        let after = step.model(&model);
        let result = step.apply(&store).await;
        if result.is_ok() {
            model = after.clone().unwrap();
        }
        allowed = after.unwrap_or_else(|| model.clone());
        if done() >= failing {
            break;
        }
        assert!(!matches!(result, Err(WriteError::Unavailable { .. })), "{step:?}: {result:?}");
    }
    if done() < failing {
        return false;
    }
    refuses_all(&store, &disk).await;
    assert_eq!(contents(&store).await, model, "{operation:?} {nth}");
    for survivors in [Survivors::None, Survivors::All] {
        let left = LogStore::open(disk.power_cut(survivors), Config::default()).await.unwrap();
        let found = contents(&left).await;
        assert!(found == model || found == allowed, "{operation:?} {nth}, {survivors:?}");
        left.set(key("new"), b"1").await.unwrap();
        assert_eq!(left.check(|_, _| {}).await.problems, [""; 0]);
    }
    true
}

#[test]
fn whichever_write_fails_nothing_follows_it_and_nothing_is_lost() {
    Simulation::new(1).block_on(async {
        for (operation, least) in [(Operation::Write, 100), (Operation::Flush, 50)] {
            let mut nth = 1;
            while fail_at(operation, nth).await {
                nth += 1;
            }
            assert!(nth > least, "{operation:?}: {nth}");
        }
    });
}

/// Nothing leads to the parts of a large value before all of them are written: when one cannot be, the former value stays, and the store works on.
#[test]
fn a_large_value_that_cannot_be_written_does_no_harm() {
    Simulation::new(1).block_on(async {
        for nth in 1.. {
            let disk = FaultDisk::new(ram(2048), 1);
            let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
            store.set(key("a"), &[1; 200_000]).await.unwrap();
            disk.fail(Operation::Write, nth, Fault::Error);
            if store.set(key("a"), &[2; 200_000]).await.is_ok() {
                assert!(nth > 4);
                break;
            }
            assert_eq!(contents(&store).await, [("a".into(), alloc::vec![1; 200_000])].into());
            if nth <= 4 {
                store.set(key("a"), &[3; 300_000]).await.unwrap();
                store.checkpoint().await.unwrap();
                assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
            }
        }
    });
}

/// Those who wait for the next record when one fails are told, too: theirs is not written.
#[test]
fn a_record_does_not_follow_one_that_failed() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(ram(1024), 1);
        let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
        disk.set_latency(Duration::from_micros(100)..Duration::from_micros(101));
        disk.fail(Operation::Flush, 1, Fault::Error);
        let before = disk.counts();
        let tasks: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let store = store.clone();
                fogbow::spawn(async move { store.set(key(name), b"1").await })
            })
            .into();
        for task in tasks {
            assert!(matches!(task.await, Err(WriteError::Unavailable { .. })));
        }
        assert_eq!((disk.counts().writes, disk.counts().flushes), (before.writes + 1, before.flushes + 1));
        assert_eq!(contents(&store).await, Model::new());
    });
}

/// What could not be committed is in nobody's way.
#[test]
fn a_store_that_takes_no_writes_says_so_and_nothing_of_conflicts() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(1024));
        drop(LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap());
        let store = LogStore::open(fogbow_block::View::read_only(disk), Config::default()).await.unwrap();
        for name in ["a/b", "a", "a/b/c"] {
            let error = store.set(key(name), b"1").await.unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{name}'")) && error.contains("its device is read-only"), "{error}");
        }
    });
}
