//! The command line of a tender: the same options with the same meaning as Solo5's tenders take.
//!
//! ```text
//! TENDER [--mem=MB] [--gdb=PORT] [--net:NAME=IFACE|@FD|user[,OPTION...]] [--net-mac:NAME=MAC]
//!        [--net-offload:NAME=yes|no] [--net-pcap:NAME=PATH] [--block:NAME=PATH] [--block-sector-size:NAME=BYTES]
//!        [--block-read-only:NAME=yes|no] [--] IMAGE [ARGUMENT...]
//! ```
//!
//! Options end at `--` or at the first argument that does not begin with `-`; that is the image, and all that follows is the guest's.
//! `--help` and `--version` count wherever they stand among the options, and both print to standard error; help ends with status 1 and
//! version with 0, as Solo5's do. Every error ends with [`ERROR_STATUS`].

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::manifest::{DeviceKind, Manifest, Name};

/// Guest memory where `--mem` is not given, in bytes.
pub const DEFAULT_MEMORY: u64 = 512 << 20;
/// The status of a tender that could not run its guest, and of `--help`.
pub const ERROR_STATUS: i32 = 1;
/// The status of a guest that ended abnormally.
pub const ABORT_STATUS: i32 = 255;
/// A block device's sector size where none is given, in bytes.
pub const DEFAULT_SECTOR_SIZE: u16 = 512;
/// Bytes of the longest interface name with its terminator: `IFNAMSIZ` of `<linux/if.h>`.
pub const INTERFACE_NAME_SIZE: usize = 16;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run an image.
    Run(CommandLine),
    /// Print the help text and end with [`ERROR_STATUS`].
    Help,
    /// Print the version and end with status 0.
    Version,
}

/// How to run an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Guest memory in bytes: a whole number of mebibytes, 1 at least.
    pub memory_size: u64,
    /// What the devices are to be attached to, in the order given. No device occurs twice.
    pub devices: Vec<DeviceOption>,
    /// The image's path.
    pub image: PathBuf,
    /// The guest's own arguments.
    pub arguments: Vec<OsString>,
    /// The port of the loopback at which a debugger is waited for.
    pub gdb: Option<u16>,
}

/// What one device is to be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceOption {
    /// The device's name in the manifest.
    pub name: Name,
    /// What is known of it.
    pub setting: DeviceSetting,
}

/// What a device is to be attached to, by kind. A source is missing where only the second option was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSetting {
    /// The options that begin with `--net`.
    Net(NetSetting),
    /// The options that begin with `--block`.
    Block {
        /// The file or block device.
        source: Option<PathBuf>,
        /// Bytes; otherwise [`DEFAULT_SECTOR_SIZE`].
        sector_size: Option<u16>,
        /// Whether it is opened for reading alone; otherwise it is not.
        read_only: Option<bool>,
    },
}

/// What a net device is to be attached to, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetSetting {
    /// The network.
    pub source: Option<NetSource>,
    /// The guest's Ethernet address; otherwise a random one.
    pub mac: Option<[u8; 6]>,
    /// Whether the host does a part of TCP's work for a guest that can do without; otherwise it does where it can.
    pub offload: Option<bool>,
    /// The file that all frames are recorded in.
    pub pcap: Option<PathBuf>,
}

impl DeviceSetting {
    /// The kind of device this is for.
    #[must_use]
    pub fn kind(&self) -> DeviceKind {
        match self {
            Self::Net(_) => DeviceKind::Net,
            Self::Block { .. } => DeviceKind::Block,
        }
    }
}

/// The network behind a net device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetSource {
    /// A tap interface, by name.
    Tap(String),
    /// A descriptor that the tender was started with: a tap, or a socket that keeps one frame per message.
    Descriptor(RawFd),
    /// The user-mode network, with its own options (what follows `user,`).
    User(String),
}

