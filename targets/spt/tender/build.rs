//! Links the unwinder into the tender, rather than have the dynamic loader find and relocate `libgcc_s.so` at every start: an eighth of the
//! time from exec to exit of a small guest.
//!
//! The standard library asks the linker for `libgcc_s`. What it finds first is a linker script that names the same library's static form,
//! `libgcc_eh`, which comes with every gcc. A statically linked tender (`-C target-feature=+crt-static`) asks for that one itself.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let directory = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(directory.join("libgcc_s.so"), "INPUT(-lgcc_eh)\n")?;
    println!("cargo::rustc-link-search=native={}", directory.display());
    Ok(())
}
