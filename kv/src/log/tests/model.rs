//! Random workloads against a map, with the store opened again now and then.

use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-e]", 2 => "[ab]/[a-c]", 1 => "[ab]/[ab]/[a-c]{1,2}", 1 => "long-[a-c]{100,180}"]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..100),
        2 => (any::<u8>(), 900_usize..5000).prop_map(|(byte, length)| alloc::vec![byte; length]),
        1 => (any::<u8>(), 30_000_usize..150_000).prop_map(|(byte, length)| alloc::vec![byte; length]),
    ]
}

fn small_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (name(), value()).prop_map(|(name, value)| Step::Set(name, value)),
        2 => name().prop_map(Step::Remove),
        1 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => small_step(),
        1 => (name(), value()).prop_map(|(name, value)| Step::Stream(name, value)),
        2 => (name(), 0_u64..150_000, value()).prop_map(|(name, offset, part)| Step::Part(name, offset, part)),
        1 => (name(), 0_u64..150_000).prop_map(|(name, size)| Step::Allocate(name, size)),
        2 => prop::collection::vec(small_step(), 0..6).prop_map(Step::Batch),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ]
}

/// Operations that the smallest store makes at once, and those of a value of this test: its name, its new name, its chunks.
const AT_ONCE: usize = 16;
const OF_A_VALUE: usize = 5;

impl Step {
    /// Values that this change may concern.
    fn concerned(&self, model: &Model) -> usize {
        match self {
            Self::Remove(name) | Self::Rename(name, _) => 1 + model.keys().filter(|other| is_at_or_below(other, name)).count(),
            Self::Batch(steps) => {
                // What the batch itself has set, it may remove as well.
                let all = steps.len() + model.len();
                steps.iter().map(|step| step.concerned(model)).sum::<usize>().min(all)
            }
            _ => 1,
        }
    }

    /// Whether a store this small may say that this is more than it changes at once: nothing else is made in one piece.
    fn may_be_too_much(&self, model: &Model) -> bool {
        matches!(self, Self::Batch(_) | Self::Rename(..)) && self.concerned(model) * OF_A_VALUE > AT_ONCE
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_store_is_a_map(steps in prop::collection::vec(step(), 0..150)) {
        Simulation::new(1).block_on(async move {
            let disk = Rc::new(ram(16 << 10));
            let config = Config { cache: 64 << 10 };
            let mut store = LogStore::format(Rc::clone(&disk), config).await.unwrap();
            let mut model = Model::new();
            for step in &steps {
                if let Step::Reopen = step {
                    store = LogStore::open(Rc::clone(&disk), config).await.unwrap();
                }
                let after = step.model(&model);
                let result = step.apply(&store).await;
                if let (Err(WriteError::Unsupported { .. }), Some(_), true) = (&result, &after, step.may_be_too_much(&model)) {
                    assert_eq!(contents(&store).await, model, "what was refused has changed nothing");
                    continue;
                }
                assert_eq!(result.is_ok(), after.is_some(), "{step:?}: {result:?}");
                model = after.unwrap_or(model);
            }
            assert_eq!(contents(&store).await, model);
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
            let store = LogStore::open(Rc::clone(&disk), config).await.unwrap();
            assert_eq!(contents(&store).await, model);
            store.checkpoint().await.unwrap();
            assert_eq!(contents(&store).await, model);
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        });
    }
}
