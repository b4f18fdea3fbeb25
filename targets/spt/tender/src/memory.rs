//! The guest's memory: this process's own memory, at the addresses the guest was linked for.
//!
//! Guest addresses are host addresses. The first 64 KiB stay unmapped, because Linux forbids to map the lowest pages
//! (`vm.mmap_min_addr`); everything above is readable and writable, never executable, until a segment asks otherwise.

use core::ffi::c_void;
use core::slice;
use std::io;

use fogbow_tender::elf::{Protection, Segment};
use fogbow_tender::memory::GuestMemory;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

/// `SPT_HOST_MEM_BASE` of `spt_abi.h`: the lowest address that is mapped.
pub(crate) const BASE: u64 = 0x1_0000;

/// Why there is no memory for the guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("Error allocating guest memory: the host forbids mapping address {BASE:#x}; allow it: sysctl -w vm.mmap_min_addr={BASE}")]
    LowAddress,
    #[error(
        "Error allocating guest memory: {0} MB from address {BASE:#x} run into this process's own memory; give the guest less with --mem"
    )]
    Collision(u64),
    #[error("Error allocating guest memory: the host does not have {megabytes} MB ({source}); give the guest less with --mem")]
    Refused { megabytes: u64, source: io::Error },
    #[error("this system makes all readable memory executable (READ_IMPLIES_EXEC): start the tender without `setarch -X`")]
    ReadImpliesExecute,
    #[error("cannot set the rights of the guest's pages at {address:#x}: {source}")]
    Protect { address: u64, source: io::Error },
}

/// Maps the guest's memory: addresses [`BASE`] to `size`, all zero.
pub(crate) fn map(size: u64) -> Result<GuestMemory<'static>, MemoryError> {
    refuse_executable_data()?;
    let megabytes = size >> 20;
    let refused = |errno: Errno| match errno {
        Errno::PERM | Errno::ACCESS => MemoryError::LowAddress,
        Errno::EXIST => MemoryError::Collision(megabytes),
        errno => MemoryError::Refused { megabytes, source: errno.into() },
    };
    let length = size.checked_sub(BASE).and_then(|length| usize::try_from(length).ok()).ok_or_else(|| refused(Errno::NOMEM))?;
    let address = core::ptr::without_provenance_mut::<c_void>(BASE as usize);
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing of this process: where anything is mapped already, the call fails.
    let mapped = unsafe { rustix::mm::mmap_anonymous(address, length, rights, MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE) };
    let mapped = mapped.map_err(refused)?;
    if mapped.addr() != address.addr() {
        // Kernels before 4.17 take the address as a hint.
        return Err(MemoryError::Collision(megabytes));
    }
    // SAFETY: the mapping was just made, is `length` bytes of zeros, readable and writable, and belongs to nobody else; it is never unmapped.
    let bytes = unsafe { slice::from_raw_parts_mut(mapped.cast::<u8>(), length) };
    Ok(GuestMemory::new(BASE, bytes))
}

/// Gives each segment's pages the rights it asks for.
pub(crate) fn protect(segments: &[Segment]) -> Result<(), MemoryError> {
    for segment in segments {
        let address = core::ptr::without_provenance_mut::<c_void>(segment.pages.start as usize);
        let length = (segment.pages.end - segment.pages.start) as usize;
        // SAFETY: a loaded segment's pages are inside the guest's memory, which this process keeps nothing of its own in.
        let result = unsafe { rustix::mm::mprotect(address, length, rights(segment.protection)) };
        result.map_err(|errno| MemoryError::Protect { address: segment.pages.start, source: errno.into() })?;
    }
    Ok(())
}

fn rights(protection: Protection) -> MprotectFlags {
    let mut flags = MprotectFlags::empty();
    flags.set(MprotectFlags::READ, protection.read);
    flags.set(MprotectFlags::WRITE, protection.write);
    flags.set(MprotectFlags::EXEC, protection.execute);
    flags
}

/// A process may have inherited a personality(2) in which every readable mapping is executable: no place for a guest.
fn refuse_executable_data() -> Result<(), MemoryError> {
    /// Asks for the personality without changing it.
    const QUERY: libc::c_ulong = 0xffff_ffff;
    // SAFETY: the query changes nothing.
    let personality = unsafe { libc::personality(QUERY) };
    if personality >= 0 && personality & libc::READ_IMPLIES_EXEC != 0 { Err(MemoryError::ReadImpliesExecute) } else { Ok(()) }
}
