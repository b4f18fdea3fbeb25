//! Which of the machine's devices is which of the image's: by what the command line says (`--net:NAME=pci:00:03.0`), and in order for the rest.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use fogbow_solo5::manifest::{DeclaredDevice, DeviceKind};

use crate::pci::Function;
use crate::transport::SetupError;

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// On PCI.
    Pci(Function),
    /// Its registers are in memory, from this address on.
    Memory(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(function) => write!(f, "pci:{function}"),
            Self::Memory(address) => write!(f, "mmio:{address:#x}"),
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(function) = text.strip_prefix("pci:") {
            return Ok(Self::Pci(function.parse()?));
        }
        let address = text.strip_prefix("mmio:").and_then(|address| address.strip_prefix("0x")).ok_or(())?;
        u64::from_str_radix(address, 16).map(Self::Memory).map_err(|_| ())
    }
}

/// A virtio device of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) place: Place,
    /// The kind of virtio device (virtio 1.2, chapter 5).
    pub(crate) kind: u16,
    /// The interrupt line of a device whose registers are in memory.
    pub(crate) line: u32,
}

/// Kinds of virtio devices.
pub(crate) const NETWORK: u16 = 1;
pub(crate) const BLOCK: u16 = 2;
pub(crate) const CONSOLE: u16 = 3;
pub(crate) const RANDOM: u16 = 4;

/// What a kind is called.
fn kind_name(kind: u16) -> Option<&'static str> {
    Some(match kind {
        NETWORK => "net",
        BLOCK => "block",
        CONSOLE => "console",
        RANDOM => "rng",
        _ => return None,
    })
}

const fn kind_of(kind: DeviceKind) -> u16 {
    match kind {
        DeviceKind::Net => NETWORK,
        DeviceKind::Block => BLOCK,
    }
}

/// What the command line says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    kind: DeviceKind,
    name: String,
    place: Place,
}

/// Why the command line cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChoiceError {
    /// An option without a place that can be read.
    Place(String),
    /// An option for a device that the image does not declare.
    NotDeclared { option: String, declared: String },
    /// A memory-mapped device as Linux is told of one, but not so that it can be read.
    Registers(String),
}

impl fmt::Display for ChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(option) => {
                write!(f, "{option}: say where the device is, as in --net:NAME=pci:00:03.0 or --net:NAME=mmio:0xfeb00000")
            }
            Self::NotDeclared { option, declared } if declared.is_empty() => write!(f, "{option}: this image has no such devices"),
            Self::NotDeclared { option, declared } => write!(f, "{option}: this image's devices of that kind are {declared}"),
            Self::Registers(word) => write!(f, "{word}: write virtio_mmio.device=SIZE@ADDRESS:INTERRUPT, as in 512@0xfeb00000:5"),
        }
    }
}

impl core::error::Error for ChoiceError {}

/// The words of the command line that are about devices, taken out of it.
#[derive(Debug, Default)]
pub(crate) struct Words {
    pub(crate) choices: Vec<Choice>,
    /// Devices whose registers are in memory: the address, and the interrupt line.
    pub(crate) registers: Vec<(u64, u32)>,
    /// The image's own.
    pub(crate) others: Vec<String>,
}

impl Words {
    /// Sorts the words.
    pub(crate) fn sort(words: Vec<String>, declared: &[DeclaredDevice]) -> Result<Self, ChoiceError> {
        let mut sorted = Self::default();
        for word in words {
            let choice = [(DeviceKind::Net, "--net:"), (DeviceKind::Block, "--block:")]
                .into_iter()
                .find_map(|(kind, option)| Some((kind, word.strip_prefix(option)?.split_once('='))));
            if let Some((kind, choice)) = choice {
                let (name, place) = choice.ok_or_else(|| ChoiceError::Place(word.clone()))?;
                let place = place.parse().map_err(|()| ChoiceError::Place(word.clone()))?;
                let mut names = declared.iter().filter(|device| device.kind() == kind).map(DeclaredDevice::name);
                if !names.clone().any(|declared| declared == name) {
                    let first = names.next().unwrap_or_default().to_owned();
                    let declared = names.fold(first, |list, name| list + ", " + name);
                    return Err(ChoiceError::NotDeclared { option: word, declared });
                }
                sorted.choices.push(Choice { kind, name: name.to_owned(), place });
            } else if let Some(device) = word.strip_prefix("virtio_mmio.device=") {
                sorted.registers.push(registers(device).ok_or_else(|| ChoiceError::Registers(word.clone()))?);
            } else {
                sorted.others.push(word);
            }
        }
        Ok(sorted)
    }
}

