//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::manifest::{Manifest, Prng, Store};
use crate::resolve::{StackChoice, Target};

/// Builds, runs and tests unikernels.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Print nothing but results and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a small working application to start from
    New {
        /// The directory to make; its last part is the application's name
        path: PathBuf,
    },
    /// Build an application's image and print its path
    Build {
        #[command(flatten)]
        build: BuildArgs,
        /// Write a disk as well that boots the image by GRUB: dist/NAME.virtio.img
        #[arg(long)]
        disk: bool,
        /// The image's own arguments, for the disk and for libvirt.xml (virtio)
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Build an application and run it
    Run(RunArgs),
    /// Build an application and print what it is made of
    Describe {
        #[command(flatten)]
        build: BuildArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Build everything, install what the tests need, and run all tests
    Test {
        /// Passed on to the tests, such as a part of their names
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Measure what SPECIFICATION.md promises, beside references
    Bench {
        /// Passed on: sections to measure (sizes, boot, machines, http, streams, blocks, memory, virtio, random, timers, logs, dieharder, stores), --solo5 DIRECTORY
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the property tests at length, then load images for a long time
    Soak {
        /// How long to load each image, in minutes
        #[arg(long, default_value_t = 5)]
        minutes: u32,
    },
    /// Look into, change and check a log store in a disk image
    Kv {
        #[command(subcommand)]
        command: crate::kv::KvCommand,
    },
    /// Remove what was built
    Clean {
        /// Of this application alone: an example's name or an application's directory
        app: Option<String>,
    },
    /// Build our tender of a target and print its path
    Tender {
        /// The target: spt, hvt, muen or genode
        target: Target,
    },
}

/// Which image to build.
#[derive(Args, Clone, Debug)]
pub(crate) struct BuildArgs {
    /// An example's name, or the directory of an application (where its unikernel.toml is)
    pub(crate) app: String,
    /// The target
    #[arg(long, short)]
    pub(crate) target: Target,
    /// Build without optimisation, for a debugger
    #[arg(long)]
    pub(crate) debug: bool,
    /// Which stack a `stack` device gets where a target has both: the host's sockets or the direct one over a frame device
    #[arg(long, value_name = "NAME=host|direct", value_parser = named::<StackChoice>)]
    pub(crate) stack: Vec<(String, StackChoice)>,
    /// What keeps the values of a kv_ro or kv_rw device, instead of unikernel.toml's or the target's own: the image itself, a directory of the
    /// host (unix), the image's memory, or a block device with a log store, a tar archive or a FAT volume
    #[arg(long, value_name = "NAME=embedded|directory|memory|log|tar|fat", value_parser = named::<Store>)]
    pub(crate) store: Vec<(String, Store)>,
    /// The image's random generator, instead of unikernel.toml's: fortuna, or insecure, which is small and fast and keeps no secret
    #[arg(long, value_name = "GENERATOR")]
    pub(crate) prng: Option<Prng>,
    /// The value of an argument whose stage is build
    #[arg(long, value_name = "NAME=VALUE", value_parser = named::<String>)]
    pub(crate) set: Vec<(String, String)>,
}

impl BuildArgs {
    /// Fixes in `manifest` what is fixed when an image is built.
    pub(crate) fn fix(&self, manifest: &mut Manifest) -> anyhow::Result<()> {
        manifest.prng = self.prng.unwrap_or(manifest.prng);
        manifest.choose(&self.store)?;
        Ok(manifest.set(&self.set)?)
    }
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    /// What a network device or stack is attached to: a tap interface, or a user-mode network that needs no privilege
    #[arg(long, value_name = "NAME=TAP|user[,hostfwd=HOSTPORT:PORT]", value_parser = named::<String>)]
    pub(crate) net: Vec<(String, String)>,
    /// The file that a block device is
    #[arg(long, value_name = "NAME=FILE", value_parser = named::<String>)]
    pub(crate) block: Vec<(String, String)>,
    /// Make the files of --block that do not exist, of this size: bytes, or 64K, 64M, 64G
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "block")]
    pub(crate) create: Option<u64>,
    /// The image's memory in megabytes
    #[arg(long, value_name = "MB")]
    pub(crate) mem: Option<u32>,
    /// Boot from a disk, as `build --disk` writes it (virtio)
    #[arg(long)]
    pub(crate) disk: bool,
    /// Wait for gdb on port 1234 of the loopback before the image's first instruction (virtio, hvt, spt)
    #[arg(long)]
    pub(crate) gdb: bool,
    /// Run under this tender, a path or a program such as solo5-spt, instead of ours
    #[arg(long, value_name = "PATH|PROGRAM")]
    pub(crate) tender: Option<String>,
    /// The image's own arguments; `-- --help` lists them
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

/// Reads a size of whole sectors: a number of bytes, or of binary kilo-, mega- or gigabytes.
fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1_u64),
    };
    let size = digits.parse().ok().and_then(|number: u64| number.checked_mul(unit)).ok_or("write a size such as 64M, 512K or 1048576")?;
    let sector = u64::from(fogbow_tender::options::DEFAULT_SECTOR_SIZE);
    if size == 0 || !size.is_multiple_of(sector) || i64::try_from(size).is_err() {
        return Err(format!("a block device has whole sectors of {sector} bytes, one at least: write a multiple of {sector}"));
    }
    Ok(size)
}

/// Reads `NAME=VALUE`.
fn named<T: std::str::FromStr>(text: &str) -> Result<(String, T), String>
where
    T::Err: std::fmt::Display,
{
    let (name, value) = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty()).ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.parse().map_err(|error: T::Err| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_network_keeps_its_commas() {
        let line = ["xtask", "run", "http", "--target", "spt", "--net", "service=user,hostfwd=8080:80", "--", "--port=80"];
        let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else { panic!("not run") };
        assert_eq!(run.net, [("service".to_owned(), "user,hostfwd=8080:80".to_owned())]);
        assert_eq!(run.arguments, ["--port=80"]);
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([size("512"), size("3K"), size("64M"), size("2G")], [Ok(512), Ok(3 << 10), Ok(64 << 20), Ok(2 << 30)]);
    }

    #[test]
    fn mistakes_are_refused() {
        for line in [
            &["xtask", "build", "http"][..],
            &["xtask", "build", "http", "-t", "xen"],
            &["xtask", "build", "http", "-t", "spt", "--prng", "none"],
            &["xtask", "build", "http", "-t", "spt", "--store", "htdocs=zip"],
            &["xtask", "run", "http", "-t", "spt", "--net", "tap0"],
            &["xtask", "run", "block", "-t", "spt", "--create", "64M"],
            &["xtask", "run", "block", "-t", "spt", "--block", "disk=a.img", "--create", "0"],
            &["xtask", "run", "block", "-t", "spt", "--block", "disk=a.img", "--create", "1000"],
            &["xtask", "run", "block", "-t", "spt", "--block", "disk=a.img", "--create", "99999999999G"],
            &["xtask", "run", "block", "-t", "spt", "--block", "disk=a.img", "--create", "M"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}
