//! The builder: `cargo xtask COMMAND`.
//!
//! It turns an application and its `unikernel.toml` into an image for a target. The way there, one module for each step: [`manifest`] reads the
//! file, [`resolve`] finds what stands behind each device on the target, [`generate`] writes a small crate, [`compile`] compiles and links it,
//! [`verify`] checks the result, and [`run`] starts it.
//!
//! Results go to standard output, progress and errors to standard error.
//!
//! Limits: x86-64 Linux hosts.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

mod application;
mod build;
mod clean;
mod cli;
mod compile;
mod describe;
mod disk;
mod files;
mod generate;
mod genode;
mod kv;
mod libvirt;
mod long;
mod muen;
mod new;
mod progress;
mod resolve;
mod run;
mod tender;
mod test;
mod verify;
mod workspace;

use cli::{Cli, Command};
use fogbow_manifest::{self as manifest, suggest};
use progress::Progress;
use workspace::Workspace;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let progress = Progress::new(cli.quiet);
    match execute(&cli.command, &progress) {
        Ok(code) => code,
        Err(error) => {
            // One line, whatever was said below: the compiler's own words have gone out already.
            eprintln!("error: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: &Command, progress: &Progress) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::New { path } => new::create(&workspace, path, progress)?,
        Command::Build { build, disk, arguments } => {
            let has_machine = build.target == resolve::Target::Virtio;
            anyhow::ensure!(
                has_machine || arguments.is_empty(),
                "arguments are for the machines of virtio: other images get them when they are run"
            );
            let built = build::build(&workspace, build, progress)?;
            println!("{}", files::display(&built.path));
            if has_machine {
                build::libvirt(&built, arguments, progress)?;
            }
            if *disk {
                println!("{}", files::display(&build::disk(&built, arguments, progress)?));
            }
        }
        Command::Run(run) => return run::run(&workspace, run, progress),
        Command::Describe { build, json } => {
            let description = describe::Description::new(&build::build(&workspace, build, progress)?)?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&description)?);
            } else {
                print!("{description}");
            }
        }
        Command::Test { arguments } => return test::test(&workspace, arguments, progress),
        Command::Bench { arguments } => return long::bench(&workspace, arguments),
        Command::Soak { minutes } => return long::soak(&workspace, *minutes, progress),
        Command::Kv { command } => return kv::run(command, progress),
        Command::Clean { app } => clean::clean(&workspace, app.as_deref(), progress)?,
        Command::Tender { target } => println!("{}", tender::build(&workspace, *target, progress)?.display()),
    }
    Ok(ExitCode::SUCCESS)
}