/// Reads `SIZE@ADDRESS:INTERRUPT` and an optional `:ID` (Linux, `drivers/virtio/virtio_mmio.c`).
fn registers(text: &str) -> Option<(u64, u32)> {
    let (_, rest) = text.split_once('@')?;
    let mut parts = rest.split(':');
    let address = parts.next()?;
    let address = match address.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => address.parse().ok()?,
    };
    Some((address, parts.next()?.parse().ok()?))
}

/// Why an image cannot have a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// The image does not declare such a device.
    NotDeclared {
        /// What was asked for.
        kind: DeviceKind,
        /// Its name.
        name: String,
    },
    /// Something has it already: a device can be had once.
    Taken {
        /// What was asked for.
        kind: DeviceKind,
        /// Its name.
        name: String,
    },
    /// The machine has no device for it.
    Missing {
        /// What was asked for.
        kind: DeviceKind,
        /// Its name.
        name: String,
        /// The virtio devices that the machine has.
        found: String,
    },
    /// The device that was chosen for it is not there, or of another kind.
    WrongChoice {
        /// What was asked for.
        kind: DeviceKind,
        /// Its name.
        name: String,
        /// Where it should be.
        place: String,
        /// The virtio devices that the machine has.
        found: String,
    },
    /// The machine's device cannot be used.
    Unusable {
        /// What was asked for.
        kind: DeviceKind,
        /// Its name.
        name: String,
        /// Where it is.
        place: String,
        /// What is wrong with it.
        error: SetupError,
    },
    /// The image has not started: there are no devices yet.
    NotStarted,
}

impl DeviceError {
    pub(crate) fn unusable(kind: DeviceKind, name: &str, place: Place, error: SetupError) -> Self {
        Self::Unusable { kind, name: name.to_owned(), place: alloc::format!("{place}"), error }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDeclared { kind, name } => {
                write!(f, "{kind} device '{name}' is not in this image's manifest: declare it in unikernel.toml and build again")
            }
            Self::Taken { kind, name } => write!(f, "{kind} device '{name}' is in use already: declare a second one in unikernel.toml"),
            Self::Missing { kind, name, found } => {
                write!(f, "{kind} device '{name}': the machine has no virtio device left for it (it has {found}): ")?;
                match kind {
                    DeviceKind::Net => write!(f, "give QEMU -netdev user,id={name} -device virtio-net-pci,netdev={name}"),
                    DeviceKind::Block => {
                        write!(f, "give QEMU -drive if=none,id={name},format=raw,file=FILE -device virtio-blk-pci,drive={name}")
                    }
                }
            }
            Self::WrongChoice { kind, name, place, found } => {
                write!(f, "{kind} device '{name}': there is no virtio {kind} device at {place} (the machine has {found})")
            }
            Self::Unusable { kind, name, place, error } => write!(f, "{kind} device '{name}' at {place}: {error}"),
            Self::NotStarted => f.write_str("an image has its devices only while it runs: ask for them in `start`"),
        }
    }
}

impl core::error::Error for DeviceError {}

