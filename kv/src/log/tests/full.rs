//! Little space, and none.

use super::*;

#[test]
fn works_on_at_90_percent_and_says_when_nothing_fits() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(16 << 10));
        let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        let used = |store: &LogStore<Rc<Ram>>| {
            let state = store.0.state.borrow();
            100 - 100 * state.space.free() / store.0.geometry.pages
        };
        let mut model = Model::new();
        let mut count = 0;
        while used(&store) < 90 {
            let (name, value) = (format!("key-{count}"), alloc::vec![count as u8; 300 + count % 500]);
            store.set(key(&name), &value).await.unwrap();
            model.insert(name, value);
            count += 1;
        }
        // Overwriting and replacing goes on at 90 % for as long as one likes.
        for round in 0..3 * count {
            let name = format!("key-{}", round * 7919 % count);
            let value = alloc::vec![round as u8; 300 + round % 500];
            store.set(key(&name), &value).await.unwrap();
            model.insert(name, value);
        }
        // Then until nothing fits.
        let error = loop {
            let (name, value) = (format!("more-{count}"), alloc::vec![count as u8; 1000]);
            match store.set(key(&name), &value).await {
                Ok(()) => drop(model.insert(name, value)),
                Err(error) => break error,
            }
            count += 1;
        };
        assert!(matches!(error, WriteError::NoSpace(ref name) if name.starts_with("more-")));
        assert!(used(&store) >= 93, "only {} % used", used(&store));
        let large = store.set(key("large"), &alloc::vec![1; 4 << 20]).await;
        assert!(matches!(large, Err(WriteError::NoSpace(_))));
        assert_eq!(contents(&store).await, model);
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        // Removing works, makes room, and after that so does setting.
        let names: Vec<String> = model.keys().cloned().collect();
        for name in names.iter().step_by(2) {
            store.remove(key(name)).await.unwrap();
            model.remove(name);
        }
        for (name, value) in &mut model {
            value.push(1);
            store.set(key(name), value).await.unwrap();
        }
        let store = LogStore::open(disk, Config::default()).await.unwrap();
        assert_eq!(contents(&store).await, model);
        store.remove(Key::ROOT).await.unwrap();
        store.checkpoint().await.unwrap();
        assert_eq!(store.list(Key::ROOT).await, Ok(Vec::new()));
        assert!(used(&store) < 5, "{} % used by an empty store", used(&store));
    });
}

#[test]
fn replaced_large_values_give_their_space_back() {
    Simulation::new(1).block_on(async {
        let disk = ram(8 << 10);
        let store = LogStore::format(disk, Config::default()).await.unwrap();
        for round in 0..20_u8 {
            store.set(key("large"), &alloc::vec![round; 3 << 20]).await.unwrap();
            assert_eq!(store.get(key("large")).await.unwrap().as_ref().last(), Some(&round));
        }
        store.remove(key("large")).await.unwrap();
        for round in 0..2000_u64 {
            store.set(key("small"), &round.to_le_bytes()).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        assert!(store.0.state.borrow().space.free() > store.0.geometry.pages * 9 / 10);
        assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
    });
}

/// Pages that were written for a value whose commit never came are free for the next one who opens the store, whatever was checkpointed meanwhile.
#[test]
fn half_a_value_takes_no_space_after_a_power_cut() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(ram(4 << 10));
        let store = LogStore::format(Rc::clone(&disk), Config::default()).await.unwrap();
        let free = async |disk: Ram| {
            let report = LogStore::open(disk, Config::default()).await.unwrap().check(|_, _| {}).await;
            assert_eq!(report.problems, [""; 0]);
            report.free_pages
        };
        store.set(key("a"), b"1").await.unwrap();
        store.checkpoint().await.unwrap();
        let before = free(disk.snapshot()).await;
        let mut half = super::super::objects::Object::new(&store.0);
        half.push(&[1; 65536]).await.unwrap();
        store.set(key("a"), b"2").await.unwrap();
        store.checkpoint().await.unwrap();
        assert_eq!(free(disk.snapshot()).await, before);
    });
}

/// A dictionary is removed in steps that the log holds, however long its names are; they are told of.
#[test]
fn dictionaries_of_the_longest_names_are_removed() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(1024), Config::default()).await.unwrap();
        let above = ["x".repeat(255).as_str(); 3].join("/");
        for number in 0..40 {
            store.set(key(&format!("{above}/{}{number:02}", "y".repeat(250))), b"1").await.unwrap();
        }
        let mut told = Vec::new();
        store.remove_with(key(&above), |removed| told.push(removed)).await.unwrap();
        assert!(told.is_sorted() && told.len() > 1 && told.last() == Some(&40), "{told:?}");
        assert_eq!(contents(&store).await, Model::new());
    });
}
