//! The tree's shape: it shrinks with what it holds.

use super::super::check::Report;
use super::*;

/// Long names, so that few fit into a node, and that the tree has many.
fn name(number: usize) -> String {
    format!("{}/{number:05}", "x".repeat(200))
}

async fn report(store: &LogStore<Ram>) -> Report {
    store.checkpoint().await.unwrap();
    let report = store.check(|_, _| {}).await;
    assert_eq!(report.problems, [""; 0]);
    report
}

/// Whatever is removed, nodes that are left with little go together: leaves, branches above them, and levels above those.
#[test]
fn a_tree_of_which_most_was_removed_is_small_again() {
    Simulation::new(1).block_on(async {
        let store = LogStore::format(ram(32 << 10), Config::default()).await.unwrap();
        for number in 0..3000 {
            store.set(key(&name(number)), &[1; 100]).await.unwrap();
        }
        let full = report(&store).await;
        std::println!("{} nodes in {} levels hold {} values", full.nodes, full.levels, full.values);
        assert!(full.levels == 3 && full.nodes > 250);
        for number in (0..3000).filter(|number: &usize| !number.is_multiple_of(30)) {
            store.remove(key(&name(number))).await.unwrap();
        }
        let left = report(&store).await;
        std::println!("{} nodes in {} levels hold {} values", left.nodes, left.levels, left.values);
        assert!(left.values == 100 && left.nodes * 5 < full.nodes);
        for number in (30..3000).step_by(30) {
            store.remove(key(&name(number))).await.unwrap();
        }
        let last = report(&store).await;
        assert_eq!((last.values, last.nodes, last.levels), (1, 1, 1));
        store.remove(key(&name(0))).await.unwrap();
        assert_eq!((report(&store).await.nodes, report(&store).await.levels), (0, 0));
    });
}
