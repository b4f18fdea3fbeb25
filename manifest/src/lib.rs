//! `unikernel.toml`: what an application is called, which devices it wants, which arguments it takes.
//!
//! ```toml
//! name = "http"                 # lower-case letters, digits and dashes
//! optimize = "speed"            # or "size", for an image as small as can be; "speed" when left out
//! prng = "fortuna"              # or "insecure", small and fast for an image that keeps no secrets; --prng decides otherwise
//!
//! [[device]]                    # in the order of the parameters of `start`
//! kind = "stack"                # stack, http_server, http_client, net, block, kv_ro, kv_rw
//! name = "service"              # lower-case letters and digits
//! group = "public"              # stacks, HTTP servers and clients: the stack's arguments begin so, as in --public-ipv4; see below
//!
//! [[device]]
//! kind = "kv_ro"
//! name = "htdocs"
//! source = "htdocs"             # kv only: a directory, seen from this file, that an image embeds and a process reads
//!
//! [[device]]
//! kind = "block"
//! name = "disk"
//! layers = ["partition", "cache"]   # block, and kv with a store, from the bottom up: partition, read_only, xts, authenticated, cache
//!
//! [[device]]
//! kind = "kv_rw"
//! name = "store"
//! store = "log"                 # kv only: what keeps the values: log (crash-safe), tar or fat on a block device, embedded, directory, memory;
//!                               # left out: as the target has it; --store decides otherwise
//!
//! [[device]]
//! kind = "http_client"
//! name = "origin"
//! stack = "service"             # http_server and http_client: on the stack of a device before; left out: on one of its own
//!
//! [[arg]]                       # a field of the struct that fogbow::arguments!() makes
//! name = "port"
//! type = "u16"                  # string when left out; see `Type` for all of them
//! default = 80                  # left out: an Option, or false for a bool
//! doc = "TCP port to serve"
//! http = true                   # the value is a port that serves HTTP; also tcp = true, udp = true
//!
//! [[arg]]
//! name = "peer"
//! type = "socket"
//! repeated = true               # a Vec: given any number of times; required = true: must be given
//! group = "public"              # the argument is --public-peer, the field public_peer
//!
//! [[arg]]
//! name = "greeting"
//! default = "hello"
//! stage = "build"               # fixed by `cargo xtask build --set greeting=...`, else by the default; "boot" when left out
//! ```
//!
//! A stack without a group has arguments without a prefix where it is the only one of an image, and is the group of its own name otherwise.
//!
//! What an argument serves is only for `cargo xtask run`, which makes that port reachable from the host and says where it is.
//!
//! Strict: an unknown field, a missing one or a wrong value is an error that names the file, the line, the field and what is allowed.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

mod argument;
mod device;
mod store;
pub mod suggest;
mod table;

pub use argument::{Argument, Presence, Serves, SetError, Stage, Type};
pub use device::{Device, Kind, Layer};
pub use store::{ChooseError, Format, Store};

use device::check_stacks;
use table::Table;

/// Devices in an image at most: `MFT_MAX_ENTRIES` of Solo5's `mft_abi.h`, less the reserved first entry.
pub const MAX_DEVICES: usize = 63;

/// The longest name, in characters: `MFT_NAME_MAX` of Solo5's `mft_abi.h`.
pub const NAME_MAX: usize = 67;

/// The file's name.
pub const FILE: &str = "unikernel.toml";

/// A checked `unikernel.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the application is called.
    pub name: String,
    /// What the compiler looks for.
    pub optimize: Optimize,
    /// What its random numbers are from.
    pub prng: Prng,
    /// Its devices, in the order of the parameters of `start`.
    pub devices: Vec<Device>,
    /// Its arguments.
    pub arguments: Vec<Argument>,
}

/// What the compiler looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Optimize {
    /// A fast image, however large.
    #[default]
    Speed,
    /// A small image, however fast.
    Size,
}

/// The random generator of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prng {
    /// Fortuna.
    #[default]
    Fortuna,
    /// Without cryptographic strength.
    Insecure,
}

/// What is wrong, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for Problem {}

/// Why a file cannot be used.
#[derive(Debug)]
pub enum ReadError {
    /// It cannot be read.
    File(PathBuf, std::io::Error),
    /// What it says is wrong.
    Text(PathBuf, Problem),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Text(path, Problem { line, message }) => write!(f, "{}:{line}: {message}", path.display()),
        }
    }
}

impl std::error::Error for ReadError {}

