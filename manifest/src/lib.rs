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
//! source = "htdocs"             # kv only: a directory, seen from this file
//!
//! [[device]]
//! kind = "block"
//! name = "disk"
//! layers = ["partition", "cache"]   # block, and kv with a store, from the bottom up: partition, read_only, xts, authenticated, cache
//!
//! [[device]]
//! kind = "kv_rw"
//! name = "store"
//! store = "log"                 # kv only: what is on a block device of the host: log (crash-safe), tar, fat; left out: as the target has it
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
pub mod suggest;
mod table;

pub use argument::{Argument, Presence, Serves, SetError, Stage, Type};

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

/// A device that the application wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What `start` and the command line call it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What the names of its arguments begin with, before a dash; left to the builder when `None`.
    pub group: Option<String>,
    /// The device before it whose stack an HTTP server or client uses; `None` for one of its own.
    pub stack: Option<String>,
    /// A directory, as written: relative to the file.
    pub source: Option<String>,
    /// What lies over a block device, from the bottom up.
    pub layers: Vec<Layer>,
    /// What a store keeps its values in, on a block device of the host.
    pub store: Option<Store>,
}

/// A store on a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The crash-safe store.
    Log,
    /// A tar archive.
    Tar,
    /// A FAT volume.
    Fat,
}

/// A layer over a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A partition of it.
    Partition,
    /// Writes are refused.
    ReadOnly,
    /// Encrypted.
    Xts,
    /// Encrypted and authenticated.
    Authenticated,
    /// A write-back cache.
    Cache,
}

/// What a device is for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP and UDP.
    Stack,
    /// An HTTP server.
    HttpServer,
    /// An HTTP client.
    HttpClient,
    /// Ethernet frames.
    Net,
    /// Sectors.
    Block,
    /// A store that is read.
    KvReadOnly,
    /// A store that is read and written.
    KvReadWrite,
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

impl Device {
    const FIELDS: [&'static str; 7] = ["kind", "name", "group", "stack", "source", "layers", "store"];

    fn read(mut table: Table<'_>) -> Result<(Self, usize), Problem> {
        let line = table.line();
        let name = table.required_string("name", "what start and the command line call the device")?;
        check_identifier(&name.value).map_err(|rule| name.problem(format!("device name \"{}\": {rule}", name.value)))?;
        let context = format!("device '{}': ", name.value);
        let kind = table.required_string("kind", &format!("one of {}", Kind::NAMES.join(", ")))?;
        let known = Kind::from_name(&kind.value).ok_or_else(|| {
            kind.problem(format!("{context}unknown kind \"{}\": {}", kind.value, suggest::hint(&kind.value, &Kind::NAMES)))
        })?;
        let group = read_group(&mut table, &context)?;
        if group.is_some() && !known.has_stack() {
            return Err(Problem { line, message: format!("{context}a {known} device has no group: leave it out (stacks have one)") });
        }
        let stack = table.string("stack")?;
        if let Some(stack) = &stack {
            if !matches!(known, Kind::HttpServer | Kind::HttpClient) {
                return Err(
                    stack.problem(format!("{context}a {known} device has no stack: leave it out (http_server and http_client have one)"))
                );
            }
            if group.is_some() {
                return Err(stack.problem(format!("{context}a stack of another device has that one's group: leave group or stack out")));
            }
        }
        let source = table.string("source")?;
        match (&source, known) {
            (Some(source), Kind::Stack | Kind::HttpServer | Kind::HttpClient | Kind::Net | Kind::Block) => {
                let message = format!("{context}a {known} device has no source: leave it out (kv_ro and kv_rw have one)");
                return Err(source.problem(message));
            }
            (Some(source), _) if source.value.is_empty() || source.value.contains('\0') => {
                return Err(source.problem(format!("{context}source is no path: write source = \"DIRECTORY\"")));
            }
            _ => {}
        }
        let store = Store::read(&mut table, known, source.is_some(), &context)?;
        if known == Kind::KvReadOnly && source.is_none() && store.is_none() {
            table.refuse_unknown(&context)?;
            let stores = Store::NAMES.join(", ");
            let message =
                format!("{context}field \"source\" is missing: the directory whose files the store holds (or \"store\": {stores})");
            return Err(Problem { line, message });
        }
        let layers = Layer::read(&mut table, known == Kind::Block || store.is_some(), known, &context)?;
        table.finish(&context)?;
        let (stack, source) = (stack.map(|stack| stack.value), source.map(|source| source.value));
        Ok((Self { name: name.value, kind: known, group, stack, source, layers, store }, line))
    }
}

impl Store {
    const ALL: [Self; 3] = [Self::Log, Self::Tar, Self::Fat];
    const NAMES: [&'static str; 3] = ["log", "tar", "fat"];

    /// Its name, which is the function's that opens it and the feature's that it needs too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Tar => "tar",
            Self::Fat => "fat",
        }
    }

