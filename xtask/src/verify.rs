//! What every image must be before it is called built.
//!
//! The checks that a tender makes are made with the tender's own code; those that only the builder can make are here.

use std::fmt::Write as _;

use anyhow::{Context as _, bail, ensure};
use fogbow_tender::elf::{Image, Layout, PAGE_SIZE, Protection, Segment, SegmentType};
use fogbow_tender::manifest::{Device, Manifest, Name};
use object::elf::{FileHeader64, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_NOTE, PT_TLS, SHF_ALLOC};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags};

use crate::muen;
use crate::resolve::{Resolved, Target};

/// The sections an image's memory is made of. Anything else is something that nobody has thought of.
const SECTIONS: [&str; 11] = [
    ".text",
    ".interp",
    ".note.solo5.not_openbsd",
    ".note.solo5.abi",
    ".note.solo5.manifest",
    ".note.pvh",
    ".rodata",
    ".guard",
    ".data",
    ".bss",
    ".stack",
];

/// The notes of an image for a tender, each in a program header of its own, in this order: name and type. Types as in Solo5's `elf_abi.h`:
/// the operating-system note of OpenBSD, `ABI1_NOTE_TYPE`, `MFT1_NOTE_TYPE`.
const TENDER_NOTES: [(&str, u32); 3] = [("OpenBSD", 1), ("Solo5", 0x3149_4241), ("Solo5", 0x3154_464d)];

/// The note of an image for a virtual machine: `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's `elfnote.h`, where PVH begins.
const MACHINE_NOTES: [(&str, u32); 1] = [("Xen", 18)];

/// What a checked image is.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) layout: Layout,
    pub(crate) manifest: Manifest,
}

/// Checks an image: as linked, with its symbols, and as it is delivered.
pub(crate) fn verify(linked: &[u8], delivered: &[u8], resolved: &Resolved) -> anyhow::Result<Verified> {
    if resolved.target.is_shared_object() {
        check_shared_object(linked, resolved)?;
        return check_shared_object(delivered, resolved).context("after stripping");
    }
    check_contents(linked, resolved.target)?;
    let verified = check_as_tender(linked, resolved)?;
    let stripped = check_as_tender(delivered, resolved).context("after stripping")?;
    ensure!(verified.layout.end == stripped.layout.end, "stripping changed the image's layout");
    Ok(stripped)
}

/// Which manifest the application's devices make.
pub(crate) fn expected_manifest(resolved: &Resolved) -> anyhow::Result<Manifest> {
    let devices = resolved.host_devices().map(|(device, kind)| {
        let name = Name::new(&device.device.name).with_context(|| format!("device '{}' has no valid name", device.device.name))?;
        Ok(Device::new(name, kind))
    });
    Ok(Manifest::new(devices.collect::<anyhow::Result<_>>()?)?.taking_console())
}

/// Checks an image for Genode against every limit of the dynamic linker and the library there.
fn check_shared_object(file: &[u8], resolved: &Resolved) -> anyhow::Result<Verified> {
    let image = fogbow_genode_tender::Image::read(file)?;
    let expected = expected_manifest(resolved)?;
    let manifest = image.manifest().clone();
    ensure!(manifest == expected, "the manifest declares {manifest}, and {} asks for {expected}", crate::manifest::FILE);
    let segments = image.segments().iter().enumerate().map(|(index, segment)| Segment {
        index,
        file_offset: segment.file.start as u64,
        contents: segment.memory.start..segment.memory.start + segment.file.len() as u64,
        pages: segment.pages(),
        protection: Protection { read: true, write: segment.is_writable, execute: !segment.is_writable },
    });
    let layout = Layout { entry: 0, end: image.addresses().end, segments: segments.collect() };
    Ok(Verified { layout, manifest })
}

