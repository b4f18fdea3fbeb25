//! Block devices: hypercalls.

use fogbow_solo5::block::Transfer;
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

impl Transfer for Handle {
    // Neither Solo5's tender nor Fogbow's has a limit; this bounds how long one call keeps the image waiting.
    const LONGEST: Option<usize> = Some(1 << 20);

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        hypercall::block_read(self.0, offset, into).is_ok()
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> bool {
        hypercall::block_write(self.0, offset, data).is_ok()
    }

    fn flush(&self) -> bool {
        hypercall::block_flush(self.0).is_ok()
    }
}
