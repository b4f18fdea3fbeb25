//! Randomness: what an image draws, and that no two runs draw the same.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{self, Place, Run};
use libtest_mimic::Trial;

const PLACES: [Place; 6] = [Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Muen, Place::Genode];

/// Lines of each kind that an image prints.
const LINES: usize = 20;

pub(crate) fn trials() -> Vec<Trial> {
    [
        super::on(&PLACES, "random_never_repeats_itself_in_two_runs", |place| never_repeats_itself(place, &[])),
        super::on(&[Place::Unix, Place::Spt, Place::Hvt, Place::Virtio], "random_leaves_no_draw_in_memory", leaves_nothing),
        super::on(&PLACES, "random_insecure_does_not_either", |place| never_repeats_itself(place, &["--prng", "insecure"])),
    ]
    .into_iter()
    .flatten()
    .chain([
        super::trial("random_fails_closed_without_entropy", Place::Virtio, fails_closed),
        super::trial("random_refuses_a_second_generator_when_it_is_linked", Place::Spt, refuses_a_second_generator),
    ])
    .collect()
}

/// Forward secrecy, seen from outside: what an image has drawn and overwritten is nowhere in the memory of its process, which is the guest's too.
fn leaves_nothing(place: Place) -> Result<()> {
    let remembered = remains(place, "--remember")?;
    ensure!(remembered >= 1, "what was not overwritten was not found: this test sees nothing");
    let left = remains(place, "--forget")?;
    ensure!(left == 0, "{left} draws are still in memory");
    Ok(())
}

/// How many of an image's draws are in its memory while it waits.
fn remains(place: Place, how: &str) -> Result<usize> {
    const MEGABYTES: u32 = 4;
    /// A part of a draw that is looked for: more than chance gives.
    const PART: usize = 8;
    let guest = place.start("tests/images/draws", &Run { memory: MEGABYTES, arguments: &[how], ..Run::default() })?;
    guest.wait_for("waiting\n")?;
    let mut parts: HashMap<u64, usize> = HashMap::new();
    for (number, line) in guest.console().lines().filter_map(|line| line.strip_prefix("drew ")).enumerate() {
        let drawn = (0..line.len() / 2).map(|at| Ok(!u8::from_str_radix(&line[2 * at..2 * at + 2], 16)?)).collect::<Result<Vec<u8>>>()?;
        let (drawn, _) = drawn.as_chunks::<PART>();
        parts.extend(drawn.iter().map(|part| (u64::from_le_bytes(*part), number)));
    }
    ensure!(parts.len() > 60 * 4, "{}", guest.console());
    let mut found = BTreeSet::new();
    // The rest of QEMU has the processor's registers, too.
    let machine = (place == Place::Virtio).then_some(u64::from(MEGABYTES) << 20);
    for_each_page(guest.id(), machine, |bytes| {
        // Whatever copies a draw keeps it at a multiple of four bytes at least.
        for at in (0..bytes.len().saturating_sub(PART)).step_by(4) {
            let word = u64::from_le_bytes(bytes[at..at + PART].try_into().unwrap_or_default());
            found.extend(parts.get(&word).copied());
        }
    })?;
    Ok(found.len())
}

/// Reads all memory of a process that it can write, or only the pieces of one size.
fn for_each_page(process: u32, size: Option<u64>, mut look: impl FnMut(&[u8])) -> Result<()> {
    let memory = File::open(format!("/proc/{process}/mem"))?;
    for line in std::fs::read_to_string(format!("/proc/{process}/maps"))?.lines() {
        let mut words = line.split(' ');
        let (range, rights) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (start, end) = range.split_once('-').context("an entry of maps without a range")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        if rights.starts_with("rw") && size.is_none_or(|size| end - start == size) {
            let mut bytes = vec![0; (end - start) as usize];
            memory.read_exact_at(&mut bytes, start).with_context(|| format!("reading {line}"))?;
            look(&bytes);
        }
    }
    Ok(())
}

/// A processor without random instructions, and no other source: jitter alone seeds nothing.
fn fails_closed() -> Result<()> {
    let run = Run { tender: &["-cpu", "max,rdrand=off,rdseed=off"], ..Run::default() };
    let ended = Place::Virtio.start("tests/images/draws", &run)?.ended()?;
    ensure!(ended.status == Some(1) && ended.console.contains("error: random: the random generator has no seed"), "{ended:?}");
    Ok(())
}

/// An application that brings a backend for `getrandom` of its own is no image: the linker finds the two definitions.
fn refuses_a_second_generator() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let application = directory.path().join("second");
    let path = application.to_str().context("the path of temporary files is no text")?;
    builder::xtask(&["new", path])?;
    let library = application.join("src/lib.rs");
    let second = "#[unsafe(no_mangle)]
        extern \"Rust\" fn __getrandom_v03_custom(_: *mut u8, _: usize) -> Result<(), core::num::NonZeroU32> { Ok(()) }\n";
    let text = std::fs::read_to_string(&library)?.replace("#![forbid(unsafe_code)]", "");
    std::fs::write(&library, text + second)?;
    let error = builder::xtask(&["build", path, "--target", "spt"]).err().context("it was built")?.to_string();
    // Said while the image is optimised as a whole, or else by the linker.
    let is_refused =
        error.contains("__getrandom_v03_custom") && ["multiply defined", "duplicate symbol"].iter().any(|said| error.contains(said));
    ensure!(is_refused, "{error}");
    Ok(())
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
