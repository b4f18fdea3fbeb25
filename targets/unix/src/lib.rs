//! The unix target: an application as an ordinary Linux process, to develop and debug it.
//!
//! The network is the host's sockets ([`stack`]), or the direct stack over a tap interface ([`net`]); stores are the host's directories
//! ([`Directory`]), block devices its files ([`block`]). Waiting is one `epoll_pwait2` call for all of them.
//!
//! Limits: file operations block the whole image while they last; nothing is sandboxed: what the user may do, the process may do.

use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;

use fogbow::{Image, StartError, arguments, logs, status};

mod block;
mod device;
mod directory;
mod frames;
mod platform;
mod reactor;
mod sockets;

pub use block::BlockDevice;
pub use device::{BLOCK_ARGUMENTS, DeviceError, NET_ARGUMENTS, STACK_ARGUMENTS, block, net, read_only_block, stack};
pub use directory::Directory;
pub use frames::Net;
pub use sockets::{HostListener, HostStack, HostStream, HostStreamHalf, HostUdpSocket};

/// Expands to the `main` of an image. The builder writes it into the crate that it generates.
///
/// `image` is a [`fogbow::Image`], `devices` names the devices that the image uses, and `start` is an async function without parameters that
/// returns `Result<(), fogbow::StartError>`.
///
/// ```no_run
/// const IMAGE: fogbow::Image = fogbow::Image { name: "hello", version: "1.0.0", arguments: &[fogbow::arguments::COMMON] };
/// fogbow_unix::image! { image: IMAGE, devices: [], start: start }
///
/// async fn start() -> Result<(), fogbow::StartError> {
///     fogbow::println!("hello");
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! image {
    (image: $image:expr, devices: [$($kind:ident $name:literal),* $(,)?], start: $start:path $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::main(&$image, $start)
        }
    };
}

/// Runs an image as this process: what [`image!`] expands to.
pub fn main<S, F>(image: &Image, start: S) -> ExitCode
where
    S: FnOnce() -> F,
    F: Future<Output = Result<(), StartError>> + 'static,
{
    fogbow_tender::net::main_if_child();
    std::panic::set_hook(Box::new(|info| {
        // When standard error is gone there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "{info}");
        logs::dump(&mut |bytes| drop(std::io::stderr().write_all(bytes)));
        std::process::exit(status::ABORT.into());
    }));
    let platform = match platform::Unix::new() {
        Ok(platform) => Rc::new(platform),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}: error: the host gives no epoll descriptor: {error}", image.name);
            return ExitCode::from(status::FAILURE);
        }
    };
    // One line, as an image gets it: what is quoted for an image is quoted for a program too.
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    ExitCode::from(fogbow::run(platform, image, arguments::split(&words.join(" ")), start))
}

/// Runs `future`, and the tasks that it spawns, until it ends: for programs of the host that share code with images.
///
/// # Errors
/// What the host says when it gives no epoll descriptor.
pub fn block_on<F>(future: F) -> std::io::Result<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    const IMAGE: Image = Image { name: "host", version: env!("CARGO_PKG_VERSION"), arguments: &[] };
    let output = Rc::new(std::cell::Cell::new(None));
    let result = Rc::clone(&output);
    let start = move || async move {
        result.set(Some(future.await));
        Ok(())
    };
    fogbow::run(Rc::new(platform::Unix::new()?), &IMAGE, Ok([""; 0]), start);
    output.take().ok_or_else(|| std::io::Error::other("the program was interrupted"))
}

#[cfg(test)]
mod tests;
