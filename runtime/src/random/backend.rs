//! The backend of the crate `getrandom` (versions 0.3 and 0.4, `--cfg getrandom_backend="custom"`): what a crate in an image draws comes from the image's
//! generator. A second backend would be a second definition of the symbol, which the linker refuses.

use getrandom::Error;

use crate::current;

/// See "Custom backend" in getrandom's documentation.
///
/// # Safety
/// `into` is valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(into: *mut u8, length: usize) -> Result<(), Error> {
    let generator = current::get().ok_or(Error::UNEXPECTED)?;
    // SAFETY: `getrandom` passes memory that it may write `length` bytes to; whether those were initialised does not matter once they are zero.
    let into = unsafe {
        into.write_bytes(0, length);
        core::slice::from_raw_parts_mut(into, length)
    };
    generator.generator().fill(into).map_err(|_| Error::UNEXPECTED)
}