/// Why a command line cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// No image is named.
    #[error("Missing KERNEL operand: give the path of an image after the options (--help lists them)")]
    MissingImage,
    /// An option that there is not.
    #[error("Invalid option: `{0}' (--help lists the options; put -- before the image's path if that begins with a dash)")]
    Unknown(String),
    /// `--mem` is not a number of mebibytes.
    #[error("Malformed argument to --mem: `{0}' is not a whole number of megabytes from 1 up; write for example --mem=32")]
    Memory(String),
    /// `--gdb` is not a port.
    #[error("Malformed argument to --gdb: `{0}' is not a port; write for example --gdb=1234")]
    Port(String),
    /// `--gdb` for a tender that does not know debuggers.
    #[error("--gdb={0}: this tender waits for no debugger: build the image for hvt, whose tender does, or leave the option out")]
    NoDebugger(u16),
    /// Not `NAME=VALUE`.
    #[error("{option} wants NAME=VALUE, with a name of letters and digits, and got `{found}': write for example {example}")]
    Malformed {
        /// The option.
        option: &'static str,
        /// What follows its colon.
        found: String,
        /// How it would be right.
        example: &'static str,
    },
    /// The same option twice for the same device.
    #[error("{option}:{name} is given twice: leave one out")]
    Twice {
        /// The option.
        option: &'static str,
        /// The device.
        name: Name,
    },
    /// An interface name that Linux would not take.
    #[error("--net:{name}: `{found}' is not an interface name (1 to 15 characters), nor @FD, nor user: name an existing tap interface")]
    Interface {
        /// The device.
        name: Name,
        /// What was given.
        found: String,
    },
    /// Not `@` and a number.
    #[error("--net:{name}: `{found}' is not @ and the number of an open descriptor")]
    Descriptor {
        /// The device.
        name: Name,
        /// What was given.
        found: String,
    },
    /// Not an Ethernet address that a guest can have.
    #[error("--net-mac:{name}: `{found}' is not a unicast Ethernet address: write six hexadecimal bytes, for example 02:00:00:00:00:01")]
    Mac {
        /// The device.
        name: Name,
        /// What was given.
        found: String,
    },
    /// Neither `yes` nor `no`.
    #[error("{option}:{name}: `{found}' is neither yes nor no")]
    YesNo {
        /// The option.
        option: &'static str,
        /// The device.
        name: Name,
        /// What was given.
        found: String,
    },
    /// Not a sector size.
    #[error(
        "--block-sector-size:{name}: `{found}': Block size must be a multiple of 2 greater than or equal 512, a power of two up to 32768"
    )]
    SectorSize {
        /// The device.
        name: Name,
        /// What was given.
        found: String,
    },
    /// A device that the image does not declare.
    #[error("Resource not declared in manifest: '{name}' ({option}:{name}=...): the image declares {declared}")]
    Undeclared {
        /// The option that attaches such a device.
        option: &'static str,
        /// The device.
        name: Name,
        /// What the image declares.
        declared: String,
    },
    /// Devices that the image declares and the command line does not attach.
    #[error("All declared devices must be attached, and {0} not: add {1}")]
    NotAttached(String, String),
}

/// Reads a command line, the program's own name left out.
///
/// # Errors
/// One of [`OptionsError`], for the first thing found wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, OptionsError> {
    let mut arguments = arguments.into_iter();
    let mut given = Vec::new();
    let mut image = None;
    for argument in arguments.by_ref() {
        match argument.as_bytes() {
            b"--" => break,
            b"--help" => return Ok(Request::Help),
            b"--version" => return Ok(Request::Version),
            [b'-', ..] => given.push(argument),
            _ => {
                image = Some(argument);
                break;
            }
        }
    }
    let image = image.or_else(|| arguments.next()).ok_or(OptionsError::MissingImage)?;
    let mut command_line =
        CommandLine { memory_size: DEFAULT_MEMORY, devices: Vec::new(), image: image.into(), arguments: arguments.collect(), gdb: None };
    for option in &given {
        command_line.take(option)?;
    }
    Ok(Request::Run(command_line))
}

