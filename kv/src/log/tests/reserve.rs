//! What is kept free, so that whatever was acknowledged can go into the tree, and something can always be removed.

use core::time::Duration;

use fogbow_block::fault::FaultDisk;

use super::super::error::Fault;
use super::super::layout::Extent;
use super::super::objects::Object;
use super::super::transaction::Transaction;
use super::*;

/// A store that is full of small values, with changes all over it in the log.
async fn full(disk: &Rc<Ram>) -> LogStore<Rc<Ram>> {
    let store = LogStore::format(Rc::clone(disk), Config::default()).await.unwrap();
    let mut count = 0;
    let error = loop {
        match store.set(key(&format!("full/{count:05}")), &alloc::vec![count as u8; 900]).await {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::NoSpace(_)), "{error}");
    store
}

fn free<B>(store: &LogStore<B>) -> u64 {
    store.0.state.borrow().space.free()
}

/// Others take all that is free but for what is promised.
fn take_the_rest<B>(store: &LogStore<B>) -> Vec<Extent> {
    let mut state = store.0.state.borrow_mut();
    let rest = state.space.free() - state.pages_promised();
    state.space.take(rest as u32).unwrap()
}

#[test]
fn the_last_part_of_a_device_is_for_removals() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(16 << 10));
        let store = full(&disk).await;
        store.checkpoint().await.unwrap();
        let reserve = store.0.geometry.pages / 128;
        assert!(free(&store) >= reserve, "{} pages are free, and {reserve} are reserved", free(&store));
        let names: Vec<String> = (0..4).map(|number| format!("full/{:05}", number * 300)).collect();
        let removals: Vec<Change<'_>> = names.iter().map(|name| Change::Remove(key(name))).collect();
        store.batch(&removals).await.unwrap();
        store.remove(key("full")).await.unwrap();
        assert_eq!(store.list(Key::ROOT).await, Ok(Vec::new()));
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
    });
}

/// A large value takes its pages before it is committed: but none that what is in the log needs on its way into the tree, and none that removals need.
#[test]
fn a_large_value_leaves_what_others_need() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(16 << 10));
        let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        let mut count = 0;
        while free(&store) > store.0.geometry.pages / 8 {
            store.set(key(&format!("small/{count:05}")), &[1; 900]).await.unwrap();
            count += 1;
        }
        store.checkpoint().await.unwrap();
        for number in 0..60 {
            store.set(key(&format!("small/{:05}", number * (count / 60))), &[2; 60]).await.unwrap();
        }
        let mut object = Object::new(&store.0);
        let mut chunks = 0;
        while object.push(&[3; 65536]).await.is_ok() {
            chunks += 1;
            let state = store.0.state.borrow();
            assert!(state.space.free() >= state.pages_promised() + store.0.geometry.pages / 128, "after {chunks} chunks");
        }
        assert!(chunks > 10);
        store.remove(key("small/00000")).await.unwrap();
        store.checkpoint().await.unwrap();
        drop(object);
        for _ in 0..50 {
            store.set(key("small/00001"), b"1").await.unwrap();
        }
        store.checkpoint().await.unwrap();
        assert_eq!(contents(&store).await.len(), count - 1);
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
    });
}

/// Values that go through the log get pages of their own when they enter the tree: that they will is seen to when they are set.
#[test]
fn values_of_the_log_find_their_pages() {
    Simulation::new(1).block_on(async {
        for length in [1100, 3000, 6000] {
            let disk = Rc::new(ram(2048));
            let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
            let mut model = Model::new();
            let error = loop {
                let (name, value) = (format!("key-{}", model.len()), alloc::vec![model.len() as u8; length.min(store.0.max_logged())]);
                match store.set(key(&name), &value).await {
                    Ok(()) => drop(model.insert(name, value)),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, WriteError::NoSpace(_)), "{error}");
            store.checkpoint().await.unwrap();
            assert_eq!(contents(&store).await, model);
            store.remove(key("key-0")).await.unwrap();
        }
    });
}

#[test]
fn what_no_device_holds_is_refused() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(1024), Config::default()).await.unwrap();
        let no_space = |result| assert_eq!(result, Err(WriteError::NoSpace("a".into())));
        for size in [(1 << 20) + 1, 1 << 40, u64::MAX] {
            no_space(store.allocate(key("a"), size).await);
            no_space(store.set_partial(key("a"), size - 1, b"xy").await);
        }
        assert_eq!(store.exists(key("a")).await, Ok(None));
        store.allocate(key("a"), 1 << 20).await.unwrap();
        store.set_partial(key("a"), (1 << 20) - 2, b"xy").await.unwrap();
        assert_eq!(store.size(key("a")).await, Ok(1 << 20));
        assert_eq!(store.get_partial(key("a"), (1 << 20) - 3, 9).await.unwrap().as_ref(), b"\0xy");
        assert_eq!(store.allocate(key("a"), 1).await, Err(WriteError::Exists("a".into())));
    });
}

/// The log holds as many operations as the store's documentation says, however small they are.
#[test]
fn the_log_holds_so_many_operations_and_no_more() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(1024), Config::default()).await.unwrap();
        let most = store.0.geometry.max_entries();
        for round in 0..40 {
            let names: Vec<String> = (0..40).map(|number| format!("{round}-{number}")).collect();
            let changes: Vec<Change<'_>> = names.iter().map(|name| Change::Set(key(name), b"")).collect();
            store.batch(&changes).await.unwrap();
            let state = store.0.state.borrow();
            assert!(state.active.len() <= most && state.frozen.as_ref().is_none_or(|frozen| frozen.len() <= most), "round {round}");
        }
    });
}