    /// What fills it from the host.
    fn filler(self) -> &'static str {
        match self {
            Self::Log => "cargo xtask kv import",
            Self::Tar => "tar --format=ustar -cf",
            Self::Fat => "mcopy",
        }
    }

    fn read(table: &mut Table<'_>, kind: Kind, has_source: bool, context: &str) -> Result<Option<Self>, Problem> {
        let Some(name) = table.string("store")? else { return Ok(None) };
        if !matches!(kind, Kind::KvReadOnly | Kind::KvReadWrite) {
            let message = format!("{context}a {kind} device has no store: leave it out (kv_ro and kv_rw have one)");
            return Err(name.problem(message));
        }
        let found = Self::ALL.into_iter().find(|store| store.name() == name.value);
        let store = found.ok_or_else(|| {
            name.problem(format!("{context}unknown store \"{}\": {}", name.value, suggest::hint(&name.value, &Self::NAMES)))
        })?;
        if has_source {
            let message = format!(
                "{context}a {} store has no source, its values are on a block device: leave one of them out ({} fills it)",
                name.value,
                store.filler()
            );
            return Err(name.problem(message));
        }
        Ok(Some(store))
    }
}

impl Layer {
    const ALL: [Self; 5] = [Self::Partition, Self::ReadOnly, Self::Xts, Self::Authenticated, Self::Cache];
    const NAMES: [&'static str; 5] = ["partition", "read_only", "xts", "authenticated", "cache"];

    /// Its name, which is the function's that opens it too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::ReadOnly => "read_only",
            Self::Xts => "xts",
            Self::Authenticated => "authenticated",
            Self::Cache => "cache",
        }
    }

    fn read(table: &mut Table<'_>, is_allowed: bool, kind: Kind, context: &str) -> Result<Vec<Self>, Problem> {
        let mut layers = Vec::new();
        for name in table.strings("layers")? {
            if !is_allowed {
                return Err(name.problem(format!(
                    "{context}a {kind} device has no layers: leave them out (block devices and stores on them have some)"
                )));
            }
            let found = Self::ALL.into_iter().find(|layer| layer.name() == name.value);
            let layer = found.ok_or_else(|| {
                name.problem(format!("{context}unknown layer \"{}\": {}", name.value, suggest::hint(&name.value, &Self::NAMES)))
            })?;
            if layers.contains(&layer) {
                return Err(name.problem(format!("{context}the layer {} is there twice: leave one out", name.value)));
            }
            layers.push(layer);
        }
        Ok(layers)
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Stack, Self::HttpServer, Self::HttpClient, Self::Net, Self::Block, Self::KvReadOnly, Self::KvReadWrite];
    const NAMES: [&'static str; 7] = ["stack", "http_server", "http_client", "net", "block", "kv_ro", "kv_rw"];

    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::HttpServer => "http_server",
            Self::HttpClient => "http_client",
            Self::Net => "net",
            Self::Block => "block",
            Self::KvReadOnly => "kv_ro",
            Self::KvReadWrite => "kv_rw",
        }
    }

    /// True for devices that are a stack or have one.
    #[must_use]
    pub fn has_stack(self) -> bool {
        matches!(self, Self::Stack | Self::HttpServer | Self::HttpClient)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Checks that each stack that a device shares is that of a device before it.
fn check_stacks(devices: &[(Device, usize)]) -> Result<(), Problem> {
    for (at, (device, line)) in devices.iter().enumerate() {
        let Some(stack) = &device.stack else { continue };
        let before: Vec<&str> =
            devices[..at].iter().filter(|(other, _)| other.kind.has_stack()).map(|(other, _)| other.name.as_str()).collect();
        if !before.contains(&stack.as_str()) {
            let known = if before.is_empty() { "there is none".to_owned() } else { suggest::hint(stack, &before) };
            let message = format!("device '{}': no device before it has a stack called '{stack}': {known}", device.name);
            return Err(Problem { line: *line, message });
        }
    }
    Ok(())
}

/// Checks a name that becomes a Rust identifier and a name in the image's manifest.
fn check_identifier(name: &str) -> Result<(), String> {
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err("write lower-case letters and digits, a letter first".to_owned());
    }
    if name.len() > NAME_MAX {
        return Err(format!("{} characters, and {NAME_MAX} are allowed", name.len()));
    }
    if is_keyword(name) {
        return Err("it is a word of the Rust language: choose another".to_owned());
    }
    Ok(())
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
