//! Having a device: what an image's code asks for by name.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::manifest::{Device, DeviceKind, Manifest, Unusable};

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
    /// What the tender attached cannot be used.
    Unusable {
        /// What was asked for.
        kind: DeviceKind,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: Unusable,
    },
    /// The image has not started: there are no devices yet.
    NotStarted,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDeclared { kind, name } => {
                write!(f, "{kind} device '{name}' is not in this image's manifest: declare it in unikernel.toml and build again")
            }
            Self::Taken { kind, name } => write!(f, "{kind} device '{name}' is in use already: declare a second one in unikernel.toml"),
            Self::Unusable { kind, name, reason } => {
                write!(f, "{kind} device '{name}': {reason}: give the tender ")?;
                match (kind, reason) {
                    (DeviceKind::Net, Unusable::Mac(_)) => write!(f, "--net-mac:{name}=02:00:00:00:00:01"),
                    (DeviceKind::Net, Unusable::Mtu(_)) => write!(f, "--net:{name}=TAP with a tap of a larger MTU"),
                    (DeviceKind::Net, _) => write!(f, "--net:{name}=TAP"),
                    (DeviceKind::Block, Unusable::SectorSize(_)) => write!(f, "--block-sector-size:{name}=512"),
                    (DeviceKind::Block, Unusable::Capacity(_)) => write!(f, "--block:{name}=FILE with a file of whole sectors"),
                    (DeviceKind::Block, _) => write!(f, "--block:{name}=FILE"),
                }
            }
            Self::NotStarted => f.write_str("an image has its devices only while it runs: ask for them in `start`"),
        }
    }
}

impl core::error::Error for DeviceError {}

/// The image's devices and which of them are taken.
#[derive(Debug)]
pub struct Devices {
    manifest: Manifest,
    /// A bit for each handle.
    taken: AtomicU64,
}

impl Devices {
    /// The devices of `manifest`, none taken.
    #[must_use]
    pub const fn new(manifest: Manifest) -> Self {
        Self { manifest, taken: AtomicU64::new(0) }
    }

    /// Takes the device of this kind and name, which [`Device::properties`] then describes as usable.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn take(&self, kind: DeviceKind, name: &str) -> Result<&Device, DeviceError> {
        let device = self.manifest.find(kind, name).ok_or_else(|| DeviceError::NotDeclared { kind, name: name.to_owned() })?;
        if let Err(reason) = device.properties {
            return Err(DeviceError::Unusable { kind, name: name.to_owned(), reason });
        }
        let bit = 1 << device.handle;
        if self.taken.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return Err(DeviceError::Taken { kind, name: name.to_owned() });
        }
        Ok(device)
    }

    /// All devices of the manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The handles of the devices that were taken, a bit each.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec;

    fn devices() -> Devices {
        let mut bytes = vec![1, 0, 0, 0, 2, 0, 0, 0];
        bytes.resize(8 + 2 * 104, 0);
        bytes[8 + 104..8 + 108].copy_from_slice(b"disk");
        bytes[8 + 104 + 68] = 1;
        bytes[8 + 104 + 72 + 1] = 4;
        bytes[8 + 104 + 80 + 1] = 2;
        bytes[8 + 104 + 96] = 1;
        Devices::new(Manifest::read(&bytes).unwrap())
    }

    #[test]
    fn a_device_is_had_once() {
        let devices = devices();
        assert_eq!(devices.take(DeviceKind::Block, "disk").unwrap().handle, 1);
        assert_eq!(devices.taken(), 2);
        let error = devices.take(DeviceKind::Block, "disk").unwrap_err();
        assert_eq!(error, DeviceError::Taken { kind: DeviceKind::Block, name: "disk".into() });
    }

    #[test]
    fn errors_say_what_to_do() {
        let missing = devices().take(DeviceKind::Net, "service").unwrap_err().to_string();
        assert_eq!(missing, "net device 'service' is not in this image's manifest: declare it in unikernel.toml and build again");
        let kind = DeviceKind::Net;
        let unattached = DeviceError::Unusable { kind, name: "service".into(), reason: Unusable::NotAttached };
        assert_eq!(unattached.to_string(), "net device 'service': nothing is attached to it: give the tender --net:service=TAP");
    }
}
