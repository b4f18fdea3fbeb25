//! Block devices: a hypercall per sector.

use fogbow_solo5::block::SectorTransfer;
use fogbow_solo5::manifest::Device;

use crate::hypercall;

/// A block device of the tender's.
pub type BlockDevice = fogbow_solo5::block::BlockDevice<Handle>;

/// What hypercalls call a block device.
#[derive(Debug)]
pub struct Handle(u32);

impl Handle {
    pub(crate) fn of(device: &Device) -> Self {
        Self(device.handle.into())
    }
}

impl SectorTransfer for Handle {
    fn read_sector(&self, offset: u64, into: &mut [u8]) -> bool {
        hypercall::block_read(self.0, offset, into).is_ok()
    }

    fn write_sector(&self, offset: u64, data: &[u8]) -> bool {
        hypercall::block_write(self.0, offset, data).is_ok()
    }
}