fn check_as_tender(file: &[u8], resolved: &Resolved) -> anyhow::Result<Verified> {
    let image = Image::read(file)?;
    let abi = resolved.target.abi();
    if let Some(abi) = abi {
        image.require(abi)?;
    }
    // Any memory: whether the image fits is for the one who runs it.
    let layout = image.layout(i64::MAX.cast_unsigned())?;
    // That no two segments share a page of memory is checked with the layout; here, that a page of memory is a page of the file.
    let mut loaded = image.program_headers().iter().filter(|header| header.segment_type == SegmentType::LOAD);
    if let Some(header) = loaded.find(|header| header.address % PAGE_SIZE != header.file_offset % PAGE_SIZE) {
        bail!("the segment at {:#x} is at {:#x} in the file, another place in its page", header.address, header.file_offset);
    }
    if resolved.target == Target::Muen {
        muen::check(&layout, file.len() as u64)?;
    }
    let expected = expected_manifest(resolved)?;
    // Only a tender asks an image for its devices.
    let manifest = if abi.is_some() { image.manifest()? } else { expected.clone() };
    ensure!(manifest == expected, "the manifest declares {manifest}, and {} asks for {expected}", crate::manifest::FILE);
    Ok(Verified { layout, manifest })
}

fn check_contents(linked: &[u8], target: Target) -> anyhow::Result<()> {
    let file = ElfFile64::<Endianness>::parse(linked).context("not an ELF file")?;
    // Stray sections first: they put other things out of place.
    check_sections(&file)?;
    check_symbols(&file)?;
    check_program_headers(&file, if target.has_tender() { &TENDER_NOTES } else { &MACHINE_NOTES })
}

fn check_program_headers(file: &ElfFile64<'_, Endianness>, wanted: &[(&str, u32)]) -> anyhow::Result<()> {
    let endian = file.endian();
    let mut notes = Vec::new();
    for header in file.elf_program_headers() {
        match header.p_type(endian) {
            PT_DYNAMIC => bail!("it has a dynamic section: some crate links a shared library"),
            PT_TLS => bail!("it has thread-local storage, which an image has no threads for: some crate uses #[thread_local]"),
            PT_NOTE => notes.push(note_of(header, endian, file.data())?),
            PT_LOAD | PT_INTERP => {}
            other => bail!("it has a program header of type {other:#x}, which the linker script does not ask for"),
        }
    }
    let wanted: Vec<(String, u32)> = wanted.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    ensure!(notes == wanted, "its notes are {}, and {} are wanted", list(&notes), list(&wanted));
    Ok(())
}

/// The one note of a note segment.
fn note_of(
    header: &<FileHeader64<Endianness> as object::read::elf::FileHeader>::ProgramHeader,
    endian: Endianness,
    data: &[u8],
) -> anyhow::Result<(String, u32)> {
    let mut notes = header.notes(endian, data)?.context("a note segment cannot be read")?;
    let note = notes.next()?.context("a note segment is empty")?;
    ensure!(notes.next()?.is_none(), "a note segment has more than one note");
    Ok((String::from_utf8_lossy(note.name()).into_owned(), note.n_type(endian).0))
}

fn list(notes: &[(String, u32)]) -> String {
    let mut text = String::new();
    for (name, kind) in notes {
        let _ = write!(text, "{}{name} {kind:#x}", if text.is_empty() { "" } else { ", " });
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

fn check_sections(file: &ElfFile64<'_, Endianness>) -> anyhow::Result<()> {
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
        let name = section.name()?;
        if sh_flags.contains(SHF_ALLOC) && section.size() > 0 && !SECTIONS.contains(&name) {
            bail!("it has a section {name} of {} bytes, which the linker script does not place", section.size());
        }
    }
    Ok(())
}

fn check_symbols(file: &ElfFile64<'_, Endianness>) -> anyhow::Result<()> {
    let undefined: Vec<&str> = file.symbols().filter(|symbol| symbol.is_undefined()).filter_map(|symbol| symbol.name().ok()).collect();
    ensure!(undefined.is_empty(), "it has undefined symbols: {}", undefined.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests;
