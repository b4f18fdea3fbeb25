//! Which implementation each device of an application gets on a target, and which arguments come with it.

use std::fmt;
use std::str::FromStr;

use anyhow::{bail, ensure};
use fogbow::arguments;
use fogbow_tender::elf;
use fogbow_tender::manifest::DeviceKind;

use crate::manifest::{Argument, Device, Format, Kind, Layer, Manifest, Presence, Serves, Stage, Store, Type};
use crate::{muen, suggest};

/// What an image is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Unix,
    Spt,
    Hvt,
    Virtio,
    Muen,
    Genode,
}

impl Target {
    pub(crate) const ALL: [Self; 6] = [Self::Unix, Self::Spt, Self::Hvt, Self::Virtio, Self::Muen, Self::Genode];
    const NAMES: [&'static str; 6] = ["unix", "spt", "hvt", "virtio", "muen", "genode"];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Spt => "spt",
            Self::Hvt => "hvt",
            Self::Virtio => "virtio",
            Self::Muen => "muen",
            Self::Genode => "genode",
        }
    }

    /// The target's crate as generated code names it.
    pub(crate) fn crate_name(self) -> &'static str {
        match self {
            Self::Unix => "fogbow_unix",
            Self::Spt => "fogbow_spt",
            Self::Hvt => "fogbow_hvt",
            Self::Virtio => "fogbow_virtio",
            Self::Muen => "fogbow_muen",
            Self::Genode => "fogbow_genode",
        }
    }

    /// What an image's ABI note says; `None` where there is none. The versions are `SPT_ABI_VERSION` of `spt_abi.h`, `HVT_ABI_VERSION` of
    /// `hvt_abi.h`, and for muen that of `bindings/muen/start.c`.
    pub(crate) fn abi(self) -> Option<elf::Abi> {
        match self {
            Self::Unix | Self::Virtio | Self::Genode => None,
            Self::Spt => Some(elf::Abi { target: elf::Target::Spt, version: 2 }),
            Self::Hvt => Some(elf::Abi { target: elf::Target::Hvt, version: 2 }),
            Self::Muen => Some(elf::Abi { target: elf::Target::Muen, version: 4 }),
        }
    }

    /// True when the result is an image, false when it is a process.
    pub(crate) fn is_image(self) -> bool {
        self != Self::Unix
    }

    /// True when the image runs under a tender.
    pub(crate) fn has_tender(self) -> bool {
        self.abi().is_some() || self.is_shared_object()
    }

    /// True when the image is a shared object, which the host's dynamic linker completes.
    pub(crate) fn is_shared_object(self) -> bool {
        self == Self::Genode
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|target| target.name() == name);
        found.ok_or_else(|| format!("unknown target: {}", suggest::hint(name, &Self::NAMES)))
    }
}

/// What the user wants for a `stack` device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StackChoice {
    Host,
    Direct,
}

impl FromStr for StackChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "host" => Ok(Self::Host),
            "direct" => Ok(Self::Direct),
            _ => Err(format!("unknown stack \"{name}\": {}", suggest::hint(name, &["host", "direct"]))),
        }
    }
}

/// What stands behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Implementation {
    HostStack,
    DirectStack,
    /// That of another device.
    SharedStack,
    Frames,
    Block,
    Embedded,
    Directory,
    Memory,
    /// A store on a block device.
    Stored(Format),
}

