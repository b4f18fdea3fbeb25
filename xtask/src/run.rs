//! Running an application: the image under a tender or in QEMU, or on unix the program itself.
//!
//! The builder becomes what it runs (`execve`), so that Ctrl-C, the terminal and the exit status are the program's own; but for QEMU, whose exit
//! status it translates.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail, ensure};

use crate::application::Application;
use crate::build::{self, Built};
use crate::cli::RunArgs;
use crate::manifest::{Kind, Manifest};
use crate::progress::Progress;
use crate::resolve::{StackChoice, Target};
use crate::tender;
use crate::workspace::Workspace;

mod disks;
mod gdb;
mod plan;
mod ports;
mod qemu;

use plan::Plan;

/// Builds and runs an application; returns only when that fails.
pub(crate) fn run(workspace: &Workspace, args: &RunArgs, progress: &Progress) -> anyhow::Result<ExitCode> {
    let target = args.build.target;
    if !target.is_image() {
        ensure!(args.mem.is_none(), "--mem is for images: a {target} program takes the memory it needs");
        ensure!(args.tender.is_none(), "--tender is for images: a {target} program runs by itself");
    }
    if !target.has_tender() {
        ensure!(args.tender.is_none() || target == Target::Unix, "--tender is for spt, hvt, muen and genode: {target} images run in QEMU");
    }
    ensure!(!args.gdb || gdb::is_on(target), "--gdb is for virtio, hvt and spt: {}", gdb::instead(target));
    ensure!(!args.disk || target == Target::Virtio, "--disk is for virtio, whose machines boot disks: {target} has no such thing");
    let mut build = args.build.clone();
    build.stack.extend(implied_stacks(&Application::find(workspace, &build.app)?.manifest, args));
    // What is wrong with the devices is told before what takes long.
    Plan::new(&build::resolve(workspace, &build)?.1, args, |_, _| true)?;
    let built = build::build(workspace, &build, progress)?;
    let tender = if target.has_tender() { Some(tender(workspace, args, progress)?) } else { None };
    // After all that takes long, so that a port that is free now is free when it is bound.
    let plan = Plan::new(&built.resolved, args, ports::is_free)?;
    disks::prepare(&args.block, args.create, progress)?;
    let mut command = match target {
        Target::Virtio if args.disk => {
            qemu::command(&qemu::Boot::Disk(&build::disk(&built, &plan.arguments, progress)?), args, &plan, progress)?
        }
        Target::Virtio => qemu::command(&qemu::Boot::Kernel(&built.path, &line(&plan.arguments)?), args, &plan, progress)?,
        _ => command(&built, tender, &plan, args.gdb)?,
    };
    progress.say("Running", shell_line(&command));
    if !progress.is_quiet() {
        plan.places.iter().for_each(|place| eprintln!("{place}"));
        if args.gdb {
            eprintln!("{}", gdb::hint(&built.path));
        }
    }
    if target == Target::Virtio {
        return qemu::run(&mut command);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// On unix a stack is the host's sockets, unless it is to be attached to a tap.
fn implied_stacks(manifest: &Manifest, args: &RunArgs) -> Vec<(String, StackChoice)> {
    let is_stack = |name: &str| manifest.devices.iter().any(|device| device.kind == Kind::Stack && device.name == name);
    let is_chosen = |name: &str| args.build.stack.iter().any(|(chosen, _)| chosen == name);
    let attached = args.net.iter().filter(|(name, _)| args.build.target == Target::Unix && is_stack(name) && !is_chosen(name));
    attached.map(|(name, _)| (name.clone(), StackChoice::Direct)).collect()
}

fn tender(workspace: &Workspace, args: &RunArgs, progress: &Progress) -> anyhow::Result<PathBuf> {
    match &args.tender {
        Some(tender) => find_tender(tender),
        None => tender::build(workspace, args.build.target, progress),
    }
}

/// The program under its tender, or by itself where there is none.
fn command(built: &Built, tender: Option<PathBuf>, plan: &Plan, is_debugged: bool) -> anyhow::Result<Command> {
    let Some(tender) = tender else {
        let mut command = Command::new(&built.path);
        for argument in &plan.arguments {
            command.arg(quote(argument)?);
        }
        return Ok(command);
    };
    let mut command = gdb::command(&tender, built.resolved.target, is_debugged);
    command.args(plan.tender_options()).arg("--").arg(&built.path);
    for argument in &plan.arguments {
        command.arg(quote(argument)?);
    }
    Ok(command)
}

/// Arguments as the one line that a guest gets.
pub(crate) fn line(arguments: &[String]) -> anyhow::Result<String> {
    let words = arguments.iter().map(|argument| quote(argument)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(words.join(" "))
}

/// An image gets its arguments as one line, joined by spaces, and splits it as a shell does; a program takes them as an image would.
fn quote(argument: &str) -> anyhow::Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./:,@%+*".contains(&byte);
    if !argument.is_empty() && argument.bytes().all(is_plain) {
        return Ok(argument.to_owned());
    }
    let quoted = shlex::try_quote(argument).with_context(|| format!("the argument {argument:?} cannot be passed on"))?;
    Ok(quoted.into_owned())
}

fn find_tender(tender: &str) -> anyhow::Result<PathBuf> {
    if tender.contains('/') {
        ensure!(Path::new(tender).is_file(), "there is no tender at {tender}");
        return Ok(tender.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|directory| directory.join(tender)).find(|path| path.is_file()) {
        Some(found) => Ok(found),
        None => bail!("no tender {tender} is on PATH: install it, give its path, or leave --tender out to use ours"),
    }
}

/// A command as one would type it.
fn shell_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| shell_word(word.to_owned()));
    words.collect::<Vec<_>>().join(" ")
}

fn shell_word(word: OsString) -> String {
    let word = crate::files::shortened(Path::new(&word)).display().to_string();
    quote(&word).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_arguments_stay_readable() {
        assert_eq!(quote("--ipv4=10.0.0.2/24").unwrap(), "--ipv4=10.0.0.2/24");
        assert_eq!(quote("").unwrap(), "''");
        assert!(quote("a\0b").is_err());
    }

    #[test]
    fn a_tender_that_is_not_there_is_named() {
        assert!(find_tender("fogbow-no-such-tender").unwrap_err().to_string().contains("fogbow-no-such-tender"));
        assert!(find_tender("./no/tender").unwrap_err().to_string().contains("./no/tender"));
    }

    proptest! {
        #[test]
        fn a_guest_reads_the_arguments_that_were_given(arguments in prop::collection::vec("[^\0]{0,12}", 0..5)) {
            let line = arguments.iter().map(|argument| quote(argument).unwrap()).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(fogbow::arguments::split(&line), Ok(arguments));
        }
    }
}
