//! What an image is made of.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::build::Built;
use crate::files;
use crate::progress::size;
use crate::workspace::{self, TRIPLE};

/// What `describe` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Description {
    name: String,
    version: String,
    target: &'static str,
    prng: &'static str,
    image: String,
    image_bytes: u64,
    devices: Vec<Device>,
    arguments: Vec<Argument>,
    /// The devices that the image's manifest asks the host for; `null` for a program.
    manifest: Option<Vec<HostDevice>>,
    segments: Vec<Segment>,
    /// Where the image ends in memory, which begins at zero: the heap is what the tender gives beyond.
    memory_end: Option<u64>,
    crates: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Device {
    name: String,
    kind: &'static str,
    implementation: &'static str,
    /// Over a block device, from the bottom up.
    layers: Vec<&'static str>,
    source: Option<String>,
}

#[derive(Debug, Serialize)]
struct Argument {
    name: String,
    default: Option<String>,
    doc: String,
    owner: String,
}

#[derive(Debug, Serialize)]
struct HostDevice {
    name: String,
    kind: String,
}

#[derive(Debug, Serialize)]
struct Segment {
    address: u64,
    rights: String,
    file_bytes: u64,
    memory_bytes: u64,
}

impl Description {
    /// Describes what was built.
    pub(crate) fn new(built: &Built) -> anyhow::Result<Self> {
        let resolved = &built.resolved;
        let devices = resolved.devices.iter().map(|device| Device {
            name: device.device.name.clone(),
            kind: device.device.kind.name(),
            implementation: device.implementation.describe(resolved.target),
            layers: device.device.layers.iter().map(|layer| layer.name()).collect(),
            source: device.device.source.clone().filter(|_| device.implementation.has_source()),
        });
        let arguments = resolved.groups.iter().flat_map(|group| {
            group.arguments.iter().map(|argument| Argument {
                name: format!("--{}{}", group.prefix, argument.name),
                default: argument.default().map(str::to_owned),
                doc: argument.doc.clone(),
                owner: group.owner.clone(),
            })
        });
        let verified = built.verified.as_ref();
        let manifest = verified.map(|verified| {
            let devices = verified.manifest.devices().iter();
            devices.map(|device| HostDevice { name: device.name.to_string(), kind: device.kind.to_string() }).collect()
        });
        let segments = verified.map_or(&[][..], |verified| &verified.layout.segments).iter().map(|segment| Segment {
            address: segment.contents.start,
            rights: rights(segment.protection),
            file_bytes: segment.contents.end - segment.contents.start,
            memory_bytes: segment.pages.end - segment.pages.start,
        });
        Ok(Self {
            name: built.application.name().to_owned(),
            version: built.application.package.version.clone(),
            target: resolved.target.name(),
            prng: resolved.manifest.prng.name(),
            image: files::display(&built.path),
            image_bytes: built.size,
            devices: devices.collect(),
            arguments: arguments.collect(),
            manifest,
            segments: segments.collect(),
            memory_end: verified.map(|verified| verified.layout.end),
            crates: linked_crates(built)?,
        })
    }
}

fn rights(protection: fogbow_tender::elf::Protection) -> String {
    let letter = |held, letter| if held { letter } else { '-' };
    [letter(protection.read, 'R'), letter(protection.write, 'W'), letter(protection.execute, 'X')].iter().collect()
}

/// The crates that the image is linked from, the generated one left out.
fn linked_crates(built: &Built) -> anyhow::Result<Vec<String>> {
    let mut cargo = workspace::cargo();
    // The format leaves out paths; procedural macros and build scripts are no part of the image.
    cargo.args(["tree", "--quiet", "--prefix=none", "--edges=no-dev,no-build,no-proc-macro", "--format={p}", "--target", TRIPLE]);
    let output = cargo.current_dir(&built.generated).output().context("cannot start cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // NAME vVERSION (PATH) (*)
    let names = text.lines().skip(1).map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    Ok(names.filter(|name| !name.is_empty()).collect::<BTreeSet<_>>().into_iter().collect())
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} for {}", self.name, self.version, self.target)?;
        writeln!(f, "{}, {}", self.image, size(self.image_bytes))?;
        writeln!(f, "random numbers by {}", self.prng)?;
        writeln!(f, "\nDevices")?;
        let devices: Vec<_> = self
            .devices
            .iter()
            .map(|d| {
                let source = d.source.as_ref().map_or_else(String::new, |source| format!(" ({source}/)"));
                let layers: String = d.layers.iter().map(|layer| format!(", {layer}")).collect();
                [d.name.clone(), d.kind.to_owned(), format!("{}{layers}{source}", d.implementation)]
            })
            .collect();
        table(f, &devices)?;
        writeln!(f, "\nArguments")?;
        let arguments: Vec<_> = self
            .arguments
            .iter()
            .map(|argument| {
                let default = argument.default.as_ref().map_or_else(String::new, |default| format!("={default}"));
                [format!("{}{default}", argument.name), argument.owner.clone(), argument.doc.clone()]
            })
            .collect();
        table(f, &arguments)?;
        if let Some(manifest) = &self.manifest {
            writeln!(f, "\nManifest")?;
            table(f, &manifest.iter().map(|device| [device.name.clone(), device.kind.clone()]).collect::<Vec<_>>())?;
            writeln!(f, "\nSegments")?;
            let row = |s: &Segment| {
                [
                    format!("{:#x}", s.address),
                    s.rights.clone(),
                    format!("{} in the file", size(s.file_bytes)),
                    format!("{} in memory", size(s.memory_bytes)),
                ]
            };
            table(f, &self.segments.iter().map(row).collect::<Vec<_>>())?;
        }
        if let Some(end) = self.memory_end {
            writeln!(f, "  ends at {}; the heap is what memory there is beyond", size(end))?;
        }
        writeln!(f, "\nCrates")?;
        table(f, &self.crates.iter().map(|name| [name.clone()]).collect::<Vec<_>>())
    }
}

/// Rows in columns as wide as their widest cell.
fn table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    if rows.is_empty() {
        return writeln!(f, "  none");
    }
    let widths: [usize; N] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let line = row.iter().zip(widths).fold(String::new(), |line, (cell, width)| format!("{line}  {cell:width$}"));
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