impl Implementation {
    /// In words.
    pub(crate) fn describe(self, target: Target) -> &'static str {
        match (self, target) {
            (Self::HostStack, _) => "the host's sockets",
            (Self::SharedStack, _) => "on the stack of another device",
            (Self::DirectStack, Target::Unix) => "direct stack over a tap interface",
            (Self::DirectStack, _) => "direct stack over a net device",
            (Self::Frames, Target::Unix) => "tap interface",
            (Self::Frames, _) => "net device",
            (Self::Block, Target::Unix) => "file",
            (Self::Block, _) => "block device",
            (Self::Embedded, _) => "embedded in the image",
            (Self::Directory, _) => "directory of the host",
            (Self::Memory, _) => "in memory, empty at start",
            (Self::Stored(Format::Log), Target::Unix) => "log store in a file",
            (Self::Stored(Format::Log), _) => "log store on a block device",
            (Self::Stored(Format::Tar), Target::Unix) => "tar archive, a file",
            (Self::Stored(Format::Tar), _) => "tar archive on a block device",
            (Self::Stored(Format::Fat), Target::Unix) => "FAT volume in a file",
            (Self::Stored(Format::Fat), _) => "FAT volume on a block device",
        }
    }

    /// The device that the host has to attach.
    pub(crate) fn host_device(self) -> Option<DeviceKind> {
        match self {
            Self::DirectStack | Self::Frames => Some(DeviceKind::Net),
            Self::Block | Self::Stored(_) => Some(DeviceKind::Block),
            Self::HostStack | Self::SharedStack | Self::Embedded | Self::Directory | Self::Memory => None,
        }
    }

    /// Whether what it holds is in the manifest's `source`.
    pub(crate) fn has_source(self) -> bool {
        matches!(self, Self::Embedded | Self::Directory)
    }

    /// Whether the target can offer it.
    fn is_on(self, target: Target) -> bool {
        match self {
            Self::HostStack | Self::Directory => target == Target::Unix,
            Self::Block | Self::Stored(_) => target != Target::Muen,
            Self::DirectStack | Self::SharedStack | Self::Frames | Self::Embedded | Self::Memory => true,
        }
    }

    fn of_store(store: Store) -> Self {
        match store {
            Store::Embedded => Self::Embedded,
            Store::Directory => Self::Directory,
            Store::Memory => Self::Memory,
            Store::Block(format) => Self::Stored(format),
        }
    }

    fn default_for(device: &Device, target: Target) -> Self {
        if let Some(store) = device.store {
            return Self::of_store(store);
        }
        match (device.kind, target) {
            (Kind::HttpServer | Kind::HttpClient, _) if device.stack.is_some() => Self::SharedStack,
            (Kind::Stack | Kind::HttpServer | Kind::HttpClient, Target::Unix) => Self::HostStack,
            (Kind::Stack | Kind::HttpServer | Kind::HttpClient, _) => Self::DirectStack,
            (Kind::Net, _) => Self::Frames,
            (Kind::Block, _) => Self::Block,
            (Kind::KvReadOnly, Target::Unix) => Self::Directory,
            (Kind::KvReadOnly, _) => Self::Embedded,
            (Kind::KvReadWrite, Target::Unix) if device.source.is_some() => Self::Directory,
            (Kind::KvReadWrite, _) => Self::Memory,
        }
    }
}

/// A device with what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedDevice {
    pub(crate) device: Device,
    pub(crate) implementation: Implementation,
    /// What a direct stack's arguments begin with: its group; without one nothing where an image has only one stack, `NAME-` otherwise.
    pub(crate) prefix: String,
}

/// Arguments that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArgumentGroup {
    /// Whose they are, for messages.
    pub(crate) owner: String,
    /// What their names begin with.
    pub(crate) prefix: String,
    /// How generated code names them.
    pub(crate) path: &'static str,
    pub(crate) arguments: Vec<Argument>,
}

/// An application on a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) manifest: Manifest,
    pub(crate) target: Target,
    pub(crate) devices: Vec<ResolvedDevice>,
    /// All arguments of the image, in the order of its `--help`.
    pub(crate) groups: Vec<ArgumentGroup>,
}