impl Manifest {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ReadError`] with the file's path.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let text = std::fs::read_to_string(path).map_err(|error| ReadError::File(path.to_owned(), error))?;
        Self::parse(&text).map_err(|problem| ReadError::Text(path.to_owned(), problem))
    }

    /// Checks a file's text.
    ///
    /// # Errors
    /// The first [`Problem`].
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut root = Table::parse(text)?;
        let name = root.required_string("name", "the application's name")?;
        check_words(&name.value).map_err(|rule| name.problem(format!("name \"{}\": {rule}", name.value)))?;
        let optimize = Optimize::read(&mut root)?;
        let prng = Prng::read(&mut root)?;
        let devices = root.tables("device")?.into_iter().map(|table| Device::read(table)).collect::<Result<Vec<_>, _>>()?;
        let arguments = root.tables("arg")?.into_iter().map(|table| Argument::read(table)).collect::<Result<Vec<_>, _>>()?;
        root.finish("")?;
        check_distinct("device", devices.iter().map(|(device, line)| (&device.name, *line)))?;
        check_stacks(&devices)?;
        check_distinct("argument", arguments.iter().map(|(argument, line)| (&argument.name, *line)))?;
        argument::check_fields(&arguments)?;
        if let Some((_, line)) = devices.get(MAX_DEVICES) {
            return Err(Problem { line: *line, message: format!("more than {MAX_DEVICES} devices: an image can have no more") });
        }
        Ok(Self {
            name: name.value,
            optimize,
            prng,
            devices: devices.into_iter().map(|(device, _)| device).collect(),
            arguments: arguments.into_iter().map(|(argument, _)| argument).collect(),
        })
    }
}

impl Optimize {
    fn read(root: &mut Table<'_>) -> Result<Self, Problem> {
        let Some(optimize) = root.string("optimize")? else { return Ok(Self::default()) };
        match optimize.value.as_str() {
            "speed" => Ok(Self::Speed),
            "size" => Ok(Self::Size),
            other => Err(optimize.problem(format!("unknown optimize \"{other}\": {}", suggest::hint(other, &["speed", "size"])))),
        }
    }
}

impl Prng {
    const ALL: [Self; 2] = [Self::Fortuna, Self::Insecure];
    const NAMES: [&'static str; 2] = ["fortuna", "insecure"];

    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fortuna => "fortuna",
            Self::Insecure => "insecure",
        }
    }

    fn read(root: &mut Table<'_>) -> Result<Self, Problem> {
        let Some(prng) = root.string("prng")? else { return Ok(Self::default()) };
        prng.value.parse().map_err(|hint| prng.problem(hint))
    }
}

impl FromStr for Prng {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|prng| prng.name() == name);
        found.ok_or_else(|| format!("unknown generator \"{name}\": {}", suggest::hint(name, &Self::NAMES)))
    }
}

/// Words that cannot name a variable in edition 2024.
fn is_keyword(name: &str) -> bool {
    const KEYWORDS: &str = " abstract as async await become box break const continue crate do dyn else enum extern false final fn for gen if \
                            impl in let loop macro match mod move mut override priv pub ref return self static struct super trait true try \
                            type typeof unsafe unsized use virtual where while yield ";
    KEYWORDS.contains(&format!(" {name} "))
}

/// Reads the field `group`.
fn read_group(table: &mut Table<'_>, context: &str) -> Result<Option<String>, Problem> {
    let Some(group) = table.string("group")? else { return Ok(None) };
    check_words(&group.value).map_err(|rule| group.problem(format!("{context}group \"{}\": {rule}", group.value)))?;
    Ok(Some(group.value))
}

/// Checks a name of words joined by dashes.
///
/// # Errors
/// The rule that the name breaks.
pub fn check_words(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.bytes().all(allowed) || name.ends_with('-') {
        return Err("write lower-case letters, digits and dashes, a letter first".to_owned());
    }
    if name.len() > NAME_MAX {
        return Err(format!("{} characters, and {NAME_MAX} are allowed", name.len()));
    }
    Ok(())
}

fn check_distinct<'a>(what: &str, names: impl Iterator<Item = (&'a String, usize)>) -> Result<(), Problem> {
    let mut seen = std::collections::BTreeMap::new();
    for (name, line) in names {
        if let Some(first) = seen.insert(name, line) {
            return Err(Problem { line, message: format!("{what} '{name}' is declared already, in line {first}: rename one") });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
