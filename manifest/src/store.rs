//! What keeps the values of a store: named in `unikernel.toml`, chosen when an image is built, or left to the builder.

use std::fmt;
use std::str::FromStr;

use crate::table::Table;
use crate::{Device, Kind, Layer, Manifest, Problem, suggest};

/// What keeps a store's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The image itself, which holds the files of a directory.
    Embedded,
    /// A directory of the host.
    Directory,
    /// The image's memory: empty at start.
    Memory,
    /// A block device.
    Block(Format),
}

/// What is on a block device that keeps values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The crash-safe store.
    Log,
    /// A tar archive.
    Tar,
    /// A FAT volume.
    Fat,
}

impl Format {
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
}

impl Store {
    pub(crate) const ALL: [Self; 6] =
        [Self::Embedded, Self::Directory, Self::Memory, Self::Block(Format::Log), Self::Block(Format::Tar), Self::Block(Format::Fat)];
    pub(crate) const NAMES: [&'static str; 6] = ["embedded", "directory", "memory", "log", "tar", "fat"];

    /// Its name in the file and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Directory => "directory",
            Self::Memory => "memory",
            Self::Block(format) => format.name(),
        }
    }

    /// Why it cannot be behind a device of this kind.
    fn misfit(self, kind: Kind, has_source: bool) -> Option<&'static str> {
        match (self, kind) {
            (Self::Embedded, Kind::KvReadWrite) => Some("an embedded store cannot be written: choose another, or make the device kv_ro"),
            (Self::Embedded, _) if !has_source => {
                Some("an embedded store holds the files of a directory, and none is named: add source = \"DIRECTORY\" to unikernel.toml")
            }
            (Self::Memory, Kind::KvReadOnly) => Some("a store in memory is empty at start, and a kv_ro device stays so: choose another"),
            _ => None,
        }
    }

    /// Reads the field `store`.
    pub(crate) fn read(table: &mut Table<'_>, kind: Kind, has_source: bool, context: &str) -> Result<Option<Self>, Problem> {
        let Some(name) = table.string("store")? else { return Ok(None) };
        if !kind.is_store() {
            return Err(name.problem(format!("{context}a {kind} device has no store: leave it out (kv_ro and kv_rw have one)")));
        }
        let store: Self = name.value.parse().map_err(|unknown| name.problem(format!("{context}{unknown}")))?;
        if let Some(reason) = store.misfit(kind, has_source) {
            return Err(name.problem(format!("{context}{reason}")));
        }
        let reason = match store {
            Self::Block(format) => format!("its values are on a block device: leave one of them out ({} fills it)", format.filler()),
            Self::Memory => "it is empty at start: leave one of them out".to_owned(),
            Self::Embedded | Self::Directory => return Ok(Some(store)),
        };
        match has_source {
            true => Err(name.problem(format!("{context}a {} store has no source, {reason}", name.value))),
            false => Ok(Some(store)),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Store {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|store| store.name() == name);
        found.ok_or_else(|| format!("unknown store \"{name}\": {}", suggest::hint(name, &Self::NAMES)))
    }
}

/// Why a store cannot be chosen for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChooseError {
    /// No store has this name; the hint says which do.
    Unknown(String, Store, String),
    /// The device is of this kind.
    Misfit(String, Store, Kind, &'static str),
    /// What the layer over the block device hides would be open.
    Unencrypted(String, Store, Layer),
}

impl fmt::Display for ChooseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name, store, hint) => write!(f, "--store {name}={store}: no store is called '{name}': {hint}"),
            Self::Misfit(name, store, kind, reason) => write!(f, "--store {name}={store}: device '{name}' ({kind}): {reason}"),
            Self::Unencrypted(name, store, layer) => write!(
                f,
                "--store {name}={store}: unikernel.toml encrypts device '{name}' (layer {}), which a {store} is not: choose another, or \
                 leave the layer out",
                layer.name()
            ),
        }
    }
}

impl std::error::Error for ChooseError {}

impl Manifest {
    /// Chooses what keeps the values of stores, in the place of what the file says. Of several choices for a store the last counts. Without a
    /// block device below it a store has no layers.
    ///
    /// # Errors
    /// [`ChooseError`] for the first choice that cannot be.
    pub fn choose(&mut self, choices: &[(String, Store)]) -> Result<(), ChooseError> {
        for (name, store) in choices {
            let Some(device) = self.devices.iter_mut().find(|device| device.kind.is_store() && device.name == *name) else {
                let stores = self.devices.iter().filter(|device| device.kind.is_store());
                let names: Vec<&str> = stores.map(|device| device.name.as_str()).collect();
                let hint = if names.is_empty() { "the application has none".to_owned() } else { suggest::hint(name, &names) };
                return Err(ChooseError::Unknown(name.clone(), *store, hint));
            };
            device.choose(*store)?;
        }
        Ok(())
    }
}

impl Device {
    /// Every store that can be chosen for the device, wherever it is built for; none where it is no store.
    pub fn stores(&self) -> impl Iterator<Item = Store> {
        let fits = |store: &Store| self.kind.is_store() && store.misfit(self.kind, self.source.is_some()).is_none();
        Store::ALL.into_iter().filter(fits)
    }

    fn choose(&mut self, store: Store) -> Result<(), ChooseError> {
        if let Some(reason) = store.misfit(self.kind, self.source.is_some()) {
            return Err(ChooseError::Misfit(self.name.clone(), store, self.kind, reason));
        }
        if store == Store::Directory
            && let Some(layer) = self.layers.iter().find(|layer| layer.encrypts())
        {
            return Err(ChooseError::Unencrypted(self.name.clone(), store, *layer));
        }
        if !matches!(store, Store::Block(_)) {
            self.layers.clear();
        }
        self.store = Some(store);
        Ok(())
    }
}
