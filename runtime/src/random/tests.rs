use super::*;
use crate::simulation::Simulation;
use rand_core::Rng;
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

fn draw(seed: u64, length: usize) -> Vec<u8> {
    Simulation::new(seed).block_on(async move {
        let mut bytes = vec![0; length];
        fill(&mut bytes).unwrap();
        bytes
    })
}

#[test]
fn draws_follow_from_the_seed_of_a_simulation_and_from_it_alone() {
    assert_eq!(draw(1, 100), draw(1, 100));
    assert_ne!(draw(1, 100), draw(2, 100));
}

#[test]
fn draws_differ_and_fill_all_they_were_given() {
    let mut words: Vec<u64> = Simulation::new(1).block_on(async {
        let mut random = seeded().await;
        let mut other = random.clone();
        (0..1000).flat_map(|_| [random.next_u64(), other.next_u64(), next_u64().unwrap()]).collect()
    });
    words.extend(draw(2, 80_000).as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
    let length = words.len();
    assert_eq!(words.into_iter().collect::<BTreeSet<_>>().len(), length);
}

#[test]
fn nothing_is_drawn_before_a_full_strength_source_has_given_a_seed() {
    let simulation = Simulation::new(1);
    simulation.set_entropy(false);
    let simulation = Rc::new(simulation);
    let machine = Rc::clone(&simulation);
    simulation.block_on(async move {
        let mut bytes = [7; 32];
        assert_eq!(fill(&mut bytes), Err(EntropyError));
        assert_eq!((bytes, next_u64()), ([7; 32], Err(EntropyError)));
        assert!(time::timeout(Duration::from_secs(10), seeded()).await.is_err(), "it waits");
        assert_eq!(machine.console().matches("waiting for entropy").count(), 1);
        let waiting = crate::spawn(seeded());
        time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        machine.set_entropy(true);
        assert_ne!(waiting.await.next_u64(), 0);
        // A seed is never lost.
        machine.set_entropy(false);
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(fill(&mut bytes), Ok(()));
        assert_ne!(bytes, [7; 32]);
    });
}

#[test]
fn some_draws_share_a_reading_of_the_clock_until_the_image_waits() {
    let simulation = Simulation::new(1);
    // Each reading moves the clock by as much, so that time counts them.
    simulation.set_cost_of_reading(Duration::from_nanos(1));
    simulation.block_on(async {
        let readings = |draws: u32| {
            let start = time::now();
            (0..draws).for_each(|_| {
                let _ = next_u64().unwrap();
            });
            (time::now() - start).as_nanos() as u32 - 1
        };
        readings(1);
        assert_eq!(readings(10 * DRAWS_PER_READING), 10);
        time::sleep(REFRESH_INTERVAL).await;
        assert_eq!([readings(1), readings(1)], [1, 0]);
    });
}
