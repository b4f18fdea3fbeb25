//! The devices of a `unikernel.toml`.

use std::fmt;

use crate::table::Table;
use crate::{NAME_MAX, Problem, Store, is_keyword, read_group, suggest};

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
    /// What keeps a store's values; left to the builder when `None`.
    pub store: Option<Store>,
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

impl Device {
    pub(crate) const FIELDS: [&'static str; 7] = ["kind", "name", "group", "stack", "source", "layers", "store"];

    pub(crate) fn read(mut table: Table<'_>) -> Result<(Self, usize), Problem> {
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
        let has_layers = known == Kind::Block || matches!(store, Some(Store::Block(_)));
        let layers = Layer::read(&mut table, has_layers, known, &context)?;
        table.finish(&context)?;
        let (stack, source) = (stack.map(|stack| stack.value), source.map(|source| source.value));
        Ok((Self { name: name.value, kind: known, group, stack, source, layers, store }, line))
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

    /// True for those that keep what is below from being read.
    pub(crate) fn encrypts(self) -> bool {
        matches!(self, Self::Xts | Self::Authenticated)
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

    /// True for stores.
    #[must_use]
    pub fn is_store(self) -> bool {
        matches!(self, Self::KvReadOnly | Self::KvReadWrite)
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
pub(crate) fn check_stacks(devices: &[(Device, usize)]) -> Result<(), Problem> {
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
