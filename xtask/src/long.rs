//! What takes longer than a test may: measurements and soaks.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::progress::Progress;
use crate::workspace::{self, Workspace};

/// Cases that each property test tries in a soak; proptest's own default, which tests keep to, is 256.
const SOAK_CASES: u32 = 20_000;

/// Frames that the network stack must survive in a soak; its test sends 20,000.
const SOAK_FRAMES: u32 = 10_000_000;

/// Images of the log store that a soak mutates; the test tries 2,000.
const SOAK_IMAGES: u32 = 200_000;

/// Runs the benchmarks.
pub(crate) fn bench(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let program = ["run", "--quiet", "--release", "--package", "fogbow-tests", "--features", "stores", "--bin", "bench", "--"];
    run(workspace, &program, arguments, None)
}

/// Runs the property tests with many cases, then many hostile frames and mutated stores, then the soak of images.
pub(crate) fn soak(workspace: &Workspace, minutes: u32, progress: &Progress) -> anyhow::Result<ExitCode> {
    progress.say("Soaking", format_args!("all property tests, {SOAK_CASES} cases each"));
    let tests = ["test", "--quiet", "--release", "--workspace", "--all-features", "--lib", "--bins", "--exclude", "fogbow-tests"];
    let properties = run(workspace, &tests, &[], Some(("PROPTEST_CASES", SOAK_CASES.to_string())))?;
    let stores = ["test", "--quiet", "--release", "--package", "fogbow-tests", "--test", "agreement"];
    let agreement = run(workspace, &stores, &[], Some(("PROPTEST_CASES", SOAK_CASES.to_string())))?;
    progress.say("Soaking", format_args!("the network stack, {SOAK_FRAMES} hostile frames"));
    let fuzz = ["test", "--quiet", "--release", "--package", "fogbow-net", "--all-features", "--test", "frame_fuzz"];
    let frames = run(workspace, &fuzz, &[], Some(("FOGBOW_FUZZ_FRAMES", SOAK_FRAMES.to_string())))?;
    progress.say("Soaking", format_args!("the log store, {SOAK_IMAGES} mutated images"));
    let fuzz = ["test", "--quiet", "--release", "--package", "fogbow-kv", "--all-features", "--test", "image_fuzz"];
    let stores = run(workspace, &fuzz, &[], Some(("FOGBOW_FUZZ_IMAGES", SOAK_IMAGES.to_string())))?;
    progress.say("Soaking", format_args!("images, {minutes} minutes each"));
    let program = ["run", "--quiet", "--release", "--package", "fogbow-tests", "--bin", "soak", "--"];
    let images = run(workspace, &program, &[minutes.to_string()], None)?;
    Ok([properties, agreement, frames, stores].into_iter().find(|&code| code != ExitCode::SUCCESS).unwrap_or(images))
}

fn run(workspace: &Workspace, cargo: &[&str], arguments: &[String], variable: Option<(&str, String)>) -> anyhow::Result<ExitCode> {
    let mut command = workspace::cargo();
    command.current_dir(workspace.root()).args(cargo).args(arguments).envs(variable);
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
