//! The tree's shape: it shrinks with what it holds.

use super::super::check::Report;
use super::*;

/// Long names, so that few fit into a node, and that the tree has many.
fn name(length: usize, number: usize) -> String {
    let part = "x".repeat(200);
    let above: Vec<&str> = (0..length / 200).map(|_| part.as_str()).collect();
    format!("{}/{number:05}", above.join("/"))
}

async fn report(store: &LogStore<Ram>) -> Report {
    store.checkpoint().await.unwrap();
    let report = store.check(|_, _| {}).await;
    assert_eq!(report.problems, [""; 0]);
    std::println!("{} nodes in {} levels hold {} values", report.nodes, report.levels, report.values);
    report
}

/// Whatever is removed, nodes that are left with little go together: leaves, branches above them, and levels above those.
#[test]
fn a_tree_of_which_most_was_removed_is_small_again() {
    Simulation::new(1).block_on(async {
        for (length, count, levels) in [(200, 3000, 3), (1000, 600, 5)] {
            let store = LogStore::format(ram(32 << 10), Config::default()).await.unwrap();
            for number in 0..count {
                store.set(key(&name(length, number)), &[1; 100]).await.unwrap();
            }
            let full = report(&store).await;
            assert!(full.levels >= levels && full.nodes > 250);
            for number in (0..count).filter(|number: &usize| !number.is_multiple_of(30)) {
                store.remove(key(&name(length, number))).await.unwrap();
            }
            let left = report(&store).await;
            assert!(left.values == count as u64 / 30 && left.nodes * 4 < full.nodes);
            for number in (30..count).step_by(30) {
                store.remove(key(&name(length, number))).await.unwrap();
            }
            let last = report(&store).await;
            assert_eq!((last.values, last.nodes, last.levels), (1, 1, 1));
            store.remove(key(&name(length, 0))).await.unwrap();
            let none = report(&store).await;
            assert_eq!((none.nodes, none.levels), (0, 0));
        }
    });
}

/// What is left of the first branch may be one child: those of the others stay.
#[test]
fn a_branch_with_one_child_is_not_all_there_is() {
    Simulation::new(1).block_on(async {
        for removed in 1..60 {
            let store = LogStore::format(ram(4 << 10), Config::default()).await.unwrap();
            for number in 0..60 {
                store.set(key(&name(1000, number)), &[1; 100]).await.unwrap();
            }
            store.checkpoint().await.unwrap();
            // So few at once that they are in one half of the log.
            for number in (60 - removed..60).rev().chain(0..1) {
                store.remove(key(&name(1000, number))).await.unwrap();
            }
            store.checkpoint().await.unwrap();
            assert_eq!(contents(&store).await.len(), 59 - removed.min(59));
            assert_eq!(store.check(|_, _| {}).await.problems, [""; 0]);
        }
    });
}