/// All virtio devices in words: `net at pci:00:02.0, block at pci:00:03.0`.
fn list(found: &[Found]) -> String {
    let mut text = String::new();
    for Found { place, kind, .. } in found {
        // Writing to a string does not fail.
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = match kind_name(*kind) {
            Some(name) => fmt::write(&mut text, format_args!("{separator}{name} at {place}")),
            None => fmt::write(&mut text, format_args!("{separator}kind {kind} at {place}")),
        };
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

/// The device of the machine that is the image's device `name`. The n-th device declared that no choice names is the n-th found that no choice names.
pub(crate) fn find(
    declared: &[DeclaredDevice],
    choices: &[Choice],
    found: &[Found],
    kind: DeviceKind,
    name: &str,
) -> Result<Found, DeviceError> {
    let choice = |name: &str| choices.iter().rev().find(|choice| choice.kind == kind && choice.name == name).map(|choice| choice.place);
    let is_kind = |device: &&Found| device.kind == kind_of(kind);
    let owned = || name.to_owned();
    let names = declared.iter().filter(|device| device.kind() == kind).map(DeclaredDevice::name);
    if !names.clone().any(|declared| declared == name) {
        return Err(DeviceError::NotDeclared { kind, name: owned() });
    }
    if let Some(place) = choice(name) {
        let error = || DeviceError::WrongChoice { kind, name: owned(), place: alloc::format!("{place}"), found: list(found) };
        return found.iter().filter(is_kind).find(|device| device.place == place).copied().ok_or_else(error);
    }
    let is_chosen = |device: &&Found| names.clone().any(|name| choice(name) == Some(device.place));
    let position = names.clone().filter(|name| choice(name).is_none()).position(|declared| declared == name);
    let device = position.and_then(|position| found.iter().filter(is_kind).filter(|device| !is_chosen(device)).nth(position));
    device.copied().ok_or_else(|| DeviceError::Missing { kind, name: owned(), found: list(found) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    const DECLARED: &[DeclaredDevice] =
        &[DeclaredDevice::net("service"), DeclaredDevice::block("disk"), DeclaredDevice::net("admin"), DeclaredDevice::net("third")];

    fn found(devices: &[(&str, u16)]) -> Vec<Found> {
        devices.iter().map(|(place, kind)| Found { place: place.parse().unwrap(), kind: *kind, line: 0 }).collect()
    }

    fn words(words: &[&str]) -> Result<Words, ChoiceError> {
        Words::sort(words.iter().map(|word| (*word).to_owned()).collect(), DECLARED)
    }

    #[test]
    fn devices_are_taken_in_order_but_for_those_that_are_chosen() {
        let found = found(&[("pci:00:02.0", 1), ("pci:00:03.0", 1), ("pci:00:04.0", 2), ("mmio:0xfeb00e00", 1)]);
        let choices = words(&["--net:admin=pci:00:02.0"]).unwrap().choices;
        let at = |name| find(DECLARED, &choices, &found, DeviceKind::Net, name).unwrap().place.to_string();
        assert_eq!([at("service"), at("admin"), at("third")], ["pci:00:03.0", "pci:00:02.0", "mmio:0xfeb00e00"]);
        let disk = find(DECLARED, &choices, &found, DeviceKind::Block, "disk").unwrap();
        assert_eq!(disk.place.to_string(), "pci:00:04.0");
    }

    #[test]
    fn what_is_missing_is_named() {
        let found = found(&[("pci:00:02.0", 1), ("pci:00:1f.7", 4)]);
        let choices = words(&["--block:disk=pci:00:02.0"]).unwrap().choices;
        let message = |kind, name| find(DECLARED, &choices, &found, kind, name).unwrap_err().to_string();
        let missing = message(DeviceKind::Net, "admin");
        assert!(missing.starts_with("net device 'admin': the machine has no virtio device left for it (it has net at pci:00:02.0, rng at pci:00:1f.7): give QEMU -netdev"));
        let wrong = message(DeviceKind::Block, "disk");
        assert_eq!(
            wrong,
            "block device 'disk': there is no virtio block device at pci:00:02.0 (the machine has net at pci:00:02.0, rng at pci:00:1f.7)"
        );
        assert!(message(DeviceKind::Net, "disk").contains("not in this image's manifest"));
    }

    #[test]
    fn words_about_devices_are_taken_out() {
        let sorted =
            words(&["--ipv4=10.0.0.2/24", "virtio_mmio.device=512@0xfeb00e00:12", "virtio_mmio.device=4K@3489660928:5:0", "x"]).unwrap();
        assert_eq!(sorted.registers, [(0xfeb0_0e00, 12), (0xd000_0000, 5)]);
        assert_eq!(sorted.others, ["--ipv4=10.0.0.2/24", "x"]);
        for (word, message) in [
            ("--net:service", "say where the device is"),
            ("--net:service=tap0", "say where the device is"),
            ("--net:service=pci:00:20.0", "say where the device is"),
            ("--block:disc=pci:00:03.0", "this image's devices of that kind are disk"),
            ("--net:x=mmio:0x1000", "this image's devices of that kind are service, admin, third"),
            ("virtio_mmio.device=512", "write virtio_mmio.device=SIZE@ADDRESS:INTERRUPT"),
        ] {
            let error = words(&[word]).unwrap_err().to_string();
            assert!(error.starts_with(word) && error.contains(message), "{error}");
        }
    }

    proptest! {
        #[test]
        fn places_are_read_as_they_are_written(bus: u8, device in 0_u8..32, function in 0_u8..8, address: u64, text in ".{0,20}") {
            for place in [alloc::format!("pci:{bus:02x}:{device:02x}.{function}"), alloc::format!("mmio:{address:#x}")] {
                prop_assert_eq!(place.parse::<Place>().unwrap().to_string(), place);
            }
            let _ = text.parse::<Place>();
            let _ = words(&[&alloc::format!("virtio_mmio.device={text}")]);
        }
    }

    #[test]
    fn nothing_found_is_said() {
        assert_eq!(list(&[]), "none");
        assert_eq!(list(&[Found { place: Place::Memory(16), kind: 99, line: 0 }]), "kind 99 at mmio:0x10");
    }
}