/// The help text, for a tender of this name.
pub(crate) fn help(program: &str) -> String {
    format!(
        "usage: {program} [ OPTIONS ] [ -- ] IMAGE [ ARGUMENTS ]\n\
         IMAGE is the unikernel to run; ARGUMENTS are its own.\n\
         Options:\n\
         \x20 --mem=MB                            guest memory in megabytes (512)\n\
         \x20 --net:NAME=IFACE                    attach net device NAME to the existing tap interface IFACE\n\
         \x20 --net:NAME=@FD                      ... to the tap or frame socket open as descriptor FD\n\
         \x20 --net:NAME=user[,hostfwd=PORT:PORT] ... to a user-mode network; needs no privilege and no tap\n\
         \x20 --net-mac:NAME=MAC                  Ethernet address of net device NAME (random)\n\
         \x20 --net-offload:NAME=no               have the guest cut and sum all that it sends, for NAME (yes)\n\
         \x20 --net-pcap:NAME=PATH                record the frames of net device NAME for Wireshark in the file PATH\n\
         \x20 --block:NAME=PATH                   attach block device NAME to the file or block device PATH\n\
         \x20 --block-sector-size:NAME=BYTES      sector size of block device NAME (512)\n\
         \x20 --block-read-only:NAME=yes          open what block device NAME is for reading alone, as others may, too (no)\n\
         \x20 --gdb=PORT                          wait for gdb on this port of the loopback (hvt alone; without the sandbox)\n\
         \x20 --help                              this text\n\
         \x20 --version                           the tender's version and that of its ABI\n"
    )
}

impl CommandLine {
    /// For a tender that does not know debuggers.
    ///
    /// # Errors
    /// [`OptionsError::NoDebugger`] where one is asked for.
    pub fn require_no_debugger(&self) -> Result<(), OptionsError> {
        self.gdb.map_or(Ok(()), |port| Err(OptionsError::NoDebugger(port)))
    }

    /// The setting of each device that the manifest declares, in the manifest's order.
    ///
    /// # Errors
    /// [`OptionsError::Undeclared`] for a device that the manifest does not have, [`OptionsError::NotAttached`] for one it has and the
    /// command line gives no source for.
    pub fn resolve(&self, manifest: &Manifest) -> Result<Vec<&DeviceSetting>, OptionsError> {
        let mut settings: Vec<Option<&DeviceSetting>> = vec![None; manifest.devices().len()];
        for device in &self.devices {
            let kind = device.setting.kind();
            let undeclared =
                || OptionsError::Undeclared { option: kind.option(), name: device.name.clone(), declared: manifest.to_string() };
            let index = manifest.position(device.name.as_str(), kind).ok_or_else(undeclared)?;
            settings[index] = Some(&device.setting);
        }
        let attached: Vec<&DeviceSetting> = settings.iter().copied().flatten().filter(|setting| setting.has_source()).collect();
        if attached.len() == settings.len() { Ok(attached) } else { Err(not_attached(manifest, &settings)) }
    }

