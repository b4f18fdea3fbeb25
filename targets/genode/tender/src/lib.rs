//! What Genode's dynamic linker and `solo5.lib.so` demand of an image, checked one by one, and the loading of an image that keeps to it.
//!
//! The builder checks every image with this; the program of this package runs images on Linux with it.
//!
//! # Limits
//! x86-64 alone. An image is hostile until checked: none of its bytes makes this crate panic or write outside of the memory given.

mod error;
pub mod image;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::ImageError;
pub use image::Image;
