//! Block devices: a Block session, one request of the library's at a time, which blocks the image.

use fogbow_solo5::block::Transfer;
use fogbow_solo5::manifest::Device;

use crate::library;

/// A block device of the manifest.
pub type BlockDevice = fogbow_solo5::block::BlockDevice<BlockSession>;

/// The session behind a block device.
#[derive(Debug)]
pub struct BlockSession {
    handle: u64,
}

impl BlockSession {
    pub(crate) const fn of(device: &Device) -> Self {
        Self { handle: device.handle as u64 }
    }
}

impl Transfer for BlockSession {
    /// Half of the buffer that the library shares with the Block session: `Block_device` of `bindings/genode`.
    const LONGEST: Option<usize> = Some(64 * 1024);

    fn read_at(&self, offset: u64, into: &mut [u8]) -> bool {
        // SAFETY: a device's handle is the one that the library gave for it: see `boot`.
        unsafe { library::block_read(self.handle, offset, into) }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> bool {
        // SAFETY: as above.
        unsafe { library::block_write(self.handle, offset, data) }
    }

    /// Not called: the library offers none.
    fn flush(&self) -> bool {
        false
    }
}