async fn set(store: LogStore<FaultDisk>, name: String, length: usize) -> Result<String, WriteError> {
    store.set(key(&name), &alloc::vec![2; length]).await.map(|()| name)
}

/// What is in the log, or on its way there, finds its place in the tree whatever others take.
#[test]
fn what_is_promised_suffices_for_all_that_was_committed() {
    Simulation::new(1).block_on(async {
        let counts = [(1, 10), (50, 10), (50, 900), (1, 1100), (20, 1100), (1, 20_000), (6, 20_000)];
        for (at_once, (count, length)) in [false, true].into_iter().flat_map(|at_once| counts.map(|counts| (at_once, counts))) {
            let disk = FaultDisk::new(ram(32 << 10), 1);
            let store = LogStore::format(disk.clone(), Config::default()).await.unwrap();
            for number in 0..1000 {
                store.set(key(&format!("{number:03}")), &[1; 100]).await.unwrap();
            }
            store.checkpoint().await.unwrap();
            disk.set_latency(Duration::from_micros(100)..Duration::from_micros(101));
            let (mut set_values, mut tasks) = (Vec::new(), Vec::new());
            for number in 0..count {
                let setting = set(store.clone(), format!("{:03}", number * (1000 / count)), length);
                match at_once {
                    true => tasks.push(fogbow::spawn(setting)),
                    false => set_values.push(setting.await.unwrap()),
                }
            }
            // By then all that one record takes is staged, and the first is being written.
            fogbow::task::yield_now().await;
            let taken = take_the_rest(&store);
            for task in tasks {
                match task.await {
                    Ok(name) => set_values.push(name),
                    Err(error) => assert!(matches!(error, WriteError::NoSpace(_)), "{error}"),
                }
            }
            store.checkpoint().await.unwrap();
            for name in &set_values {
                assert_eq!(store.get(key(name)).await.unwrap().as_ref(), alloc::vec![2; length]);
            }
            store.0.state().space.release(&taken);
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0], "{count} values of {length} bytes, {at_once}");
        }
    });
}

/// A large value is committed in parts before a key leads to it: those need pages of the tree, too.
#[test]
fn the_parts_of_a_large_value_leave_what_is_promised() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(16 << 10), Config::default()).await.unwrap();
        store.set(key("a"), &[1; 100]).await.unwrap();
        let mut object = Object::new(&store.0);
        for _ in 0..16 {
            object.push(&[2; 65536]).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        let taken = take_the_rest(&store);
        assert_eq!(object.push(&[2; 65536]).await, Err(Fault::NoSpace));
        assert!(free(&store) >= store.0.state.borrow().pages_promised());
        drop(object);
        store.0.state().space.release(&taken);
        store.set(key("b"), &[3; 2_000_000]).await.unwrap();
        assert_eq!(store.get(key("a")).await.unwrap().as_ref(), [1; 100]);
    });
}

/// The parts that were replaced are free again before anybody is told that no space is left.
#[test]
fn parts_of_a_value_that_nearly_fills_the_device_can_be_replaced_without_end() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(8 << 10), Config::default()).await.unwrap();
        let mut value = alloc::vec![0; 6 << 20];
        store.set(key("a"), &value).await.unwrap();
        for round in 0..200 {
            let (offset, part) = (round * 65_537 % (value.len() - 65_536), alloc::vec![round as u8; 65_536]);
            store.set_partial(key("a"), offset as u64, &part).await.unwrap();
            value[offset..offset + part.len()].copy_from_slice(&part);
        }
        assert!(store.get(key("a")).await.unwrap().as_ref() == value);
        store.checkpoint().await.unwrap();
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
    });
}

/// A call that was dropped may have staged something that nobody waits for: it makes room all the same.
#[test]
fn what_a_dropped_call_has_staged_is_committed_when_space_is_short() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(4096), Config::default()).await.unwrap();
        store.set(key("a"), &[1; 900_000]).await.unwrap();
        let mut count = 0;
        while store.set(key(&format!("full-{count}")), &[2; 60_000]).await.is_ok() {
            count += 1;
        }
        let mut removal = Transaction::new(&store.0);
        assert!(removal.remove(key("a"), 64).await.unwrap());
        store.0.stage(removal).await.unwrap();
        store.set(key("b"), &[3; 800_000]).await.unwrap();
        assert_eq!(store.exists(key("a")).await, Ok(None));
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
    });
}

/// Garbage is taken apart with what is committed, unless that is as much as a record holds.
#[test]
fn a_batch_may_be_as_large_as_a_record_while_there_is_garbage() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(8 << 10), Config::default()).await.unwrap();
        let (most, longest) = (store.0.geometry.max_entries(), store.0.max_record());
        let names: Vec<String> = (0..most).map(|number| format!("{number:02}")).collect();
        // Beside the value itself an operation has 7 bytes, the key 3, what is known of the value 17.
        let count = longest.div_ceil(1000);
        let last = alloc::vec![2; longest - (count - 1) * 1000 - 27];
        for round in 0..2 {
            store.set(key("large"), &[1; 3 << 20]).await.unwrap();
            store.remove(key("large")).await.unwrap();
            store.checkpoint().await.unwrap();
            assert!(!store.0.state.borrow().garbage.is_empty());
            let value = [2; 973];
            let mut changes: Vec<Change<'_>> = names.iter().map(|name| Change::Set(key(name), b"1")).collect();
            if round == 1 {
                changes = names[..count].iter().map(|name| Change::Set(key(name), &value)).collect();
                changes[count - 1] = Change::Set(key(&names[count - 1]), &last);
            }
            store.batch(&changes).await.unwrap();
            let state = store.0.state.borrow();
            assert!(state.active.len() <= most && state.at <= store.0.geometry.half_bytes(), "round {round}");
        }
    });
}
