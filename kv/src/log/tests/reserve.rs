//! What is kept free, so that whatever was acknowledged can go into the tree, and something can always be removed.

use super::super::objects::Object;
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

fn free(store: &LogStore<Rc<Ram>>) -> u64 {
    store.0.state.borrow().space.free()
}

#[test]
fn the_last_part_of_a_device_is_for_removals() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(16 << 10));
        let store = full(&disk).await;
        store.checkpoint().await.unwrap();
        let reserve = store.0.geometry.pages / 128;
        assert!(free(&store) >= reserve, "{} pages are free, and {reserve} are reserved", free(&store));
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