    fn take(&mut self, option: &OsStr) -> Result<(), OptionsError> {
        let bytes = option.as_bytes();
        if let Some(value) = bytes.strip_prefix(b"--mem=") {
            self.memory_size = parse_memory(value)?;
        } else if let Some(value) = bytes.strip_prefix(b"--gdb=") {
            let port = str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            self.gdb = Some(port.ok_or_else(|| OptionsError::Port(text(value)))?);
        } else if let Some(rest) = bytes.strip_prefix(b"--net:") {
            let (name, value) = name_and_value("--net", rest, "--net:service=tap0")?;
            let new = parse_net_source(&name, value)?;
            let DeviceSetting::Net(net) = self.setting(&name, DeviceKind::Net) else { return Ok(()) };
            set_once(&mut net.source, new, "--net", name)?;
        } else if let Some(rest) = bytes.strip_prefix(b"--net-mac:") {
            let (name, value) = name_and_value("--net-mac", rest, "--net-mac:service=02:00:00:00:00:01")?;
            let new = parse_mac(value).ok_or_else(|| OptionsError::Mac { name: name.clone(), found: text(value) })?;
            let DeviceSetting::Net(net) = self.setting(&name, DeviceKind::Net) else { return Ok(()) };
            set_once(&mut net.mac, new, "--net-mac", name)?;
        } else if let Some(rest) = bytes.strip_prefix(b"--net-offload:") {
            let (name, value) = name_and_value("--net-offload", rest, "--net-offload:service=no")?;
            let new = parse_yes("--net-offload", &name, value)?;
            let DeviceSetting::Net(net) = self.setting(&name, DeviceKind::Net) else { return Ok(()) };
            set_once(&mut net.offload, new, "--net-offload", name)?;
        } else if let Some(rest) = bytes.strip_prefix(b"--net-pcap:") {
            let (name, value) = name_and_value("--net-pcap", rest, "--net-pcap:service=frames.pcap")?;
            let DeviceSetting::Net(net) = self.setting(&name, DeviceKind::Net) else { return Ok(()) };
            set_once(&mut net.pcap, OsStr::from_bytes(value).into(), "--net-pcap", name)?;
        } else if let Some(rest) = bytes.strip_prefix(b"--block:") {
            let (name, value) = name_and_value("--block", rest, "--block:storage=disk.img")?;
            let DeviceSetting::Block { source, .. } = self.setting(&name, DeviceKind::Block) else { return Ok(()) };
            set_once(source, OsStr::from_bytes(value).into(), "--block", name)?;
        } else if let Some(rest) = bytes.strip_prefix(b"--block-sector-size:") {
            let (name, value) = name_and_value("--block-sector-size", rest, "--block-sector-size:storage=4096")?;
            let new = parse_sector_size(value).ok_or_else(|| OptionsError::SectorSize { name: name.clone(), found: text(value) })?;
            let DeviceSetting::Block { sector_size, .. } = self.setting(&name, DeviceKind::Block) else { return Ok(()) };
            set_once(sector_size, new, "--block-sector-size", name)?;
        } else if let Some(rest) = bytes.strip_prefix(b"--block-read-only:") {
            let (name, value) = name_and_value("--block-read-only", rest, "--block-read-only:storage=yes")?;
            let new = parse_yes("--block-read-only", &name, value)?;
            let DeviceSetting::Block { read_only, .. } = self.setting(&name, DeviceKind::Block) else { return Ok(()) };
            set_once(read_only, new, "--block-read-only", name)?;
        } else {
            return Err(OptionsError::Unknown(text(bytes)));
        }
        Ok(())
    }

    /// The setting of this device, which is always of the kind asked for; made on the first mention.
    fn setting(&mut self, name: &Name, kind: DeviceKind) -> &mut DeviceSetting {
        let known = self.devices.iter().position(|device| device.name == *name && device.setting.kind() == kind);
        let index = known.unwrap_or_else(|| {
            let setting = match kind {
                DeviceKind::Net => DeviceSetting::Net(NetSetting::default()),
                DeviceKind::Block => DeviceSetting::Block { source: None, sector_size: None, read_only: None },
            };
            self.devices.push(DeviceOption { name: name.clone(), setting });
            self.devices.len() - 1
        });
        &mut self.devices[index].setting
    }
}

impl DeviceSetting {
    fn has_source(&self) -> bool {
        match self {
            Self::Net(net) => net.source.is_some(),
            Self::Block { source, .. } => source.is_some(),
        }
    }
}

fn not_attached(manifest: &Manifest, settings: &[Option<&DeviceSetting>]) -> OptionsError {
    let mut missing = Vec::new();
    let mut remedy = String::new();
    for (device, setting) in manifest.devices().iter().zip(settings) {
        if setting.is_some_and(DeviceSetting::has_source) {
            continue;
        }
        missing.push(format!("{} '{}'", device.kind, device.name));
        let value = match device.kind {
            DeviceKind::Net => "IFACE",
            DeviceKind::Block => "PATH",
        };
        let separator = if remedy.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(remedy, "{separator}{}:{}={value}", device.kind.option(), device.name);
    }
    let verb = if missing.len() == 1 { "is" } else { "are" };
    OptionsError::NotAttached(format!("{} {verb}", missing.join(", ")), remedy)
}

