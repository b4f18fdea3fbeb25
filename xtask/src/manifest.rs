//! `unikernel.toml`: what an application is called, which devices it wants, which arguments it takes.
//!
//! ```toml
//! name = "http"                 # lower-case letters, digits and dashes
//! optimize = "speed"            # or "size", for an image as small as can be; "speed" when left out
//!
//! [[device]]                    # in the order of the parameters of `start`
//! kind = "stack"                # stack, net, block, kv_ro, kv_rw
//! name = "service"              # lower-case letters and digits
//!
//! [[device]]
//! kind = "kv_ro"
//! name = "htdocs"
//! source = "htdocs"             # kv only: a directory, seen from this file
//!
//! [[device]]
//! kind = "block"
//! name = "disk"
//! layers = ["partition", "cache"]   # block and log stores, from the bottom up: partition, read_only, xts, authenticated, cache
//!
//! [[device]]
//! kind = "kv_rw"
//! name = "store"
//! store = "log"                 # kv_rw only: on a block device of the host, crash-safe; left out: in memory, or source's directory on unix
//!
//! [[arg]]                       # read with fogbow::arguments
//! name = "port"
//! default = "80"                # left out: the argument may be left out, and then has no value
//! doc = "TCP port to serve"
//! http = true                   # the value is a port that serves HTTP; also tcp = true, udp = true
//! ```
//!
//! What an argument serves is only for `cargo xtask run`, which makes that port reachable from the host and says where it is.
//!
//! Strict: an unknown field, a missing one or a wrong value is an error that names the file, the line, the field and what is allowed.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use fogbow_tender::manifest::{MAX_ENTRIES, NAME_MAX};

use crate::suggest;

mod table;

use table::Table;

/// The file's name.
pub(crate) const FILE: &str = "unikernel.toml";

/// A checked `unikernel.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) optimize: Optimize,
    pub(crate) devices: Vec<Device>,
    pub(crate) arguments: Vec<Argument>,
}

/// What the compiler looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Optimize {
    #[default]
    Speed,
    /// A small image, however fast.
    Size,
}

/// A device that the application wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// A directory, as written: relative to the file.
    pub(crate) source: Option<String>,
    /// What lies over a block device, from the bottom up.
    pub(crate) layers: Vec<Layer>,
    /// A `kv_rw` device is a log store on a block device of the host.
    pub(crate) is_log: bool,
}

/// A layer over a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Partition,
    ReadOnly,
    Xts,
    Authenticated,
    Cache,
}

/// What a device is for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stack,
    Net,
    Block,
    KvReadOnly,
    KvReadWrite,
}

/// An argument that the application takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) name: String,
    pub(crate) default: Option<String>,
    pub(crate) doc: String,
    pub(crate) serves: Serves,
}

/// What is served on the port that an argument names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serves {
    pub(crate) tcp: bool,
    pub(crate) udp: bool,
    /// Implies `tcp`.
    pub(crate) http: bool,
}