impl Resolved {
    /// Resolves every device of `manifest` for `target`.
    pub(crate) fn new(manifest: &Manifest, target: Target, choices: &[(String, StackChoice)]) -> anyhow::Result<Self> {
        check_choices(manifest, choices)?;
        let implementations = manifest.devices.iter().map(|device| {
            let choice = choices.iter().rev().find(|(name, _)| *name == device.name).map(|(_, choice)| choice);
            let implementation = match choice {
                Some(StackChoice::Host) => Implementation::HostStack,
                Some(StackChoice::Direct) => Implementation::DirectStack,
                None => Implementation::default_for(device, target),
            };
            check_offered(device, implementation, target)?;
            Ok(implementation)
        });
        let implementations = implementations.collect::<anyhow::Result<Vec<_>>>()?;
        let is_alone = implementations.iter().filter(|implementation| **implementation == Implementation::DirectStack).count() == 1;
        let devices = manifest.devices.iter().zip(implementations).map(|(device, implementation)| {
            let prefix = match &device.group {
                Some(group) => format!("{group}-"),
                None if is_alone => String::new(),
                None => format!("{}-", device.name),
            };
            ResolvedDevice { device: device.clone(), implementation, prefix }
        });
        let devices: Vec<ResolvedDevice> = devices.collect();
        if target == Target::Muen {
            let networks = devices.iter().filter(|device| device.implementation.host_device() == Some(DeviceKind::Net));
            muen::check_names(&manifest.name, networks.map(|device| device.device.name.as_str()))?;
        }
        let groups = groups(manifest, target, &devices);
        check_arguments(&groups)?;
        Ok(Self { manifest: manifest.clone(), target, devices, groups })
    }

    /// The devices that the host attaches, in the manifest's order.
    pub(crate) fn host_devices(&self) -> impl Iterator<Item = (&ResolvedDevice, DeviceKind)> {
        self.devices.iter().filter_map(|device| Some((device, device.implementation.host_device()?)))
    }
}

fn check_choices(manifest: &Manifest, choices: &[(String, StackChoice)]) -> anyhow::Result<()> {
    let stacks: Vec<&str> =
        manifest.devices.iter().filter(|d| d.kind.has_stack() && d.stack.is_none()).map(|device| device.name.as_str()).collect();
    for (name, _) in choices {
        ensure!(!stacks.is_empty(), "--stack {name}=...: the application has no device with a stack");
        ensure!(stacks.contains(&name.as_str()), "--stack {name}=...: no stack is called '{name}': {}", suggest::hint(name, &stacks));
    }
    Ok(())
}

fn check_offered(device: &Device, implementation: Implementation, target: Target) -> anyhow::Result<()> {
    if implementation == Implementation::Embedded && device.source.is_none() {
        let Device { name, kind, .. } = device;
        bail!(
            "device '{name}' ({kind}): nothing says what keeps its values: add source = \"DIRECTORY\", which an image embeds{}",
            others(device, target)
        );
    }
    if implementation.is_on(target) {
        return Ok(());
    }
    let targets: Vec<&str> = Target::ALL.into_iter().filter(|other| implementation.is_on(*other)).map(Target::name).collect();
    bail!(
        "device '{}' ({}, {}): the target {target} cannot offer it; {} can{}",
        device.name,
        device.kind,
        implementation.describe(target),
        targets.join(", "),
        others(device, target)
    )
}

/// The choices for a store that a target has, as the end of a message.
fn others(device: &Device, target: Target) -> String {
    let stores = device.stores().filter(|store| Implementation::of_store(*store).is_on(target));
    let names = stores.map(Store::name).collect::<Vec<_>>().join("|");
    if names.is_empty() { names } else { format!("; or build with --store {}={names}", device.name) }
}

