//! Layers over a block device as an application's manifest names them, with their arguments. For the code that the builder makes.
//!
//! The device is called `name`; each argument is `--NAME-` and what its group says.

#[cfg(any(feature = "encryption", feature = "partition"))]
use alloc::rc::Rc;
use alloc::string::String;

use fogbow::StartError;
#[cfg(any(feature = "cache", feature = "encryption", feature = "partition"))]
use fogbow::arguments;
use fogbow::arguments::Argument;

use crate::{Block, View};

/// Arguments of [`partition`].
pub const PARTITION_ARGUMENTS: &[Argument] =
    &[Argument::new::<String>("partition", "the partition: its number in the table, or its name").default("1")];

/// Arguments of [`xts`].
pub const XTS_ARGUMENTS: &[Argument] =
    &[Argument::new::<String>("key", "the key of the encryption (AES-256-XTS): 128 hexadecimal digits").valued("KEY").required()];

/// Arguments of [`authenticated`].
pub const AUTHENTICATED_ARGUMENTS: &[Argument] = &[
    Argument::new::<String>("key", "the key of the encryption (XChaCha20-Poly1305): 64 hexadecimal digits").valued("KEY").required(),
    Argument::new::<bool>("format", "a device that was never formatted is, and loses its contents").flag().default("false"),
];

/// Arguments of [`cache`].
pub const CACHE_ARGUMENTS: &[Argument] =
    &[Argument::new::<u32>("cache", "memory for the write-back cache, in kibibytes").valued("KIBIBYTES").default("1024")];

/// The layer `read_only`: the device for reading alone.
///
/// # Errors
/// None.
#[expect(clippy::unused_async, reason = "every layer is opened in the same way")]
pub async fn read_only<B: Block>(device: B, _: &str) -> Result<View<B>, StartError> {
    Ok(View::read_only(device))
}

/// The layer `partition`: a partition of the device.
///
/// # Errors
/// When there is no such partition.
#[cfg(feature = "partition")]
pub async fn partition<B: Block>(device: B, name: &str) -> Result<View<Rc<B>>, StartError> {
    let wanted = arguments::parse::<String>(&alloc::format!("{name}-partition"))?;
    crate::partition::open(Rc::new(device), &wanted).await.map_err(|error| StartError::new(name, error))
}

/// The layer `cache`: a write-back cache.
///
/// # Errors
/// When the argument is no number.
#[cfg(feature = "cache")]
#[expect(clippy::unused_async, reason = "every layer is opened in the same way")]
pub async fn cache<B: Block>(device: B, name: &str) -> Result<crate::cache::Cache<B>, StartError> {
    let kibibytes = arguments::parse::<u32>(&alloc::format!("{name}-cache"))?;
    Ok(crate::cache::Cache::new(device, (kibibytes as usize).saturating_mul(1024)))
}

/// The layer `xts`: encrypted sectors.
///
/// # Errors
/// When the argument is no key.
#[cfg(feature = "encryption")]
#[expect(clippy::unused_async, reason = "every layer is opened in the same way")]
pub async fn xts<B: Block>(device: B, name: &str) -> Result<crate::encryption::Xts<B>, StartError> {
    crate::encryption::Xts::new(device, &key(name)?).map_err(|error| StartError::new(name, error))
}

/// The layer `authenticated`: sealed sectors.
///
/// # Errors
/// When the argument is no key, or not this device's, or the device is not formatted and is not to be.
#[cfg(feature = "encryption")]
pub async fn authenticated<B: Block>(device: B, name: &str) -> Result<crate::encryption::Authenticated<Rc<B>>, StartError> {
    use crate::encryption::{Authenticated, OpenError};

    let key = key(name)?;
    let may_format = arguments::parse::<bool>(&alloc::format!("{name}-format"))?;
    let device = Rc::new(device);
    let opened = match Authenticated::open(Rc::clone(&device), &key).await {
        Err(OpenError::NotFormatted) if may_format => Authenticated::format(device, &key).await,
        opened => opened,
    };
    opened.map_err(|error| StartError::new(name, error))
}

/// The key that `--NAME-key` gives. It is not repeated in messages.
#[cfg(feature = "encryption")]
fn key<const N: usize>(name: &str) -> Result<[u8; N], StartError> {
    let digits = arguments::parse::<String>(&alloc::format!("{name}-key"))?;
    let digit = |at: usize| (*digits.as_bytes().get(at)? as char).to_digit(16);
    let byte = |at: usize| Some((digit(2 * at)? << 4 | digit(2 * at + 1)?) as u8);
    let mut key = [0; N];
    for (at, place) in key.iter_mut().enumerate() {
        *place = byte(at).filter(|_| digits.len() == 2 * N).ok_or_else(|| {
            StartError::new(name, format_args!("--{name}-key is no key: write {} hexadecimal digits, from openssl rand -hex {N}", 2 * N))
        })?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ram;
    use alloc::rc::Rc;
    use alloc::string::ToString;
    use fogbow::arguments::Group;
    use fogbow::simulation::Simulation;

    #[test]
    fn a_device_is_formatted_when_that_is_wished_and_never_twice() {
        const GROUPS: &[Group] = &[Group { prefix: "disk-", arguments: AUTHENTICATED_ARGUMENTS }];
        let disk = Rc::new(Ram::new("disk", 512, 100).unwrap());
        let key = std::format!("--disk-key={}", "5a".repeat(32));
        let open = |words: [&str; 2]| {
            let disk = Rc::clone(&disk);
            Simulation::new(1).with_arguments(GROUPS, words).block_on(async move {
                let sealed = authenticated(disk, "disk").await.map_err(|error| error.to_string())?;
                let mut former = std::vec![0; 4096];
                sealed.read(2, &mut former).await.unwrap();
                sealed.write(2, &std::vec![7; 4096]).await.unwrap();
                Ok::<u8, String>(former[0])
            })
        };
        assert!(open([&key, "--disk-format=false"]).unwrap_err().contains("never formatted"));
        assert_eq!(open([&key, "--disk-format=true"]), Ok(0));
        assert_eq!(open([&key, "--disk-format=true"]), Ok(7));
        let error = open(["--disk-key=5a", "--disk-format=true"]).unwrap_err();
        assert!(
            open([&std::format!("{key}5a"), "--disk-format=true"]).unwrap_err().contains("is no key"),
            "nor is what is longer than one"
        );
        assert_eq!(error, "disk: --disk-key is no key: write 64 hexadecimal digits, from openssl rand -hex 32");
        assert!(open([&key.replace("5a", "5b"), "--disk-format=true"]).unwrap_err().contains("key is not the one"));
    }
}
