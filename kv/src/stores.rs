//! Stores on a block device as an application's manifest names them, with their arguments. For the code that the builder makes.
//!
//! The device is called `name`; each argument is `--NAME-` and what its group says.

use fogbow::StartError;
use fogbow::arguments::{self, Argument};
use fogbow_block::Block;

use crate::LogStore;
use crate::log::Config;

/// Arguments of [`log`].
pub const LOG_ARGUMENTS: &[Argument] =
    &[Argument::new::<u32>("memory", "memory for what the store keeps of its device, in kibibytes").valued("KIBIBYTES").default("4096")];

/// Arguments of [`fat`].
pub const FAT_ARGUMENTS: &[Argument] =
    &[Argument::new::<u32>("memory", "memory for the sectors of an operation, in kibibytes: more than any value that is set")
        .valued("KIBIBYTES")
        .default("1024")];

/// `--NAME-memory`, in bytes.
fn memory(name: &str) -> Result<usize, StartError> {
    let kibibytes = arguments::parse::<u32>(&alloc::format!("{name}-memory"))?;
    Ok((kibibytes as usize).saturating_mul(1024))
}

/// The store `log`. A device that can be written and is blank is formatted first.
///
/// # Errors
/// When there is no log store on the device, and it is not blank or cannot be written.
pub async fn log<B: Block>(device: B, name: &str) -> Result<LogStore<B>, StartError> {
    let config = Config { cache: memory(name)? };
    LogStore::open_or_format(device, config).await.map_err(|error| StartError::new(name, error))
}

/// The store `tar`: the archive on the device, which is empty if the device begins with zeros.
///
/// # Errors
/// When there is no archive.
#[cfg(feature = "tar")]
pub async fn tar<B: Block>(device: B, name: &str) -> Result<crate::Tar<B>, StartError> {
    crate::Tar::open(device).await.map_err(|error| StartError::new(name, error))
}

/// The store `fat`: the volume on the device.
///
/// # Errors
/// When there is no volume.
#[cfg(feature = "fat")]
pub async fn fat<B: Block>(device: B, name: &str) -> Result<crate::Fat<B>, StartError> {
    let memory = memory(name)?;
    crate::Fat::open(device, memory).await.map_err(|error| StartError::new(name, error))
}