/// What is wrong, and in which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Manifest {
    /// Reads and checks the file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).map_err(|Problem { line, message }| anyhow::anyhow!("{}:{line}: {message}", path.display()))
    }

    /// Checks a file's text.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let mut root = Table::parse(text)?;
        let name = root.required_string("name", "the application's name")?;
        check_words(&name.value).map_err(|rule| name.problem(format!("name \"{}\": {rule}", name.value)))?;
        let optimize = Optimize::read(&mut root)?;
        let devices = root.tables("device")?.into_iter().map(|table| Device::read(table)).collect::<Result<Vec<_>, _>>()?;
        let arguments = root.tables("arg")?.into_iter().map(|table| Argument::read(table)).collect::<Result<Vec<_>, _>>()?;
        root.finish("")?;
        check_distinct("device", devices.iter().map(|(device, line)| (&device.name, *line)))?;
        check_distinct("argument", arguments.iter().map(|(argument, line)| (&argument.name, *line)))?;
        if let Some((_, line)) = devices.get(MAX_ENTRIES - 1) {
            return Err(Problem { line: *line, message: format!("more than {} devices: an image can have no more", MAX_ENTRIES - 1) });
        }
        Ok(Self {
            name: name.value,
            optimize,
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

impl Device {
    const FIELDS: [&'static str; 5] = ["kind", "name", "source", "layers", "store"];

    fn read(mut table: Table<'_>) -> Result<(Self, usize), Problem> {
        let line = table.line();
        let name = table.required_string("name", "what start and the command line call the device")?;
        check_identifier(&name.value).map_err(|rule| name.problem(format!("device name \"{}\": {rule}", name.value)))?;
        let context = format!("device '{}': ", name.value);
        let kind = table.required_string("kind", &format!("one of {}", Kind::NAMES.join(", ")))?;
        let known = Kind::from_name(&kind.value).ok_or_else(|| {
            kind.problem(format!("{context}unknown kind \"{}\": {}", kind.value, suggest::hint(&kind.value, &Kind::NAMES)))
        })?;
        let source = table.string("source")?;
        match (&source, known) {
            (Some(source), Kind::Stack | Kind::Net | Kind::Block) => {
                let message = format!("{context}a {known} device has no source: leave it out (kv_ro and kv_rw have one)");
                return Err(source.problem(message));
            }
            (None, Kind::KvReadOnly) => {
                table.refuse_unknown(&context)?;
                let message = format!("{context}field \"source\" is missing: the directory whose files the store holds");
                return Err(Problem { line, message });
            }
            (Some(source), _) if source.value.is_empty() || source.value.contains('\0') => {
                return Err(source.problem(format!("{context}source is no path: write source = \"DIRECTORY\"")));
            }
            _ => {}
        }
        let is_log = Self::read_store(&mut table, known, source.is_some(), &context)?;
        let layers = Layer::read(&mut table, known == Kind::Block || is_log, known, &context)?;
        table.finish(&context)?;
        Ok((Self { name: name.value, kind: known, source: source.map(|source| source.value), layers, is_log }, line))
    }

    fn read_store(table: &mut Table<'_>, kind: Kind, has_source: bool, context: &str) -> Result<bool, Problem> {
        let Some(store) = table.string("store")? else { return Ok(false) };
        let problem = match (store.value.as_str(), kind) {
            (_, other) if other != Kind::KvReadWrite => format!("{context}a {other} device has no store: leave it out (kv_rw has one)"),
            ("log", _) if has_source => {
                format!("{context}a log store has no source: leave one of them out (cargo xtask kv import fills it)")
            }
            ("log", _) => return Ok(true),
            (other, _) => format!("{context}unknown store \"{other}\": {}", suggest::hint(other, &["log"])),
        };
        Err(store.problem(problem))
    }
}

impl Layer {
    const ALL: [Self; 5] = [Self::Partition, Self::ReadOnly, Self::Xts, Self::Authenticated, Self::Cache];
    const NAMES: [&'static str; 5] = ["partition", "read_only", "xts", "authenticated", "cache"];

    /// Its name, which is the function's that opens it too.
    pub(crate) fn name(self) -> &'static str {
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
                return Err(name
                    .problem(format!("{context}a {kind} device has no layers: leave them out (block devices and log stores have them)")));
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
    pub(crate) const ALL: [Self; 5] = [Self::Stack, Self::Net, Self::Block, Self::KvReadOnly, Self::KvReadWrite];
    const NAMES: [&'static str; 5] = ["stack", "net", "block", "kv_ro", "kv_rw"];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Net => "net",
            Self::Block => "block",
            Self::KvReadOnly => "kv_ro",
            Self::KvReadWrite => "kv_rw",
        }
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

impl Argument {
    /// Arguments that every image has.
    const RESERVED: [&'static str; 3] = ["logs", "help", "version"];

    fn read(mut table: Table<'_>) -> Result<(Self, usize), Problem> {
        let line = table.line();
        let name = table.required_string("name", "the argument's name, without --")?;
        check_words(&name.value).map_err(|rule| name.problem(format!("argument name \"{}\": {rule}", name.value)))?;
        if Self::RESERVED.contains(&name.value.as_str()) {
            return Err(name.problem(format!("argument '{0}': every image has --{0} already: choose another name", name.value)));
        }
        let context = format!("argument '{}': ", name.value);
        let default = table.string("default")?;
        let doc = table.string("doc")?.map_or_else(String::new, |doc| doc.value);
        let http = table.boolean("http")?;
        let serves = Serves { tcp: table.boolean("tcp")? || http, udp: table.boolean("udp")?, http };
        table.finish(&context)?;
        if let Some(default) = &default
            && serves != Serves::default()
            && !default.value.parse::<u16>().is_ok_and(|port| port > 0)
        {
            return Err(default.problem(format!("{context}default \"{}\" is no port: write a number from 1 to 65535", default.value)));
        }
        Ok((Self { name: name.value, default: default.map(|default| default.value), doc, serves }, line))
    }

    const FIELDS: [&'static str; 6] = ["name", "default", "doc", "tcp", "udp", "http"];
}

/// Checks a name that becomes a Rust identifier and a name in the image's manifest.
fn check_identifier(name: &str) -> Result<(), String> {
    // Words that cannot name a variable in edition 2024.
    const KEYWORDS: &str = " abstract as async await become box break const continue crate do dyn else enum extern false final fn for gen if \
                            impl in let loop macro match mod move mut override priv pub ref return self static struct super trait true try \
                            type typeof unsafe unsized use virtual where while yield ";
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err("write lower-case letters and digits, a letter first".to_owned());
    }
    if name.len() > NAME_MAX {
        return Err(format!("{} characters, and {NAME_MAX} are allowed", name.len()));
    }
    if KEYWORDS.contains(&format!(" {name} ")) {
        return Err("it is a word of the Rust language: choose another".to_owned());
    }
    Ok(())
}

/// Checks a name of words joined by dashes.
pub(crate) fn check_words(name: &str) -> Result<(), String> {
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
