//! Block devices: system calls on the tender's files.

use fogbow_solo5::block::Transfer;
use fogbow_solo5::manifest::Device;

use crate::system::{self, Descriptor};

/// A block device of the tender's.
pub type BlockDevice = fogbow_solo5::block::BlockDevice<File>;

/// The file behind a block device.
#[derive(Debug)]
pub struct File(Descriptor);

impl File {
    pub(crate) const fn of(device: &Device) -> Self {
        Self(Descriptor(device.host_descriptor))
    }
}

impl Transfer for File {
    const LONGEST: Option<usize> = None;

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        let length = into.len();
        system::read_at(self.0, into, offset) == Ok(length)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> bool {
        system::write_at(self.0, data, offset) == Ok(data.len())
    }

    fn flush(&self) -> bool {
        system::sync_data(self.0).is_ok()
    }
}
