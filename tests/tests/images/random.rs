//! Randomness: what an image draws, and that no two runs draw the same.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use fogbow_tests::builder::{Place, Run};
use libtest_mimic::Trial;

const PLACES: [Place; 6] = [Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Muen, Place::Genode];

/// Lines of each kind that an image prints.
const LINES: usize = 20;

pub(crate) fn trials() -> Vec<Trial> {
    [
        super::on(&PLACES, "random_never_repeats_itself_in_two_runs", |place| never_repeats_itself(place, &[])),
        super::on(&PLACES, "random_insecure_does_not_either", |place| never_repeats_itself(place, &["--prng", "insecure"])),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The same image with the same arguments, twice: all draws of every kind differ, and about half of all bits are set.
fn never_repeats_itself(place: Place, build: &[&str]) -> Result<()> {
    let mut draws = BTreeSet::new();
    let mut ones = 0;
    for run in 1..=2 {
        let arguments = [&*format!("--lines={LINES}")];
        let ended = place.start("random", &Run { arguments: &arguments, build, ..Run::default() })?.ended()?;
        ensure!(ended.status == Some(0), "{ended:?}");
        for kind in ["function", "generator", "getrandom"] {
            let lines: Vec<&str> = ended.console.lines().filter_map(|line| line.strip_prefix(kind).map(str::trim)).collect();
            ensure!(lines.len() == LINES && lines.iter().all(|line| line.len() == 64), "{kind}: {ended:?}");
            for line in lines {
                ones += line.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum::<u32>();
                ensure!(draws.insert(line.to_owned()), "run {run} drew {line} again");
            }
        }
    }
    // 30,720 bits: the standard deviation is 88.
    let bits = draws.len() as u32 * 256;
    ensure!(ones.abs_diff(bits / 2) < 800, "{ones} of {bits} bits are set");
    Ok(())
}
