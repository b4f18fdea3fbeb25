//! Memory of the image within this process: at the addresses it was linked for, and its heap.

use core::ffi::c_void;
use core::ops::Range;
use std::io;

use fogbow_genode_tender::image::{PAGE, Segment};
use fogbow_tender::memory::GuestMemory;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::library::StartInfo;

/// Why there is no memory for the image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("cannot map the image at {address:#x}: {source}; this program's own memory is there: start it again")]
    Collision { address: u64, source: io::Error },
    #[error("the host does not have {megabytes} MB for the image's heap ({source}): give it another size with --mem")]
    Heap { megabytes: u64, source: io::Error },
    #[error("cannot set the rights of the image's pages at {address:#x}: {source}")]
    Protect { address: u64, source: io::Error },
}

/// Maps zeros at `addresses`, readable and writable.
pub(crate) fn map(addresses: &Range<u64>) -> Result<GuestMemory<'static>, MemoryError> {
    let collision = |errno: Errno| MemoryError::Collision { address: addresses.start, source: errno.into() };
    let length = (addresses.end - addresses.start) as usize;
    let address = core::ptr::without_provenance_mut::<c_void>(addresses.start as usize);
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing of this process: where anything is mapped already, the call fails.
    let mapped = unsafe { rustix::mm::mmap_anonymous(address, length, rights, MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE) };
    let mapped = mapped.map_err(collision)?;
    if mapped.addr() != address.addr() {
        // Kernels before 4.17 take the address as a hint.
        return Err(collision(Errno::EXIST));
    }
    // SAFETY: the mapping was just made, is `length` bytes of zeros, readable and writable, and belongs to nobody else; it is never unmapped.
    let bytes = unsafe { core::slice::from_raw_parts_mut(mapped.cast::<u8>(), length) };
    Ok(GuestMemory::new(addresses.start, bytes))
}

/// Gives the pages of a segment its rights.
pub(crate) fn protect(segment: &Segment) -> Result<(), MemoryError> {
    let pages = segment.pages();
    let rights = if segment.is_writable { MprotectFlags::WRITE } else { MprotectFlags::EXEC };
    let start = core::ptr::without_provenance_mut::<c_void>(pages.start as usize);
    // SAFETY: the pages are the image's own, mapped by `map`; nothing refers to them any more, since the image is loaded.
    let result = unsafe { rustix::mm::mprotect(start, (pages.end - pages.start) as usize, rights | MprotectFlags::READ) };
    result.map_err(|errno| MemoryError::Protect { address: pages.start, source: errno.into() })
}

/// Maps the image's heap.
pub(crate) fn heap(size: u64) -> Result<Range<usize>, MemoryError> {
    let refused = |errno: Errno| MemoryError::Heap { megabytes: size >> 20, source: errno.into() };
    let length = usize::try_from(size).map_err(|_| refused(Errno::NOMEM))?;
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: without MAP_FIXED the mapping replaces nothing.
    let start = unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), length, rights, MapFlags::PRIVATE | MapFlags::NORESERVE) };
    let start = start.map_err(refused)?.expose_provenance();
    Ok(start..start + length)
}

/// Where the page begins that the calling thread's stack stands upon; `None` when the host does not say where that is.
pub(crate) fn stack_guard() -> Option<u64> {
    // SAFETY: all-zero bytes are a place for attributes, which the next call fills in.
    let mut attributes: libc::pthread_attr_t = unsafe { core::mem::zeroed() };
    // SAFETY: a thread always has attributes, which are written to a place for them.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) } != 0 {
        return None;
    }
    let (mut bottom, mut size) = (core::ptr::null_mut(), 0);
    // SAFETY: the attributes were filled in, and are given back once.
    let result = unsafe {
        let result = libc::pthread_attr_getstack(&raw const attributes, &raw mut bottom, &raw mut size);
        libc::pthread_attr_destroy(&raw mut attributes);
        result
    };
    (result == 0).then(|| (bottom.addr() as u64).saturating_sub(PAGE))
}

/// Calls the image.
///
/// # Safety
/// `main` is the address of a `solo5_app_main`.
pub(crate) unsafe fn enter(main: u64, start: &StartInfo) -> i32 {
    let main = core::ptr::with_exposed_provenance::<c_void>(main as usize);
    // SAFETY: the caller promises that this function is there; its type is that of Solo5's `solo5.h`.
    let main = unsafe { core::mem::transmute::<*const c_void, unsafe extern "C" fn(*const StartInfo) -> i32>(main) };
    // SAFETY: the start information outlives the call, and everything in it is the image's alone.
    unsafe { main(start) }
}