fn name_and_value<'a>(option: &'static str, rest: &'a [u8], example: &'static str) -> Result<(Name, &'a [u8]), OptionsError> {
    let malformed = || OptionsError::Malformed { option, found: text(rest), example };
    let equals = rest.iter().position(|&byte| byte == b'=').ok_or_else(malformed)?;
    let (name, value) = (&rest[..equals], &rest[equals + 1..]);
    let name = core::str::from_utf8(name).ok().and_then(Name::new).ok_or_else(malformed)?;
    if value.is_empty() { Err(malformed()) } else { Ok((name, value)) }
}

fn set_once<T>(place: &mut Option<T>, value: T, option: &'static str, name: Name) -> Result<(), OptionsError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(OptionsError::Twice { option, name }),
    }
}

fn parse_memory(value: &[u8]) -> Result<u64, OptionsError> {
    parse_number(value)
        .and_then(|megabytes| megabytes.checked_mul(1 << 20))
        .filter(|&size| (1..=i64::MAX as u64).contains(&size))
        .ok_or_else(|| OptionsError::Memory(text(value)))
}

fn parse_net_source(name: &Name, value: &[u8]) -> Result<NetSource, OptionsError> {
    if let Some(number) = value.strip_prefix(b"@") {
        let descriptor = parse_number(number).and_then(|number| RawFd::try_from(number).ok());
        let wrong = || OptionsError::Descriptor { name: name.clone(), found: text(value) };
        return Ok(NetSource::Descriptor(descriptor.ok_or_else(wrong)?));
    }
    let wrong = || OptionsError::Interface { name: name.clone(), found: text(value) };
    let value = core::str::from_utf8(value).map_err(|_| wrong())?;
    if value == "user" {
        return Ok(NetSource::User(String::new()));
    }
    if let Some(options) = value.strip_prefix("user,") {
        return Ok(NetSource::User(options.to_owned()));
    }
    // Linux's own rule (dev_valid_name), without '%', which would make it choose a name.
    let valid = value.len() < INTERFACE_NAME_SIZE
        && !matches!(value, "." | "..")
        && !value.contains(|character: char| matches!(character, '/' | ':' | '%') || character.is_whitespace());
    if valid { Ok(NetSource::Tap(value.to_owned())) } else { Err(wrong()) }
}

fn parse_mac(value: &[u8]) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = value.split(|&byte| byte == b':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && part.iter().all(u8::is_ascii_hexdigit))?;
        *byte = u8::from_str_radix(core::str::from_utf8(part).ok()?, 16).ok()?;
    }
    let unicast = mac[0] & 1 == 0 && mac != [0; 6];
    (parts.next().is_none() && unicast).then_some(mac)
}

fn parse_yes(option: &'static str, name: &Name, value: &[u8]) -> Result<bool, OptionsError> {
    match value {
        b"yes" => Ok(true),
        b"no" => Ok(false),
        _ => Err(OptionsError::YesNo { option, name: name.clone(), found: text(value) }),
    }
}

fn parse_sector_size(value: &[u8]) -> Option<u16> {
    let size = u16::try_from(parse_number(value)?).ok()?;
    (size >= 512 && size.is_power_of_two()).then_some(size)
}

/// Decimal digits alone.
fn parse_number(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(value).ok()?.parse().ok()
}

/// For an error message: on one line whatever it is.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .flat_map(|character| {
            let control = character.is_control();
            let escaped = control.then(|| character.escape_default());
            escaped.into_iter().flatten().chain((!control).then_some(character))
        })
        .collect()
}

#[cfg(test)]
mod tests;