fn groups(manifest: &Manifest, target: Target, devices: &[ResolvedDevice]) -> Vec<ArgumentGroup> {
    let mut groups = vec![declared("every image", "", "COMMON", arguments::COMMON.arguments)];
    let application = ArgumentGroup {
        owner: "the application".to_owned(),
        prefix: String::new(),
        path: "APPLICATION",
        arguments: manifest.arguments.clone(),
    };
    if !application.arguments.is_empty() {
        groups.push(application);
    }
    if devices.iter().any(|device| device.implementation == Implementation::HostStack) {
        groups.push(declared("the host's sockets", "", "fogbow_unix::STACK_ARGUMENTS", fogbow_unix::STACK_ARGUMENTS));
    }
    for ResolvedDevice { device, implementation, prefix } in devices {
        let owner = format!("device '{}'", device.name);
        let own = format!("{}-", device.name);
        if *implementation == Implementation::DirectStack {
            groups.push(declared(&owner, prefix, "fogbow_net::direct::ARGUMENTS", fogbow_net::direct::ARGUMENTS));
        }
        if device.kind == Kind::HttpServer {
            let mut group = declared(&owner, &own, "fogbow_net::http::SERVER_ARGUMENTS", fogbow_net::http::SERVER_ARGUMENTS);
            for argument in group.arguments.iter_mut().filter(|argument| argument.name == "port") {
                argument.serves = Serves { tcp: true, udp: false, http: true };
            }
            groups.push(group);
        }
        for layer in &device.layers {
            let (path, arguments) = match layer {
                Layer::Partition => ("fogbow_block::layers::PARTITION_ARGUMENTS", fogbow_block::layers::PARTITION_ARGUMENTS),
                Layer::Xts => ("fogbow_block::layers::XTS_ARGUMENTS", fogbow_block::layers::XTS_ARGUMENTS),
                Layer::Authenticated => ("fogbow_block::layers::AUTHENTICATED_ARGUMENTS", fogbow_block::layers::AUTHENTICATED_ARGUMENTS),
                Layer::Cache => ("fogbow_block::layers::CACHE_ARGUMENTS", fogbow_block::layers::CACHE_ARGUMENTS),
                Layer::ReadOnly => continue,
            };
            groups.push(declared(&owner, &own, path, arguments));
        }
        match implementation {
            Implementation::Stored(Format::Log) => {
                groups.push(declared(&owner, &own, "fogbow_kv::stores::LOG_ARGUMENTS", fogbow_kv::stores::LOG_ARGUMENTS));
            }
            Implementation::Stored(Format::Fat) => {
                groups.push(declared(&owner, &own, "fogbow_kv::stores::FAT_ARGUMENTS", fogbow_kv::stores::FAT_ARGUMENTS));
            }
            _ => {}
        }
        match (target, implementation) {
            (Target::Unix, Implementation::DirectStack | Implementation::Frames) => {
                groups.push(declared(&owner, &own, "fogbow_unix::NET_ARGUMENTS", fogbow_unix::NET_ARGUMENTS));
            }
            (Target::Unix, Implementation::Block | Implementation::Stored(_)) => {
                groups.push(declared(&owner, &own, "fogbow_unix::BLOCK_ARGUMENTS", fogbow_unix::BLOCK_ARGUMENTS));
            }
            (_, Implementation::Directory) => groups.push(ArgumentGroup {
                owner,
                prefix: own,
                path: "DIRECTORY",
                arguments: vec![Argument {
                    name: "directory".to_owned(),
                    value: Type::String,
                    presence: device.source.clone().map_or(Presence::Required, Presence::Default),
                    stage: Stage::Boot,
                    doc: "the directory of the host that is this store".to_owned(),
                    serves: Serves::default(),
                }],
            }),
            _ => {}
        }
    }
    groups
}

fn declared(owner: &str, prefix: &str, path: &'static str, arguments: &[arguments::Argument]) -> ArgumentGroup {
    let arguments = arguments.iter().map(|argument| Argument {
        name: argument.name().to_owned(),
        value: Type::String,
        presence: match argument.presence() {
            arguments::Presence::Optional => Presence::Optional,
            arguments::Presence::Default(value) | arguments::Presence::Fixed(value) => Presence::Default(value.to_owned()),
            arguments::Presence::Required => Presence::Required,
            arguments::Presence::Repeated => Presence::Repeated,
        },
        stage: Stage::Boot,
        doc: argument.doc().to_owned(),
        serves: Serves::default(),
    });
    ArgumentGroup { owner: owner.to_owned(), prefix: prefix.to_owned(), path, arguments: arguments.collect() }
}

fn check_arguments(groups: &[ArgumentGroup]) -> anyhow::Result<()> {
    let mut owners = std::collections::BTreeMap::new();
    for group in groups {
        for argument in &group.arguments {
            let name = format!("{}{}", group.prefix, argument.name);
            if let Some(other) = owners.insert(name.clone(), &group.owner) {
                bail!(
                    "the argument --{name} belongs both to {other} and to {}: rename the application's argument or the device",
                    group.owner
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
